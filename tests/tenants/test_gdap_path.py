"""The way from a role to the service account: the broken edge is named, and who mends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.microsoft.diagnosis import Owner
from tenants.gdap_path import Edge, Holds, broken, path_of, with_relationships
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship
from tenants.readiness import CONSENT_ROLES
from tests.support import builders

pytestmark = pytest.mark.django_db
GLOBAL, APPLICATION, _ = CONSENT_ROLES
READERS = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"
NOW = timezone.now


def relationship(customer: CustomerTenant, *assigned: Any, **columns: Any) -> GdapRelationship:
    """Mirror one with these assignments: (group, roles, status)."""
    seen = {"first_seen_at": NOW(), "last_seen_at": NOW()}
    defaults = {
        "relationship_id": builders.guid(),
        "display_name": "Support",
        "status": "active",
        "roles": [GLOBAL],
        "ends_at": NOW() + timedelta(days=90),
    }
    made = GdapRelationship.objects.create(
        partner=customer.partner, customer=customer, customer_tenant_id=customer.tenant_id, **seen, **defaults | columns
    )
    for group, roles, status in assigned:
        GdapAccessAssignment.objects.create(
            relationship=made, assignment_id=builders.guid(), group_id=group, roles=roles, status=status, **seen
        )
    return made


def edges(customer: CustomerTenant) -> list[Edge]:
    [loaded] = with_relationships(CustomerTenant.objects.filter(pk=customer.pk))
    return path_of(loaded, accepted=tuple(CONSENT_ROLES), now=NOW())


@pytest.fixture
def customer() -> CustomerTenant:
    return builders.customer(builders.partner())


def gives(customer: CustomerTenant, words: str, owner: Owner) -> list[Holds]:
    found = edges(customer)
    broken_one = broken(found)
    assert broken_one is not None
    assert words in broken_one.text
    assert broken_one.owner is owner
    return [edge.holds for edge in found]


def test_without_a_relationship_nothing_else_is_reached(customer: CustomerTenant) -> None:
    unreached = [Holds.NO, *[Holds.UNREACHED] * 3]
    assert gives(customer, "None is active. The partner asks for a new one", Owner.PARTNER) == unreached


def test_a_relationship_that_ended_says_when_and_one_that_waits_names_the_customer(customer: CustomerTenant) -> None:
    relationship(customer, status="expired", ends_at=NOW() - timedelta(days=3))
    gives(customer, f"The last one ended on {NOW() - timedelta(days=3):%Y-%m-%d}", Owner.PARTNER)
    relationship(customer, status="approvalPending", ends_at=None)
    gives(customer, "waits for the customer's approval", Owner.CUSTOMER)


def test_a_relationship_without_the_role_cannot_be_mended_by_an_assignment(customer: CustomerTenant) -> None:
    relationship(customer, ("g", [READERS], "active"), roles=[READERS])
    assert gives(customer, "Roles cannot be added to a relationship", Owner.PARTNER)[1] is Holds.NO


def test_the_group_is_missing_or_lacks_the_role(customer: CustomerTenant) -> None:
    made = relationship(customer)
    assert gives(customer, "No security group is assigned", Owner.PARTNER)[2] is Holds.NO
    seen = {"first_seen_at": NOW(), "last_seen_at": NOW()}
    made.assignments.create(assignment_id="a", group_id="g", roles=[READERS], status="active", **seen)
    gives(customer, "do not hold the role", Owner.PARTNER)
    made.assignments.create(
        assignment_id="b", group_id="h", roles=[GLOBAL], status="active", missing_since=NOW(), **seen
    )
    gives(customer, "do not hold the role", Owner.PARTNER)


@pytest.mark.parametrize(
    ("readiness", "owner", "holds"),
    [
        ("ready", "", Holds.YES),
        ("unverified", "", Holds.UNKNOWN),
        ("unknown", "", Holds.UNKNOWN),
        ("not_ready", "nobody", Holds.UNKNOWN),
        ("not_ready", "partner", Holds.NO),
    ],
)
def test_whether_the_account_is_in_the_group_is_as_the_last_sync_found_it(
    customer: CustomerTenant, readiness: str, owner: str, holds: Holds
) -> None:
    relationship(customer, ("g", [GLOBAL], "active"))
    CustomerTenant.objects.update(readiness=readiness, readiness_owner=owner, readiness_reason="As read.")
    found = edges(customer)
    assert [edge.holds for edge in found] == [Holds.YES, Holds.YES, Holds.YES, holds]
    assert found[1].text == "Global Administrator."


def test_paths_cost_the_same_for_any_number_of_customers(customer: CustomerTenant) -> None:
    for number in range(3):
        relationship(builders.customer(customer.partner), (f"g{number}", [GLOBAL], "active"))
    with CaptureQueriesContext(connection) as queries:
        for one in with_relationships(CustomerTenant.objects.all()):
            path_of(one, accepted=(GLOBAL, APPLICATION), now=NOW())
    assert len(queries) == 3
