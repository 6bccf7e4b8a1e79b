"""Writing many rows by SQL of our own: what Django would have written, on each database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.bulk import set_each, upsert
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant
from tests.support import builders

pytestmark = pytest.mark.django_db
THEN, NOW = datetime(2026, 10, 1, 12, 30, 15, 123456, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
NAMES = ["partner", "relationship_id", "first_seen_at", "status", "roles", "ends_at"]
TRICKY = "100 % 'of' \"株式\" \\ $1 ? :name"


def write(partner: PartnerTenant, *rows: tuple[Any, ...], update: tuple[str, ...] = ("status", "roles")) -> None:
    whole = [(partner.pk, *row) for row in rows]
    upsert(GdapRelationship, NAMES, whole, unique=["partner", "relationship_id"], update=update)


def test_a_row_is_what_django_would_have_written() -> None:
    partner = builders.partner()

    write(partner, ("one", THEN, TRICKY, ["b", TRICKY], NOW), ("two", THEN, "active", [], None))

    for name, status, roles, end in (("one", TRICKY, ["b", TRICKY], NOW), ("two", "active", [], None)):
        row = GdapRelationship.objects.get(relationship_id=name)
        columns = {"partner": partner, "relationship_id": name, "first_seen_at": THEN, "status": status}
        same = GdapRelationship(pk=row.pk, **columns, roles=roles, ends_at=end)
        kept = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
        assert kept == {field.attname: getattr(same, field.attname) for field in same._meta.concrete_fields}
    assert GdapRelationship.objects.filter(ends_at=NOW, roles=["b", TRICKY]).count() == 1, "it is found as well"


def test_of_a_row_that_is_there_the_named_columns_are_replaced_and_no_others() -> None:
    partner, other = builders.partner(), builders.partner()
    for one in (partner, other):
        write(one, ("one", THEN, "active", ["a"], THEN))
    before = GdapRelationship.objects.get(partner=partner)

    write(partner, ("one", NOW, "expired", ["b"], NOW), ("new", NOW, "active", [], NOW))

    after = GdapRelationship.objects.get(pk=before.pk)
    assert (after.status, after.roles) == ("expired", ["b"])
    assert (after.first_seen_at, after.ends_at) == (THEN, THEN)
    assert GdapRelationship.objects.get(partner=other).status == "active"
    assert GdapRelationship.objects.count() == 3


def test_more_rows_than_one_statement_may_hold_are_several_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    partner, columns = builders.partner(), len(GdapRelationship._meta.concrete_fields) - 1
    monkeypatch.delitem(vars(connection.features), "max_query_params", raising=False)  # one of the two remembers it
    monkeypatch.setattr(type(connection.features), "max_query_params", 3 * columns + 1)

    with CaptureQueriesContext(connection) as queries:
        write(partner, *((f"row {number}", THEN, "active", [], None) for number in range(7)))

    assert len(queries) == 3
    assert GdapRelationship.objects.count() == 7


def test_each_row_gets_its_own_value() -> None:
    partner = builders.partner()
    one, two, three = (builders.customer(partner, gdap_ends_at=THEN) for _ in range(3))

    set_each(CustomerTenant, "gdap_ends_at", {one.pk: NOW, two.pk: None})

    told = dict(CustomerTenant.objects.values_list("pk", "gdap_ends_at"))
    assert told == {one.pk: NOW, two.pk: None, three.pk: THEN}
