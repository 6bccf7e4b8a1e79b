"""What people and executors do with runs: start, list, pause, resume, cancel, finish, sum up."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor, record
from portal.incidents.desk import report, settle
from portal.microsoft.diagnosis import Owner
from portal.runs.kinds import CRASHED, OK, SKIPPED, UNEXPECTED, Kind, Unit, UnknownKind, kind_named
from portal.runs.models import Executor, Run, RunItem

State = Run.State
STOPPED = "run_stopped"  # causes of incidents
HALTED = "run_halted"
DEADLINE = "The deadline was reached."
KEPT_FOR = timedelta(days=90)
_CHUNK = 1000  # units listed in one transaction
_SKIP_AFTER = 3  # runs in which a unit failed in an unexpected way
_BROKEN = (UNEXPECTED, CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in numbers; ``seconds`` since it began."""

    run_id: int
    kind: str
    state: str
    total: int
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
            "done": self.done,
            "classes": dict(self.classes),
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
        }

    @property
    def all_good(self) -> bool:
        return self.done == self.total and set(self.classes) <= {OK}


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
) -> tuple[Run, bool]:
    """Return the unfinished run of this kind and scope, or a new one, and whether it is new (R-26, R-27).

    Args:
        stop_share: of the units of a wave; when more fail, the run waits for a person. None: its waves are not judged.
    """
    chosen = json.dumps([scope, options or {}], sort_keys=True)
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
            )
            record("run.started", actor=actor, subject={"run": run.pk}, details={"kind": kind.name, "scope": scope})
    except IntegrityError:  # another process made it at the same moment
        return mine.get(), False
    return run, True


def actor_of_run(run: Run) -> Actor:
    """Return who started a run: its effects are theirs, whichever process works it."""
    return Actor(kind=AuditEvent.ActorKind(run.actor_kind), name=run.actor)


# --- listing ------------------------------------------------------------------------------------------------------


def list_units(run: Run, kind: Kind) -> bool:
    """List the next units of a run, in key order; return whether there may be more.

    The cursor moves on in the transaction that adds the rows and only if nobody else moved it, so a list that was cut
    off goes on where it was, and two processes that list at once do no harm.
    """
    cursor = run.listed_to
    units = kind.units(run.scope, cursor, _CHUNK)
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
            RunItem.objects.bulk_create([_item(run, unit, turns, skipped.get(unit.key)) for unit in units])
    run.refresh_from_db()
    return run.state == State.OPEN and run.listed_at is None


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
        correlation_id=str(uuid.uuid4()),
    )
    if skipped is not None:
        item.state = RunItem.State.DONE
        item.failure_class = SKIPPED
        item.message = skipped[:400]
        item.owner = "us"
        item.finished_at = timezone.now()
    return item


def _to_skip(kind: Kind, keys: Sequence[int]) -> dict[int, str]:
    """Return the units that failed in an unexpected way in each of their last three runs, and the words for it."""
    history = RunItem.objects.filter(run__kind=kind.name, key__in=keys, state="done").order_by()
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
    return _steer(run, [State.OPEN], "run.paused", actor, state=State.PAUSED, reason=reason[:300])


def halt(run: Run, *, reason: str, words: str) -> bool:
    """Pause a run because too much of it failed; a person decides whether it goes on. False when it was not open.

    Args:
        reason: shown with the run.
        words: what staff is told, in one incident for each run.
    """
    with transaction.atomic():
        halted = _steer(run, [State.OPEN], "run.halted", actor_of_run(run), state=State.PAUSED, reason=reason[:300])
        if halted:
            name = f"{label_of(run)}, run {run.pk}"
            report(HALTED, about=f"run:{run.pk}", name=name, owner=Owner.US, words=words, subject={"run": run.pk})
    return halted


def cancel(run: Run, *, actor: Actor) -> bool:
    """End a run for good; units that were not begun are not worked. What was done stays done."""
    return _steer(
        run, [State.OPEN, State.PAUSED], "run.cancelled", actor, state=State.CANCELLED, finished_at=Now(), reason=""
    )


def resume(run: Run, *, actor: Actor, deadline: datetime | None = None) -> bool:
    """Let a paused or stopped run go on; what failed for a cause on our side, or was left unfinished, is tried again.

    Returns:
        False when it is finished, or when another run of the same work was started meanwhile.
    """
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
                deadline=deadline,
                resumed_at=Now(),
            )
            if resumed:
                again = Q(systemic=True) | Q(failure_class__in=_unfinished(run))
                run.items.filter(again, state="done").update(
                    state="waiting", failure_class="", systemic=False, attempts=0, finished_at=None, executor_id=None
                )
                run.items.filter(state="waiting").update(not_before=None, attempts=0)
    except IntegrityError:
        return False
    return resumed


def _steer(run: Run, states: Sequence[str], action: str, actor: Actor, **columns: Any) -> bool:
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, state__in=states).update(**columns)
        if changed:
            _follow(run, columns["state"])
            settle(HALTED, about=f"run:{run.pk}")  # whoever steers it has looked
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


def bury_the_dead(run_id: int) -> int:
    """Give back what executors hold that stopped renewing their lease; return how many items that were (R-27)."""
    dead = list(Executor.objects.dead().filter(run_id=run_id).values_list("pk", flat=True))
    dead += [each.pk for each in Executor.objects.living().filter(run_id=run_id) if _process_is_gone(each)]
    returned = 0
    for key in dead:
        with transaction.atomic():
            # Whoever was only slow finds its row ended, and writes nothing any more.
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
    with transaction.atomic():
        if Run.objects.open().without_work().filter(pk=run.pk).update(state=State.DONE, finished_at=Now()):
            _follow(run, State.DONE)
            numbers = summary(run)
            record(
                "run.finished",
                actor=actor_of_run(run),
                subject={"run": run.pk},
                details={"kind": run.kind, "total": numbers.total, "classes": dict(numbers.classes)},
            )
    run.refresh_from_db()
    return run.state != State.OPEN


def stop(run: Run, reason: str) -> bool:
    """Stop a run for a cause on our side (R-14); return False when it was not open any more."""
    with transaction.atomic():
        stopped = (
            Run.objects.open().filter(pk=run.pk).update(state=State.STOPPED, finished_at=Now(), reason=reason[:300])
        )
        if stopped:
            _follow(run, State.STOPPED)
            record("run.stopped", actor=actor_of_run(run), subject={"run": run.pk}, details={"reason": reason})
    run.refresh_from_db()
    return bool(stopped)


def report_stop(run: Run, cause: str, owner: str) -> None:
    """Tell staff that a run was stopped; one incident for a kind, however many runs of it stop (R-14)."""
    words = f"{label_of(run)} stopped, no partner's state was changed: {cause} Then resume run {run.pk}."
    known = owner if owner in set(Owner) else Owner.US
    report(STOPPED, about=run.kind, name=label_of(run), owner=Owner(known), words=words, subject={"run": run.pk})


def settle_stop(run: Run) -> None:
    """The kind of this run works again."""
    settle(STOPPED, about=run.kind)


# --- numbers ------------------------------------------------------------------------------------------------------


def summary(run: Run) -> Summary:
    """Return the run in numbers; two queries."""
    current = Run.objects.get(pk=run.pk)
    classes = dict(
        current.items.filter(state="done")
        .order_by()
        .values_list("failure_class")
        .annotate(Count("pk"))
        .order_by("failure_class")
    )
    began = current.started_at or current.created_at
    return Summary(
        run_id=current.pk,
        kind=current.kind,
        state=current.state,
        total=current.total,
        done=sum(classes.values()),
        classes=classes,
        seconds=((current.finished_at or timezone.now()) - began).total_seconds(),
        reason=current.reason,
    )


def remove_old() -> int:
    """Remove runs that were finished three months ago; return how many. What their units did is in the audit trail."""
    old = Run.objects.filter(finished_at__lt=Now() - KEPT_FOR)
    number = old.count()
    old.delete()
    return number


def label_of(run: Run) -> str:
    """Return the words for the kind of a run, also when its app is gone."""
    try:
        return kind_named(run.kind).label
    except LookupError:
        return run.kind
