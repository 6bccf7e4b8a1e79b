"""The schedule: what is due starts once, however many schedulers look, and a failure is told (R-27, R-32)."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from consent.models import PartnerConsent
from portal.incidents.models import Incident
from portal.runs import schedule
from portal.runs.models import Executor, Run, ScheduledJob
from portal.runs.schedule import Job, run_job, tick
from tests.consent.test_commands import run
from tests.portal import Portal
from tests.runs.partners import connect
from tests.runs.work import Work

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One job alone on the schedule, that notes down each call."""
    made: list[str] = []
    monkeypatch.setattr(schedule, "_jobs", {})

    def work() -> str:
        made.append("called")
        return "all well"

    schedule.register(Job(name="test_job", label="Test job", every=HOUR, work=work))
    return made


def test_a_new_job_is_due_at_once_and_then_after_its_time(calls: list[str]) -> None:
    assert tick() == ["test_job"]
    assert tick() == []
    row = ScheduledJob.objects.get()
    assert timedelta(minutes=59) < row.due_at - timezone.now() <= HOUR
    ScheduledJob.objects.update(due_at=Now() - timedelta(seconds=1))
    assert tick() == ["test_job"]


def test_a_job_that_no_app_registers_any_more_is_left_alone(calls: list[str]) -> None:
    ScheduledJob.objects.create(name="gone", due_at=timezone.now() - HOUR)
    assert tick() == ["test_job"]
    assert run_job.func("gone") == "unknown"


@pytest.mark.req("R-27")
@pytest.mark.django_db(transaction=True)
def test_schedulers_at_the_same_moment_start_a_job_once(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ScheduledJob.objects.create(name="test_job", due_at=timezone.now() - HOUR)
    started: list[str] = []
    together = threading.Barrier(6)

    def look() -> None:
        try:
            together.wait(10)
            started.extend(tick())
        finally:
            connection.close()

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == ["test_job"]


def test_a_job_says_what_it_did_and_a_failure_is_told_once_and_settled(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tick()
    assert run_job.func("test_job") == "all well"
    assert ScheduledJob.objects.get().last_result == "all well"

    def broken() -> str:
        raise ValueError("a secret")

    job = schedule.jobs()["test_job"]
    monkeypatch.setitem(schedule._jobs, "test_job", Job(name=job.name, label=job.label, every=HOUR, work=broken))
    for _ in range(2):
        assert run_job.func("test_job") == "failed: ValueError"
    incident = Incident.objects.get()
    assert (incident.cause, incident.about, incident.times) == ("job_failed", "test_job", 2)
    assert "secret" not in incident.words

    monkeypatch.setitem(schedule._jobs, "test_job", job)
    run_job.func("test_job")
    assert Incident.objects.get().settled_at is not None


@pytest.mark.req("R-32")
def test_the_sweeper_finds_runs_that_nobody_works_and_no_others() -> None:
    abandoned = Work(number=3).start(scope={"which": 1})
    worked = Work(number=3).start(scope={"which": 2})
    Executor.objects.create(run=worked, host="elsewhere", process=1, lease_until=Now() + HOUR)
    Executor.objects.create(run=abandoned, host="elsewhere", process=1, lease_until=Now() - HOUR)
    Work(number=3).do(scope={"which": 3})
    assert list(Run.objects.abandoned()) == [abandoned]
    assert schedule.sweep() == "1 runs handed to the workers"


def test_every_partners_customers_are_listed_once_a_day_in_its_own_hour(portal: Portal) -> None:
    from consent.schedule import _sync
    from consent.token_checks import units

    connect(portal, 50)
    listed = [unit.key for hour in range(24) for unit in units({"hour": hour}, 0, 1000)]
    assert sorted(listed) == sorted(PartnerConsent.objects.values_list("pk", flat=True))

    said = _sync()
    started = Run.objects.get()
    assert said == f"run {started.pk} started"
    assert started.scope == {"hour": timezone.now().hour}
    assert _sync() == f"run {started.pk} goes on"


@pytest.mark.req("R-11")
def test_tokens_are_checked_when_their_next_try_has_come(portal: Portal) -> None:
    from consent.schedule import _keep_alive

    connect(portal, 3)
    PartnerConsent.objects.update(next_try_at=timezone.now() + HOUR)
    assert _keep_alive() == "nothing due"
    PartnerConsent.objects.update(next_try_at=timezone.now() - HOUR)
    assert _keep_alive() == f"run {Run.objects.get().pk} started"


def test_the_worker_command_hands_out_what_is_due(calls: list[str]) -> None:
    assert run("worker", "--once").out.strip() == "test_job"
    assert run("worker", "--once").out.strip() == "Nothing is due."
