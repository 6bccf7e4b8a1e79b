"""GDAP relationships are mirrored as customers are, and each customer gets a verdict with its reason and its time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.microsoft.errors import ServerFault
from portal.microsoft.identifiers import TenantId
from tenants import gdap_sync
from tenants.gdap import AccessAssignment, Relationship
from tenants.gdap_sync import GdapReport, sync_relationships
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tenants.readiness import CONSENT_ROLES
from tenants.sync import TooManyMissing
from tests import builders

pytestmark = pytest.mark.django_db
ROLE = next(iter(CONSENT_ROLES))
OTHER_ROLE = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"
GROUP = "5e6f7081-92a3-4b4c-9d5e-6f708192a3b4"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def relationship(customer: CustomerTenant | None, **fields: Any) -> Relationship:
    defaults: dict[str, Any] = {
        "relationship_id": f"{builders.guid()}-{builders.guid()}",
        "display_name": "Example 2026",
        "customer_tenant_id": None if customer is None else TenantId(customer.tenant_id),
        "status": "active",
        "roles": frozenset({ROLE}),
        "activated_at": LONG_AGO,
        "ends_at": timezone.now() + timedelta(days=300),
    }
    return Relationship(**defaults | fields)


def assignment(**fields: Any) -> AccessAssignment:
    defaults: dict[str, Any] = {
        "assignment_id": builders.guid(),
        "status": "active",
        "group_id": GROUP,
        "roles": frozenset({ROLE}),
        "created_at": LONG_AGO,
    }
    return AccessAssignment(**defaults | fields)


class Graph:
    """A Graph with these relationships, each with its assignments; an error is raised in its turn."""

    def __init__(self, known: dict[Relationship, list[AccessAssignment]], fault_at: int | None = None) -> None:
        self.known, self.fault_at = known, fault_at
        self.read: list[str] = []

    def relationships(self) -> Iterator[Relationship]:
        for number, one in enumerate(self.known):
            if number == self.fault_at:
                raise ServerFault("graph", "list", status=503)
            yield one

    def access_assignments(self, relationship_id: str) -> list[AccessAssignment]:
        self.read.append(relationship_id)
        return next(found for one, found in self.known.items() if one.relationship_id == relationship_id)


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


def sync(partner: PartnerTenant, graph: Graph, **more: Any) -> GdapReport:
    defaults: dict[str, Any] = {"actor": builders.ACTOR, "own_groups": frozenset({GROUP})}
    return sync_relationships(partner, graph, **defaults | more)  # type: ignore[arg-type]


def verdict(customer: CustomerTenant) -> tuple[str, str, str]:
    customer.refresh_from_db()
    return customer.readiness, customer.readiness_reason, customer.readiness_owner


def test_relationships_and_assignments_are_mirrored_verbatim(partner: PartnerTenant) -> None:
    customer = builders.customer(partner)
    one = relationship(customer, auto_extend="P180D", status="expiring")
    access = assignment(status="pending")

    report = sync(partner, Graph({one: [access], relationship(None, status="approvalPending"): []}))

    assert (report.listed, report.missing, report.assignments_read) == (2, 0, 1)
    row = GdapRelationship.objects.get(relationship_id=one.relationship_id)
    assert (row.status, row.auto_extend, row.roles, row.customer_tenant_id) == (
        "expiring",
        "P180D",
        [ROLE],
        customer.tenant_id,
    )
    assert GdapRelationship.objects.get(customer_tenant_id="").status == "approvalPending"
    assigned = row.assignments.get()
    assert (assigned.status, assigned.group_id, assigned.created_at) == ("pending", GROUP, LONG_AGO)


def test_only_a_list_that_was_read_to_its_end_marks_anything_missing_and_nothing_is_deleted(
    partner: PartnerTenant,
) -> None:
    customer = builders.customer(partner)
    kept, gone = relationship(customer), relationship(customer)
    sync(partner, Graph({kept: [assignment()], gone: [assignment()]}))

    with pytest.raises(ServerFault):
        sync(partner, Graph({kept: [], relationship(customer): []}, fault_at=1))
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()

    assert sync(partner, Graph({kept: [assignment()]})).missing == 1
    assert GdapRelationship.objects.get(missing_since__isnull=False).relationship_id == gone.relationship_id
    sync(partner, Graph({kept: [assignment()], gone: [assignment()]}))
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()


def test_a_list_that_lacks_too_many_stops_and_asks(partner: PartnerTenant) -> None:
    customer = builders.customer(partner)
    known = {relationship(customer): [assignment()] for _ in range(40)}
    sync(partner, Graph(known))
    few = dict(list(known.items())[:20])

    with pytest.raises(TooManyMissing, match=r"lacks 20 of the 40.*--force"):
        sync(partner, Graph(few))
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()
    assert sync(partner, Graph(few), force=True).missing == 20


def test_assignments_are_read_when_they_can_matter_and_not_more_often(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = builders.customer(partner)
    settled, fresh, over = relationship(customer), relationship(customer), relationship(customer, status="expired")
    graph = Graph({settled: [assignment()], fresh: [], over: [assignment()]})
    sync(partner, graph)
    assert sorted(graph.read) == sorted([settled.relationship_id, fresh.relationship_id])

    graph.read.clear()
    sync(partner, graph)
    assert graph.read == [fresh.relationship_id]  # nobody is assigned yet

    graph.read.clear()
    GdapRelationship.objects.update(assignments_read_at=timezone.now() - timedelta(days=8))
    graph.known[settled] = []
    sync(partner, graph)
    assert sorted(graph.read) == sorted([settled.relationship_id, fresh.relationship_id])
    assert GdapAccessAssignment.objects.get().missing_since is not None

    monkeypatch.setattr(gdap_sync, "ASSIGNMENTS_A_RUN", 1)
    graph.read.clear()
    sync(partner, graph)
    assert len(graph.read) == 1


@pytest.mark.req("S-52")
def test_each_customer_gets_the_exact_reason_and_who_must_act(partner: PartnerTenant) -> None:
    names = ["ready", "none", "pending", "no group", "role", "group", "young", "expired", "own"]
    customers = {name: builders.customer(partner, company_name=name) for name in names}
    own = customers["own"]
    known = {
        relationship(customers["ready"]): [assignment()],
        relationship(customers["pending"], status="approvalPending", ends_at=None): [],
        relationship(customers["no group"]): [],
        relationship(customers["role"]): [assignment(roles=frozenset({OTHER_ROLE}))],
        relationship(customers["group"]): [assignment(group_id=builders.guid())],
        relationship(customers["young"]): [assignment(created_at=timezone.now())],
        relationship(customers["expired"], ends_at=LONG_AGO): [],
        relationship(own): [assignment()],
    }

    report = sync(partner, Graph(known), own_tenants=[own.tenant_id])

    found = {name: verdict(customer) for name, customer in customers.items()}
    assert found["ready"] == ("ready", "", "")
    assert {name: (word, owner) for name, (word, _, owner) in found.items() if name != "ready"} == {
        "none": ("not_ready", "partner"),
        "pending": ("not_ready", "customer"),
        "no group": ("not_ready", "partner"),
        "role": ("not_ready", "partner"),
        "group": ("not_ready", "partner"),
        "young": ("not_ready", "nobody"),
        "expired": ("not_ready", "partner"),
        "own": ("not_ready", "us"),
    }
    assert len({reason for _, reason, _ in found.values()}) == 8  # none and expired read alike
    assert report.not_ready == 8
    assert customers["ready"].judged_at is not None

    sync(partner, Graph(known), own_tenants=[own.tenant_id], accepted=[OTHER_ROLE])
    assert verdict(customers["role"])[0] == "ready"
    assert verdict(customers["ready"])[0] == "not_ready"


def test_what_could_not_be_looked_at_is_not_called_ready_nor_unready(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = builders.customer(partner)
    graph = Graph({relationship(customer): [assignment()]})
    monkeypatch.setattr(gdap_sync, "ASSIGNMENTS_A_RUN", 0)
    sync(partner, graph)
    assert verdict(customer)[0] == "unverified"
    monkeypatch.undo()

    sync(partner, graph, own_groups=None)

    word, reason, _ = verdict(customer)
    assert word == "unverified"
    assert "could not be verified: Directory.Read.All shows it" in reason


@pytest.mark.req("R-45")
def test_the_end_of_gdap_is_known_for_all_and_what_extends_itself_has_none(partner: PartnerTenant) -> None:
    ends = timezone.now() + timedelta(days=30)
    ending, extending = builders.customer(partner), builders.customer(partner)
    known = {
        relationship(ending, ends_at=ends): [assignment()],
        relationship(extending, ends_at=ends, auto_extend="P180D"): [assignment()],
    }
    sync(partner, Graph(known))
    ending.refresh_from_db()
    extending.refresh_from_db()
    assert (ending.gdap_ends_at, extending.gdap_ends_at) == (ends, None)


def test_a_page_and_its_customers_cost_the_same_statements_however_many_there_are(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gdap_sync, "_CHUNK", 10)
    monkeypatch.setattr(gdap_sync, "ASSIGNMENTS_A_RUN", 0)

    def statements(number: int) -> int:
        known = {relationship(builders.customer(partner)): [assignment()] for _ in range(number)}
        everything = Graph(known)
        with CaptureQueriesContext(connection) as queries:
            sync(partner, everything, force=True)
        return len(queries)

    first = statements(10)  # one page, one chunk of customers
    second = statements(10)  # one page, two chunks of customers
    third = statements(10)  # one page, three
    assert second - first == third - second <= 5
