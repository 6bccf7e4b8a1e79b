"""The same failure of nearly all partners is a question to us: no partner is blamed, one incident says what to do.

Covers: consent.runs.customer_sync, portal.runs.systemic.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.models import PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK
from consent.states import count_by_state, state_of
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.kinds import Blame, Kind, Outcome
from portal.runs.listening import Ending, Listener
from portal.runs.models import Run, RunItem
from portal.runs.systemic import Watch
from tenants.models import PartnerTenant
from tests.sandbox.world import Application, Refusal
from tests.support import builders
from tests.support.commands import run as command
from tests.support.connected import connect
from tests.support.custody import redemptions
from tests.support.portal import Portal
from tests.support.work import GOOD, Work, classes

HEALTH = (
    "pk", "state", "mfa", "mfa_checked_at", "last_problem", "last_code", "last_message", "first_denied_at", "failures",
    "last_try_at", "next_try_at", "secret_version",
)  # fmt: skip


def check(kind: Kind = TOKEN_CHECK, concurrency: int = 16, listener: Listener | None = None) -> tuple[Run, Ending]:
    run, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=concurrency)
    ending = Executor(run, listener=listener).work()
    run.refresh_from_db()
    return run, ending


def health() -> list[Any]:
    return list(PartnerConsent.objects.order_by("pk").values_list(*HEALTH))


def application(portal: Portal) -> Application:
    return portal.sandbox.world.applications[portal.registration.application_id]


def refuse(portal: Portal, consents: list[PartnerConsent], code: int) -> None:
    for consent in consents:
        tenant = PartnerTenant.objects.get(pk=consent.partner_id).tenant_id
        portal.sandbox.world.refusals.append(Refusal(code=code, tenant_id=tenant, times=1000))


@pytest.mark.req("R-14")
@pytest.mark.parametrize("code", [7000112, 700016])
def test_a_disabled_application_stops_the_run_and_blames_no_partner(portal: Portal, code: int) -> None:
    connect(portal, 200)
    application(portal).enabled = False
    portal.sandbox.world.switches["application_disabled"] = code
    before = health()

    ran = command("check_tokens", "--json")

    assert ran.code == 3
    assert health() == before
    assert not AuditEvent.objects.filter(action="token.checked").exists()
    assert len(redemptions(portal)) <= 20
    incident = Incident.objects.get()
    assert (incident.cause, incident.about, incident.owner, incident.times) == ("run_stopped", "token_check", "us", 1)
    assert f"looks like our application {portal.registration.name}" in incident.words
    for word in (f"AADSTS{code}", "10 of the last 10", "disabled", "deleted", "policy", "resume run"):
        assert word in incident.words

    application(portal).enabled = True
    run = Run.objects.get()
    assert service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE
    assert classes(run) == {"ok": 200}
    assert Incident.objects.get().settled_at is not None


@pytest.mark.req("R-14")
@pytest.mark.parametrize("number", [1, 30])
def test_the_same_answer_for_one_partner_is_that_partners(portal: Portal, number: int) -> None:
    consents = connect(portal, number)
    refuse(portal, consents[:1], 7000112)

    run, ending = check()

    assert ending is Ending.DONE
    assert classes(run) == Counter({"needs_interaction": 1}) + Counter({"ok": number - 1})
    row = PartnerConsent.objects.select_related("partner").get(pk=consents[0].pk)
    assert (row.last_code, row.last_owner, state_of(row.partner)) == ("AADSTS7000112", "partner", "attention")
    assert "Let the partner enable the enterprise application" in row.last_message
    assert not Incident.objects.exists()


@pytest.mark.parametrize(("number", "ending"), [(2, Ending.DONE), (3, Ending.STOPPED)])
def test_a_small_fleet_is_judged_from_three_partners_on(portal: Portal, number: int, ending: Ending) -> None:
    connect(portal, number)
    application(portal).enabled = False
    before = health()

    _, ended = check()

    assert ended is ending
    assert (health() == before) is (ending is Ending.STOPPED)


def test_the_thresholds_are_settings(portal: Portal, settings: Settings) -> None:
    consents = connect(portal, 6)
    refuse(portal, consents[:4], 7000112)
    settings.SAME_CAUSE_PERCENT = 60
    assert check()[1] is Ending.STOPPED
    assert not PartnerConsent.objects.exclude(last_code="").exists()

    settings.SAME_CAUSE_FEWEST = 5
    assert check()[1] is Ending.DONE
    assert PartnerConsent.objects.filter(last_code="AADSTS7000112").count() == 4


def test_partners_that_were_not_well_before_prove_nothing(portal: Portal) -> None:
    consents = connect(portal, 12)
    PartnerConsent.objects.update(state="needs_consent", last_problem="needs_consent", last_code="AADSTS50173")
    refuse(portal, consents, 50173)

    run, ending = check()

    assert (ending, classes(run)) == (Ending.DONE, {"needs_consent": 12})
    assert not Incident.objects.exists()


def test_those_that_were_not_well_keep_their_state_while_the_others_fail_alike(portal: Portal) -> None:
    consents = connect(portal, 12)
    sick = [consent.pk for consent in consents[:3]]
    hour_ago = timezone.now() - timedelta(hours=1)
    PartnerConsent.objects.filter(pk__in=sick).update(
        last_problem="needs_consent", last_code="AADSTS50173", first_denied_at=hour_ago, last_try_at=hour_ago
    )
    application(portal).enabled = False
    portal.sandbox.world.switches["application_disabled"] = 700016  # invalid_grant seen twice would cost them the state
    before = health()

    assert check()[1] is Ending.STOPPED
    assert health() == before


def test_a_first_denial_written_by_a_smaller_run_does_not_hide_the_pattern(portal: Portal) -> None:
    """Two partners were due in the hour in which the application was disabled; in the next hour they come again."""
    connect(portal, 2)
    application(portal).enabled = False
    portal.sandbox.world.switches["application_disabled"] = 700016
    assert check()[1] is Ending.DONE
    assert PartnerConsent.objects.filter(state="connected", first_denied_at__isnull=False).count() == 2
    PartnerConsent.objects.update(first_denied_at=timezone.now() - timedelta(hours=1))
    connect(portal, 1, first=2)
    before = health()

    assert check()[1] is Ending.STOPPED
    assert health() == before


@pytest.mark.parametrize(
    ("codes", "ending"),
    [
        ((7000112, 700016), Ending.STOPPED),  # of both nobody knows which stands for a registration that is gone
        ((50173, 53003), Ending.DONE),
    ],
)
def test_mixed_causes_are_one_only_where_one_fault_of_ours_explains_them(
    portal: Portal, codes: tuple[int, int], ending: Ending
) -> None:
    consents = connect(portal, 20)
    refuse(portal, consents[::2], codes[0])
    refuse(portal, consents[1::2], codes[1])
    before = health()

    _, ended = check()

    assert ended is ending
    assert (health() == before) is (ending is Ending.STOPPED)


def test_what_was_held_back_for_others_is_written_once_it_is_clear(portal: Portal) -> None:
    consents = connect(portal, 40)
    refuse(portal, consents[:3], 50173)  # the first three of the list, one after the other

    run, ending = check(concurrency=1)

    assert (ending, classes(run)) == (Ending.DONE, {"needs_consent": 3, "ok": 37})
    assert PartnerConsent.objects.filter(first_denied_at__isnull=False).count() == 3


@pytest.mark.req("R-14")
@pytest.mark.parametrize("concurrency", [1, 16])
def test_an_application_that_is_disabled_during_a_run_costs_nobody_anything(portal: Portal, concurrency: int) -> None:
    connect(portal, 80)

    class Owner(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            application(portal).enabled = False

    _, ending = check(concurrency=concurrency, listener=Owner())

    assert ending is Ending.STOPPED
    assert not PartnerConsent.objects.exclude(last_problem="").exists()
    assert count_by_state()["connected"] == 80
    assert PartnerConsent.objects.filter(last_success_at__isnull=False).exists()  # and what was good is kept


def blamed_on_partner() -> Outcome:
    blame = Blame(cause="application", question="Ours?", was_well=True)
    return Outcome(failure_class="needs_consent", owner="partner", blame=blame)


@pytest.mark.req("R-14")
def test_units_that_were_at_work_when_an_application_was_disabled_speak_for_nothing() -> None:
    watch = Watch(16)
    watch.saw(watch.begin(), GOOD)
    at_work, later = [watch.begin() for _ in range(16)], [watch.begin() for _ in range(40)]
    blamed = []
    for number in later:  # a good answer comes late after each second failure
        theirs = blamed_on_partner()
        watch.saw(number, theirs)
        blamed.append(theirs)
        if len(blamed) % 2 == 0 and at_work:
            watch.saw(at_work.pop(), GOOD)
        assert all(watch.holds(one) for one in blamed)

    assert watch.cause is not None


@pytest.mark.req("R-14")
def test_one_slow_unit_does_not_let_all_others_fail_before_they_are_judged() -> None:
    watch = Watch(16)
    at_work, worked = [watch.begin()], 0  # the first one takes long
    while len(at_work) < watch.room(16):
        at_work.append(watch.begin())
        if len(at_work) > 1:
            watch.saw(at_work.pop(), blamed_on_partner())
            worked += 1
        assert worked < 10, "as many as the pattern needs failed, and it is not seen"
    watch.saw(at_work.pop(), blamed_on_partner())
    assert watch.room(16) == 5


@pytest.mark.req("R-14")
def test_a_failure_is_believed_when_units_that_were_begun_after_it_went_well() -> None:
    watch = Watch(2)
    theirs = blamed_on_partner()
    slow, failed, *later = [watch.begin() for _ in range(14)]
    watch.saw(failed, theirs)
    for number in later:
        watch.saw(number, GOOD)
    assert watch.holds(theirs)  # one that was begun before it is still at work
    watch.saw(slow, None)  # it was not worked, and holds nothing up
    assert not watch.holds(theirs)
    assert watch.cause is None


def test_the_other_applications_say_nothing_about_one(db: None) -> None:
    blamed = Blame(cause="application", question="This looks like our application.", was_well=True)
    theirs = Outcome(failure_class="needs_consent", owner="partner", blame=blamed)
    work = Work(number=60, answer=lambda key, attempt: theirs if key % 4 == 0 else GOOD)
    kind = work.kind

    class Two(Work):
        def kind(self, **more: Any) -> Kind:
            return kind(place=lambda key: ("broken" if key % 4 == 0 else "good", "global"), **more)

    run, ending = Two(number=60, answer=work.answer).do()

    assert ending is Ending.STOPPED
    assert "needs_consent" not in classes(run)
    assert "10 of the last 10" in run.reason


def test_a_person_can_say_that_it_is_true(portal: Portal) -> None:
    connect(portal, 12)
    application(portal).enabled = False

    ran = command("check_tokens", "--force")

    assert ran.code == 1
    assert PartnerConsent.objects.filter(last_code="AADSTS7000112").count() == 12
    assert check()[1] is Ending.DONE, "they are known to be ill, so they raise no new question"


@pytest.mark.req("S-18")
def test_no_verdict_for_nearly_all_is_not_about_the_partners(portal: Portal) -> None:
    connect(portal, 40)
    portal.sandbox.world.switches["mfa_header"] = False
    before = health()

    _, ending = check()

    assert ending is Ending.STOPPED
    assert health() == before
    words = Incident.objects.get().words
    assert "no verdict on MFA" in words
    assert "isMfaCompliant" in words


@pytest.mark.req("S-18")
def test_missing_mfa_for_nearly_all_is_a_question_and_for_one_that_partners(portal: Portal) -> None:
    consents = connect(portal, 12)
    tokens = list(portal.sandbox.world.refresh_tokens.values())
    tokens[0].amr = ["pwd"]
    assert check()[1] is Ending.DONE
    assert list(PartnerConsent.objects.filter(state="mfa_missing")) == [consents[0]]

    for token in tokens:
        token.amr = ["pwd"]
    before = health()
    assert check()[1] is Ending.STOPPED
    assert health() == before


@pytest.mark.req("R-14")
def test_a_sync_asks_the_same_question(portal: Portal) -> None:
    connect(portal, 12)
    PartnerTenant.objects.filter(consents__isnull=True).update(switch="disabled")
    application(portal).enabled = False

    run, ending = check(CUSTOMER_SYNC)

    assert (ending, classes(run)) == (Ending.STOPPED, {})
    assert "looks like our application" in Incident.objects.get().words
