"""The mirror of GDAP relationships: the rules of customers, and the verdicts that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.microsoft.errors import ServerFault
from portal.microsoft.identifiers import CorrelationId, TenantId
from tenants.gdap import BATCH, AccessAssignment, Relationship
from tenants.gdap_sync import GdapReport, note_unread, sync_relationships
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tenants.readiness import CONSENT_ROLES
from tenants.sync import TooManyMissing
from tests.support import builders

pytestmark = pytest.mark.django_db
GROUP = "5e6f7081-92a3-4b4c-9d5e-6f708192a3b4"
GLOBAL = next(iter(CONSENT_ROLES))
READERS = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"


class Graph:
    """A Graph that lists these relationships; an error among them is raised in its turn."""

    correlation_id = CorrelationId("11111111-1111-4111-8111-111111111111")

    def __init__(
        self,
        listed: Sequence[Relationship | Exception],
        assignments: dict[str, list[AccessAssignment]],
        odd: Sequence[str] = (),
    ) -> None:
        self._listed, self._assignments, self._odd = listed, assignments, odd
        self.asked: list[str] = []

    def relationships(self, *, odd: list[str] | None = None) -> Iterator[Relationship]:
        if odd is not None:
            odd += self._odd
        for each in self._listed:
            if isinstance(each, Exception):
                raise each
            yield each

    def access_assignments_of(
        self, relationships: Sequence[Relationship], *, odd: list[str] | None = None
    ) -> list[list[AccessAssignment]]:
        assert len(relationships) <= BATCH
        self.asked += [each.relationship_id for each in relationships]
        return [
            self._assignments.get(each.relationship_id, [assignment(each.relationship_id)]) for each in relationships
        ]


def relationship(
    customer: CustomerTenant | str | None, status: str = "active", *, days: int = 30, extends: str = "PT0S"
) -> Relationship:
    now = timezone.now()
    tenant = customer.tenant_id if isinstance(customer, CustomerTenant) else customer
    return Relationship(
        relationship_id=f"{builders.guid()}-{builders.guid()}",
        display_name="Example relationship 2026",
        customer_tenant_id=None if tenant is None else TenantId(tenant),
        status=status,
        roles=frozenset(CONSENT_ROLES),
        activated_at=now - timedelta(days=1),
        ends_at=now + timedelta(days=days),
        auto_extend_duration=extends,
    )


def assignment(of: str, *roles: str, status: str = "active", minutes: int = 60) -> AccessAssignment:
    return AccessAssignment(
        assignment_id=of[:36],
        status=status,
        group_id=GROUP,
        roles=frozenset(roles or [GLOBAL]),
        created_at=timezone.now() - timedelta(minutes=minutes),
    )


def sync(
    partner: PartnerTenant,
    *listed: Relationship | Exception,
    assignments: dict[str, list[AccessAssignment]] | None = None,
    own_groups: frozenset[str] | None = frozenset({GROUP}),
    accepted: Sequence[str] = tuple(CONSENT_ROLES),
    own_tenants: Sequence[str] = (),
    odd: Sequence[str] = (),
    force: bool = False,
) -> GdapReport:
    return sync_relationships(
        partner,
        Graph(listed, assignments or {}, odd),  # type: ignore[arg-type]
        actor=builders.ACTOR,
        accepted=accepted,
        own_groups=own_groups,
        own_tenants=own_tenants,
        force=force,
    )


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


@pytest.fixture
def customer(partner: PartnerTenant) -> CustomerTenant:
    return builders.customer(partner)


def test_relationships_and_assignments_are_mirrored_as_graph_says_them(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    listed = relationship(customer, extends="P180D")

    report = sync(partner, listed, relationship(builders.guid(), "expired", days=-3), relationship(None, "created"))

    assert (report.relationships, report.assignments, report.missing) == (3, 1, 0)
    row = GdapRelationship.objects.get(customer=customer)
    assert (row.status, row.auto_extend_duration, row.customer_tenant_id) == ("active", "P180D", customer.tenant_id)
    assert (row.ends_at, row.roles) == (listed.ends_at, sorted(CONSENT_ROLES))
    given = row.assignments.get()
    assert (given.status, given.group_id, given.roles) == ("active", GROUP, [GLOBAL])
    assert GdapRelationship.objects.filter(customer=None).count() == 2
    event = AuditEvent.objects.get(action="partner.relationships_synced")
    assert event.details == {"relationships": 3, "assignments": 1, "created": 4, "missing": 0, "odd": 0}


def test_only_live_relationships_are_asked_for_their_assignments_twenty_at_a_time(partner: PartnerTenant) -> None:
    live = [relationship(builders.guid()) for _ in range(2 * BATCH + 1)]
    graph = Graph([*live, relationship(builders.guid(), "terminated"), relationship(None, "created")], {})

    sync_relationships(
        partner,
        graph,  # type: ignore[arg-type]
        actor=builders.ACTOR,
        accepted=[],
        own_groups=None,
        own_tenants=[],
    )

    assert graph.asked == [each.relationship_id for each in live]
    assert GdapRelationship.objects.filter(assignments_read_at__isnull=True).count() == 2


def test_what_is_no_longer_listed_is_marked_missing_kept_and_comes_back(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    stays, goes = relationship(customer), relationship(customer)
    sync(partner, stays, goes)

    report = sync(partner, stays, assignments={stays.relationship_id: []})

    assert report.missing == 2
    gone = GdapRelationship.objects.get(missing_since__isnull=False)
    assert gone.relationship_id == goes.relationship_id
    # The assignment of the relationship that is gone was not read; that of the other one was, and is not there.
    missing = GdapAccessAssignment.objects.get(missing_since__isnull=False)
    assert missing.relationship.relationship_id == stays.relationship_id
    sync(partner, stays, goes)
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()
    assert not GdapAccessAssignment.objects.filter(missing_since__isnull=False).exists()
    assert (GdapRelationship.objects.count(), GdapAccessAssignment.objects.count()) == (2, 2)


def test_a_list_that_breaks_off_keeps_what_it_showed_and_marks_nothing(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    sync(partner, relationship(customer), relationship(customer))
    new = [relationship(builders.guid()) for _ in range(500)]

    with pytest.raises(ServerFault):
        sync(partner, *new, ServerFault("graph", "list GDAP relationships"))

    assert GdapRelationship.objects.count() == 502
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()


@pytest.mark.parametrize("what", ["relationships", "assignments"])
def test_lists_that_lack_unusually_many_mark_nothing_until_a_person_says_so(partner: PartnerTenant, what: str) -> None:
    known = [relationship(builders.guid()) for _ in range(60)]
    sync(partner, *known)
    kept = known[:30] if what == "relationships" else known
    none: dict[str, list[AccessAssignment]] = (
        {} if what == "relationships" else {each.relationship_id: [] for each in known[:30]}
    )

    with pytest.raises(TooManyMissing, match=f"lacks 30 of the 60 GDAP .*{what}"):
        sync(partner, *kept, assignments=none)

    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()
    assert not GdapAccessAssignment.objects.filter(missing_since__isnull=False).exists()
    assert sync(partner, *kept, assignments=none, force=True).missing == 30


def test_lists_as_before_write_no_relationship_no_assignment_and_no_customer(partner: PartnerTenant) -> None:
    customers = [builders.customer(partner) for _ in range(3)]
    known = [relationship(one) for one in customers]
    given = {each.relationship_id: [assignment(each.relationship_id)] for each in known}
    sync(partner, *known, assignments=given)
    judged = dict(CustomerTenant.objects.values_list("pk", "judged_at"))
    then = PartnerTenant.objects.get().customers_judged_at
    assert then is not None

    with CaptureQueriesContext(connection) as queries:
        sync(partner, *known, assignments=given)

    written = [query["sql"].split('"')[1] for query in queries if query["sql"].startswith(("INSERT", "UPDATE"))]
    assert written == ["tenants_partnertenant"]
    assert dict(CustomerTenant.objects.values_list("pk", "judged_at")) == judged
    rows = CustomerTenant.objects.select_related("partner")
    assert all(row.read_at is not None and row.read_at > then for row in rows)


@pytest.mark.parametrize(
    "change",
    [
        {"customer_tenant_id": None},
        {"display_name": "Renamed"},
        {"status": "expiring"},
        {"roles": frozenset([READERS])},
        {"activated_at": None},
        {"ends_at": None},
        {"auto_extend_duration": "P180D"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_column_of_a_relationship_is_compared_and_only_what_changed_is_written(
    partner: PartnerTenant, customer: CustomerTenant, change: dict[str, Any]
) -> None:
    same, other = relationship(builders.guid()), relationship(customer)
    given = {each.relationship_id: [assignment(each.relationship_id)] for each in (same, other)}
    sync(partner, same, other, assignments=given)

    with CaptureQueriesContext(connection) as queries:
        sync(partner, same, replace(other, **change), assignments=given)

    (statement,) = [query["sql"] for query in queries if query["sql"].startswith("INSERT")]
    assert other.relationship_id in statement
    assert same.relationship_id not in statement


@pytest.mark.parametrize(
    "change",
    [{"status": "deleting"}, {"group_id": "other"}, {"roles": frozenset([READERS])}, {"created_at": None}],
    ids=lambda change: next(iter(change)),
)
def test_each_column_of_an_assignment_is_compared_and_the_customer_is_judged_anew(
    partner: PartnerTenant, customer: CustomerTenant, change: dict[str, Any]
) -> None:
    listed = relationship(customer)
    given = assignment(listed.relationship_id)
    sync(partner, listed, assignments={listed.relationship_id: [given]})

    sync(partner, listed, assignments={listed.relationship_id: [replace(given, **change)]})

    row = GdapAccessAssignment.objects.get()
    expected = {name: sorted(value) if name == "roles" else value for name, value in change.items()}
    assert {name: getattr(row, name) for name in change} == expected
    customer.refresh_from_db()
    assert customer.readiness == ("ready" if "created_at" in change else "not_ready")


def test_what_lists_with_an_odd_item_lack_is_not_missing_and_its_time_stands(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    stays, unseen = relationship(customer), relationship(customer)
    sync(partner, stays, unseen)
    then = PartnerTenant.objects.get().customers_judged_at

    for _ in range(2):
        assert sync(partner, stays, odd=["One item"], assignments={stays.relationship_id: []}).missing == 0

    told = dict(GdapRelationship.objects.values_list("relationship_id", "last_seen_at"))
    assert told == {stays.relationship_id: None, unseen.relationship_id: then}
    assert not GdapAccessAssignment.objects.filter(missing_since__isnull=False).exists()
    assert sync(partner, stays, assignments={stays.relationship_id: []}).missing == 2


def test_another_partners_mirror_is_not_touched(partner: PartnerTenant) -> None:
    other = builders.partner()
    theirs = relationship(builders.customer(other))
    sync(other, theirs)

    sync(partner, replace(theirs, status="terminated"))
    sync(partner)

    assert GdapRelationship.objects.get(partner=other).status == "active"
    assert GdapRelationship.objects.get(partner=other).missing_since is None


def test_every_customer_is_judged_with_reason_owner_and_time(partner: PartnerTenant) -> None:
    ready, none, waits, young, outside, readers, own, elsewhere = (builders.customer(partner) for _ in range(8))
    fresh, foreign, weak = relationship(young), relationship(outside), relationship(readers)
    other_group = replace(assignment(foreign.relationship_id), group_id=builders.guid())

    sync(
        partner,
        *(relationship(one) for one in (ready, own)),
        relationship(waits, "approvalPending"),
        *(fresh, foreign, weak),
        assignments={
            fresh.relationship_id: [assignment(fresh.relationship_id, minutes=14)],
            foreign.relationship_id: [other_group],
            weak.relationship_id: [assignment(weak.relationship_id, READERS)],
        },
        own_tenants=[own.tenant_id],
    )

    told = {row.pk: row for row in CustomerTenant.objects.all()}
    assert (told[ready.pk].readiness, told[ready.pk].readiness_reason) == ("ready", "")
    for one, words, owner in (
        (none, "No active GDAP", "partner"),
        (elsewhere, "No active GDAP", "partner"),
        (waits, "waits for the customer's approval", "customer"),
        (young, "15 minutes", "nobody"),
        (outside, "service account is in none", "partner"),
        (readers, "holds one of the roles", "partner"),
        (own, "own tenant, not a customer", "nobody"),
    ):
        assert told[one.pk].readiness == "not_ready"
        assert words in told[one.pk].readiness_reason
        assert told[one.pk].readiness_owner == owner
    assert all(row.judged_at is not None for row in told.values())


def test_the_partners_own_tenant_is_never_ready(partner: PartnerTenant) -> None:
    own = builders.customer(partner, tenant_id=partner.tenant_id)
    sync(partner, relationship(own))
    own.refresh_from_db()
    assert (own.readiness, own.readiness_owner) == ("not_ready", "nobody")


def test_groups_that_cannot_be_read_leave_a_customer_ready_but_unverified(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    sync(partner, relationship(customer), own_groups=None)
    customer.refresh_from_db()
    assert customer.readiness == "unverified"
    assert "Directory.Read.All" in customer.readiness_reason


def test_the_accepted_roles_are_the_deployments(partner: PartnerTenant, customer: CustomerTenant) -> None:
    listed = relationship(customer)
    given = {listed.relationship_id: [assignment(listed.relationship_id, READERS)]}

    sync(partner, listed, assignments=given, accepted=[READERS])

    customer.refresh_from_db()
    assert customer.readiness == "ready"


def test_unreadable_relationships_are_said_to_be_unverified_with_the_permission_that_shows_them(
    partner: PartnerTenant, customer: CustomerTenant
) -> None:
    sync(partner, relationship(customer))

    note_unread(partner)

    customer.refresh_from_db()
    assert (customer.readiness, customer.readiness_owner) == ("unknown", "us")
    assert "DelegatedAdminRelationship.Read.All" in customer.readiness_reason
    assert not GdapRelationship.objects.filter(missing_since__isnull=False).exists()


def test_the_end_of_every_customers_gdap_is_known_after_a_sync(partner: PartnerTenant) -> None:
    ends, extends, over = (builders.customer(partner) for _ in range(3))
    CustomerTenant.objects.filter(pk=over.pk).update(gdap_ends_at=timezone.now())
    last = relationship(ends, days=90)

    sync(partner, relationship(ends, days=30), last, relationship(extends, extends="P180D"))

    told = dict(CustomerTenant.objects.values_list("pk", "gdap_ends_at"))
    assert told == {ends.pk: last.ends_at, extends.pk: None, over.pk: None}


def test_a_page_costs_the_same_statements_however_long_it_is(partner: PartnerTenant) -> None:
    counts = []
    for number in (1, 400, 400, 1400):
        listed = [relationship(builders.customer(partner)) for _ in range(number)]
        with CaptureQueriesContext(connection) as queries:
            sync(partner, *listed, force=True)
        counts.append(len(queries))

    first, second, third, longest = counts
    assert second - first <= 2  # ends of more customers than one statement holds
    chunks = (1 + 400 + 400 + 1400) // 500
    assert longest - third <= 12 * chunks
