"""The commands of runs, the exit codes that schedulers act on, and what people read (R-33).

Covers: portal.runs.arguments, portal.runs.console.
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.management import load_command_class
from django.db.models.functions import Now
from django.utils import timezone

from consent.models import PartnerConsent
from portal.runs import service
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import Run, RunItem
from tenants.models import PartnerTag, PartnerTenant
from tests.sandbox.world import Refusal
from tests.support import builders
from tests.support.commands import run
from tests.support.connected import connect
from tests.support.portal import Portal
from tests.support.work import GOOD, OURS, THEIRS, Work

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["run_status", "run_resume", "run_cancel", "worker"])
def test_every_command_explains_itself(name: str) -> None:
    command = load_command_class("portal.runs", name)
    text = command.create_parser("manage.py", name).format_help()
    assert "Exit codes" in " ".join(text.split())


@pytest.mark.parametrize("name", ["run_status", "run_resume", "run_cancel"])
def test_a_run_that_is_none_is_a_usage_error(name: str) -> None:
    ran = run(name, 999_999)
    assert (ran.code, ran.err) == (2, "There is no run 999999.")


@pytest.mark.req("R-33")
def test_run_status_tells_how_far_a_run_is_and_what_failed() -> None:
    done, _ = Work(number=8, answer=lambda key, attempt: THEIRS if key == 3 else GOOD).do()
    ran = run("run_status", done.pk, "--failed")
    assert ran.code == 0
    assert "8 of 8" in ran.out
    assert "1 needs_consent, 7 ok" in ran.out
    assert "unit 3: The partner must consent. Who must act: partner." in ran.out

    summary, failed = map(json.loads, run("run_status", done.pk, "--failed", "--json").out.splitlines())
    assert (summary["run"], summary["classes"]) == (done.pk, {"needs_consent": 1, "ok": 7})
    assert (failed["label"], failed["class"], failed["owner"]) == ("unit 3", "needs_consent", "partner")
    assert "Test work: done" in run("run_status").out


def test_run_cancel_pauses_or_ends_and_run_resume_goes_on() -> None:
    paused = Work(number=5).start()
    assert run("run_cancel", paused.pk, "--pause").out.strip() == f"Run {paused.pk} is paused."
    assert run("run_cancel", paused.pk, "--pause").code == 2
    ran = run("run_resume", paused.pk)
    assert (ran.code, Run.objects.get(pk=paused.pk).state) == (0, "done")
    assert run("run_resume", paused.pk).code == 2

    cancelled = Work(number=5).start()
    assert run("run_cancel", cancelled.pk).code == 0
    assert run("run_resume", cancelled.pk).code == 2
    assert RunItem.objects.filter(run=cancelled, state="done").count() == 0


@pytest.mark.req("R-14")
@pytest.mark.req("R-33")
def test_a_stopped_run_ends_with_3_and_says_how_to_go_on() -> None:
    good = False
    work = Work(number=30, answer=lambda key, attempt: GOOD if good else OURS)
    started = work.start()
    ran = run("run_resume", started.pk)
    assert ran.code == 3
    assert "Our secret expired. No partner's state was changed." in ran.err
    assert f"run_resume {started.pk}" in ran.err
    good = True
    assert run("run_resume", started.pk, "--concurrency", 2).code == 0


@pytest.mark.req("R-33")
def test_some_failures_end_with_1() -> None:
    started = Work(number=8, answer=lambda key, attempt: THEIRS if key == 3 else GOOD).start()
    assert run("run_resume", started.pk, "--json").code == 1


def test_a_run_is_left_to_the_workers_on_request() -> None:
    work = Work(number=3)
    ran = run("run_resume", work.start().pk, "--background")
    assert (ran.code, dict(work.worked)) == (0, {})


@pytest.mark.req("R-27")
@pytest.mark.req("R-33")
def test_a_second_start_ends_with_75_and_says_who_works_since_when(portal: Portal) -> None:
    connect(portal, 3)
    assert run("check_tokens", "--background").code == 0
    busy = Run.objects.get()
    ExecutorRow.objects.create(run=busy, host="elsewhere", process=77, lease_until=Now() + timedelta(minutes=1))

    ran = run("check_tokens")

    assert ran.code == 75
    assert f"Run {busy.pk} does this since" in ran.err
    assert "process 77 on elsewhere" in ran.err
    assert not portal.sandbox.world.ledger

    ExecutorRow.objects.update(lease_until=Now() - timedelta(seconds=1))
    assert run("check_tokens").code == 0
    assert Run.objects.get().pk == busy.pk


def test_a_paused_run_is_not_started_over_and_one_past_its_deadline_goes_on(portal: Portal) -> None:
    connect(portal, 2)
    run("check_tokens", "--background")
    service.pause(Run.objects.get(), actor=builders.ACTOR)
    ran = run("check_tokens")
    assert ran.code == 75
    assert "run_resume" in ran.err

    Run.objects.update(state="open", deadline=timezone.now() - timedelta(seconds=1))
    ran = run("run_resume", Run.objects.get().pk)
    assert (ran.code, Run.objects.get().state) == (1, "paused")
    assert service.DEADLINE in ran.err
    assert run("check_tokens").code == 0


def test_a_dry_run_names_what_it_would_work_and_writes_and_sends_nothing(portal: Portal) -> None:
    connect(portal, 3)
    ran = run("check_tokens", "--dry-run")
    assert (ran.code, Run.objects.count(), len(portal.sandbox.world.ledger)) == (0, 0, 0)
    assert "Partner 1" in ran.out
    assert "3 would be worked; nothing was sent." in ran.out
    lines = [json.loads(line) for line in run("check_tokens", "--dry-run", "--json").out.splitlines()]
    assert lines[-1] == {"summary": {"would_work": 3}}


@pytest.mark.parametrize("arguments", [["--concurrency", 0], ["--concurrency", 1000], ["--rate", -1]], ids=str)
def test_what_is_outside_the_rules_is_a_usage_error(arguments: list[object]) -> None:
    assert run("check_tokens", *arguments).code == 2


def test_partners_are_chosen_by_tag_state_cloud_age_and_hour(portal: Portal) -> None:
    first, second, third, fourth = (consent.partner for consent in connect(portal, 4))
    first.tags.add(PartnerTag.objects.create(name="gold"))
    PartnerConsent.objects.filter(partner=second).update(last_problem="not_permitted")
    PartnerTenant.objects.filter(pk=third.pk).update(cloud="china")
    PartnerConsent.objects.exclude(partner=fourth).update(last_try_at=timezone.now())

    def chosen(*arguments: object) -> set[str]:
        lines = run("check_tokens", "--dry-run", "--json", *arguments).out.splitlines()
        return {json.loads(line)["label"].removesuffix(" (Example Control Panel)") for line in lines[:-1]}

    assert chosen("--tag", "gold") == {first.name}
    assert chosen("--state", "attention") == {second.name}
    assert chosen("--cloud", "china") == {third.name}
    assert chosen("--age", 1) == {fourth.name}
    assert chosen("--partner", third.tenant_id, "--state", "attention") == set()
    assert len(chosen()) == 4


@pytest.mark.req("R-14")
def test_check_tokens_ends_with_3_for_our_secret_and_goes_on_after_the_repair(portal: Portal) -> None:
    connect(portal, 9)
    portal.sandbox.world.refusals.append(Refusal(code=7000222, times=10_000))
    ran = run("check_tokens")
    assert ran.code == 3
    portal.sandbox.world.refusals.clear()
    assert run("run_resume", Run.objects.get().pk).code == 0
