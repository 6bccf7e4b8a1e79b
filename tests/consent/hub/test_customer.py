"""One customer tenant: for each application what is there, why, who acts, and what was done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.hub.customer import CustomerFacts, facts_of_customer, next_step_of_customer
from consent.hub.steps import Action, NextStep
from consent.models import ApplicationRegistration, CustomerConsent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.microsoft.diagnosis import Owner
from tenants.gdap_path import Holds
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant
from tenants.readiness import CONSENT_ROLES
from tests.support import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def registration() -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All", "Directory.Read.All")
    return made


@pytest.fixture
def customer(registration: ApplicationRegistration) -> CustomerTenant:
    partner = builders.partner(name="Northwind Cloud")
    builders.consent(partner, registration, last_class="ok", last_success_at=timezone.now())
    made = builders.customer(partner, readiness="ready")
    seen = {"first_seen_at": timezone.now(), "last_seen_at": timezone.now()}
    relationship = GdapRelationship.objects.create(
        partner=partner, customer=made, relationship_id="one", status="active", roles=list(CONSENT_ROLES), **seen
    )
    relationship.assignments.create(assignment_id="a", status="active", group_id="g", roles=list(CONSENT_ROLES), **seen)
    return made


def facts(customer: CustomerTenant) -> CustomerFacts:
    return facts_of_customer(customer.pk, timezone.now())


def step(customer: CustomerTenant) -> NextStep:
    return next_step_of_customer(facts(customer))


def test_a_ready_customer_that_was_never_looked_at_is_to_be_planned(customer: CustomerTenant) -> None:
    [holding] = facts(customer).holdings
    assert (holding.consent, holding.evidence, holding.timeline) == (None, None, ())
    assert {one.state for one in holding.permissions} == {"Not looked at"}
    found = step(customer)
    assert (found.what, found.actions) == ("The tenant was never looked at.", (Action.PLAN, Action.READ_AGAIN))


def test_wanted_and_seen_are_compared_by_name(customer: CustomerTenant, registration: ApplicationRegistration) -> None:
    builders.customer_consent(customer, registration, "User.Read.All", "Mail.Read", state="differs", owner="us")
    [holding] = facts(customer).holdings
    assert [(one.name, one.state) for one in holding.permissions] == [
        ("Directory.Read.All", "Missing"),
        ("User.Read.All", "Granted"),
        ("Mail.Read", "Granted, not wanted"),
    ]
    found = step(customer)
    assert (found.what, found.owner) == ("Differs from what we want.", Owner.US)
    assert found.actions[0] is Action.PLAN


def test_a_consent_that_was_never_read_shows_nothing_as_missing(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    CustomerConsent.objects.create(customer=customer, registration=registration)
    [holding] = facts(customer).holdings
    assert {one.state for one in holding.permissions} == {"Not looked at"}


def test_a_granted_customer_needs_nothing(customer: CustomerTenant, registration: ApplicationRegistration) -> None:
    builders.customer_consent(customer, registration, "User.Read.All", "Directory.Read.All")
    assert (step(customer).owner, step(customer).actions) == (None, (Action.READ_AGAIN,))


@pytest.mark.parametrize(
    ("columns", "what", "owner"),
    [
        ({"state": "waiting"}, "Microsoft accepted the request and does not show it yet.", Owner.NOBODY),
        ({"state": "absent"}, "Nothing is granted yet.", Owner.US),
        (
            {"failed_what": "apply", "failed_reason": "The role is gone.", "failed_owner": "partner"},
            "Applying a plan failed.", Owner.PARTNER,
        ),
        ({"state": "absent", "requested_hash": ""}, "The consent was removed, and it is gone.", None),
    ],
)  # fmt: skip
def test_what_failed_waits_or_was_removed_says_so(
    customer: CustomerTenant,
    registration: ApplicationRegistration,
    columns: dict[str, Any],
    what: str,
    owner: Owner | None,
) -> None:
    now = timezone.now()
    columns |= {"failed_at": now} if "failed_what" in columns else {}
    columns |= {"requested_at": now - timedelta(hours=1)} if "requested_hash" in columns else {}
    builders.customer_consent(customer, registration, **columns)
    assert (step(customer).what, step(customer).owner) == (what, owner)


def test_a_customer_that_is_not_ready_names_the_broken_edge(customer: CustomerTenant) -> None:
    CustomerTenant.objects.update(readiness="not_ready", readiness_owner="partner")
    found = step(customer)
    assert (found.what, found.owner) == ("The customer is not ready for consent: Service account.", Owner.PARTNER)
    assert facts(customer).path[-1].holds is Holds.NO
    GdapRelationship.objects.update(status="approvalPending")
    assert step(customer).owner is Owner.CUSTOMER


def test_what_is_wrong_with_the_partner_comes_first(customer: CustomerTenant) -> None:
    customer.partner.consents.update(state="needs_consent", last_problem="needs_consent", last_message="Revoked.")
    found = step(customer)
    assert found.what == "The partner's token cannot serve its customers."
    assert (found.remedy, found.owner) == ("Needs consent again. Revoked.", Owner.PARTNER)
    CustomerTenant.objects.update(missing_since=timezone.now())
    assert "does not list this customer" in step(customer).what
    PartnerTenant.objects.update(switch="disabled")
    assert step(customer).what.startswith("Northwind Cloud is disabled")


def test_a_customer_of_two_partners_names_the_other_one(customer: CustomerTenant) -> None:
    other = builders.customer(builders.partner(name="Alder"), tenant_id=customer.tenant_id)
    assert facts(customer).others == (other,)
    assert [one.partner.name for one in facts(other).others] == ["Northwind Cloud"]
    assert facts(other).holdings == ()
    assert step(other).what == "The partner consented to none of our applications."


def test_reads_requests_and_plans_are_one_timeline(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    now = timezone.now()
    consent = builders.customer_consent(
        customer, registration, "User.Read.All", requested_at=now, requested_hash="1", requested_by="anna",
        unread_since=now, unread_reason="A policy blocks us.", unread_owner="customer", tried_at=now,
    )  # fmt: skip
    consent.observations.create(
        registration=consent.registration,
        observed_at=now - timedelta(days=1), state="granted", added={GRAPH_APPLICATION_ID: ["User.Read.All"]},
        changed_by="us", actor="anna", correlation_id=builders.guid(),
    )  # fmt: skip
    consent.observations.create(
        registration=consent.registration,
        observed_at=now - timedelta(hours=1), state="differs", removed={GRAPH_APPLICATION_ID: ["Mail.Read"]},
        changed_by="outside", correlation_id=builders.guid(), service_principal_id=builders.guid(),
    )  # fmt: skip
    plan = registration.plans.create(purpose="remove", created_by="anna")
    plan.items.create(
        customer=customer, action="remove", result="failed", message="Not allowed.", finished_at=now, reason="Takes it."
    )
    [holding] = facts(customer).holdings
    lines = {event.text: event.detail for event in holding.timeline}
    assert lines["Read: granted"] == "Added User.Read.All; we changed it (anna)."
    assert lines["Read: differs from what we want"] == "Gone Mail.Read; somebody outside changed it."
    assert lines["Its grants were requested"] == "By anna"
    assert lines["It cannot be read since then"] == "A policy blocks us. Who must act: The customer."
    assert lines[f"Plan {plan.pk} was applied here: failed"] == "Not allowed."
    assert holding.evidence is not None
    assert holding.evidence.state == "differs"
    assert (holding.consent.why, holding.consent.who) == ("A policy blocks us.", "customer")


def test_a_customer_costs_the_same_for_any_number_of_rows(
    customer: CustomerTenant, registration: ApplicationRegistration, django_assert_num_queries: Any
) -> None:
    builders.customer_consent(customer, registration, "User.Read.All")
    with CaptureQueriesContext(connection) as few:
        step(customer)
    for number in range(3):
        other = builders.registration(name=f"Product {number}")
        builders.grant(other, "User.Read.All")
        builders.consent(customer.partner, other)
        consent = builders.customer_consent(customer, other, "User.Read.All")
        consent.observations.create(
            registration=consent.registration,
            observed_at=timezone.now(),
            state="granted",
            correlation_id=builders.guid(),
        )
        plan = other.plans.create(purpose="remove", created_by="anna")
        plan.items.create(customer=customer, action="remove")
    with django_assert_num_queries(len(few)):
        assert len(facts(customer).holdings) == 4
    assert len(few) <= 14
    assert CustomerConsent.objects.count() == 4
