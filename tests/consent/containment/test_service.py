"""An emergency stop: what it stops, what it leaves, and what two persons do to end it.

Covers: consent.models.containments, consent.runs.resuming.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from pytest_django.fixtures import Settings

from consent import clients
from consent.access_tokens import get_access_token
from consent.alarms import Cause
from consent.containment import service
from consent.containment.service import Scope, contain
from consent.models import ConsentFlow, Containment, PartnerConsent
from consent.runs import resuming
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.service import Contained
from consent.two_persons import RESUME, resume_of
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.decisions import service as decisions
from portal.decisions.kinds import Approval
from portal.decisions.models import Decision
from portal.decisions.records import OVERRIDDEN, DecisionRefused
from portal.incidents.models import Incident
from portal.microsoft.identifiers import new_correlation_id
from portal.runs import service as runs
from portal.runs import summaries
from portal.runs.executor import Executor
from portal.runs.models import Run
from tests.sandbox.world import Fault
from tests.support import builders, custody
from tests.support.commands import run
from tests.support.connected import connect
from tests.support.custody import api_calls, ask, redemptions
from tests.support.decisions import account, person
from tests.support.portal import Browser, Portal
from tests.support.workers import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("S-80")]
State = Containment.State
ONE, TWO = builders.staff("one"), builders.staff("two")
TWO_PERSONS = Approval(decision=0, kind=RESUME.key, actor=ONE, approved_by=TWO.name, way="second")


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def stop(scope: Scope | None = None) -> Containment:
    """Contain, and wait until this process knows of it."""
    one = contain(scope or Scope(), reason="a stranger", actor=ONE)
    until(lambda: [each for each in clients.gate().standing() or () if each.key == one.pk], "the gate")
    return one


def calls(portal: Portal) -> int:
    return len(redemptions(portal)) + api_calls(portal)


@pytest.mark.parametrize("what", ["all", "registration", "partner"])
def test_no_token_is_handed_out_not_even_a_cached_one(connected: Portal, what: str) -> None:
    (other,) = connect(connected, 1)
    consent = connected.consent()
    assert ask(consent)  # from now on in the cache
    before = calls(connected)

    scopes = {
        "all": Scope(),
        "registration": Scope(registration=connected.registration),
        "partner": Scope(partner=connected.partner),
    }
    stop(scopes[what])

    with pytest.raises(Contained, match="Emergency stop"):
        ask(consent)
    with pytest.raises(Contained):
        ask(consent, fresh=True)
    with pytest.raises(Contained):
        get_access_token(connected.partner.tenant_id, "graph")
    assert calls(connected) == before
    if what == "partner":
        assert ask(other)
    else:
        with pytest.raises(Contained):
            ask(other)


def test_an_answer_that_comes_after_the_stop_is_not_handed_out(connected: Portal) -> None:
    consent, raised = connected.consent(), []
    connected.sandbox.world.faults.append(Fault(service="login", path="token", hold=True))

    def wait_for_it() -> None:
        try:
            ask(consent, fresh=True)
        except Contained as contained:
            raised.append(contained)
        finally:
            connections.close_all()

    asking = threading.Thread(target=wait_for_it)
    asking.start()
    until(lambda: connected.sandbox.faults.holding, "the held answer")
    stop()
    connected.sandbox.faults.release()
    asking.join(10)

    assert len(raised) == 1


def test_a_token_that_somebody_holds_already_is_not_used_any_more(connected: Portal) -> None:
    consent = connected.consent()
    token = ask(consent)
    client = clients.partner_center(
        clients.cloud("global"), clients.tokens().held(consent, token), new_correlation_id()
    )
    assert client.organization_profile()
    before = calls(connected)

    stop()

    with pytest.raises(Contained):
        client.organization_profile()
    assert calls(connected) == before


def test_a_run_is_held_and_says_why_and_goes_on_after_the_last_wave(connected: Portal) -> None:
    one = stop()
    started, _ = runs.start(TOKEN_CHECK, scope={}, actor=ONE)
    before = calls(connected)

    Executor(started).work()

    started.refresh_from_db()
    assert (started.state, started.held) == (Run.State.PAUSED, True)
    assert "Emergency stop of everything" in started.reason
    assert calls(connected) == before

    service.resume(one, approved=TWO_PERSONS)
    assert "wave 1, 1 partner released" in resuming.advance(one)
    one.refresh_from_db()
    until(lambda: clients.gate().stop(connected.partner.pk, connected.registration.pk) is None, "the release")
    assert one.run is not None
    Executor(one.run).work()
    assert resuming.advance(one).endswith("over")

    started.refresh_from_db()
    assert (started.state, started.held) == (Run.State.OPEN, False)
    Executor(started).work()
    started.refresh_from_db()
    assert summaries.summary(started).classes == {"ok": 1}


def test_an_open_run_is_held_at_the_moment_of_the_stop(connected: Portal) -> None:
    started, _ = runs.start(TOKEN_CHECK, scope={}, actor=ONE)

    contain(Scope(), reason="a stranger", actor=ONE)

    started.refresh_from_db()
    assert (started.state, started.reason) == (Run.State.PAUSED, "Emergency stop of everything")


def test_the_units_of_one_partner_are_left_out_and_the_others_are_checked(connected: Portal) -> None:
    connect(connected, 2)
    state = connected.consent().state
    stop(Scope(partner=connected.partner))
    started, _ = runs.start(TOKEN_CHECK, scope={}, actor=ONE)

    Executor(started).work()

    assert summaries.summary(started).classes == {"contained": 1, "ok": 2}
    started.refresh_from_db()
    assert started.state == Run.State.DONE
    assert connected.consent().state == state
    assert connected.consent().last_problem == ""


def test_a_link_says_that_it_waits_and_works_again_afterwards(connected: Portal) -> None:
    path, who = connected.link(), Browser()
    one = stop()

    page = who.get(path)

    assert page.status_code == 503
    assert "paused all connections" in page.content.decode()
    assert who.post(f"{path}start").status_code in {403, 503}
    assert who.get("/consent/" + "x" * 43 + "/").status_code == 404  # a link that nobody made says nothing of it
    assert not ConsentFlow.objects.filter(outcome=ConsentFlow.Outcome.OPEN).exists()
    service.resume(one, approved=TWO_PERSONS)
    resuming.advance(one)
    until(lambda: who.get(path).status_code == 200, "the link")


def test_an_answer_of_microsoft_that_comes_back_during_a_stop_is_not_redeemed(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    stop()

    page = portal.come_back(who, answer)

    assert page.status_code == 503
    assert "paused all connections" in page.content.decode()
    assert not [line for line in portal.sandbox.world.ledger if line.get("grant") == "authorization_code"]
    assert ConsentFlow.objects.get().outcome == ConsentFlow.Outcome.OPEN  # its code may still be used in time


def test_a_sign_in_that_is_being_finished_stores_nothing(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    portal.sandbox.world.faults.append(Fault(service="login", path="token", hold=True))
    ends: list[Any] = []

    def come_back() -> None:
        ends.append(portal.come_back(who, answer))
        connections.close_all()

    coming = threading.Thread(target=come_back)
    coming.start()
    until(lambda: portal.sandbox.faults.holding, "the held answer")
    stop()
    portal.sandbox.faults.release()
    coming.join(20)

    assert "paused all connections" in who.get(ends[0]["Location"]).content.decode()
    assert not PartnerConsent.objects.exists()
    assert ConsentFlow.objects.get().code == "contained"


def test_staff_are_told_and_the_trail_knows(connected: Portal) -> None:
    one = stop(Scope(registration=connected.registration))

    incident = Incident.objects.get(cause=Cause.CONTAINED)
    assert incident.subject == {"containment": one.pk}
    event = AuditEvent.objects.get(action="containment.began")
    assert (event.actor, event.details) == ("one", {"again": False}), "the trail keeps no free text"
    assert event.subject == {"containment": one.pk, "registration": connected.registration.pk}


def test_a_second_stop_of_the_same_is_the_first(connected: Portal) -> None:
    assert stop() == stop()
    assert stop(Scope(partner=connected.partner)) != stop()
    assert AuditEvent.objects.filter(action="containment.began").count() == 2
    with pytest.raises(ValueError, match="why"):
        contain(Scope(), reason=" ", actor=ONE)


# --- letting go -------------------------------------------------------------------------------------------------------


def asked(one: Containment, by: User) -> Decision:
    """Let somebody ask to resume it in the admin."""
    actor = Actor.staff(by.get_username(), None)
    return decisions.ask(RESUME, resume_of(one), why="It is safe.", actor=actor, account=by)[0]


def as_os_user(monkeypatch: pytest.MonkeyPatch, name: str) -> Actor:
    monkeypatch.setattr("portal.audit.trail.getpass.getuser", lambda: name)
    return Actor.command("resume")


def test_one_person_alone_does_not_resume_neither_in_the_admin_nor_there_and_on_the_server(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, anna = stop(), account("anna")
    decision = asked(one, anna)

    with pytest.raises(DecisionRefused, match="another person decides"):
        decisions.approve(decision, person=person(anna))
    with pytest.raises(DecisionRefused, match="another person decides"):
        decisions.approve_on_server(decision, actor=as_os_user(monkeypatch, "Anna"))

    one.refresh_from_db()
    assert one.state == Containment.State.ON
    with pytest.raises(Contained):
        ask(connected.consent())
    assert decisions.approve_on_server(decision, actor=as_os_user(monkeypatch, "bert")).state == Decision.State.DONE
    one.refresh_from_db()
    assert (one.state, one.resume_asked_by, one.resumed_by) == (State.RESUMING, "anna", "resume (bert)")


def test_who_asked_on_the_server_does_not_approve_it_in_the_admin(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stop()
    decision, _ = decisions.ask(RESUME, resume_of(one), why="It is safe.", actor=as_os_user(monkeypatch, "anna"))

    with pytest.raises(DecisionRefused, match="another person decides"):
        decisions.approve(decision, person=person(account("anna")))

    assert decisions.approve(decision, person=person(account("bert"))).state == Decision.State.DONE


def test_one_person_resumes_in_an_emergency_by_two_factors_and_an_incident(connected: Portal) -> None:
    one, anna = stop(), account("anna")
    decision = asked(one, anna)
    with pytest.raises(DecisionRefused, match="two different factors"):
        decisions.override(decision, person=person(anna, factors=("password",)), word="emergency")

    decisions.override(decision, person=person(anna, factors=("password", "mfa totp")), word="emergency")

    one.refresh_from_db()
    assert (one.state, one.resumed_by) == (State.RESUMING, "anna")
    assert Incident.objects.open().filter(cause=OVERRIDDEN).count() == 1


def test_an_installation_of_one_person_says_so_by_its_settings(connected: Portal, settings: Settings) -> None:
    settings.STAFF_SINGLE_PERSON = True
    one, anna = stop(), account("anna")

    decisions.approve(asked(one, anna), person=person(anna))

    one.refresh_from_db()
    assert one.state == State.RESUMING


def test_an_approval_of_an_older_stop_does_not_end_a_newer_one(connected: Portal) -> None:
    one, anna = stop(), account("anna")
    decision = asked(one, anna)
    Containment.objects.update(reason="another stranger")

    with pytest.raises(DecisionRefused, match="another stranger"):
        decisions.approve(decision, person=person(account("bert")))

    one.refresh_from_db()
    assert one.state == State.ON


def test_the_first_wave_waits_until_the_registration_is_active_again(connected: Portal) -> None:
    one = stop()
    service.note_deactivated(one, connected.registration, is_off=True)
    service.resume(one, approved=TWO_PERSONS)

    assert "waits until its registration is activated" in resuming.advance(one)

    with pytest.raises(Contained):
        ask(connected.consent())
    one.refresh_from_db()
    service.go_on(one, actor=TWO)  # somebody activated it by hand
    assert "wave 1" in resuming.advance(one)


def test_partners_are_released_in_waves_that_grow_and_each_is_checked_before_the_next(connected: Portal) -> None:
    connect(connected, 7)
    one = stop()
    service.resume(one, approved=TWO_PERSONS)
    released = []

    while (said := resuming.advance(one)) and "over" not in said:
        assert "is being checked" in resuming.advance(one)  # the next wave waits for the check
        one.refresh_from_db()
        last, keys = one.released_to, PartnerConsent.objects.values_list("partner", flat=True)
        until(lambda last=last: clients.gate().stop(last, connected.registration.pk) is None, "the release")
        stopped = [key for key in keys if clients.gate().stop(key, connected.registration.pk)]
        released.append(8 - len(stopped))
        assert one.run is not None
        Executor(one.run).work()

    assert released == [1, 6, 8]
    assert not Incident.objects.open().exists()
    assert AuditEvent.objects.filter(action="containment.released").count() == 3
    assert AuditEvent.objects.get(action="containment.over").actor == "two"


def test_a_wave_that_ends_badly_is_the_last_until_a_person_lets_it_go_on(connected: Portal) -> None:
    connect(connected, 3)
    one = stop()
    service.resume(one, approved=TWO_PERSONS)
    resuming.advance(one)
    one.refresh_from_db()
    until(lambda: clients.gate().stop(connected.partner.pk, connected.registration.pk) is None, "the release")
    custody.service_account(connected).enabled = False
    assert one.run is not None
    Executor(one.run).work()
    runs.cancel(one.run, actor=ONE)

    assert "halted" in resuming.advance(one)
    assert "halted" in resuming.advance(one)

    assert Incident.objects.open().filter(cause=Cause.RESUME_HALTED).count() == 1
    service.go_on(one, actor=TWO)
    assert "wave 2" in resuming.advance(one)
    assert not Incident.objects.open().filter(cause=Cause.RESUME_HALTED).exists()


def test_to_contain_again_takes_back_what_was_released(connected: Portal) -> None:
    one = stop()
    service.resume(one, approved=TWO_PERSONS)
    resuming.advance(one)

    again = contain(Scope(), reason="there he is again", actor=TWO)

    assert again == one
    assert (again.state, again.released_to, again.resume_asked_by) == (Containment.State.ON, None, "")
    until(lambda: clients.gate().stop_of_all(), "the stop")
    assert decisions.waiting(RESUME, resume_of(again)) is None  # to let it go takes two persons anew


def test_who_resumes_is_warned_of_a_credential_from_before_the_stop(connected: Portal) -> None:
    one = stop(Scope(registration=connected.registration))
    (older,) = service.older_credentials(one)
    assert older.registration == connected.registration

    newer = builders.credential(connected.registration, promoted_at=one.began_at.replace(year=2030))
    type(connected.registration).objects.update(credential=newer)

    assert service.older_credentials(one) == []


# --- commands ---------------------------------------------------------------------------------------------------------


def test_the_commands_stop_say_so_and_resume(connected: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("contain", "--all", "--reason", "a stranger")
    assert (said.code, "within a second" in said.out) == (0, True)
    until(lambda: clients.gate().stop_of_all(), "the stop")
    refused = run("get_access_token", connected.partner.tenant_id, "graph", "--show")
    assert (refused.code, "Emergency stop of everything" in refused.err) == (4, True)
    assert "Emergency stop of everything" in run("resume").out

    number = Containment.objects.get().pk
    monkeypatch.setattr("portal.audit.trail.getpass.getuser", lambda: "anna")
    assert run("resume", number).code == 2, "no reason"
    asks = run("resume", number, "--why", "It is safe.")
    assert (asks.code, "A second person decides" in asks.err) == (1, True)
    assert "rotate it first" in asks.err
    assert "another person decides" in run("resume", number).err
    monkeypatch.setattr("portal.audit.trail.getpass.getuser", lambda: "bert")
    confirmed = run("resume", number)
    assert (confirmed.code, "wave 1" in confirmed.out) == (0, True)
    assert run("resume", 4711).code == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ("--all", "--reason", " "),
        ("--registration", "4711", "--reason", "x"),
        ("--partner", builders.guid(), "--reason", "x"),
    ],
)
def test_what_is_meant_must_be_clear(db: None, wrong: tuple[str, ...]) -> None:
    assert run("contain", *wrong).code == 2
    assert not Containment.objects.exists()


def test_a_plan_of_a_stopped_partner_waits_with_its_reason(connected: Portal) -> None:
    customer = custody.first_customer(connected)
    stop(Scope(partner=connected.partner))

    pushed = run("push_consent", connected.partner.tenant_id, customer.tenant_id, "--background")

    assert pushed.code == 0, pushed.err
    started = Run.objects.get(kind="apply_plan")
    Executor(started, seconds=1).work()
    started.refresh_from_db()
    assert started.state == Run.State.OPEN
    waits, _ = summaries.waits_of(started)
    assert "Emergency stop of Northwind Cloud" in waits[0].why
