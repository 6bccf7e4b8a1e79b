"""A run in the foreground of a command: progress for people, JSON lines for programs, exit codes for schedulers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any, Protocol

from django.core.management.base import CommandError
from django.utils import timezone

from portal.audit.trail import Actor
from portal.runs import helpers as helping
from portal.runs import service, stops, summaries
from portal.runs.arguments import EXIT_BUSY, EXIT_SOME_FAILED, EXIT_SYSTEMIC
from portal.runs.executor import Executor
from portal.runs.kinds import Kind, Outcome, Unit
from portal.runs.listening import Ending, Listener, Progress
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import Run, RunItem
from portal.runs.pool import tune_for_batches

_SAY_AGAIN_SECONDS = 30.0  # while nothing is finished


class Output(Protocol):
    """What a command writes to."""

    def write(self, text: str, /) -> Any: ...

    def isatty(self) -> bool: ...


class Lines(Listener):
    """One line for each unit: for people, or as JSON."""

    def __init__(self, out: Output, err: Output, *, as_json: bool, words: Callable[[RunItem, Outcome], str]) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json
        self._words = words
        self._say_at = 0.0

    def progressed(self, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.quiet:
            self._say_at = 0.0
        elif now >= self._say_at:
            self._say_at = now + _SAY_AGAIN_SECONDS
            self._err.write(f"{progress.done:,} of {progress.total_words} so far. {progress.waiting_words}")

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        if self._as_json:
            known = {"label": item.label, "class": outcome.failure_class, "message": outcome.message}
            self._out.write(_line(outcome.fields or known))
        else:
            self._out.write(self._words(item, outcome))


def begin(
    kind: Kind, *, scope: Mapping[str, Any], options: Mapping[str, Any], kind_options: Mapping[str, Any], actor: Actor
) -> Run:
    """Return the run that a command's arguments ask for: the unfinished one, which goes on, or a new one.

    Raises:
        CommandError: somebody works it just now (75), or it is paused (75); says who since when, and what to do.
    """
    more = {**kind_options, **({"skipped": True} if options["skipped"] else {})}
    return begin_with(partial(service.start, kind, scope=scope, options=more), options=options, actor=actor)


def begin_with(start: Callable[..., tuple[Run, bool]], *, options: Mapping[str, Any], actor: Actor) -> Run:
    """Return the run that ``start`` gives for a command's arguments, ready to be worked.

    Args:
        start: as :func:`portal.runs.service.start`; gets actor, concurrency, rate and deadline.

    Raises:
        CommandError: as :func:`begin`.
    """
    if options["concurrency"] < 1 or options["concurrency"] > 512 or options["rate"] < 0:
        raise CommandError("--concurrency goes from 1 to 512, and --rate is not negative.", returncode=2)
    deadline = options["deadline"]
    run, new = start(
        actor=actor,
        concurrency=options["concurrency"],
        rate=options["rate"],
        deadline=None if deadline is None else timezone.now() + timedelta(minutes=deadline),
    )
    if not new:
        refuse_if_busy(run)
        if run.state == Run.State.PAUSED and run.reason != service.DEADLINE and not service.why_not_resumed(run):
            why = f" ({run.reason})" if run.reason else ""
            raise CommandError(
                f"Run {run.pk} does this and is paused{why}; go on with run_resume {run.pk}.", returncode=75
            )
        if run.state == Run.State.PAUSED:
            service.resume(run, actor=actor, deadline=None)
    return run


def refuse_if_busy(run: Run) -> None:
    """Raise CommandError (75) when somebody works this run."""
    service.expire_executors(run.pk)
    living = ExecutorRow.objects.living().filter(run=run).order_by("started_at").first()
    if living is not None:
        help_it = "" if service.why_not_resumed(run) else f"; help it with run_resume {run.pk}"
        raise CommandError(
            f"Run {run.pk} does this since {living.started_at:%Y-%m-%d %H:%M:%S} UTC ({living}). "
            f"Watch it with run_status {run.pk}{help_it}.",
            returncode=EXIT_BUSY,
        )


def dry_run(units_after: Callable[[int, int], Sequence[Unit]], out: Output, *, as_json: bool) -> int:
    """Say what would be worked. Nothing is written and nothing is sent.

    Args:
        units_after: returns the units after a key, at most so many; as ``Kind.units`` with its scope.
    """
    after, number = 0, 0
    while units := units_after(after, 1000):
        after = units[-1].key
        for unit in units:
            number += 1
            out.write(_line({"key": unit.key, "label": unit.label}) if as_json else unit.label)
    out.write(_line({"summary": {"would_work": number}}) if as_json else f"{number} would be worked; nothing was sent.")
    return 0


def foreground(
    run: Run,
    *,
    out: Output,
    err: Output,
    as_json: bool,
    words: Callable[[RunItem, Outcome], str],
    concurrency: int | None = None,
    processes: int = 1,
) -> int:
    """Work a run in this process and its helpers, and return the command's exit code (R-28, R-33)."""
    tune_for_batches()
    own, *others = helping.shares(concurrency or run.concurrency, processes)
    helpers = helping.Helpers(run, others)
    if out.isatty() and not as_json:
        bars = import_module("portal.runs.bar")  # by name: only a terminal needs it
        with bars.shown(summaries.label_of(run)) as bar:
            ending, signal_number = _work(run, bar, own, helpers)
    else:
        ending, signal_number = _work(run, Lines(out, err, as_json=as_json, words=words), own, helpers)
    return tell(run, ending, signal_number, out=out, err=err, as_json=as_json)


def _work(run: Run, listener: Listener, concurrency: int, helpers: helping.Helpers) -> tuple[Ending, int]:
    together = helping.CombinedListener(listener, helpers)
    executor = Executor(run, listener=together, concurrency=concurrency, processes=helpers.size)
    with _stopped_by_signals(executor, helpers) as received:
        helpers.join(executor)
        try:
            ending = executor.work()
        finally:
            helpers.end()
        together.progressed(executor.progress())  # with the last reports of the helpers
    return ending, received[0] if received else 0


def tell(run: Run, ending: Ending, signal_number: int, *, out: Output, err: Output, as_json: bool) -> int:
    """Print the one summary and return the exit code."""
    numbers = summaries.summary(run)
    if as_json:
        out.write(_line({"summary": numbers.as_json()}))
    else:
        classes = ", ".join(f"{number} {name}" for name, number in numbers.classes.items())
        done = f"{numbers.done:,} of {numbers.total_words}"
        out.write(f"{summaries.label_of(run)}, run {run.pk}: {done}: {classes}".rstrip(": "))
    why = service.why_not_resumed(run)
    again = why or f"Resume with run_resume {run.pk}."
    if ending is Ending.STOPPED:
        after = stops.after_stop(run) if why else f"{stops.after_stop(run)} {again}"
        err.write(f"Stopped: {numbers.reason} No partner's state was changed. {after}")
        return EXIT_SYSTEMIC
    if ending is Ending.INTERRUPTED:
        err.write(f"Interrupted. {again}")
        return 128 + signal_number
    if ending in {Ending.PAUSED, Ending.CANCELLED, Ending.LOST}:
        what = {
            Ending.PAUSED: f"Paused. {numbers.reason}".strip(),
            Ending.CANCELLED: "Cancelled.",
            Ending.LOST: "This process did not renew its lease in time; others go on with its work.",
        }[ending]
        err.write(what if ending is Ending.CANCELLED else f"{what} {again}")
        return EXIT_SOME_FAILED
    return 0 if numbers.all_good else EXIT_SOME_FAILED


@contextmanager
def _stopped_by_signals(executor: Executor, helpers: helping.Helpers) -> Iterator[list[int]]:
    """Stop politely at the first SIGTERM or SIGINT, and at once at the second (R-28)."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received:
            helpers.kill()
            os._exit(128 + number)
        received.append(number)
        executor.stop()
        helpers.stop()

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: the caller stops it otherwise
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def words_of(item: RunItem, outcome: Outcome) -> str:
    """Return the line of one unit for people."""
    if outcome.ok:
        return f"ok      {item.label}"
    who = f" Who must act: {outcome.owner}." if outcome.owner else ""
    return f"{outcome.failure_class}  {item.label}: {outcome.message}{who} [correlation id {item.correlation_id}]"


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(dict(record), ensure_ascii=False, sort_keys=True, default=str)
