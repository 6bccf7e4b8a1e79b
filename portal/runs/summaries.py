"""A run in numbers and words: what it did, what its units wait for, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count
from django.utils import timezone

from portal.runs import buckets
from portal.runs.kinds import OK
from portal.runs.limits import limit_words
from portal.runs.listening import Wait
from portal.runs.models import Run, RunItem
from portal.runs.registry import UnknownKind, kind_named, labels

_NAMED_WAITS = 3  # the others are counted


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


def label_of(run: Run) -> str:
    """Return the words for what a run does, also when no app works its kind any more."""
    try:
        kind = kind_named(run.kind)
    except UnknownKind:
        return labels().get(run.kind, run.kind)
    return kind.purposes.get(run.scope.get("purpose", ""), kind.label)
