"""Applying a plan: what was shown and nothing else, read back, in waves, and put right when the second half fails.

Covers: consent.customers.applying.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent import states as partner_states
from consent.customers.plans import PlanRefused, make_undo
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.models import ApplicationGrant, ApplicationRegistration, ConsentObservation, ConsentPlan, ConsentPlanItem
from consent.runs.apply_plan import start_apply
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID
from portal.runs import service, summaries
from portal.runs.models import Run, RunItem
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox.world import DIRECTORY_READERS, Relationship
from tests.support import builders, custody
from tests.support.commands import assert_silent, run
from tests.support.customer_tenants import WANTED, booked, holds, relationship
from tests.support.plans import (
    apply,
    fault,
    first_customers,
    holds_already,
    more_customers,
    plan_for,
    refuse_posts,
    requests,
    state_of,
    the_consent,
    the_item,
    want,
    waves_of,
    work,
)
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db

STRANGER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def customer(portal: Portal) -> CustomerTenant:
    return first_customers(portal)[0]


# --- the good way -------------------------------------------------------------------------------------------------


@pytest.mark.req("R-20")
def test_an_applied_plan_ends_granted_with_evidence(portal: Portal, customer: CustomerTenant) -> None:
    done = apply(portal)

    assert state_of(done) == ("done", "done")
    assert (the_item().result, the_item().message, the_item().snapshot) == ("done", "", {})
    row = the_consent()
    assert (row.state, row.actual_grants) == ("granted", {GRAPH_APPLICATION_ID: sorted(WANTED)})
    seen = ConsentObservation.objects.get()
    assert seen.service_principal_id
    assert seen.grants[0]["id"]
    assert seen.grants[0]["scopes"] == sorted(WANTED)
    assert (requests(portal), holds(portal, customer)) == (["POST"], WANTED)
    assert portal.sandbox.world.crossings == []
    applied = AuditEvent.objects.get(action="consent_plan.applied")
    assert applied.details["waves"] == [1, 5, 25]
    assert AuditEvent.objects.filter(action="customer_consent.create", outcome="intent").count() == 1


@pytest.mark.req("R-20")
def test_phase_snapshot_and_intent_are_stored_before_each_post(
    portal: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = ApplicationConsentClient.create, []

    def create(self: ApplicationConsentClient, **arguments: Any) -> None:
        item, row = the_item(), the_consent()
        seen.append((item.phase, item.snapshot, row.request_open, row.state))
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "create", create)
    apply(portal)
    assert seen == [("posting", {}, True, "unknown")]


@pytest.mark.req("R-20")
@pytest.mark.parametrize(("close", "posts"), [("after", 1), ("before", 1)])
def test_a_lost_answer_is_looked_up_and_a_repeat_sends_the_same_request_id(
    portal: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch, close: str, posts: int
) -> None:
    real, sent = ApplicationConsentClient.create, []

    def create(self: ApplicationConsentClient, **arguments: Any) -> None:
        sent.append(arguments["request_id"])
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "create", create)
    fault(portal, service="partnercenter", path="applicationconsents", close=close)

    done = apply(portal)

    assert (state_of(done), the_consent().state, holds(portal, customer)) == (("done", "done"), "granted", WANTED)
    assert len(requests(portal)) == posts
    assert len(set(sent)) == 1
    assert len(sent) == (1 if close == "after" else 2)


@pytest.mark.req("R-20")
def test_each_resource_has_a_post_of_its_own_and_a_repeat_sends_only_what_is_missing(
    portal: Portal, customer: CustomerTenant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    _want_partner_center_too(portal, customer, settings)
    real, sent = ApplicationConsentClient.create, []

    def create(self: ApplicationConsentClient, **arguments: Any) -> None:
        sent.append((arguments["resource"], arguments["request_id"]))
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "create", create)
    refuse_posts(portal, skip=1, status=503)

    done = apply(portal)

    assert (state_of(done), the_consent().state) == (("done", "done"), "granted")
    assert len(sent) == 3
    assert sent[1] == sent[2]  # the same resource with the same request id
    assert sent[0] != sent[1]


def _want_partner_center_too(portal: Portal, customer: CustomerTenant, settings: Settings) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [
        *settings.CONSENT_GRANT_ALLOW_LIST,
        f"{PARTNER_CENTER_APPLICATION_ID}/user_impersonation",
    ]
    ApplicationGrant.objects.create(
        registration=portal.registration,
        resource_application_id=PARTNER_CENTER_APPLICATION_ID,
        scopes=["user_impersonation"],
    )
    portal.sandbox.world.tenants[customer.tenant_id].add_principal(PARTNER_CENTER_APPLICATION_ID, "Partner Center")


def test_a_second_start_finds_the_first_and_a_plan_that_was_applied_is_not_applied_again(
    portal: Portal, customer: CustomerTenant
) -> None:
    plan = plan_for(portal)
    first, new = start_apply(plan, actor=builders.ACTOR)
    assert new
    assert start_apply(plan, actor=builders.ACTOR) == (first, False)
    work(first)
    with pytest.raises(PlanRefused, match="Nothing is left"):
        start_apply(plan, actor=builders.ACTOR)
    assert requests(portal) == ["POST"]


# --- accepted is not granted --------------------------------------------------------------------------------------


@pytest.mark.req("R-23")
def test_a_created_that_grants_nothing_waits_half_an_hour_and_ends_absent_never_granted(
    portal: Portal, customer: CustomerTenant
) -> None:
    portal.sandbox.world.switches["consent_grants_nothing"] = True

    waiting = apply(portal, seconds=1)

    assert booked(portal, "create consent")[-1]["status"] == 201
    assert (the_item().result, the_consent().state) == ("waiting", "waiting")
    assert state_of(waiting) == ("applying", "open")  # not done while somebody waits
    item = RunItem.objects.get()
    assert (item.state, item.attempts, item.not_before is not None) == ("waiting", 0, True)

    ConsentPlanItem.objects.update(accepted_at=timezone.now() - timedelta(minutes=31))
    ended = work(waiting)

    assert (the_item().result, the_item().owner) == ("failed", "microsoft")
    assert "not shown after 30 minutes" in the_item().message
    assert the_consent().state == "absent"
    assert RunItem.objects.get().failure_class == "failed"
    assert ended.state == "paused"  # all of its wave failed
    assert requests(portal) == ["POST"]


@pytest.mark.req("R-23")
def test_slow_directories_are_waited_for_without_another_post_and_without_a_failure(
    portal: Portal, customer: CustomerTenant
) -> None:
    portal.sandbox.world.switches["consent_visible_after"] = 600
    waiting = apply(portal, seconds=1)
    assert (the_item().result, the_consent().state) == ("waiting", "waiting")

    portal.sandbox.world.advance(601)
    RunItem.objects.update(not_before=None)
    done = work(waiting)

    assert (state_of(done), the_item().result, the_consent().state) == (("done", "done"), "done", "granted")
    assert requests(portal) == ["POST"]
    assert not Incident.objects.exists()


@pytest.mark.req("R-20")
def test_what_microsoft_accepted_is_not_sent_again_when_the_look_after_it_fails(
    portal: Portal, customer: CustomerTenant
) -> None:
    portal.sandbox.world.switches["consent_visible_after"] = 600
    fault(portal, service="login", tenant=customer.tenant_id, status=503, body="{}", skip=1, times=3)

    waiting = apply(portal, seconds=2)

    assert the_item().accepted_at is not None
    assert (the_item().phase, the_consent().request_open) == ("posting", True)
    assert requests(portal) == ["POST"]

    portal.sandbox.world.faults.clear()
    RunItem.objects.update(not_before=None)
    work(waiting, seconds=1)

    assert (requests(portal), the_item().result) == (["POST"], "waiting")


# --- what is there already ----------------------------------------------------------------------------------------


@pytest.mark.req("R-21")
@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.parametrize(
    ("there", "state", "result"),
    [
        (WANTED, "granted", "done"),
        ({"Directory.Read.All"}, "differs", "failed"),
        (WANTED | {"Group.Read.All"}, "differs", "failed"),
    ],
    ids=["equal", "fewer", "more"],
)
def test_already_exists_means_look(
    portal: Portal,
    customer: CustomerTenant,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    there: set[str],
    state: str,
    result: str,
) -> None:
    portal.sandbox.world.switches["consent_exists_status"] = status
    _consented_meanwhile(portal, customer, monkeypatch, there)

    apply(portal)

    assert (the_consent().state, the_item().result) == (state, result)
    assert (requests(portal), holds(portal, customer)) == (["POST"], there)


@pytest.mark.req("R-21")
def test_already_exists_and_a_read_that_fails_leave_the_state_unknown(
    portal: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind() -> None:
        fault(
            portal,
            service="graph",
            tenant=customer.tenant_id,
            path="servicePrincipals",
            status=403,
            body="{}",
            times=99,
        )

    _consented_meanwhile(portal, customer, monkeypatch, {"Directory.Read.All"}, blind)

    ended = apply(portal)

    assert (the_consent().state, the_item().result, the_item().phase) == ("unknown", "", "posting")
    assert the_item().message
    assert state_of(ended)[0] == "stopped"
    # The plan is applied again: it looks first.
    assert apply(portal, ConsentPlan.objects.get()).pk == ended.pk
    assert RunItem.objects.get().failure_class != "ok"


@pytest.mark.req("R-21")
def test_what_somebody_else_created_between_two_tries_is_a_difference_for_a_person(
    portal: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    _consented_meanwhile(portal, customer, monkeypatch, {"Directory.Read.All"})
    fault(portal, service="partnercenter", path="applicationconsents", close="before")

    apply(portal)

    assert (the_consent().state, the_item().result) == ("differs", "failed")
    assert (requests(portal), holds(portal, customer)) == ([], {"Directory.Read.All"})


def _consented_meanwhile(
    portal: Portal,
    customer: CustomerTenant,
    monkeypatch: pytest.MonkeyPatch,
    there: set[str],
    then: Callable[[], None] = lambda: None,
) -> None:
    real = ApplicationConsentClient.create

    def create(self: ApplicationConsentClient, **arguments: Any) -> None:
        custody.consent_directly(portal, customer, set(there))
        then()
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "create", create)


@pytest.mark.req("R-21")
@pytest.mark.parametrize("there", [WANTED, {"Directory.Read.All"}, WANTED | {"Group.Read.All"}])
def test_what_changed_since_the_plan_is_held_back_and_nothing_is_sent(
    portal: Portal, customer: CustomerTenant, there: set[str]
) -> None:
    plan = plan_for(portal)
    custody.consent_directly(portal, customer, set(there))

    done = apply(portal, plan)

    assert requests(portal) == []
    assert state_of(done) == ("done", "done")
    if there == WANTED:
        assert (the_item().result, the_item().message) == ("done", "It was so already; nothing was sent.")
    else:
        assert the_item().result == "held"
        assert "make a new plan" in the_item().message
        assert the_consent().state in {"partial", "differs"}


def test_a_plan_whose_wanted_grants_were_changed_is_refused(portal: Portal, customer: CustomerTenant) -> None:
    plan = plan_for(portal)
    want("Directory.Read.All")
    with pytest.raises(PlanRefused, match="Make a new plan"):
        start_apply(plan, actor=builders.ACTOR)
    assert not Run.objects.exists()


# --- readiness ----------------------------------------------------------------------------------------------------


def _no_relationship(portal: Portal, one: Relationship) -> None:
    portal.sandbox.world.relationships.remove(one)


def _pending(portal: Portal, one: Relationship) -> None:
    one.status, one.activated, one.ends = "approvalPending", None, None
    one.assignments.clear()


def _no_group(portal: Portal, one: Relationship) -> None:
    one.assignments.clear()


def _wrong_roles(portal: Portal, one: Relationship) -> None:
    for assignment in one.assignments:
        assignment.roles = {DIRECTORY_READERS}


def _other_group(portal: Portal, one: Relationship) -> None:
    for assignment in one.assignments:
        assignment.group = builders.guid()


@pytest.mark.req("R-24")
def test_five_customers_that_are_not_ready_have_five_reasons_and_no_post(portal: Portal) -> None:
    customers = [*first_customers(portal, 3), *more_customers(portal, 2)]
    changes = (_no_relationship, _pending, _no_group, _wrong_roles, _other_group)
    for customer, change in zip(customers, changes, strict=True):
        change(portal, relationship(portal, customer))

    done = apply(portal)

    items = ConsentPlanItem.objects.all()
    assert {item.result for item in items} == {"held"}
    assert len({item.message for item in items}) == 5
    assert {item.owner for item in items} == {"partner", "customer"}
    assert {row.state for row in portal.registration.customer_consents.all()} == {"blocked"}
    assert requests(portal) == []
    assert state_of(done) == ("done", "done")  # nobody's failure of ours: no wave is stopped by it
    assert summaries.summary(done).classes == {"held": 5}


@pytest.mark.req("R-24")
def test_a_customers_failure_stays_there_and_the_run_goes_on(portal: Portal) -> None:
    customers = [*first_customers(portal, 3), *more_customers(portal, 7)]
    fault(
        portal,
        service="partnercenter",
        method="POST",
        path=f"{customers[4].tenant_id}/applicationconsents",
        status=403,
        body="{}",
    )

    done = apply(portal, waves=(), stop_share=0.2)

    assert summaries.summary(done).classes == {"failed": 1, "ok": 9}
    assert done.state == "done"
    failed = ConsentPlanItem.objects.get(customer=customers[4])
    assert failed.result == "failed"
    assert failed.message
    assert partner_states.state_of(PartnerTenant.objects.get()) == "connected"


# --- waves --------------------------------------------------------------------------------------------------------


def test_waves_are_worked_one_after_the_other(portal: Portal) -> None:
    first_customers(portal, 3)
    more_customers(portal, 6)

    done = apply(portal, waves=(1, 2))

    assert waves_of(done) == [1, 2, 6]
    finished = list(done.items.order_by("finished_at").values_list("wave", flat=True))
    assert finished == sorted(finished)
    assert (done.state, done.wave) == ("done", 2)


def test_a_wave_in_which_too_many_fail_is_the_last_until_a_person_lets_the_run_go_on(portal: Portal) -> None:
    first_customers(portal, 3)
    more_customers(portal, 5)
    refuse_posts(portal, skip=1, times=2)

    stopped = apply(portal, waves=(1, 3))

    assert state_of(stopped) == ("stopped", "paused")
    assert stopped.reason == "Too many failed in wave 2: 2 of 3 (2 failed, 1 ok). Northwind Cloud: 2 failed."
    assert len(requests(portal)) == 2  # faults are not booked under the operation's name
    incident = Incident.objects.get(cause="run_halted")
    assert "let it go on with Resume on its page" in incident.words
    assert summaries.summary(stopped).done == 4

    plan = ConsentPlan.objects.get()
    assert start_apply(plan, actor=builders.ACTOR) == (stopped, False)
    ended = work(stopped)

    assert ended.state == "done"
    assert summaries.summary(ended).classes == {"failed": 2, "ok": 6}
    assert not Incident.objects.open().exists()


# --- inside the lines ---------------------------------------------------------------------------------------------


def _own_tenant(customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(tenant_id=ApplicationRegistration.objects.get().home_tenant_id)


def _partner_tenant(customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(tenant_id=PartnerTenant.objects.get().tenant_id)


def _missing(customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(missing_since=timezone.now())


def _disabled(customer: CustomerTenant) -> None:
    PartnerTenant.objects.update(switch="disabled")


def _retired(customer: CustomerTenant) -> None:
    ApplicationRegistration.objects.update(state="retired")


@pytest.mark.req("S-52")
@pytest.mark.req("S-53")
@pytest.mark.parametrize("change", [_own_tenant, _partner_tenant, _missing, _disabled, _retired])
def test_what_left_the_lines_since_the_decision_is_not_called(
    portal: Portal, customer: CustomerTenant, change: Callable[[CustomerTenant], None]
) -> None:
    started, _ = start_apply(plan_for(portal), actor=builders.ACTOR)
    custody.ask(portal.consent())  # what a process asks once was asked
    change(customer)
    calls = len(portal.sandbox.world.ledger)

    work(started)

    assert len(portal.sandbox.world.ledger) == calls
    assert RunItem.objects.get().failure_class in {"held", "refused"}
    assert RunItem.objects.get().message


@pytest.mark.req("S-52")
def test_a_scope_that_left_the_allow_list_is_not_sent(
    portal: Portal, customer: CustomerTenant, settings: Settings
) -> None:
    started, _ = start_apply(plan_for(portal), actor=builders.ACTOR)
    custody.ask(portal.consent())
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH_APPLICATION_ID}/User.Read.All"]
    calls = len(portal.sandbox.world.ledger)

    work(started)

    assert len(portal.sandbox.world.ledger) == calls
    assert "CONSENT_GRANT_ALLOW_LIST" in the_item().message


@pytest.mark.req("S-52")
def test_a_tenant_that_is_not_in_the_partners_own_list_gets_nothing(portal: Portal) -> None:
    portal.onboard()
    foreign = next(
        tenant
        for partner, tenants in portal.sandbox.world.customers.items()
        for tenant in tenants
        if partner != portal.partner.tenant_id
    )
    builders.customer(portal.partner, tenant_id=foreign)

    apply(portal)

    assert requests(portal) == []
    assert the_item().result == ""
    assert the_item().message


@pytest.mark.req("S-51")
def test_a_customer_is_worked_with_the_token_of_its_own_partner_only(portal: Portal) -> None:
    first_customers(portal, 3)
    other = builders.partner(
        name="Southridge",
        tenant_id=next(t.tenant_id for t in portal.sandbox.world.tenants.values() if "southridge" in t.domain),
    )
    for tenant_id in portal.sandbox.world.customers[other.tenant_id]:
        builders.customer(other, tenant_id=tenant_id)

    apply(portal)

    assert portal.sandbox.world.crossings == []
    results = dict(ConsentPlanItem.objects.values_list("customer__partner__name", "action").distinct())
    assert results == {"Northwind Cloud": "create", "Southridge": "blocked"}  # which never consented


# --- widening and narrowing ---------------------------------------------------------------------------------------


def test_what_needs_a_reset_is_left_alone_unless_a_person_chooses_it(portal: Portal, customer: CustomerTenant) -> None:
    holds_already(portal, customer, {"Directory.Read.All"})
    plan = plan_for(portal)
    assert (the_item().action, the_item().needs_reset) == ("widen", True)

    with pytest.raises(PlanRefused, match="choose resets"):
        start_apply(plan, actor=builders.ACTOR)
    assert requests(portal) == []
    plan.refresh_from_db()
    assert plan.state == "shown"

    done = apply(portal, plan, reset=True)
    assert (state_of(done), the_consent().state) == (("done", "done"), "granted")
    assert requests(portal) == ["DELETE", "POST"]
    assert holds(portal, customer) == WANTED


def test_narrowing_takes_away_what_is_too_much(portal: Portal, customer: CustomerTenant) -> None:
    holds_already(portal, customer, WANTED | {"User.Read"})
    done = apply(portal, reset=True)
    assert the_item().action == "narrow"
    assert the_item().snapshot == {GRAPH_APPLICATION_ID: sorted(WANTED | {"User.Read"})}
    assert (state_of(done), holds(portal, customer)) == (("done", "done"), WANTED)


def test_another_resource_is_added_without_a_reset(
    portal: Portal, customer: CustomerTenant, settings: Settings
) -> None:
    holds_already(portal, customer, WANTED)
    _want_partner_center_too(portal, customer, settings)
    done = apply(portal)
    assert (the_item().action, the_item().needs_reset) == ("widen", False)
    assert (state_of(done), requests(portal)) == (("done", "done"), ["POST"])
    assert holds(portal, customer) == WANTED | {"user_impersonation"}


# --- a fault between DELETE and POST ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 400, 503])
def test_when_the_second_half_fails_the_grants_are_put_back(
    portal: Portal, customer: CustomerTenant, status: int
) -> None:
    before = {"Directory.Read.All", "User.Read"}
    holds_already(portal, customer, before)
    refuse_posts(portal, status=status)

    ended = apply(portal, reset=True)

    assert holds(portal, customer) == before
    assert the_item().result == "restored"
    assert the_item().message.startswith("The grants are as they were before.")
    assert (the_consent().state, state_of(ended)[1]) == ("differs", "paused")
    assert not Incident.objects.filter(cause="customer_grants_lost").exists()


def test_when_half_of_the_second_half_worked_exactly_what_was_there_is_put_back(
    portal: Portal, customer: CustomerTenant, settings: Settings
) -> None:
    holds_already(portal, customer, {"Directory.Read.All"})
    _want_partner_center_too(portal, customer, settings)
    refuse_posts(portal, skip=1)  # Graph got the new grants, Partner Center got none

    apply(portal, reset=True)

    assert holds(portal, customer) == {"Directory.Read.All"}
    assert the_item().result == "restored"
    assert requests(portal) == ["DELETE", "POST", "POST", "DELETE", "POST"]


@pytest.mark.req("S-52")
def test_what_was_there_is_put_back_even_when_the_allow_list_has_no_place_for_it(
    portal: Portal, customer: CustomerTenant, settings: Settings
) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH_APPLICATION_ID}/{scope}" for scope in WANTED]
    before = {"Directory.Read.All", "Organization.Read.All"}
    holds_already(portal, customer, before)
    refuse_posts(portal)
    apply(portal, reset=True)
    assert (the_item().result, holds(portal, customer)) == ("restored", before)


@pytest.mark.parametrize("status", [403, 503])
def test_when_putting_back_fails_too_it_is_said_loudly_and_a_resume_puts_it_right(
    portal: Portal, customer: CustomerTenant, status: int
) -> None:
    holds_already(portal, customer, {"Directory.Read.All", "User.Read"})
    refuse_posts(portal, times=2 if status == 403 else 100, status=status)

    stopped = apply(portal, reset=True)

    assert holds(portal, customer) == set()
    item = the_item()
    assert (item.result, item.owner, item.phase) == ("broken", "us", "removed")
    for scope in ("Directory.Read.All", "User.Read"):
        assert scope in item.message
        assert scope in the_consent().reason
    assert the_consent().state != "granted"
    assert state_of(stopped) == ("stopped", "paused")
    assert Incident.objects.open().filter(cause="customer_grants_lost").count() == 1
    assert Incident.objects.open().filter(cause="run_halted").count() == 1
    assert AuditEvent.objects.filter(action="consent_plan.grants_lost").exists()

    portal.sandbox.world.faults.clear()
    clients.reset()  # with the breaker that these faults opened
    assert service.resume(stopped, actor=builders.ACTOR)
    ended = work(stopped)

    assert (state_of(ended), holds(portal, customer)) == (("done", "done"), WANTED)
    assert the_item().result == "done"
    assert not Incident.objects.open().exists()


def test_a_broken_customer_stops_the_run_at_once_whatever_the_share(portal: Portal) -> None:
    for customer in [*first_customers(portal, 3), *more_customers(portal, 3)]:
        holds_already(portal, customer, {"Directory.Read.All"})
    refuse_posts(portal, times=2)
    stopped = apply(portal, reset=True, waves=(), stop_share=1.0)
    assert state_of(stopped) == ("stopped", "paused")
    assert ConsentPlanItem.objects.filter(result="broken").count() == 1


def test_a_removal_that_is_refused_changes_nothing(portal: Portal, customer: CustomerTenant) -> None:
    holds_already(portal, customer, {"Directory.Read.All"})
    fault(portal, service="partnercenter", method="DELETE", path="applicationconsents", status=403, body="{}")
    apply(portal, reset=True)
    assert (the_item().result, holds(portal, customer)) == ("failed", {"Directory.Read.All"})
    assert requests(portal) == []


@pytest.mark.req("S-53")
def test_a_partner_that_is_disabled_between_the_halves_gets_no_request_and_it_is_said_loudly(
    portal: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds_already(portal, customer, {"Directory.Read.All"})
    real = ApplicationConsentClient.remove

    def remove(self: ApplicationConsentClient, **arguments: Any) -> None:
        real(self, **arguments)
        PartnerTenant.objects.update(switch="disabled")

    monkeypatch.setattr(ApplicationConsentClient, "remove", remove)

    stopped = apply(portal, reset=True)

    assert requests(portal) == ["DELETE"]
    assert the_item().result == "broken"
    assert state_of(stopped) == ("stopped", "paused")
    assert Incident.objects.open().filter(cause="customer_grants_lost").exists()


# --- undo ---------------------------------------------------------------------------------------------------------


def test_an_undo_brings_each_customer_back_to_what_it_was(portal: Portal) -> None:
    created, widened = first_customers(portal, 2)
    holds_already(portal, widened, {"Directory.Read.All"})
    plan = plan_for(portal)
    apply(portal, plan, reset=True)
    assert (holds(portal, created), holds(portal, widened)) == (WANTED, WANTED)

    undone = apply(portal, make_undo(plan, actor=builders.ACTOR), reset=True)

    assert state_of(undone) == ("done", "done")
    assert (holds(portal, created), holds(portal, widened)) == (set(), {"Directory.Read.All"})
    states = {row.customer_id: row.state for row in portal.registration.customer_consents.all()}
    assert states == {created.pk: "absent", widened.pk: "partial"}


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.req("R-33")
def test_the_command_applies_a_plan_and_says_what_came_of_each_customer(portal: Portal) -> None:
    first_customers(portal, 3)
    plan = plan_for(portal)

    dry = run("apply_plan", plan.pk, "--dry-run")
    assert (dry.code, requests(portal)) == (0, [])
    assert "3 would be worked; nothing was sent." in dry.out

    ran = run("apply_plan", plan.pk, "--json", "--concurrency", 1)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line.get("result") for line in lines] == ["done", "done", "done", None]
    assert lines[-1]["summary"]["classes"] == {"ok": 3}
    assert_silent(portal, ran)

    again = run("apply_plan", plan.pk)
    assert (again.code, again.err) == (2, "Nothing is left to apply in this plan; make a new one.")


@pytest.mark.req("R-33")
def test_the_command_goes_on_with_a_plan_that_stopped(portal: Portal) -> None:
    first_customers(portal, 3)
    plan = plan_for(portal)
    refuse_posts(portal)

    stopped = run("apply_plan", plan.pk, "--concurrency", 1, "--stop-share", 0)
    assert stopped.code == 1
    assert "Too many failed in wave 1: 1 of 1 (1 failed)." in stopped.err
    assert "run_resume" in stopped.err

    ended = run("apply_plan", plan.pk, "--concurrency", 1)
    assert ended.code == 1  # one of them failed
    assert "3 of 3: 1 failed, 2 ok" in ended.out


@pytest.mark.req("R-33")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([999_999], "There is no plan 999999"),
        (["PLAN", "--waves", "0"], "Waves are numbers"),
        (["PLAN", "--stop-share", "2"], "the share goes from 0 to 1"),
        (["PLAN", "--concurrency", "0"], "--concurrency goes from 1"),
    ],
)
def test_usage_errors_end_with_2(portal: Portal, customer: CustomerTenant, arguments: list[object], words: str) -> None:
    plan = plan_for(portal)
    ran = run("apply_plan", *[plan.pk if each == "PLAN" else each for each in arguments])
    assert ran.code == 2
    assert words in ran.err
    assert not Run.objects.exists()


@pytest.mark.req("R-33")
def test_a_systemic_fault_stops_the_run_with_3_and_changes_no_customer(portal: Portal) -> None:
    first_customers(portal, 3)
    plan = plan_for(portal)
    portal.sandbox.world.applications[portal.registration.application_id].secrets.clear()
    clients.reset()
    ran = run("apply_plan", plan.pk, "--concurrency", 1)
    assert ran.code == 3
    assert {item.result for item in plan.items.all()} == {""}
    plan.refresh_from_db()
    assert plan.state == "stopped"
    assert requests(portal) == []
