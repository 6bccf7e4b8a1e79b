"""The units of a run, listed as it is worked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from django.db import transaction
from django.db.models import Count, F
from django.db.models.functions import Now
from django.utils import timezone

from portal.bulk import insert_all
from portal.microsoft.diagnosis import Owner
from portal.microsoft.identifiers import new_correlation_id
from portal.runs.kinds import CRASHED, SKIPPED, UNEXPECTED, Kind, Unit
from portal.runs.models import Run, RunItem

_CHUNK, _FIRST_CHUNK = 1000, 100  # units listed in one transaction; few at first, so that they are worked at once
_SKIP_AFTER = 3  # runs in which a unit failed in an unexpected way
_BROKEN = (UNEXPECTED, CRASHED)


def list_units(run: Run, kind: Kind) -> bool:
    """List the next units of a run, in key order; return whether there may be more.

    The cursor moves on in the transaction that adds the rows, and only if no other executor moved it. So a list that
    was cut off goes on where it was, and two processes that list at once do no harm.
    """
    cursor = run.listed_to
    units = units_of(run, kind, cursor, _CHUNK if run.total else _FIRST_CHUNK)
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
    return run.state == Run.State.OPEN and run.listed_at is None


def units_of(run: Run, kind: Kind, after: int, limit: int = _CHUNK) -> Sequence[Unit]:
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
