"""The vocabulary of questions about runs. Each method does nothing but SQL, by the database's own clock (R-42)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from portal.runs.kinds import Outcome

LEASE = timedelta(seconds=15)
HEARTBEAT_SECONDS = 5.0  # a lease ends after two of them were missed
LONGEST_WAIT = timedelta(minutes=10)  # of an item that comes again: a plan's look for what Microsoft accepted
# When a stopped run whose cause may pass is tried again by itself; then a person must.
RESUMED_AFTER = (timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
# A moment further ahead was written while the clock was: it counts as past, so that a jump holds nothing up.
_LONGEST_LEASE = timedelta(minutes=2)


if TYPE_CHECKING:
    import portal.runs.models  # noqa: F401  # named in the bases below


class RunQuerySet(models.QuerySet["portal.runs.models.Run"]):
    def open(self) -> RunQuerySet:
        return self.filter(state="open")

    def unfinished(self) -> RunQuerySet:
        return self.filter(state__in=["open", "paused"])

    def abandoned(self) -> RunQuerySet:
        """Open runs that nobody works any more."""
        from portal.runs.models import Executor

        living = Executor.objects.living().filter(run=OuterRef("pk"))
        return self.open().filter(~Exists(living))

    def to_resume(self) -> RunQuerySet:
        """Stopped runs that the workers try again by themselves, now."""
        come = Q(resume_at__lte=Now()) | Q(resume_at__gt=Now() + RESUMED_AFTER[-1] * 2)
        return self.filter(come, state="stopped")

    def without_work(self) -> RunQuerySet:
        """Runs whose list is complete and whose items all have a result."""
        from portal.runs.models import RunItem

        left = RunItem.objects.filter(run=OuterRef("pk")).exclude(state="done")
        return self.filter(~Exists(left), listed_at__isnull=False)


class ExecutorQuerySet(models.QuerySet["portal.runs.models.Executor"]):
    def living(self) -> ExecutorQuerySet:
        return self.filter(ended_at__isnull=True, lease_until__gte=Now(), lease_until__lte=Now() + _LONGEST_LEASE)

    def dead(self) -> ExecutorQuerySet:
        """Executors that stopped renewing their lease."""
        over = Q(lease_until__lt=Now()) | Q(lease_until__gt=Now() + _LONGEST_LEASE)
        return self.filter(over, ended_at__isnull=True)


class RunItemQuerySet(models.QuerySet["portal.runs.models.RunItem"]):
    def ready(self) -> RunItemQuerySet:
        """Items that anybody may take now."""
        come = Q(not_before__isnull=True) | Q(not_before__lte=Now()) | Q(not_before__gt=Now() + LONGEST_WAIT)
        return self.filter(come, state="waiting")

    def put_off(self) -> RunItemQuerySet:
        """Items that come again later, the next one first."""
        later = self.filter(not_before__gt=Now(), not_before__lte=Now() + LONGEST_WAIT, state="waiting")
        return later.order_by("not_before", "pk")

    def in_order(self) -> RunItemQuerySet:
        """All groups take turns; within a turn by rank (R-31)."""
        return self.order_by("turn", "rank", "pk")

    def claim(self, keys: Sequence[int], executor_id: int) -> int:
        """Take these items; return how many were still free. The condition is in the UPDATE itself (R-32)."""
        return (
            self.ready()
            .filter(pk__in=keys)
            .update(state="working", executor_id=executor_id, attempts=F("attempts") + 1, not_before=None)
        )

    def held_by(self, executor_id: int) -> RunItemQuerySet:
        """Items that this executor works."""
        return self.filter(executor_id=executor_id, state="working")

    def finish(self, results: Sequence[tuple[int, Outcome]]) -> None:
        """Give items their results; one statement for all with the same words."""
        alike: dict[tuple[Any, ...], list[int]] = {}
        for key, outcome in results:
            words = (
                outcome.failure_class[:24],
                outcome.systemic,
                outcome.message[:400],
                outcome.owner[:10],
                outcome.code[:60],
            )
            alike.setdefault(words, []).append(key)
        for (failure_class, systemic, message, owner, code), keys in alike.items():
            self.filter(pk__in=keys).update(
                state="done",
                failure_class=failure_class,
                systemic=systemic,
                message=message,
                owner=owner,
                code=code,
                finished_at=Now(),
            )

    def put_back(self, waits: Sequence[tuple[int, float, str]], **columns: Any) -> None:
        """Let items come again after so many seconds, and say why; one statement for all with the same wait and words.

        Waits are in whole seconds, and none is longer than ``LONGEST_WAIT``.
        """
        alike: dict[tuple[int, str], list[int]] = {}
        longest = int(LONGEST_WAIT.total_seconds())
        for key, wait, why in waits:
            alike.setdefault((min(math.ceil(wait), longest), why[:400]), []).append(key)
        for (seconds, why), keys in alike.items():
            self.filter(pk__in=keys).update(
                state="waiting",
                executor_id=None,
                not_before=Now() + timedelta(seconds=seconds),
                **({"message": why} if why else {}),
                **columns,
            )

    def give_back(self) -> int:
        """Let others take these items again."""
        return self.filter(state="working").update(state="waiting", executor_id=None)

    def unsuccessful(self) -> RunItemQuerySet:
        return self.filter(state="done").exclude(failure_class="ok")
