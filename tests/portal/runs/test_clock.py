"""A clock that jumped and was set right holds nothing up; who waits says for whom, why and until when (R-42)."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import models
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from consent.models import PartnerConsent
from portal.audit.models import AuditEvent
from portal.runs import buckets, listing, schedule, service
from portal.runs.executor import Executor
from portal.runs.kinds import Outcome
from portal.runs.listening import Ending
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import RateBucket, Run, RunItem, ScheduledJob
from portal.runs.registry import Job, jobs
from tests.sandbox.world import Fault
from tests.support.commands import run
from tests.support.connected import connect
from tests.support.portal import Portal
from tests.support.work import GOOD, Work, alone_on_the_schedule, classes

pytestmark = pytest.mark.django_db
JUMP = timedelta(days=31)


def as_if_written_in_the_jump() -> None:
    """Move every moment of every row ahead, as rows have it that were written while the clock was."""
    for model in apps.get_models():
        moments = [each.name for each in model._meta.concrete_fields if isinstance(each, models.DateTimeField)]
        if moments and model is not AuditEvent and model._meta.managed:
            model._default_manager.update(**{name: F(name) + JUMP for name in moments})
    epochs = ("next_free", "refused_at", "changed_at")
    RateBucket.objects.update(**{name: F(name) + JUMP.total_seconds() for name in epochs})


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-42")
@pytest.mark.parametrize("seconds", [7200.0, JUMP.total_seconds()])
def test_a_limit_lets_the_next_call_leave_within_a_minute_of_a_jump(seconds: float) -> None:
    buckets.take("graph", 100, 1)
    RateBucket.objects.update(next_free=F("next_free") + seconds)
    assert buckets.take("graph", 100, 1).delay < 1
    assert buckets.take("graph", 100, 1).delay < 1


@pytest.mark.req("R-42")
def test_a_complaint_counts_and_is_forgiven_although_an_earlier_one_is_of_the_future() -> None:
    buckets.take("graph", 100, 1)
    ahead = timezone.now().timestamp() + 7200
    RateBucket.objects.update(refused_at=ahead, changed_at=ahead)
    buckets.complain("graph", 0.0, 60.0)
    assert RateBucket.objects.get().rate == pytest.approx(57)
    RateBucket.objects.update(changed_at=ahead)
    assert buckets.take("graph", 100, 1).rate > 57


@pytest.mark.req("R-22")
def test_what_a_service_asked_to_wait_is_waited_for_and_no_longer() -> None:
    buckets.take("graph", 100, 1)
    buckets.complain("graph", 250.0, 60.0)
    assert buckets.take("graph", 100, 1).delay == pytest.approx(250, abs=1)
    buckets.complain("graph", 9000.0, 60.0)
    assert buckets.take("graph", 100, 1).delay <= 300


@pytest.mark.req("R-22")
def test_a_slow_limit_keeps_its_rate_however_many_ask() -> None:
    delays = [buckets.take("run:1", 0.1, 1).delay for _ in range(20)]
    assert delays[-1] == pytest.approx(190, abs=1)


# --- units, leases, jobs ------------------------------------------------------------------------------------------


@pytest.mark.req("R-42")
def test_units_that_were_put_back_in_the_jump_are_worked_at_once() -> None:
    work = Work(number=5)
    begun = work.start()
    while listing.list_units(begun, work.kind()):
        pass
    begun.items.update(not_before=Now() + timedelta(hours=2))
    assert Executor(begun).work() is Ending.DONE
    assert classes(begun) == {"ok": 5}


@pytest.mark.req("R-16")
def test_a_unit_is_never_put_back_for_longer_than_the_longest_wait() -> None:
    begun = Work(number=1).start()
    listing.list_units(begun, Work(number=1).kind())
    RunItem.objects.filter(run=begun).put_back([(begun.items.get().pk, 86_400.0, "")])
    assert begun.items.filter(not_before__lte=Now() + timedelta(minutes=10)).exists()


@pytest.mark.req("R-27")
def test_a_lease_of_the_future_is_none() -> None:
    begun = Work(number=3).start()
    ExecutorRow.objects.create(run=begun, host="elsewhere", process=1, lease_until=Now() + JUMP)
    assert list(Run.objects.abandoned()) == [begun]
    assert service.expire_executors(begun.pk) == 0
    assert ExecutorRow.objects.get().ended_at is not None


def test_a_job_of_the_future_is_due_now(monkeypatch: pytest.MonkeyPatch) -> None:
    alone_on_the_schedule(
        monkeypatch, Job(name="test_job", label="Test job", every=timedelta(hours=1), work=lambda times: "well")
    )
    ScheduledJob.objects.create(name="test_job", due_at=timezone.now() + JUMP)
    assert schedule.tick() == ["test_job"]
    assert ScheduledJob.objects.get().due_at - timezone.now() <= timedelta(hours=1)


@pytest.mark.req("R-42")
@pytest.mark.req("R-11")
def test_a_jump_of_31_days_and_back_delays_no_check_and_no_job(portal: Portal) -> None:
    connect(portal, 5)
    assert run("check_tokens").code == 0
    schedule.tick()
    consent = PartnerConsent.objects.first()
    assert consent is not None
    PartnerConsent.objects.filter(pk=consent.pk).update(lease_owner="a dead one", lease_until=Now())
    left = Work(number=3).start(scope={"left": True})
    ExecutorRow.objects.create(run=left, host="elsewhere", process=1, lease_until=Now())

    as_if_written_in_the_jump()

    assert PartnerConsent.objects.due(timezone.now()).count() == 5
    assert PartnerConsent.objects.lease_free().count() == 5
    assert left in Run.objects.abandoned()
    assert set(schedule.tick()) == set(jobs())
    began = time.monotonic()
    ran = run("check_tokens")
    assert (ran.code, "5 of 5: 5 ok" in ran.out) == (0, True)
    assert time.monotonic() - began < 20


# --- nobody waits in silence --------------------------------------------------------------------------------------


@pytest.fixture
def _talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.runs.reporting._QUIET_SECONDS", 0.5)
    monkeypatch.setattr("portal.runs.console._SAY_AGAIN_SECONDS", 1.0)


@pytest.mark.usefixtures("_talkative")
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_waiting_command_says_for_whom_why_and_until_when(portal: Portal, concurrency: int) -> None:
    first, *_ = connect(portal, 3)
    headers = {"Retry-After": "4"}
    tenant = first.partner.tenant_id
    portal.sandbox.world.faults.append(Fault(service="partnercenter", tenant=tenant, status=429, headers=headers))

    ran = run("check_tokens", "--concurrency", concurrency)

    assert ran.code == 0
    said = [line for line in ran.err.splitlines() if first.partner.name in line]
    assert said, ran.err
    assert said[-1].startswith("2 of 3 so far. Waits for ")
    assert " UTC: " in said[-1]
    assert "slow" in said[-1]


@pytest.mark.usefixtures("_talkative")
def test_a_command_that_waits_for_a_shared_limit_names_it(portal: Portal) -> None:
    connect(portal, 2)
    assert run("check_tokens").code == 0
    RateBucket.objects.filter(name__startswith="sign_in").update(next_free=timezone.now().timestamp() + 4)
    ran = run("check_tokens")
    assert ran.code == 0
    assert "0 of 2" in ran.err
    assert "the sign-in service" in ran.err


@pytest.mark.usefixtures("_talkative")
def test_a_command_whose_calls_are_slow_says_how_many_it_waits_for() -> None:
    def slow(key: int, attempt: int) -> Outcome:
        time.sleep(1.5)
        return GOOD

    ran = run("run_resume", Work(number=2, answer=slow).start().pk)
    assert "0 of 2" in ran.err
    assert "answers to 2 units" in ran.err


def test_run_status_says_what_an_open_run_waits_for() -> None:
    work = Work(number=5)
    begun = work.start()
    while listing.list_units(begun, work.kind()):
        pass
    why = "Partner Center asked to slow down."
    begun.items.put_back([(item.pk, 120.0, why) for item in begun.items.all()])
    buckets.take("graph:global:app", 100, 1)
    buckets.complain("graph:global:app", 90.0, 10.0)

    ran = run("run_status", begun.pk)
    assert "Waits for Microsoft Graph until " in ran.out
    assert "; unit 1 until " in ran.out
    assert why.rstrip(".") in ran.out
    assert "and 2 more units" in ran.out
    assert "Microsoft Graph" in ran.out
    waits = json.loads(run("run_status", begun.pk, "--json").out)["waits"]
    assert [each["who"] for each in waits] == ["Microsoft Graph", "unit 1", "unit 2", "unit 3"]
    assert waits[1]["why"] == why
    assert waits[1]["until"] > timezone.now().isoformat()
