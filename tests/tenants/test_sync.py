"""sync_customers: only a list that was read to its end says that somebody is gone, and nothing is ever deleted.

Covers: tenants.models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.microsoft.errors import ServerFault
from portal.microsoft.identifiers import CorrelationId, TenantId
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer
from tenants.sync import SyncReport, TooManyMissing, sync_customers
from tests.support import builders

pytestmark = pytest.mark.django_db


class Pages:
    """A Partner Center that lists these pages; an error among them is raised in its turn."""

    correlation_id = CorrelationId("11111111-1111-4111-8111-111111111111")

    def __init__(self, *pages: list[Customer] | Exception, odd: Sequence[str] = ()) -> None:
        self._pages, self._odd = pages, odd

    def customers(self, *, odd: list[str] | None = None) -> Iterator[list[Customer]]:
        if odd is not None:
            odd += self._odd
        for page in self._pages:
            if isinstance(page, Exception):
                raise page
            yield page


def listed(*tenants: str, name: str = "Listed") -> list[Customer]:
    return [
        Customer(
            partner_center_id=tenant,
            tenant_id=TenantId(tenant),
            company_name=name,
            domain="listed.example.com",
            relationship="reseller",
        )
        for tenant in tenants
    ]


def sync(
    partner: PartnerTenant, *pages: list[Customer] | Exception, odd: Sequence[str] = (), force: bool = False
) -> SyncReport:
    source = Pages(*pages, odd=odd)
    return sync_customers(partner, source, actor=builders.ACTOR, force=force)  # type: ignore[arg-type]


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


def guids(number: int) -> list[str]:
    return [builders.guid() for _ in range(number)]


def long_ago(customer: CustomerTenant) -> None:
    past = timezone.now() - timedelta(days=3)
    CustomerTenant.objects.filter(pk=customer.pk).update(last_seen_at=past, first_seen_at=past)


def written(queries: CaptureQueriesContext) -> list[str]:
    """Return the tables that were written, one for each statement."""
    found = [query["sql"].split('"')[1] for query in queries if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    return [table for table in found if table.startswith("tenants_")]


def test_all_pages_are_mirrored_and_counted(partner: PartnerTenant) -> None:
    ids = guids(7)

    report = sync(partner, listed(*ids[:3]), listed(*ids[3:6]), [], listed(*ids[6:]))

    assert (report.listed, report.created, report.missing) == (7, 7, 0)
    assert set(CustomerTenant.objects.listed().values_list("tenant_id", flat=True)) == set(ids)
    partner.refresh_from_db()
    assert partner.customers_synced_at is not None
    event = AuditEvent.objects.get(action="partner.customers_synced")
    assert event.details == {"listed": 7, "created": 7, "missing": 0, "odd": 0}
    assert event.correlation_id == Pages.correlation_id


def test_who_is_no_longer_listed_is_marked_missing_and_kept(partner: PartnerTenant) -> None:
    here, gone = guids(2)
    sync(partner, listed(here, gone))

    report = sync(partner, listed(here))

    assert (report.listed, report.created, report.missing) == (1, 0, 1)
    assert CustomerTenant.objects.missing().get().tenant_id == gone
    first = CustomerTenant.objects.missing().get().missing_since
    assert sync(partner, listed(here)).missing == 0
    assert CustomerTenant.objects.missing().get().missing_since == first


def test_a_second_page_that_fails_raises_and_marks_nobody(partner: PartnerTenant) -> None:
    first, second = guids(2)
    sync(partner, listed(first, second))
    partner.refresh_from_db()
    synced, fresh = partner.customers_synced_at, builders.guid()

    with pytest.raises(ServerFault):
        sync(partner, listed(fresh), ServerFault("partner_center", "list customers"))

    partner.refresh_from_db()
    assert partner.customers_synced_at == synced
    assert not CustomerTenant.objects.missing().exists()
    assert CustomerTenant.objects.count() == 3  # what was seen is kept
    assert AuditEvent.objects.filter(action="partner.customers_synced").count() == 1


def test_a_customer_that_comes_back_is_listed_again_as_the_same_row(partner: PartnerTenant) -> None:
    (tenant,) = guids(1)
    sync(partner, listed(tenant))
    before = CustomerTenant.objects.get()
    sync(partner, [])
    assert CustomerTenant.objects.missing().exists()

    report = sync(partner, listed(tenant))

    after = CustomerTenant.objects.get()
    assert (after.pk, after.first_seen_at, after.missing_since) == (before.pk, before.first_seen_at, None)
    assert report.created == 0


def test_a_customer_listed_twice_is_one_row(partner: PartnerTenant) -> None:
    (tenant,) = guids(1)

    report = sync(partner, listed(tenant, tenant), listed(tenant, name="Later"))

    assert report.created == 1
    assert CustomerTenant.objects.get().company_name == "Later"
    assert CustomerTenant.objects.filter(search_text__finds="later").exists(), "an upsert folds the name as well"


def test_microsofts_columns_are_replaced_and_the_portals_own_are_not(partner: PartnerTenant) -> None:
    customer = builders.customer(partner, company_name="Old", domain="old.example.com", relationship="")
    long_ago(customer)
    before = CustomerTenant.objects.get()

    sync(partner, listed(customer.tenant_id, name="New"))

    after = CustomerTenant.objects.get()
    assert (after.company_name, after.domain, after.relationship) == ("New", "listed.example.com", "reseller")
    assert after.listed_at > before.listed_at
    own = {"pk", "id", "partner_id", "tenant_id", "first_seen_at"}
    assert {name: getattr(after, name) for name in own} == {name: getattr(before, name) for name in own}
    columns = {field.name for field in CustomerTenant._meta.concrete_fields}
    # From Graph, when relationships are read.
    read_by_others = {"gdap_ends_at", "readiness", "readiness_reason", "readiness_owner", "judged_at"}
    own = {"id", "partner", "tenant_id", "first_seen_at", "search_text"}
    assert columns == {*CustomerTenant.REMOTE_FIELDS, *read_by_others, *own}


def test_a_list_as_before_writes_no_customer(partner: PartnerTenant) -> None:
    page = listed(*guids(3))
    sync(partner, page)
    then = PartnerTenant.objects.get().customers_synced_at

    with CaptureQueriesContext(connection) as queries:
        sync(partner, page)

    assert written(queries) == ["tenants_partnertenant"]
    now = PartnerTenant.objects.get().customers_synced_at
    assert then is not None
    assert now is not None
    assert now > then
    assert {row.listed_at for row in CustomerTenant.objects.select_related("partner")} == {now}


@pytest.mark.parametrize("column", ["partner_center_id", "company_name", "domain", "relationship"])
def test_each_column_of_microsofts_is_compared_and_only_what_changed_is_written(
    partner: PartnerTenant, column: str
) -> None:
    same, other = listed(*guids(2))
    change: dict[str, Any] = {column: "changed"}
    sync(partner, [same, other])

    with CaptureQueriesContext(connection) as queries:
        sync(partner, [same, replace(other, **change)])

    (statement,) = [query["sql"] for query in queries if query["sql"].startswith("INSERT")]
    assert other.tenant_id in statement
    assert same.tenant_id not in statement
    assert getattr(CustomerTenant.objects.get(tenant_id=other.tenant_id), column) == "changed"


def test_a_row_that_a_list_with_an_odd_item_lacks_is_not_missing_and_says_when_it_was_listed(
    partner: PartnerTenant,
) -> None:
    here, unseen = guids(2)
    sync(partner, listed(here, unseen))
    then = PartnerTenant.objects.get().customers_synced_at

    for _ in range(2):
        sync(partner, listed(here), odd=["One item"])

    now = PartnerTenant.objects.get().customers_synced_at
    told = {row.tenant_id: row for row in CustomerTenant.objects.listed().select_related("partner")}
    assert (told[here].listed_at, told[unseen].listed_at) == (now, then)
    assert sync(partner, listed(here)).missing == 1
    assert CustomerTenant.objects.select_related("partner").get(tenant_id=unseen).listed_at == then
    assert sync(partner, listed(here, unseen)).missing == 0
    assert CustomerTenant.objects.get(tenant_id=unseen).last_seen_at is None


def test_what_was_known_of_a_customer_that_comes_back_is_known_no_more(partner: PartnerTenant) -> None:
    stays, back = guids(2)
    sync(partner, listed(stays, back))
    CustomerTenant.objects.update(readiness="ready", judged_at=timezone.now())
    sync(partner, listed(stays))

    sync(partner, listed(stays, back))

    told = dict(CustomerTenant.objects.values_list("tenant_id", "readiness"))
    assert told == {stays: "ready", back: "unknown"}
    assert CustomerTenant.objects.get(tenant_id=back).judged_at is None


def test_a_list_that_ends_after_one_that_began_later_takes_nobody_away(partner: PartnerTenant) -> None:
    first, second = guids(2)
    sync(partner, listed(first, second))
    later = timezone.now() + timedelta(minutes=1)
    PartnerTenant.objects.update(customers_synced_at=later)

    assert sync(partner, listed(first)).missing == 0

    assert CustomerTenant.objects.listed().count() == 2
    assert PartnerTenant.objects.get().customers_synced_at == later


_THEN, _NOW = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("of_partner", "of_customer", "listed_at", "read_at"),
    [
        ((None, None), (None, None), _THEN, None),
        ((_NOW, _NOW), (None, None), _NOW, None),
        ((_NOW, _NOW), (_THEN, _THEN), _THEN, _NOW),
        ((None, None), (_NOW, _NOW), _NOW, _NOW),
        ((_THEN - timedelta(days=1), _THEN), (None, _NOW), _THEN, _NOW),
    ],
    ids=["new", "listed", "unseen", "alone", "older list"],
)
def test_how_old_a_row_is_is_said_alike_by_the_row_and_in_sql(
    of_partner: tuple[datetime | None, datetime | None],
    of_customer: tuple[datetime | None, datetime | None],
    listed_at: datetime,
    read_at: datetime | None,
) -> None:
    synced, judged = of_partner
    partner = builders.partner(customers_synced_at=synced, customers_judged_at=judged)
    seen, own = of_customer
    row = builders.customer(partner, first_seen_at=_THEN, last_seen_at=seen, judged_at=own)

    assert (row.listed_at, row.read_at) == (listed_at, read_at)
    told: Any = CustomerTenant.objects.with_times().get()
    assert (told.last_listed, told.last_judged) == (listed_at, read_at)


def test_another_partners_customers_are_not_touched(partner: PartnerTenant) -> None:
    other = builders.partner()
    (shared,) = guids(1)
    sync(other, listed(shared, name="Theirs"))

    sync(partner, listed(shared, name="Mine"))
    sync(partner, [])

    assert CustomerTenant.objects.for_partner(other).listed().get().company_name == "Theirs"
    assert CustomerTenant.objects.for_partner(partner).missing().get().company_name == "Mine"


def test_a_page_costs_the_same_queries_however_long_it_is(partner: PartnerTenant) -> None:
    sync(partner, listed(*guids(1)))
    counts = []
    for pages in ([guids(1)], [guids(300)], [guids(300), guids(300)]):  # each takes away what the one before brought
        with CaptureQueriesContext(
            connection,
        ) as queries:
            sync(partner, *[listed(*page) for page in pages], force=True)
        counts.append(len(queries))

    assert counts[0] == counts[1]
    assert counts[2] - counts[1] <= 4


def test_names_in_any_script_survive_unchanged(partner: PartnerTenant) -> None:
    name = "Ünïcødé 株式会社 شركة 🚀 O'Brien & <b>"
    sync(partner, listed(builders.guid(), name=name))
    assert CustomerTenant.objects.get().company_name == name


def test_a_list_that_lacks_unusually_many_marks_nobody_until_a_person_says_so(partner: PartnerTenant) -> None:
    ids = guids(60)
    sync(partner, listed(*ids))

    with pytest.raises(TooManyMissing, match="lacks 30 of the 60"):
        sync(partner, listed(*ids[:30]))

    assert not CustomerTenant.objects.missing().exists()
    assert sync(partner, listed(*ids[:30]), force=True).missing == 30
    assert sync(partner, listed(*ids[:24])).missing == 6
