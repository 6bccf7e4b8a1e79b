"""What people and executors do with runs: start, pause, resume, cancel, enter, leave, finish, stop."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import SYSTEM, Actor, record
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.rights import SERVER, require
from portal.runs import results
from portal.runs.kinds import Kind
from portal.runs.models import RESUMED_AFTER, Executor, Run, RunItem
from portal.runs.registry import UnknownKind, kind_named
from portal.runs.stops import STOPPED, is_covered, only_by, own_stop
from portal.runs.summaries import label_of, summary
from portal.site.sight import require_sight

log = logging.getLogger(__name__)
State = Run.State
HALTED = "run_halted"  # cause of incidents
DEADLINE = "The deadline was reached."


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
            settle(STOPPED, about=own_stop(run))
    return cancelled


def why_not_resumed(run: Run) -> str:
    """Say why only its own command goes on with what a run left; empty when others can. No query."""
    command = only_by(run)
    return command and f"Its input is in the memory of its command only. Run {command} again with the same input."


def _rights_to_start(run: Run) -> Sequence[str]:
    try:
        return kind_named(run.kind).rights
    except UnknownKind:
        return ()


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
        left = not why_not_resumed(run) and not is_covered(run)
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
    if passes and run.resumes < len(RESUMED_AFTER) and not only_by(run):
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


def remove_old() -> int:
    """Remove runs that were finished three months ago; return how many. What they changed is in the audit trail."""
    old = Run.objects.filter(finished_at__lt=Now() - results.KEPT_FOR)
    number = old.count()
    old.delete()
    return number
