"""What people and executors do with runs: start, list, pause, resume, cancel, finish, sum up."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import SYSTEM, Actor, record
from portal.bulk import insert_all
from portal.incidents.models import Incident
from portal.incidents.service import LONGEST_WORDS, report, settle
from portal.microsoft.diagnosis import LATER, Owner
from portal.microsoft.identifiers import new_correlation_id
from portal.rights import SERVER, require
from portal.runs import buckets, results
from portal.runs.kinds import CRASHED, OK, SKIPPED, UNEXPECTED, Kind, Unit
from portal.runs.limits import limit_words
from portal.runs.listening import Wait
from portal.runs.models import RESUMED_AFTER, Executor, Run, RunItem
from portal.runs.registry import UnknownKind, kind_named, labels
from portal.site.sight import require_sight

log = logging.getLogger(__name__)
State = Run.State
STOPPED = "run_stopped"  # causes of incidents
HALTED = "run_halted"
DEADLINE = "The deadline was reached."
_CHUNK, _FIRST_CHUNK = 1000, 100  # units listed in one transaction; few at first, so that they are worked at once
_NAMED_WAITS = 3  # the others are counted
_SKIP_AFTER = 3  # runs in which a unit failed in an unexpected way
_BROKEN = (UNEXPECTED, CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in numbers; ``seconds`` since it began. ``total`` grows until it is ``listed``."""

    run_id: int
    kind: str
    state: str
    total: int
    total_words: str
    listed: bool
    done: int
    classes: Mapping[str, int]
    seconds: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run_id,
            "kind": self.kind,
            "state": self.state,
            "total": self.total,
            "listed": self.listed,
            "done": self.done,
            "classes": dict(self.classes),
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
        }

    @property
    def words(self) -> str:
        """How far it came, and what came of its units."""
        classes = ", ".join(f"{number} {name}" for name, number in self.classes.items())
        return f"{self.done:,} of {self.total_words} in {self.seconds:.0f} s{': ' + classes if classes else ''}"

    @property
    def all_good(self) -> bool:
        return self.listed and self.done == self.total and set(self.classes) <= {OK}


def start(
    kind: Kind,
    *,
    scope: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    actor: Actor,
    concurrency: int = 64,
    rate: float = 0,
    deadline: datetime | None = None,
    stop_share: float | None = None,
    origin: Run | None = None,
) -> tuple[Run, bool]:
    """Return the unfinished run of this kind and scope, or a new one, and whether it is new (R-26, R-27).

    Args:
        origin: list the units that failed in this run, instead of those of the scope; see ``repeat_failed``.
        stop_share: of the units of a wave; when more fail, the run waits for a person. None: its waves are not judged.
    """
    require(actor, *(kind.rights or (SERVER,)))
    chosen = json.dumps([scope, options or {}, *([origin.pk] if origin else [])], sort_keys=True)
    scope_hash = hashlib.sha256(chosen.encode()).hexdigest()
    mine = Run.objects.unfinished().filter(kind=kind.name, scope_hash=scope_hash)
    if (known := mine.first()) is not None:
        return known, False
    try:
        with transaction.atomic():
            run = Run.objects.create(
                kind=kind.name,
                scope=dict(scope),
                scope_hash=scope_hash,
                options=dict(options or {}),
                actor_kind=actor.kind,
                actor=actor.name,
                concurrency=concurrency,
                rate=rate,
                deadline=deadline,
                stop_share=stop_share,
                origin=origin,
            )
            of = {"origin": origin.pk} if origin else {}
            details = {"kind": kind.name, "scope": scope, **of}
            record("run.started", actor=actor, subject={"run": run.pk}, details=details)
            _log(run, f"started by {actor.name}")
    except IntegrityError:  # another process made it at the same moment
        return mine.get(), False
    return run, True


class NothingToRepeat(ValueError):
    """No run is made of this one's failed units; the text says why, and what to do instead."""


def why_not_repeated(run: Run) -> str:
    """Say why the failed units of a run cannot be repeated in a new one; empty when they can. Two queries at most."""
    if why := why_not_resumed(run):
        return why
    if run.state not in {State.DONE, State.CANCELLED}:
        return "The run is not over: resume it, and it tries what failed for a cause on our side again."
    if run.stop_share is not None:
        return "A plan is applied as it was shown or not at all: make another plan for what failed."
    return "" if run.items.to_repeat().exists() else "No unit of the run failed."


def repeat_failed(run: Run, *, actor: Actor) -> tuple[Run, bool]:
    """Start a run over those units of a finished one that failed, with its scope and options, and say if it is new.

    Raises:
        NothingToRepeat: none failed, the run is not over, or it applied a plan.
        UnknownKind: its app is gone.
    """
    require(actor, "runs.steer_run")
    require_sight(actor, run)
    if why := why_not_repeated(run):
        raise NothingToRepeat(why)
    return start(
        kind_named(run.kind),
        scope=run.scope,
        options=run.options,
        actor=actor,
        concurrency=run.concurrency,
        rate=run.rate,
        origin=run,
    )


def _log(run: Run, words: str, level: int = logging.INFO) -> None:
    """Write one line about a run, once the transaction is committed."""
    line = f"{label_of(run)}, run {run.pk}: {words}"
    transaction.on_commit(lambda: log.log(level, line, extra={"run": run.pk, "kind": run.kind}))


def actor_of_run(run: Run) -> Actor:
    """Return who started a run: its effects are theirs, whichever process works it.

    This actor has no right: the person was asked when the run was begun, and what a unit does needs none of its own.
    """
    return Actor(kind=AuditEvent.ActorKind(run.actor_kind), name=run.actor)


# --- listing ------------------------------------------------------------------------------------------------------


def list_units(run: Run, kind: Kind) -> bool:
    """List the next units of a run, in key order; return whether there may be more.

    The cursor moves on in the transaction that adds the rows, and only if no other executor moved it. So a list that
    was cut off goes on where it was, and two processes that list at once do no harm.
    """
    cursor = run.listed_to
    units = _units(run, kind, cursor, _CHUNK if run.total else _FIRST_CHUNK)
    skipped = {} if run.options.get("skipped") else _to_skip(kind, [unit.key for unit in units])
    turns = Counter(
        dict(
            run.items.filter(group__in={unit.group for unit in units})
            .order_by()
            .values_list("group")
            .annotate(Count("pk"))
        )
    )
    mine = Run.objects.open().filter(pk=run.pk, listed_to=cursor, listed_at__isnull=True)
    with transaction.atomic():
        if not units:
            mine.update(listed_at=Now())
        elif mine.update(listed_to=units[-1].key, total=F("total") + len(units)):
            insert_all([_item(run, unit, turns, skipped.get(unit.key)) for unit in units])
    run.refresh_from_db()
    return run.state == State.OPEN and run.listed_at is None


def _units(run: Run, kind: Kind, after: int, limit: int = _CHUNK) -> Sequence[Unit]:
    """Return the next units in key order. Those of an earlier run are judged again by ``load``, at their turn."""
    if run.origin_id is None:
        return kind.units(run.scope, after, limit)
    failed = RunItem.objects.filter(run=run.origin_id, key__gt=after).to_repeat().order_by("key")[:limit]
    return [Unit(key=one.key, group=one.group, label=one.label, rank=one.rank) for one in failed]


def _item(run: Run, unit: Unit, turns: Counter[int], skipped: str | None) -> RunItem:
    turn = turns[unit.group]
    turns[unit.group] += 1
    item = RunItem(
        run=run,
        key=unit.key,
        group=unit.group,
        label=unit.label[:200],
        turn=turn,
        rank=unit.rank,
        wave=unit.wave,
        correlation_id=new_correlation_id(),
    )
    if skipped is not None:
        item.state = RunItem.State.DONE
        item.failure_class = SKIPPED
        item.message = skipped[:400]
        item.owner = Owner.US
        item.finished_at = timezone.now()
    return item


def _to_skip(kind: Kind, keys: Sequence[int]) -> dict[int, str]:
    """Return the units that failed in an unexpected way in each of their last three runs, and the words for it."""
    history = RunItem.objects.filter(run__kind=kind.name, key__in=keys, state=RunItem.State.DONE).order_by()
    suspects = (
        history.filter(failure_class__in=_BROKEN)
        .values("key")
        .annotate(times=Count("pk"))
        .filter(times__gte=_SKIP_AFTER)
    )
    found: dict[int, str] = {}
    for suspect in suspects:
        last = history.filter(key=suspect["key"]).exclude(failure_class=SKIPPED).order_by("-pk")[:_SKIP_AFTER]
        results = [item.failure_class for item in last]
        if len(results) == _SKIP_AFTER and set(results) <= set(_BROKEN):
            found[suspect["key"]] = (
                "Skipped, because it failed in an unexpected way in three runs. Look at its last message, repair it, "
                "and run it with --skipped."
            )
    return found


# --- steering -----------------------------------------------------------------------------------------------------


def pause(run: Run, *, actor: Actor, reason: str = "") -> bool:
    """Let executors stop after the units that they work on; return False when there was nothing to pause."""
    require(actor, "runs.steer_run")
    require_sight(actor, run)
    return _steer(run, [State.OPEN], "run.paused", actor, state=State.PAUSED, reason=reason[:300])


def pause_at_deadline(run: Run) -> bool:
    """Pause a run whose time is over, as the person who began it asked; False when it was not open."""
    return _steer(run, [State.OPEN], "run.paused", actor_of_run(run), state=State.PAUSED, reason=DEADLINE)


def hold(run: Run, *, reason: str) -> bool:
    """Pause a run of which nothing may be done just now, until ``let_go``; return False when it was not open."""
    return _steer(run, [State.OPEN], "run.held", SYSTEM, state=State.PAUSED, reason=reason[:300], held=True)


def let_go() -> list[Run]:
    """Resume the runs that were held, and return them; the caller hands them to the workers.

    One that only its own command can go on with is left to that command.
    """
    held = Run.objects.filter(state=State.PAUSED, held=True).order_by("pk")
    return [run for run in held if not why_not_resumed(run) and _resume(run, SYSTEM, run.deadline, by_itself=False)]


def halt(run: Run, *, reason: str, words: str) -> bool:
    """Pause a run because too much of it failed; a person decides whether it goes on. False when it was not open.

    Args:
        reason: shown with the run.
        words: what staff read, in one incident for each run.
    """
    with transaction.atomic():
        halted = _steer(run, [State.OPEN], "run.halted", actor_of_run(run), state=State.PAUSED, reason=reason[:300])
        if halted:
            name = f"{label_of(run)}, run {run.pk}"
            report(HALTED, about=f"run:{run.pk}", name=name, owner=Owner.US, words=words, subject={"run": run.pk})
    return halted


def cancel(run: Run, *, actor: Actor) -> bool:
    """End a run for good; units that were not begun are not worked. What was done stays done."""
    require(actor, "runs.steer_run")
    require_sight(actor, run)
    with transaction.atomic():
        cancelled = _steer(
            run,
            [State.OPEN, State.PAUSED, State.STOPPED],
            "run.cancelled",
            actor,
            state=State.CANCELLED,
            finished_at=Now(),
            resume_at=None,
            reason="",
        )
        if cancelled:
            settle(STOPPED, about=_own_stop(run))
    return cancelled


def why_not_resumed(run: Run) -> str:
    """Say why only its own command goes on with what a run left; empty when others can. No query."""
    command = _only_by(run)
    return command and f"Its input is in the memory of its command only. Run {command} again with the same input."


def _rights_to_start(run: Run) -> Sequence[str]:
    try:
        return kind_named(run.kind).rights
    except UnknownKind:
        return ()


def _only_by(run: Run) -> str:
    try:
        return kind_named(run.kind).only_by
    except UnknownKind:
        return ""


def resume(run: Run, *, actor: Actor, deadline: datetime | None = None) -> bool:
    """Let a paused or stopped run go on; what failed for a cause on our side, or was left unfinished, is tried again.

    Returns:
        False when it is finished, or when another run of the same work was started meanwhile.
    """
    require(actor, "runs.steer_run", *_rights_to_start(run))
    require_sight(actor, run)
    return _resume(run, actor, deadline, by_itself=False)


def _resume(run: Run, actor: Actor, deadline: datetime | None, *, by_itself: bool) -> bool:
    try:
        with transaction.atomic():
            resumed = _steer(
                run,
                [State.PAUSED, State.STOPPED],
                "run.resumed",
                actor,
                state=State.OPEN,
                finished_at=None,
                reason="",
                held=False,
                deadline=deadline,
                resumed_at=Now(),
                resume_at=None,
                resumes=F("resumes") + 1 if by_itself else 0,
            )
            if resumed:
                again = Q(systemic=True) | Q(failure_class__in=_unfinished(run))
                run.items.filter(again, state=RunItem.State.DONE).update(
                    state=RunItem.State.WAITING,
                    failure_class="",
                    systemic=False,
                    attempts=0,
                    finished_at=None,
                    executor_id=None,
                )
                run.items.filter(state=RunItem.State.WAITING).update(not_before=None, attempts=0)
    except IntegrityError:
        return False
    return resumed


def resume_by_itself(run: Run) -> bool:
    """Try a stopped run again whose time has come; its first units show whether the cause is gone.

    Returns:
        False when it has nothing left to do, or another run of the same work goes on: then it is not tried again.
    """
    with suppress(UnknownKind):  # of an app that is gone
        left = not why_not_resumed(run) and not _is_covered(run)
        if left and _resume(run, SYSTEM, run.deadline, by_itself=True):
            return True
    Run.objects.filter(pk=run.pk, state=State.STOPPED).update(resume_at=None)
    return False


def left_behind(kind: Kind) -> list[Run]:
    """Return the runs of the schedule that were cut off within the last day, and of which nobody says that they go on.

    Past their deadline; or stopped for a cause that is over, as a later run of this kind shows that ended well.
    """
    later = Run.objects.filter(kind=kind.name, state=State.DONE, total__gt=0, finished_at__gt=OuterRef("finished_at"))
    past = Q(state=State.PAUSED, reason=DEADLINE)
    stopped = Q(Exists(later), state=State.STOPPED, resume_at__isnull=True)
    young = Run.objects.filter(kind=kind.name, actor_kind=SYSTEM.kind, created_at__gt=Now() - timedelta(days=1))
    return list(young.filter(past | stopped).order_by("pk"))


def _steer(run: Run, states: Sequence[str], action: str, actor: Actor, **columns: Any) -> bool:
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, state__in=states).update(**columns)
        if changed:
            _follow(run, columns["state"])
            settle(HALTED, about=f"run:{run.pk}")  # the person who resumes it has looked
            _log(run, f"{action.partition('.')[2]} by {actor.name}. {columns.get('reason', '')}".strip())
            record(action, actor=actor, subject={"run": run.pk}, details={"reason": str(columns.get("reason", ""))})
    run.refresh_from_db()
    return bool(changed)


def _follow(run: Run, state: str) -> None:
    with suppress(UnknownKind):  # of an app that is gone
        kind_named(run.kind).follow(run.scope, str(state))


def _unfinished(run: Run) -> frozenset[str]:
    try:
        return kind_named(run.kind).unfinished
    except UnknownKind:
        return frozenset()


# --- executors ----------------------------------------------------------------------------------------------------


def enter(run: Run, lease: timedelta) -> Executor:
    """Begin to work a run as this process."""
    with transaction.atomic():
        executor = Executor.objects.create(
            run=run, host=socket.gethostname()[:120], process=os.getpid(), lease_until=Now() + lease
        )
        Run.objects.filter(pk=run.pk, started_at__isnull=True).update(started_at=Now())
    return executor


def expire_executors(run_id: int) -> int:
    """End executors that stopped renewing their lease; return how many items they gave back (R-27)."""
    expired = list(Executor.objects.expired().filter(run_id=run_id).values_list("pk", flat=True))
    living = Executor.objects.living().filter(run_id=run_id)
    expired += [executor.pk for executor in living if _process_is_gone(executor)]
    returned = 0
    for key in expired:
        with transaction.atomic():
            # An executor that was only slow finds its row ended, and writes nothing any more.
            if Executor.objects.filter(pk=key, ended_at__isnull=True).update(ended_at=Now()):
                returned += RunItem.objects.filter(executor_id=key).give_back()
    return returned


def _process_is_gone(executor: Executor) -> bool:
    """Tell whether a process of this machine died without a word; of other machines only the lease tells."""
    if executor.host != socket.gethostname()[:120] or executor.process == os.getpid():
        return False
    try:
        os.kill(executor.process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def leave(executor: Executor) -> None:
    """Stop working: whatever is still held goes back."""
    with transaction.atomic():
        if Executor.objects.filter(pk=executor.pk, ended_at__isnull=True).update(ended_at=Now()):
            RunItem.objects.filter(executor_id=executor.pk).give_back()


def finish_if_complete(run: Run) -> bool:
    """End the run when every listed unit has its result; return whether it is finished."""
    complete = Run.objects.open().without_work().filter(pk=run.pk)
    digest = results.digest_of(run.pk) if complete.exists() else ""  # before the transaction: it may take a while
    with transaction.atomic():
        if digest and complete.update(state=State.DONE, finished_at=Now()):
            _follow(run, State.DONE)
            numbers = summary(run)
            _log(run, f"ended. {numbers.words}")
            record(
                results.FINISHED,
                actor=actor_of_run(run),
                subject={"run": run.pk},
                details={
                    "kind": run.kind,
                    "total": numbers.total,
                    "classes": dict(numbers.classes),
                    "digest": digest,
                },
            )
    run.refresh_from_db()
    return run.state != State.OPEN


def stop(run: Run, reason: str, *, passes: bool = False) -> bool:
    """Stop a run for a cause on our side (R-14); return False when it was not open any more.

    Args:
        passes: the cause may pass without anybody acting: then the workers try the run again, a few times.
    """
    run.refresh_from_db()
    resume_at = None
    if passes and run.resumes < len(RESUMED_AFTER) and not _only_by(run):
        resume_at = timezone.now() + RESUMED_AFTER[run.resumes]
        resume_at = None if run.deadline is not None and run.deadline <= resume_at else resume_at
    with transaction.atomic():
        stopped = (
            Run.objects.open()
            .filter(pk=run.pk)
            .update(state=State.STOPPED, finished_at=Now(), reason=reason[:300], resume_at=resume_at)
        )
        if stopped:
            _follow(run, State.STOPPED)
            _log(run, f"stopped: {reason} {summary(run).words}", logging.WARNING)
            record("run.stopped", actor=actor_of_run(run), subject={"run": run.pk}, details={"reason": reason})
    run.refresh_from_db()
    return bool(stopped)


def report_stop(run: Run, cause: str, owner: str) -> None:
    """Tell staff that a run was stopped, and who lets it go on (R-14).

    There is one incident for a kind whose units the schedule comes back to, however many runs of it stop; any other run
    has work of its own, and an incident of its own.
    """
    what = f"{label_of(run)}, run {run.pk}, stopped; no partner's state was changed."
    next_step = after_stop(run)
    words = f"{what} {cause[: LONGEST_WORDS - len(what) - len(next_step) - 2]} {next_step}"
    known = owner if owner in set(Owner) else Owner.US
    report(
        STOPPED,
        about=_about_stop(run),
        name=label_of(run),
        owner=Owner(known),
        words=words,
        subject={"run": run.pk},
    )


def cause_of_stop(message: str) -> str:
    """Return the cause from a unit's message, without a remedy that only holds while its run goes on."""
    return message.removesuffix(LATER).strip()


def after_stop(run: Run) -> str:
    """Return who lets a stopped run go on, and when."""
    if command := _only_by(run):
        return f"When the cause is gone, run {command} again with the same input."
    if run.resume_at is not None:
        return (
            f"The workers resume run {run.pk} by themselves at {run.resume_at:%H:%M} UTC, try {run.resumes + 1} of "
            f"{len(RESUMED_AFTER)}; sooner: Resume on its page."
        )
    times = "once" if run.resumes == 1 else f"{run.resumes} times"
    in_vain = f"The workers resumed it {times} in vain" if run.resumes else ""
    if run.actor_kind == SYSTEM.kind and kind_named(run.kind).repeats:
        waits = (
            "The schedule comes back to its work once another run of this kind ended well; sooner: Resume on its page."
        )
        return f"{in_vain}. {waits}" if in_vain else waits
    if in_vain:
        return f"{in_vain} and do not try again: resume run {run.pk} on its page."
    return f"When the cause is gone, resume run {run.pk} on its page."


def _own_stop(run: Run) -> str:
    return f"run:{run.pk}"


def _about_stop(run: Run) -> str:
    return run.kind if kind_named(run.kind).repeats else _own_stop(run)


def settle_stops(run: Run) -> None:
    """Settle the incidents of stopped runs whose work is done: by this run itself, or by it and others since."""
    reported = set(Incident.objects.open().filter(cause=STOPPED).values_list("about", flat=True))
    if not reported:
        return
    others = Run.objects.filter(kind=run.kind, state=State.STOPPED)
    if run.kind in reported and all(_is_covered(other) for other in others):
        settle(STOPPED, about=run.kind)
    settle(STOPPED, about=_own_stop(run))
    for other in others:
        if _own_stop(other) in reported and _is_covered(other):
            settle(STOPPED, about=_own_stop(other))


def _is_covered(stopped: Run) -> bool:
    """Tell whether later runs did what a stopped one left; what would not be listed any more does not count.

    Two queries for each thousand units.
    """
    kind, after = kind_named(stopped.kind), 0
    later = RunItem.objects.filter(
        run__kind=stopped.kind, state=RunItem.State.DONE, systemic=False, finished_at__gt=stopped.finished_at
    )
    well = stopped.items.filter(state=RunItem.State.DONE, systemic=False)
    while units := _units(stopped, kind, after):
        after = units[-1].key
        left = {unit.key for unit in units}
        for done in (well, later):
            left -= set(done.filter(key__in=left).values_list("key", flat=True))
        if left:
            return False
    return True


# --- numbers ------------------------------------------------------------------------------------------------------


def summary(run: Run) -> Summary:
    """Return the run in numbers; two queries."""
    current = Run.objects.get(pk=run.pk)
    classes = dict(
        current.items.filter(state=RunItem.State.DONE)
        .order_by()
        .values_list("failure_class")
        .annotate(Count("pk"))
        .order_by("failure_class")
    )
    if current.forgotten:
        classes[OK] = classes.get(OK, 0) + current.forgotten
    began = current.started_at or current.created_at
    return Summary(
        run_id=current.pk,
        kind=current.kind,
        state=current.state,
        total=current.total,
        total_words=current.total_words,
        listed=current.is_listed,
        done=sum(classes.values()),
        classes=classes,
        seconds=((current.finished_at or timezone.now()) - began).total_seconds(),
        reason=current.reason,
    )


def waits_of(run: Run) -> tuple[list[Wait], int]:
    """Return what an open run waits for, by its rows, and how many waits more there are; three queries.

    Units that come again later, with the reason of their last try, and limits whose next call leaves later.
    """
    found: list[Wait] = []
    now = timezone.now()
    for name, seconds in buckets.waits(1.0):
        if not name.startswith("run:") or name == f"run:{run.pk}":
            why = "The service asked to slow down, or the calls that may leave until then are given to others."
            found.append(Wait(who=limit_words(name), until=now + timedelta(seconds=seconds), why=why))
    later = run.items.put_off().filter(wave__lte=run.wave)
    items = list(later[:_NAMED_WAITS])
    found += [
        Wait(who=item.label, until=item.not_before, why=item.message or "It comes again then.")
        for item in items
        if item.not_before is not None
    ]
    return found, later.count() - len(items)


def remove_old() -> int:
    """Remove runs that were finished three months ago; return how many. What they changed is in the audit trail."""
    old = Run.objects.filter(finished_at__lt=Now() - results.KEPT_FOR)
    number = old.count()
    old.delete()
    return number


def label_of(run: Run) -> str:
    """Return the words for what a run does, also when no app works its kind any more."""
    try:
        kind = kind_named(run.kind)
    except UnknownKind:
        return labels().get(run.kind, run.kind)
    return kind.purposes.get(run.scope.get("purpose", ""), kind.label)
