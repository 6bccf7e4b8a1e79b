"""How many HTTP calls one customer costs, and which call proves what; counted by the sandbox's own ledger."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.models import ApplicationGrant, ConsentPlan, ConsentPlanItem
from consent.runs.verify import CONSENT_VERIFY
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID
from portal.runs import summaries
from portal.runs.models import Run, RunItem
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox import scenarios
from tests.sandbox.world import DIRECTORY_READERS
from tests.support import customer_tenants, fleet
from tests.support.plans import (
    apply,
    fault,
    first_customers,
    holds_already,
    more_customers,
    plan_for,
    requests,
    the_consent,
    the_item,
)
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db

MOST = 6
MOST_STATEMENTS = 36  # in one thread, which writes two results at a time; threads write more of them together
READINESS = {"list relationships", "list assignments", "list transitiveMemberOf"}


def young(age: timedelta = timedelta(hours=1)) -> None:
    """Let the mirror say that all customers are ready, as a sync of this age would."""
    then = timezone.now() - age
    CustomerTenant.objects.update(first_seen_at=then, judged_at=then, readiness="ready")
    PartnerTenant.objects.update(customers_synced_at=then, customers_judged_at=then)


def calls(portal: Portal) -> Counter[str]:
    """Count the HTTP calls since the last count, by what they are; parts of a batch are no calls."""
    ledger = portal.sandbox.world.ledger
    found = Counter(line["operation"] for line in ledger if not line.get("part"))
    ledger.clear()
    return found


@pytest.fixture
def customers(portal: Portal) -> list[CustomerTenant]:
    found = [*first_customers(portal, 3), *more_customers(portal, 7)]
    apply(portal, plan_for(portal, customers=[found.pop().pk]))  # the partner's tokens are kept from now on
    calls(portal)
    return found


def test_a_created_consent_costs_at_most_six_calls_while_the_mirror_is_young(
    portal: Portal, customers: list[CustomerTenant]
) -> None:
    young()

    done = apply(portal)

    found = calls(portal)
    assert summaries.summary(done).classes == {"ok": 9}
    assert sum(found.values()) <= MOST * 9
    assert found == {"token": 18, "create consent": 9, "batch": 9}, "refused, sent, new token, read"
    assert set(portal.registration.customer_consents.values_list("state", flat=True)) == {"granted"}


def test_a_created_consent_costs_few_statements(portal: Portal, customers: list[CustomerTenant]) -> None:
    young()
    three, nine = plan_for(portal, customers=[one.pk for one in customers[:2]]), plan_for(portal)

    def statements(plan: ConsentPlan) -> int:
        with CaptureQueriesContext(connection) as asked:
            apply(portal, plan, waves=())
        return len(asked)

    few, many = statements(three), statements(nine)

    assert set(portal.registration.customer_consents.values_list("state", flat=True)) == {"granted"}
    assert (many - few) / 5 <= MOST_STATEMENTS


@pytest.mark.parametrize("age", [timedelta(hours=25), timedelta(days=30)])
def test_with_an_old_mirror_customer_and_relationships_are_asked_anew(
    portal: Portal, customers: list[CustomerTenant], age: timedelta
) -> None:
    young(age)

    apply(portal)

    found = calls(portal)
    assert found["get customer"] == 9
    assert all(found[name] == 9 for name in READINESS)


@pytest.mark.parametrize(
    "columns",
    [
        {"readiness": "unverified"},
        {"readiness": "unknown", "judged_at": None},
        {"last_seen_at": timezone.now() - timedelta(hours=25)},
        {"judged_at": None},
        {"readiness": "not_ready", "readiness_owner": "nobody"},
        {"gdap_ends_at": timezone.now() - timedelta(minutes=1)},
    ],
    ids=["unverified", "unknown", "listed long ago", "never judged", "settling", "ended"],
)
def test_what_the_mirror_does_not_call_ready_is_asked_anew(
    portal: Portal, customers: list[CustomerTenant], columns: dict[str, object]
) -> None:
    young()
    CustomerTenant.objects.filter(pk=customers[0].pk).update(**columns)

    apply(portal, plan_for(portal, customers=[customers[0].pk]))

    assert calls(portal).keys() > READINESS


def test_two_resources_cost_one_call_more(portal: Portal, customers: list[CustomerTenant], settings: Settings) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [
        *settings.CONSENT_GRANT_ALLOW_LIST,
        f"{PARTNER_CENTER_APPLICATION_ID}/user_impersonation",
    ]
    ApplicationGrant.objects.create(
        registration=portal.registration,
        resource_application_id=PARTNER_CENTER_APPLICATION_ID,
        scopes=["user_impersonation"],
    )
    tenant = portal.sandbox.world.tenants[customers[0].tenant_id]
    tenant.add_principal(PARTNER_CENTER_APPLICATION_ID, "Partner Center")
    young()

    apply(portal, plan_for(portal, customers=[customers[0].pk]))

    assert sum(calls(portal).values()) == 5
    assert customer_tenants.consent_of(customers[0]).state == "granted"


def test_a_push_a_removal_and_a_read_cost_no_more(portal: Portal, customers: list[CustomerTenant]) -> None:
    young()
    customer_tenants.push(portal, customers[0])
    pushed = sum(calls(portal).values())
    customer_tenants.work(CONSENT_VERIFY, {"customer": [customers[0].tenant_id]}, concurrency=1)
    read = sum(calls(portal).values())
    customer_tenants.remove({"customer": [customers[0].tenant_id]})
    removed = sum(calls(portal).values())

    assert (pushed, read, removed) == (4, 2, 4)
    assert customer_tenants.consent_of(customers[0]).state == "absent"


def test_what_loses_its_grants_on_the_way_is_asked_about_whatever_the_mirror_says(
    portal: Portal, customers: list[CustomerTenant]
) -> None:
    holds_already(portal, customers[0], {"Directory.Read.All"})
    young()

    apply(portal, plan_for(portal, customers=[customers[0].pk]), reset=True)

    assert {*READINESS, "get customer"} < calls(portal).keys()


# --- a mirror that is young and wrong ---------------------------------------------------------------------------------


@pytest.mark.req("R-24")
def test_a_role_that_was_lost_since_the_sync_is_said_as_that_after_the_refusal(portal: Portal) -> None:
    [customer] = first_customers(portal)
    young()
    for assignment in customer_tenants.relationship(portal, customer).assignments:
        assignment.roles = {DIRECTORY_READERS}

    apply(portal)

    assert (the_item().result, the_item().owner) == ("held", "partner")
    assert "Cloud Application Administrator" in the_item().message
    assert the_consent().state == "blocked"
    assert customer_tenants.holds(portal, customer) == set()


def test_a_relationship_that_ended_since_the_sync_is_said_as_that(portal: Portal) -> None:
    [customer] = first_customers(portal)
    young()
    customer_tenants.end_relationship(portal, customer)

    apply(portal)

    assert (the_item().result, the_item().owner) == ("held", "partner")
    assert "No active GDAP relationship" in the_item().message


def test_a_partner_that_lost_its_role_since_the_sync_is_asked_once_and_its_others_are_held(portal: Portal) -> None:
    harbour = fleet.connected(portal, "harbour", "Harbour", 3)
    first_customers(portal, 3)
    plan = plan_for(portal)
    young()
    fleet.take_role(portal, harbour)
    calls(portal)

    done = apply(portal, plan, waves=(1, 3))

    assert summaries.summary(done).classes == {"token_not_permitted": 1, "held": 2, "ok": 3}
    results = ConsentPlanItem.objects.filter(customer__partner=harbour).values_list("result", "owner")
    assert set(results) == {("held", "partner")}
    assert all("cannot serve its customers" in one.message for one in RunItem.objects.filter(group=harbour.pk))


@pytest.mark.req("S-52")
def test_a_tenant_that_the_partner_does_not_have_gets_nothing_even_when_the_mirror_names_it(portal: Portal) -> None:
    [customer] = first_customers(portal)
    foreign = next(
        tenant
        for partner, tenants in portal.sandbox.world.customers.items()
        for tenant in tenants
        if partner != portal.partner.tenant_id
    )
    CustomerTenant.objects.filter(pk=customer.pk).update(tenant_id=foreign)
    young()

    apply(portal)

    assert requests(portal) == []
    assert the_item().result != "done"
    assert customer_tenants.holds(portal, CustomerTenant.objects.get()) == set()


# --- one read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 403])
def test_a_part_that_a_batch_does_not_answer_is_asked_by_a_call_of_its_own(portal: Portal, status: int) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    fault(portal, service="graph", tenant=customer.tenant_id, path="oauth2PermissionGrants", status=status, body="{}")
    calls(portal)

    customer_tenants.work(CONSENT_VERIFY, {"customer": [customer.tenant_id]}, concurrency=1)

    found = calls(portal)
    assert (found["batch"], found["list grants"]) == (1, 1)
    assert customer_tenants.consent_of(customer).state == "granted"


def test_throttled_parts_are_asked_again_one_by_one(portal: Portal) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    portal.sandbox.world.switches["graph_throttled_parts"] = 20

    customer_tenants.work(CONSENT_VERIFY, {"customer": [customer.tenant_id]}, concurrency=1)

    assert customer_tenants.consent_of(customer).state == "granted"


def test_a_resource_that_nobody_expected_is_read_as_well(portal: Portal) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    tenant = portal.sandbox.world.tenants[customer.tenant_id]
    tenant.add_principal(PARTNER_CENTER_APPLICATION_ID, "Partner Center")
    tenant.grant(scenarios.application_id(), PARTNER_CENTER_APPLICATION_ID, {"user_impersonation"})

    customer_tenants.work(CONSENT_VERIFY, {"customer": [customer.tenant_id]}, concurrency=1)

    row = customer_tenants.consent_of(customer)
    assert (row.state, row.actual_grants[PARTNER_CENTER_APPLICATION_ID]) == ("differs", ["user_impersonation"])


def test_a_read_that_is_refused_in_each_way_is_never_absent(portal: Portal) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    fault(portal, service="graph", tenant=customer.tenant_id, path="servicePrincipals", status=404, body="{}", times=99)

    ended: Run = customer_tenants.work(CONSENT_VERIFY, {"customer": [customer.tenant_id]}, concurrency=1)

    assert customer_tenants.consent_of(customer).state == "unknown"
    assert "ok" not in customer_tenants.classes(ended)
