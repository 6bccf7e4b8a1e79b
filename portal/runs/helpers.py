"""Several processes of one command for one run, because threads of one Python process use one core at a time.

The helpers are forked before this process has threads. They begin when it has seen a unit that shows that we ourselves
are well (R-14), work the run as any executor does, and report to this process what they finished: it alone writes to
the terminal. A helper that dies expires as any executor does, and one whose command died stops politely.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from types import FrameType

from django.db import connections

from portal.runs.executor import STOP_SECONDS, Executor
from portal.runs.kinds import Outcome
from portal.runs.listening import Listener, Progress
from portal.runs.models import Run, RunItem

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # how often a helper that waits looks whether its command still lives
_Finished = list[tuple[RunItem, Outcome]]


def shares(concurrency: int, processes: int) -> list[int]:
    """Return how many units each process works at once; at least one each, so there may be fewer processes."""
    processes = max(min(processes, concurrency), 1)
    fewest, left = divmod(concurrency, processes)
    return [fewest + (number < left) for number in range(processes)]


class Helpers:
    """Helpers of one command.

    Args:
        sizes: units at once of each helper; may be empty.
    """

    def __init__(self, run: Run, sizes: Sequence[int]) -> None:
        self._news: queue.SimpleQueue[tuple[int, _Finished, Progress]] = queue.SimpleQueue()
        self._latest: dict[int, Progress] = {}
        self.size = len(sizes) + 1  # with this process
        self._executor: Executor | None = None
        self._members = []
        if sizes:
            connections.close_all()  # no connection may be shared by two processes
        fork = multiprocessing.get_context("fork")
        for size in sizes:
            ours, theirs = fork.Pipe()
            arguments = (run.pk, size, self.size, theirs, os.getpid())
            process = fork.Process(target=_help, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        self._readers: list[threading.Thread] = []

    def join(self, executor: Executor) -> None:
        """Name the executor of this process, which looks again when a helper ended."""
        self._executor = executor
        for number, (_, pipe) in enumerate(self._members):
            reader = threading.Thread(target=self._read, args=(number, pipe), name=f"helper-{number}", daemon=True)
            reader.start()
            self._readers.append(reader)

    def begin(self) -> None:
        """Let the helpers begin."""
        for _, pipe in self._members:
            _send(pipe, True)

    def news(self) -> _Finished:
        """Return what the helpers finished since the last time."""
        found: _Finished = []
        while not self._news.empty():
            number, finished, self._latest[number] = self._news.get()
            found += finished
        return found

    def with_helpers(self, progress: Progress) -> Progress:
        """Return the progress of all processes together."""
        others = list(self._latest.values())
        if not others:
            return progress
        parts = [progress, *others]
        names = {name for part in parts for name in part.slowest}
        return replace(
            progress,
            done=progress.done + sum(sum(other.classes.values()) for other in others),
            running=sum(part.running for part in parts),
            classes=sum((part.classes for part in parts), Counter()),
            rate=sum(part.rate for part in parts),
            slowest={name: max(part.slowest.get(name, 0.0) for part in parts) for name in names},
            throttled=sum(part.throttled for part in parts),
        )

    def stop(self) -> None:
        """Let the helpers stop politely (R-28); those that did not begin end at once."""
        for process, _ in self._members:
            if process.is_alive():
                process.terminate()

    def kill(self) -> None:
        """End the helpers at once; what they held goes back when their lease is over."""
        for process, _ in self._members:
            process.kill()

    def end(self) -> None:
        """Stop the helpers and wait for their last reports."""
        self.stop()
        until = time.monotonic() + STOP_SECONDS
        for reader in self._readers:
            reader.join(max(until - time.monotonic(), 0.0))
        self.kill()

    def _read(self, number: int, pipe: Connection) -> None:
        try:
            while True:
                finished, progress = pipe.recv()
                self._news.put((number, finished, progress))
        except (EOFError, OSError):
            self._members[number][0].join()  # or it would count as a living process
        if self._executor is not None:
            self._executor.look_soon()


class CombinedListener(Listener):
    """Passes on what this process and its helpers report, as if they were one process."""

    def __init__(self, inner: Listener, helpers: Helpers) -> None:
        self._inner = inner
        self._helpers = helpers

    def proven(self) -> None:
        self._helpers.begin()

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        self._inner.finished(item, outcome)

    def progressed(self, progress: Progress) -> None:
        for item, outcome in self._helpers.news():
            self._inner.finished(item, outcome)
        self._inner.progressed(self._helpers.with_helpers(progress))


# --- in a helper --------------------------------------------------------------------------------------------------


class _PipeReporter(Listener):
    """Reports to the command what a helper finished, and stops the helper when there is no command any more."""

    def __init__(self, pipe: Connection, command: int) -> None:
        self._pipe = pipe
        self._command = command
        self._finished: _Finished = []
        self.executor: Executor

    def finished(self, item: RunItem, outcome: Outcome) -> None:
        self._finished.append((item, replace(outcome, result=None)))  # the result stays where it was written

    def progressed(self, progress: Progress) -> None:
        finished, self._finished = self._finished, []
        if not _send(self._pipe, (finished, progress)) or os.getppid() != self._command:
            self.executor.stop()


def _help(run_id: int, size: int, processes: int, pipe: Connection, command: int) -> None:
    """Work a run beside the command that forked this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the command says what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        _work(Run.objects.get(pk=run_id), size, processes, pipe, command)
    except Exception:  # nothing is lost with a helper; the command goes on
        log.exception("a helper of run %s ended; others go on with its work", run_id)


def _work(run: Run, size: int, processes: int, pipe: Connection, command: int) -> None:
    reporter = _PipeReporter(pipe, command)
    executor = reporter.executor = Executor(run, concurrency=size, listener=reporter, processes=processes)
    executor.prepare()
    while not pipe.poll(_LOOK_SECONDS):
        if os.getppid() != command:
            return
    pipe.recv()

    def stop(number: int, frame: FrameType | None) -> None:
        executor.stop()

    signal.signal(signal.SIGTERM, stop)
    executor.work(proven=True)
    reporter.progressed(executor.progress())


def _send(pipe: Connection, message: object) -> bool:
    try:
        pipe.send(message)
    except OSError:
        return False
    return True
