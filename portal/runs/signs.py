"""Whether somebody works the queue and keeps the schedule, as their rows say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dj_queue.models import Process
from django.conf import settings
from django.db.models import F, Q
from django.db.models.functions import Now

from portal.runs.models import ScheduledJob
from portal.runs.registry import jobs

_ALIVE = timedelta(seconds=60)  # process_alive_threshold of the queue: six heartbeats
_LATE = timedelta(minutes=2)  # a scheduler looks every five seconds
_NOT_TAKEN = timedelta(minutes=3)  # workers poll every second


def has_own_workers() -> bool:
    """Whether the portal's own queue is used; Celery's workers leave no row that could be looked at."""
    return str(settings.TASKS["default"]["BACKEND"]).startswith("dj_queue.")


def living_workers() -> int:
    """Return how many processes of the portal's own queue gave a sign of life in the last minute."""
    alive = Process.objects.filter(kind__iexact="worker", last_heartbeat_at__gte=Now() - _ALIVE)
    return int(alive.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Labels of jobs, by what is wrong with them.

    Attributes:
        known: how many jobs have a row, so were seen by a scheduler.
        late: due, and not handed out.
        not_taken: handed out, and no worker took them.
        failed: ended with an error when they last ran.
    """

    known: int
    late: list[str]
    not_taken: list[str]
    failed: list[str]


def schedule() -> Schedule:
    """Return how the jobs of the schedule fare; one query."""
    late = Q(due_at__lt=Now() - _LATE, repeat_at__isnull=True)
    not_taken = Q(repeat_at__isnull=False, owner="", last_started_at__lt=Now() - _NOT_TAKEN)
    declared = jobs()
    rows = ScheduledJob.objects.filter(name__in=declared).annotate(is_late=late, is_not_taken=not_taken)
    found = list(rows.order_by(F("due_at")))
    return Schedule(
        known=len(found),
        late=[declared[row.name].label for row in found if row.is_late],
        not_taken=[declared[row.name].label for row in found if row.is_not_taken],
        failed=[declared[row.name].label for row in found if row.last_failed],
    )
