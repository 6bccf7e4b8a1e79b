"""What the rows of queue and schedule say about the processes behind them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dj_queue.models import Process
from django.utils import timezone
from pytest_django.fixtures import Settings

from portal.runs import schedule, signs
from portal.runs.models import ScheduledJob

pytestmark = pytest.mark.django_db
NAME, LABEL = "sweep", "Search for abandoned runs"


def seen(**columns: Any) -> signs.Schedule:
    """Let all jobs be kept well, and one of them be as these columns say."""
    schedule.tick()
    now = timezone.now()
    ScheduledJob.objects.update(due_at=now + timedelta(minutes=1), repeat_at=None)
    ScheduledJob.objects.filter(name=NAME).update(**columns)
    return signs.schedule()


def ago(**length: float) -> Any:
    return timezone.now() - timedelta(**length)


def test_before_the_first_scheduler_no_job_is_known() -> None:
    assert signs.schedule().known == 0


def test_a_schedule_that_is_kept_has_nothing_wrong() -> None:
    found = seen()
    assert found.known > 3
    assert (found.late, found.not_taken, found.failed) == ([], [], [])


def test_a_job_that_nobody_hands_out_is_late() -> None:
    assert seen(due_at=ago(seconds=90)).late == []
    assert seen(due_at=ago(minutes=3)).late == [LABEL]


def test_a_job_that_no_worker_takes_is_named_and_one_at_work_is_not() -> None:
    handed_out = {"repeat_at": timezone.now() + timedelta(minutes=5), "last_started_at": ago(minutes=4)}
    assert seen(**handed_out, owner="").not_taken == [LABEL]
    assert seen(**handed_out, owner="somebody").not_taken == []
    assert seen(**handed_out | {"last_started_at": ago(minutes=1)}, owner="").not_taken == []


def test_a_job_that_failed_is_named() -> None:
    assert seen(last_failed=True).failed == [LABEL]


@pytest.mark.parametrize(
    ("kind", "seconds", "living"), [("worker", 10, 1), ("Worker", 10, 1), ("worker", 70, 0), ("supervisor", 10, 0)]
)
def test_a_worker_lives_while_it_gives_signs(kind: str, seconds: float, living: int) -> None:
    columns = {"backend_alias": "default", "pid": 1, "hostname": "test", "name": "one", "metadata": {}}
    Process.objects.create(kind=kind, last_heartbeat_at=ago(seconds=seconds), **columns)
    assert signs.living_workers() == living


def test_workers_of_celery_cannot_be_seen(settings: Settings) -> None:
    settings.TASKS = {"default": {"BACKEND": "dj_queue.backend.DjQueueBackend"}}
    assert signs.has_own_workers()
    settings.TASKS = {"default": {"BACKEND": "django_tasks_celery.CeleryBackend"}}
    assert not signs.has_own_workers()
