"""The schedule: what is due starts once, however many schedulers look, and a failure is told (R-27, R-32).

Covers: portal.runs.registry, portal.runs.jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from consent.models import PartnerConsent
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs import schedule
from portal.runs.models import Executor, Run, ScheduledJob
from portal.runs.registry import Job
from portal.runs.schedule import run_job, tick
from tests.support import builders
from tests.support.commands import run
from tests.support.connected import connect
from tests.support.portal import Portal
from tests.support.staff import Staff
from tests.support.work import Work, alone_on_the_schedule

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One job alone on the schedule, that notes down each call."""
    made: list[str] = []

    def work(times: Sequence[datetime]) -> str:
        made.append("called")
        return "all well"

    alone_on_the_schedule(monkeypatch, Job(name="test_job", label="Test job", every=HOUR, work=work))
    return made


def hand_out() -> None:
    ScheduledJob.objects.update(due_at=Now() - timedelta(seconds=1))
    assert tick() == ["test_job"]


def test_a_new_job_is_due_at_once_and_then_after_its_time(calls: list[str]) -> None:
    assert tick() == ["test_job"]
    assert tick() == []
    row = ScheduledJob.objects.get()
    assert timedelta(minutes=59) < row.due_at - timezone.now() <= HOUR
    assert run_job.func("test_job") == "all well"
    hand_out()


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

    def broken(times: Sequence[datetime]) -> str:
        raise ValueError("a secret")

    job = Job(name="test_job", label="Test job", every=HOUR, work=lambda times: "all well")
    alone_on_the_schedule(monkeypatch, replace(job, work=broken))
    for _ in range(2):
        hand_out()
        assert run_job.func("test_job") == "failed: ValueError"
    incident = Incident.objects.get()
    assert (incident.cause, incident.about, incident.times) == ("job_failed", "test_job", 2)
    assert "secret" not in incident.words

    alone_on_the_schedule(monkeypatch, job)
    hand_out()
    run_job.func("test_job")
    assert Incident.objects.get().settled_at is not None


@pytest.mark.req("R-32")
def test_the_sweeper_finds_runs_that_nobody_works_and_no_others() -> None:
    abandoned = Work(number=3).start(scope={"which": 1})
    worked = Work(number=3).start(scope={"which": 2})
    Executor.objects.create(run=worked, host="elsewhere", process=1, lease_until=Now() + timedelta(minutes=1))
    Executor.objects.create(run=abandoned, host="elsewhere", process=1, lease_until=Now() - HOUR)
    Work(number=3).do(scope={"which": 3})
    assert list(Run.objects.abandoned()) == [abandoned]
    assert schedule.sweep() == "1 run handed to the workers"


def test_every_partners_customers_are_listed_once_a_day_in_its_own_hour(portal: Portal) -> None:
    from consent.jobs import _sync
    from consent.runs.token_check import units

    connect(portal, 50)
    listed = [unit.key for hour in range(24) for unit in units({"hour": hour}, 0, 1000)]
    assert sorted(listed) == sorted(PartnerConsent.objects.values_list("pk", flat=True))

    due = datetime(2026, 3, 1, 9, 59, tzinfo=UTC)  # worked when it is 10 already
    said = _sync([due])
    started = Run.objects.get()
    assert said == f"run {started.pk} started"
    assert started.scope == {"hour": 9}
    assert _sync([due]) == f"run {started.pk} goes on"


def test_hours_that_passed_while_nothing_ran_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[datetime] = []

    def work(times: Sequence[datetime]) -> str:
        given.extend(times)
        return ""

    alone_on_the_schedule(monkeypatch, Job(name="test_job", label="Test job", every=HOUR, work=work))
    now = timezone.now()
    first = now - timedelta(hours=3, minutes=20)
    ScheduledJob.objects.create(name="test_job", due_at=first)
    tick()
    run_job.func("test_job")
    assert given == [first + HOUR * index for index in range(4)]
    assert ScheduledJob.objects.get().due_at == first + HOUR * 4, "the hours stay where they are, however late it is"

    given.clear()
    ScheduledJob.objects.update(due_at=now - timedelta(days=9))
    tick()
    run_job.func("test_job")
    assert len({time.hour for time in given}) == len(given) == 24, "after a long stop each hour of a day, once"


# --- at least once ------------------------------------------------------------------------------------------------


def begun(calls: list[str], *, dead_for: timedelta) -> None:
    """Hand the job out, and let its process die in the middle so long ago."""
    tick()
    ScheduledJob.objects.update(owner="a process", repeat_at=Now() - dead_for)


@pytest.mark.req("R-32")
def test_a_job_whose_process_was_killed_is_repeated_and_its_record_says_so(calls: list[str]) -> None:
    begun(calls, dead_for=-schedule.LEASE)
    assert tick() == []
    assert run_job.func("test_job") == "not handed out, or somebody does it"
    begun(calls, dead_for=timedelta(seconds=1))
    assert tick() == ["test_job"]
    assert "its process ended in the middle; repeated at" in ScheduledJob.objects.get().last_result
    assert tick() == []

    said = run_job.func("test_job")

    assert said == "all well (begun again once, because its process ended in the middle)"
    row = ScheduledJob.objects.get()
    assert (row.last_result, row.repeat_at, calls) == (said, None, ["called"])
    assert run_job.func("test_job") == "not handed out, or somebody does it", "a second message does it no second time"


@pytest.mark.req("R-32")
def test_a_job_whose_message_was_lost_is_handed_out_again_and_counts_no_death(calls: list[str]) -> None:
    tick()
    ScheduledJob.objects.update(repeat_at=Now() - timedelta(seconds=1))
    assert tick() == ["test_job"]
    assert run_job.func("test_job") == "all well"


@pytest.mark.req("R-32")
def test_a_job_that_kills_five_processes_is_given_up_and_told(calls: list[str]) -> None:
    tick()
    for _ in range(4):
        ScheduledJob.objects.update(owner="a process", repeat_at=Now() - timedelta(seconds=1))
        assert tick() == ["test_job"]
    ScheduledJob.objects.update(owner="a process", repeat_at=Now() - timedelta(seconds=1))
    assert tick() == []
    assert "cut off 5 times" in ScheduledJob.objects.get().last_result
    assert "Test job was cut off 5 times" in Incident.objects.get().words
    hand_out()
    run_job.func("test_job")
    assert Incident.objects.get().settled_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_long_job_shows_that_it_lives(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "BEAT_SECONDS", 0.05)
    seen: list[timedelta] = []

    def long(times: Sequence[datetime]) -> str:
        ScheduledJob.objects.update(repeat_at=Now())
        time.sleep(1.0)
        repeat_at = ScheduledJob.objects.get().repeat_at
        assert repeat_at is not None
        seen.append(repeat_at - timezone.now())
        return "done"

    alone_on_the_schedule(monkeypatch, Job(name="test_job", label="Test job", every=HOUR, work=long))
    tick()
    assert run_job.func("test_job") == "done"
    assert seen[0] > schedule.LEASE / 2


@pytest.mark.req("R-28")
def test_a_process_that_ends_stops_its_job_between_two_pieces_and_begins_none(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()
    monkeypatch.setattr("portal.runs.ending._process_ends", ends)

    def in_pieces(times: Sequence[datetime]) -> str:
        ends.set()  # as at SIGTERM
        schedule.stop_point()
        raise AssertionError("it went on")

    alone_on_the_schedule(monkeypatch, Job(name="test_job", label="Test job", every=HOUR, work=in_pieces))
    tick()
    assert run_job.func("test_job") == "stopped"
    assert Incident.objects.count() == 0
    assert tick() == [], "a process that ends hands nothing out"
    assert run_job.func("test_job") == "not handed out, or somebody does it"
    ends.clear()
    assert tick() == ["test_job"], "another does it at once"
    assert ScheduledJob.objects.get().cut_off == 0


@pytest.mark.req("R-11")
def test_tokens_are_checked_when_their_next_try_has_come(portal: Portal) -> None:
    from consent.jobs import _keep_alive

    connect(portal, 3)
    PartnerConsent.objects.update(next_try_at=timezone.now() + HOUR)
    assert _keep_alive([]) == "nothing due"
    PartnerConsent.objects.update(next_try_at=timezone.now() - HOUR)
    assert _keep_alive([]) == f"run {Run.objects.get().pk} started"


def test_the_worker_command_hands_out_what_is_due(calls: list[str]) -> None:
    assert run("worker", "--once").out.strip() == "test_job"
    assert run("worker", "--once").out.strip() == "Nothing is due."


def test_a_job_is_run_now_by_a_person_once_and_at_its_usual_time_as_well(calls: list[str]) -> None:
    hand_out_first = tick()
    assert hand_out_first == ["test_job"]
    assert not schedule.run_now("test_job", actor=builders.ACTOR), "it is handed out already"
    run_job.func("test_job")
    due = ScheduledJob.objects.get().due_at

    assert schedule.run_now("test_job", actor=builders.ACTOR)
    assert not schedule.run_now("test_job", actor=builders.ACTOR)
    assert run_job.func("test_job") == "all well"

    row = ScheduledJob.objects.get()
    assert calls == ["called", "called"]
    assert row.due_at == due
    assert row.last_finished_at is not None
    assert not row.last_failed
    event = AuditEvent.objects.get(action="job.started")
    assert (event.actor, event.subject) == (builders.ACTOR.name, {"job": "test_job"})
    with pytest.raises(KeyError):
        schedule.run_now("unknown", actor=builders.ACTOR)


def test_a_failed_job_is_marked_until_it_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [True]

    def work(times: Sequence[datetime]) -> str:
        if fails:
            raise RuntimeError
        return "all well"

    alone_on_the_schedule(monkeypatch, Job(name="test_job", label="Test job", every=HOUR, work=work))
    for failed in (True, False):
        tick()
        schedule.run_now("test_job", actor=builders.ACTOR)
        run_job.func("test_job")
        assert ScheduledJob.objects.get().last_failed is failed
        fails.clear()


def test_only_who_may_is_offered_to_run_a_job_now() -> None:
    tick()
    ScheduledJob.objects.update(repeat_at=None)
    page = Staff("runs.view_scheduledjob").get("/admin/runs/scheduledjob/").content.decode()
    assert "run_now" not in page
    assert "Search for abandoned runs" in page
    staff = Staff("runs.view_scheduledjob", "runs.start_scheduledjob")
    asked = staff.choose("runs_scheduledjob", "run_now", "sweep")
    assert ScheduledJob.objects.get(name="sweep").repeat_at is None
    staff.confirm(asked)
    assert ScheduledJob.objects.get(name="sweep").repeat_at is not None
