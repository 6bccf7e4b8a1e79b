"""Push and verify: a customer's state is what a read in its tenant showed; nothing is sent outside the lines.

Covers: consent.microsoft.application_consents, consent.microsoft.directory.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.customers.consents import compare
from consent.customers.plans import PlanRefused
from consent.grants import Grants
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.directory import Grant, Presence
from consent.models import ApplicationGrant, ApplicationRegistration, ConsentPlan, CustomerConsent
from consent.states import state_of
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID
from portal.microsoft.errors import NotFound, RemoteError, Throttled
from portal.microsoft.identifiers import ApplicationId, ObjectId, RequestId, TenantId, new_correlation_id
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox.world import DIRECTORY_READERS, Fault, Refusal, Relationship
from tests.support import builders, custody, customer_tenants
from tests.support.portal import Portal

WANTED = {"User.Read.All", "Directory.Read.All"}
STRANGER = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


@pytest.fixture
def customer(connected: Portal) -> CustomerTenant:
    return custody.first_customer(connected)


def send(portal: Portal, customer: CustomerTenant) -> CustomerConsent:
    """Push and read back at once."""
    customer_tenants.push(portal, customer)
    return customer_tenants.consent_of(customer)


def on_create(monkeypatch: pytest.MonkeyPatch, first: Callable[..., None]) -> None:
    """Let something happen before each request that creates a consent."""
    real = ApplicationConsentClient.create

    def create(self: ApplicationConsentClient, **arguments: Any) -> None:
        first(**arguments)
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "create", create)


def booked(portal: Portal, operation: str) -> list[dict[str, Any]]:
    return [line for line in portal.sandbox.world.ledger if line["operation"] == operation]


def posts(portal: Portal) -> int:
    return len(booked(portal, "create consent"))


def relationship(portal: Portal, customer: CustomerTenant) -> Relationship:
    return next(one for one in portal.sandbox.world.relationships if one.customer == customer.tenant_id)


def actual(portal: Portal, customer: CustomerTenant) -> set[str]:
    """What the customer's tenant holds of our application, from the sandbox's own books."""
    grants = portal.sandbox.world.tenants[customer.tenant_id].grants.values()
    return {scope for grant in grants for scope in grant.scopes}


# --- the good way -------------------------------------------------------------------------------------------------


def test_a_push_ends_granted_with_evidence_and_an_intent_before_the_post(
    connected: Portal, customer: CustomerTenant
) -> None:
    result = send(connected, customer)

    assert (result.state, result.reason, result.owner) == ("granted", "", "")
    assert actual(connected, customer) == WANTED
    assert result.actual_grants == {GRAPH_APPLICATION_ID: sorted(WANTED)}
    assert result.verified_at is not None
    assert result.wanted_hash == result.requested_hash == Grants({GRAPH_APPLICATION_ID: sorted(WANTED)}).digest
    observation = result.observations.get()
    assert (observation.state, observation.service_principal_id) == ("granted", result.service_principal_id)
    assert [
        (event.action, event.outcome)
        for event in AuditEvent.objects.filter(action__startswith="customer_consent").order_by("sequence")
    ] == [("customer_consent.create", "intent"), ("customer_consent.observed", "done")]
    assert (posts(connected), len(booked(connected, "delete consent"))) == (1, 0)
    assert connected.sandbox.world.crossings == []


@pytest.mark.req("R-20")
def test_the_intent_is_stored_before_the_post_leaves(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(**arguments: Any) -> None:
        row = CustomerConsent.objects.get()
        seen.append((row.request_id, row.requested_hash, row.requested_at is not None))
        assert AuditEvent.objects.filter(outcome="intent", details__request_id=row.request_id).exists()

    on_create(monkeypatch, look)
    send(connected, customer)

    assert len(seen) == 1
    assert uuid.UUID(seen[0][0])


@pytest.mark.req("R-20")
def test_an_effect_behind_a_failure_is_looked_up_and_nothing_is_sent_again(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[RequestId] = []

    def effect_first(**arguments: Any) -> None:
        sent.append(arguments["request_id"])
        custody.consent_directly(connected, customer, set(WANTED))

    on_create(monkeypatch, effect_first)
    connected.sandbox.world.faults.append(Fault(service="partnercenter", path="applicationconsents", status=500))

    assert send(connected, customer).state == "granted"
    assert send(connected, customer).state == "granted"
    assert (len(sent), posts(connected)) == (1, 0)


def test_other_grants_are_another_intent(connected: Portal, customer: CustomerTenant) -> None:
    connected.sandbox.world.switches["consent_grants_nothing"] = True
    first = send(connected, customer).request_id
    again = send(connected, customer).request_id
    ApplicationGrant.objects.update(scopes=["User.Read.All"])

    other = send(connected, customer).request_id

    assert first == again != other


# --- what is there already ----------------------------------------------------------------------------------------


@pytest.mark.req("R-21")
def test_equal_grants_that_exist_are_granted_without_a_post(connected: Portal, customer: CustomerTenant) -> None:
    custody.consent_directly(connected, customer, set(WANTED))

    assert send(connected, customer).state == "granted"

    assert posts(connected) == 0
    assert not AuditEvent.objects.filter(outcome="intent").exists()


@pytest.mark.req("R-21")
@pytest.mark.parametrize(
    ("there", "state", "words"),
    [
        (WANTED | {"Directory.ReadWrite.All"}, "differs", "More than we want: Directory.ReadWrite.All."),
        ({"Directory.Read.All", "Group.ReadWrite.All"}, "differs", "Missing: User.Read.All."),
        ({"Directory.Read.All"}, "partial", "Missing: User.Read.All."),
    ],
    ids=["more", "other", "fewer"],
)
def test_a_difference_is_shown_and_never_repaired_by_force(
    connected: Portal, customer: CustomerTenant, there: set[str], state: str, words: str
) -> None:
    custody.consent_directly(connected, customer, set(there))

    result = send(connected, customer)

    assert result.state == state
    assert words in result.reason
    assert result.owner == "us"
    assert (posts(connected), len(booked(connected, "delete consent"))) == (0, 0)
    assert actual(connected, customer) == there


@pytest.mark.req("R-21")
@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.parametrize(
    ("there", "state"),
    [(WANTED, "granted"), ({"Directory.Read.All"}, "differs"), (WANTED | {"Group.Read.All"}, "differs")],
)
def test_already_exists_means_look(
    connected: Portal,
    customer: CustomerTenant,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    there: set[str],
    state: str,
) -> None:
    connected.sandbox.world.switches["consent_exists_status"] = status
    on_create(monkeypatch, lambda **arguments: custody.consent_directly(connected, customer, set(there)))

    result = send(connected, customer)

    assert booked(connected, "create consent")[-1]["status"] == status
    assert result.state == state
    assert actual(connected, customer) == there
    assert booked(connected, "delete consent") == []


@pytest.mark.req("R-21")
def test_already_exists_and_a_read_that_fails_leave_nobody_knowing(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def consented_meanwhile(**arguments: Any) -> None:
        custody.consent_directly(connected, customer, {"Directory.Read.All"})
        connected.sandbox.world.faults.append(
            Fault(service="graph", tenant=customer.tenant_id, path="servicePrincipals", status=403, body="{}", times=99)
        )

    on_create(monkeypatch, consented_meanwhile)

    assert customer_tenants.classes(customer_tenants.push(connected, customer)) == {"not_permitted": 1}

    row = CustomerConsent.objects.get()
    assert (row.state, row.reason) == ("unknown", "A request was sent, and its result was not read yet.")


# --- accepted is not granted --------------------------------------------------------------------------------------


def test_a_created_that_grants_nothing_is_waiting_never_granted(connected: Portal, customer: CustomerTenant) -> None:
    connected.sandbox.world.switches["consent_grants_nothing"] = True

    run = customer_tenants.push(connected, customer, wait=1)

    assert booked(connected, "create consent")[-1]["status"] == 201
    row = customer_tenants.consent_of(customer)
    assert (row.state, row.service_principal_id, row.failed_at) == ("waiting", "", None)
    assert (run.state, customer_tenants.classes(run)) == ("done", {"waiting": 1})
    assert ConsentPlan.objects.get().state == "stopped", "something is left to look at"
    assert posts(connected) == 1


@pytest.mark.req("R-23")
def test_slow_directories_are_waited_for_as_long_as_it_was_said(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consent.customers.applying._FIRST_LOOK", 1.0)
    connected.sandbox.world.switches["consent_visible_after"] = 1

    assert customer_tenants.classes(customer_tenants.push(connected, customer, wait=30)) == {"ok": 1}

    assert (customer_tenants.consent_of(customer).state, posts(connected)) == ("granted", 1)


@pytest.mark.req("R-23")
def test_what_shows_after_the_wait_needs_no_second_request(connected: Portal, customer: CustomerTenant) -> None:
    connected.sandbox.world.switches["consent_visible_after"] = 1800
    assert send(connected, customer).state == "waiting"

    connected.sandbox.world.advance(1800)

    assert send(connected, customer).state == "granted"
    assert posts(connected) == 1


def test_a_read_that_is_refused_leaves_the_state_as_it_was(connected: Portal, customer: CustomerTenant) -> None:
    send(connected, customer)
    connected.sandbox.world.faults.append(
        Fault(service="graph", tenant=customer.tenant_id, path="servicePrincipals", status=403, body="{}", times=99)
    )

    assert "ok" not in customer_tenants.classes(customer_tenants.read(connected, customer))

    assert CustomerConsent.objects.get().state == "granted"


@pytest.mark.parametrize("code", [50020, 53003, 50173, 700082])
def test_a_tenant_that_locks_us_out_is_not_called_absent(
    connected: Portal, customer: CustomerTenant, code: int
) -> None:
    send(connected, customer)
    clients.tokens().forget(connected.consent().pk)
    connected.sandbox.world.refusals.append(Refusal(code=code, tenant_id=customer.tenant_id))

    customer_tenants.read(connected, customer)

    assert CustomerConsent.objects.get().state == "granted"


@pytest.mark.parametrize("code", [65001, 700016, 90099])
def test_a_tenant_that_knows_no_consent_of_ours_is_absent(
    connected: Portal, customer: CustomerTenant, code: int
) -> None:
    connected.sandbox.world.switches["customer_not_consented"] = code

    customer_tenants.read(connected, customer)

    result = customer_tenants.consent_of(customer)
    assert (result.state, result.reason) == ("absent", "The application is not in this tenant.")


# --- readiness ----------------------------------------------------------------------------------------------------


def _no_relationship(portal: Portal, one: Relationship) -> None:
    portal.sandbox.world.relationships.remove(one)


def _pending(portal: Portal, one: Relationship) -> None:
    one.status, one.activated, one.ends = "approvalPending", None, None
    one.assignments.clear()


def _expired(portal: Portal, one: Relationship) -> None:
    one.status, one.ends = "expired", portal.sandbox.world.now() - 60


def _no_group(portal: Portal, one: Relationship) -> None:
    one.assignments.clear()


def _wrong_roles(portal: Portal, one: Relationship) -> None:
    for assignment in one.assignments:
        assignment.roles = {DIRECTORY_READERS}


@pytest.mark.parametrize(
    ("change", "words", "owner"),
    [
        (_no_relationship, "No active GDAP relationship", "partner"),
        (_pending, "waits for the customer's approval", "customer"),
        (_expired, "No active GDAP relationship", "partner"),
        (_no_group, "no security group is assigned", "partner"),
        (_wrong_roles, "Cloud Application Administrator", "partner"),
    ],
)
def test_a_customer_that_is_not_ready_is_blocked_with_the_reason_and_nothing_is_sent(
    connected: Portal,
    customer: CustomerTenant,
    change: Callable[[Portal, Relationship], None],
    words: str,
    owner: str,
) -> None:
    change(connected, relationship(connected, customer))

    result = send(connected, customer)

    assert (result.state, result.owner) == ("blocked", owner)
    assert words in result.reason
    assert posts(connected) == 0
    assert not AuditEvent.objects.filter(outcome="intent").exists()
    assert AuditEvent.objects.get(action="customer_consent.create").outcome == "refused"
    assert not result.observations.exists()


@pytest.mark.req("R-24")
def test_an_account_outside_the_assigned_group_is_blocked_with_a_remedy_for_this_customer(
    connected: Portal, customer: CustomerTenant
) -> None:
    for assignment in relationship(connected, customer).assignments:
        assignment.group = builders.guid()

    result = send(connected, customer)

    assert result.state == "blocked"
    assert result.owner == "partner"
    assert "in none of the groups" in result.reason
    assert posts(connected) == 0


@pytest.mark.req("R-24")
def test_an_account_in_a_group_within_the_assigned_group_is_as_good_as_a_direct_member(
    connected: Portal, customer: CustomerTenant
) -> None:
    outer = builders.guid()
    [assignment] = relationship(connected, customer).assignments
    tenant = connected.sandbox.world.tenants[connected.partner.tenant_id]
    tenant.groups[outer] = "All who may consent"
    tenant.nested[assignment.group] = {outer}
    assignment.group = outer

    assert send(connected, customer).state == "granted"
    assert posts(connected) == 1


@pytest.mark.req("R-24")
@pytest.mark.parametrize("status", [403, 400])
def test_insufficient_privileges_are_this_customers_failure(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    connected.sandbox.world.switches["consent_denied_status"] = status
    on_create(monkeypatch, lambda **arguments: _wrong_roles(connected, relationship(connected, customer)))

    result = send(connected, customer)

    assert booked(connected, "create consent")[-1]["status"] == status
    assert result.state == "failed"
    assert result.reason
    assert AuditEvent.objects.filter(action="customer_consent.create", outcome="failed").count() == 1
    assert state_of(PartnerTenant.objects.get()) == "connected"


@pytest.mark.req("R-24")
def test_a_missing_resource_is_this_customers_failure_and_does_not_lose_the_other_resource(
    connected: Portal, customer: CustomerTenant, settings: Settings
) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [
        *settings.CONSENT_GRANT_ALLOW_LIST,
        f"{PARTNER_CENTER_APPLICATION_ID}/user_impersonation",
    ]
    ApplicationGrant.objects.create(
        registration=connected.registration,
        resource_application_id=PARTNER_CENTER_APPLICATION_ID,
        scopes=["user_impersonation"],
    )

    result = send(connected, customer)

    assert posts(connected) == 2
    assert {line["status"] for line in booked(connected, "create consent")} == {201, 400}
    assert result.state == "failed"
    assert actual(connected, customer) == WANTED


def test_a_definite_refusal_is_not_hidden_by_a_later_unclear_answer(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    nowhere = "ffffffff-0000-4000-8000-000000000001"
    settings.CONSENT_GRANT_ALLOW_LIST = [
        *settings.CONSENT_GRANT_ALLOW_LIST,
        f"{nowhere}/Things.Read",
    ]
    ApplicationGrant.objects.create(
        registration=connected.registration, resource_application_id=nowhere, scopes=["Things.Read"]
    )
    answers: list[RemoteError] = [
        NotFound("partner_center", "create", status=400, code="resource_missing"),
        Throttled("partner_center", "create", status=429),
    ]

    def create(**arguments: Any) -> None:
        raise answers.pop(0)

    on_create(monkeypatch, create)

    assert (send(connected, customer).state, answers) == ("failed", [])


def test_a_throttled_post_was_not_accepted_and_is_sent_again_with_the_same_request_id(
    connected: Portal, customer: CustomerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[RequestId] = []
    on_create(monkeypatch, lambda **arguments: sent.append(arguments["request_id"]))
    connected.sandbox.world.faults.append(
        Fault(service="partnercenter", path="applicationconsents", status=429, headers={"Retry-After": "1"})
    )

    assert send(connected, customer).state == "granted"
    assert (len(sent), len(set(sent)), posts(connected)) == (2, 1, 1)


# --- inside the lines ---------------------------------------------------------------------------------------------


def _own_tenant(portal: Portal, customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(tenant_id=portal.registration.home_tenant_id)


def _partner_tenant(portal: Portal, customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(tenant_id=portal.partner.tenant_id)


def _extra_scope(portal: Portal, customer: CustomerTenant) -> None:
    ApplicationGrant.objects.update(scopes=["User.Read.All", "Directory.ReadWrite.All"])


def _other_resource(portal: Portal, customer: CustomerTenant) -> None:
    ApplicationGrant.objects.update(resource_application_id=STRANGER)


def _missing(portal: Portal, customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(missing_since=timezone.now())


def _other_cloud(portal: Portal, customer: CustomerTenant) -> None:
    PartnerTenant.objects.update(cloud="china")


def _retired(portal: Portal, customer: CustomerTenant) -> None:
    ApplicationRegistration.objects.update(state="retired")


def _disabled(portal: Portal, customer: CustomerTenant) -> None:
    PartnerTenant.objects.update(switch="disabled")


@pytest.mark.req("S-52")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_own_tenant, "our own tenant"),
        (_partner_tenant, "the partner's or our own"),
        (_extra_scope, "Directory.ReadWrite.All"),
        (_other_resource, "CONSENT_GRANT_ALLOW_LIST"),
        (_missing, "no longer lists"),
        (_other_cloud, "cloud"),
        (_retired, "not active"),
        (_disabled, "disabled"),
    ],
)
def test_a_push_outside_the_lines_is_refused_before_any_call_and_audited(
    connected: Portal, customer: CustomerTenant, change: Callable[[Portal, CustomerTenant], None], words: str
) -> None:
    custody.ask(connected.consent())  # what a process asks once was asked
    change(connected, customer)
    calls = len(connected.sandbox.world.ledger)

    run = customer_tenants.push(connected, customer)

    assert len(connected.sandbox.world.ledger) == calls
    assert customer_tenants.classes(run) == {"refused": 1}
    assert run.items.get().message.startswith("Nothing was sent: ")
    event = AuditEvent.objects.get(action="customer_consent.create")
    assert event.outcome == "refused"
    assert words in event.details["reason"]


def test_a_push_without_wanted_grants_is_refused_before_there_is_a_run(
    connected: Portal, customer: CustomerTenant
) -> None:
    ApplicationGrant.objects.all().delete()
    with pytest.raises(PlanRefused, match="no wanted grants"):
        customer_tenants.push(connected, customer)
    assert not Run.objects.exists()


@pytest.mark.req("S-52")
def test_a_tenant_that_is_not_in_the_partners_own_list_is_refused(connected: Portal) -> None:
    foreign = next(
        tenant
        for partner, tenants in connected.sandbox.world.customers.items()
        for tenant in tenants
        if partner != connected.partner.tenant_id
    )
    customer = builders.customer(connected.partner, tenant_id=foreign)

    run = customer_tenants.push(connected, customer)

    assert posts(connected) == 0
    assert set(customer_tenants.classes(run)) <= {"not_permitted", "not_found"}
    assert customer_tenants.consent_of(customer).state == "unknown"


# --- comparing ----------------------------------------------------------------------------------------------------


def presence(*scopes: str, resource: str = GRAPH_APPLICATION_ID, principal: bool = True) -> Presence:
    grant = Grant(grant_id="g", resource=ApplicationId(resource), scopes=frozenset(scopes))
    return Presence(service_principal_id=ObjectId(STRANGER) if principal else None, grants=(grant,) if scopes else ())


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (presence("user.read.all", "DIRECTORY.READ.ALL"), "granted"),
        (presence("User.Read.All"), "partial"),
        (presence("User.Read.All", "Directory.Read.All", "Mail.Read"), "differs"),
        (presence("User.Read.All", "Directory.Read.All", resource=STRANGER), "differs"),
        (presence(), "absent"),
        (presence(principal=False), "absent"),
    ],
)
def test_wanted_and_actual_grants_compare_by_resource_and_without_regard_to_case(seen: Presence, state: str) -> None:
    assert compare(Grants({GRAPH_APPLICATION_ID: sorted(WANTED)}), seen)[0] == state


def test_a_grant_for_one_user_only_is_not_a_consent_of_the_tenant(connected: Portal, customer: CustomerTenant) -> None:
    custody.consent_directly(connected, customer, {"Directory.Read.All", "User.Read.All"})
    tenant = connected.sandbox.world.tenants[customer.tenant_id]
    made = clients.customer_clients(connected.consent(), customer, new_correlation_id(), by=builders.BY)
    assert made.directory.presence(connected.registration.client_id).grants
    for grant in tenant.grants.values():
        grant.consent_type, grant.principal = "Principal", STRANGER

    assert made.directory.presence(connected.registration.client_id).grants == ()


def test_removing_a_consent_that_is_not_there_is_success(connected: Portal, customer: CustomerTenant) -> None:
    send(connected, customer)
    made = clients.customer_clients(connected.consent(), customer, new_correlation_id(), by=builders.BY)

    for number in range(2):
        made.consents.remove(
            customer=TenantId(customer.tenant_id),
            application_id=connected.registration.client_id,
            request_id=RequestId(f"11111111-2222-4333-8444-55555555555{number}"),
        )

    assert actual(connected, customer) == set()
    assert [line["status"] for line in booked(connected, "delete consent")] == [200, 404]
    customer_tenants.read(connected, customer)
    after = customer_tenants.consent_of(customer)
    assert (after.state, after.actual_grants) == ("absent", {})
