"""What was last done with a thing, or is under way: the newest unit of a kind of work that is about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from django.db.models import Max

from portal.runs.kinds import OK, Kind
from portal.runs.models import Executor, Run, RunItem


class Stage(Enum):
    """How far it is."""

    WAITING = auto()
    WORKING = auto()
    HELD = auto()
    """Its run was paused, stopped or cancelled before its turn."""
    DONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest unit about one thing.

    Attributes:
        at: when it ended; before that, when it was asked for.
        good: whether it ended well; None before it ended.
        message: cause and remedy, or why the run does not go on; empty when all is well.
        worked_by_nobody: no process works its open run just now.
    """

    run: int
    stage: Stage
    at: datetime
    actor: str
    good: bool | None = None
    message: str = ""
    owner: str = ""
    code: str = ""
    worked_by_nobody: bool = False

    @property
    def under_way(self) -> bool:
        """Whether an answer is still to come without anybody acting."""
        return self.stage in {Stage.WAITING, Stage.WORKING}


def latest(kind: Kind, chosen: Mapping[int, Any], word: str) -> dict[int, Latest]:
    """Return the newest unit about each of these; what was never worked is left out. Four queries at most.

    Args:
        chosen: what stands for a thing in a selection, by the key of its unit.
        word: under which selections name such things; a run that has no units yet is known by it.
    """
    found: dict[int, Latest] = {}
    units = RunItem.objects.filter(key__in=chosen, run__kind=kind.name)
    newest = units.order_by().values("key").annotate(newest=Max("pk")).values("newest")
    items = list(RunItem.objects.filter(pk__in=[row["newest"] for row in newest]).select_related("run"))
    living = _living()
    for item in items:
        found[item.key] = _of_item(item, living)
    listed = {(item.run_id, item.key) for item in items}
    for run in Run.objects.unfinished().filter(kind=kind.name, listed_at__isnull=True).order_by("pk"):
        named = set(run.scope.get(word, ()))
        for key, name in chosen.items():
            if name in named and (run.pk, key) not in listed and (key not in found or found[key].run < run.pk):
                found[key] = _before(run, living)
    return found


def _living() -> set[int]:
    return set(Executor.objects.living().values_list("run", flat=True))


def _of_item(item: RunItem, living: set[int]) -> Latest:
    if item.state != RunItem.State.DONE:
        return _before(item.run, living, working=item.state == RunItem.State.WORKING)
    return Latest(
        run=item.run_id,
        stage=Stage.DONE,
        at=item.finished_at or item.run.created_at,
        actor=item.run.actor,
        good=item.failure_class == OK,
        message=item.message,
        owner=item.owner,
        code=item.code,
    )


def _before(run: Run, living: set[int], *, working: bool = False) -> Latest:
    stage = Stage.WORKING if working else Stage.WAITING
    return Latest(
        run=run.pk,
        stage=stage if run.state == Run.State.OPEN else Stage.HELD,
        at=run.created_at,
        actor=run.actor,
        message="" if run.state == Run.State.OPEN else run.reason or run.get_state_display(),
        worked_by_nobody=run.pk not in living,
    )
