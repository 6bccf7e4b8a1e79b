"""The pages of customer tenants: state, reason, owner, evidence and readiness, filtered, exported, counted.

Covers: tenants.admin, tenants.extension, tenants.panels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from django.utils import timezone

from consent import unread
from consent.admin import customer_tenants
from consent.models import ConsentObservation, CustomerConsent
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run
from portal.site import list_filters
from portal.site.list_filters import FEW_ROWS
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
LIST, MODEL = "/admin/tenants/customertenant/", "tenants_customertenant"


@pytest.fixture
def staff() -> Staff:
    return Staff()


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


def listed(staff: Staff, query: str) -> set[int]:
    page = staff.get(f"{LIST}?{query}")
    assert page.status_code == 200
    return {row.pk for row in page.context["cl"].result_list}


def found(staff: Staff, query: str) -> set[int]:
    """Return the same without the page around the rows."""
    request: Any = RequestFactory().get(f"{LIST}?{query}")
    request.user = staff.user
    view: Any = resolve(request.path).func
    return {row.pk for row in view.model_admin.get_changelist_instance(request).result_list}


def consent(customer: CustomerTenant, **columns: Any) -> CustomerConsent:
    by = columns.pop("registration", None) or builders.registration()
    return CustomerConsent.objects.create(customer=customer, registration=by, **columns)


def related(customer: CustomerTenant) -> GdapRelationship:
    now = timezone.now()
    row = GdapRelationship.objects.create(
        partner=customer.partner,
        customer=customer,
        relationship_id=f"{builders.guid()}-{builders.guid()}",
        customer_tenant_id=customer.tenant_id,
        display_name="Example relationship",
        status="active",
        roles=["158c047a-c907-4556-b7ef-446551a6b5f7"],
        ends_at=now + timedelta(days=30),
        auto_extend_duration="P180D",
        first_seen_at=now,
        last_seen_at=now,
    )
    GdapAccessAssignment.objects.create(
        relationship=row,
        assignment_id=builders.guid(),
        status="active",
        group_id="5e6f7081-92a3-4b4c-9d5e-6f708192a3b4",
        roles=row.roles,
        first_seen_at=now,
        last_seen_at=now,
    )
    return row


def exported(staff: Staff, *keys: int) -> dict[str, tuple[str, str, str]]:
    """Return what a file says of customers, by their names."""
    answer = staff.choose(MODEL, "export_csv", *keys)
    rows = csv.DictReader(b"".join(answer.streaming_content).decode().splitlines())
    return {row["Company name"]: (row["Consent state"], row["Why"], row["Who acts"]) for row in rows}


def test_a_customer_shows_what_its_consent_says_else_what_readiness_says(staff: Staff, partner: PartnerTenant) -> None:
    failed, never, unread = (builders.customer(partner) for _ in range(3))
    consent(failed, state="failed", reason="Refused.", owner="us")
    CustomerTenant.objects.filter(pk=never.pk).update(
        readiness="not_ready", readiness_reason="No active GDAP relationship.", readiness_owner="partner"
    )
    consent(
        unread,
        state="absent",
        reason="Old.",
        unread_since=timezone.now(),
        unread_reason="Closed.",
        unread_owner="customer",
    )

    rows = exported(staff, failed.pk, never.pk, unread.pk)

    assert [rows[name.company_name] for name in (failed, never, unread)] == [
        ("Failed", "Refused.", "Us"),
        ("", "No active GDAP relationship.", "The partner"),
        ("Absent", "Closed.", "The customer"),
    ]


def test_customers_are_filtered_by_consent_readiness_owner_evidence_partner_and_missing(
    staff: Staff, partner: PartnerTenant
) -> None:
    now, other = timezone.now(), builders.partner()
    fresh, old, never, gone, theirs = (builders.customer(one) for one in (partner, partner, partner, partner, other))
    consent(fresh, state="granted", service_principal_id=builders.guid(), verified_at=now)
    consent(old, state="partial", owner="us", verified_at=now - timedelta(days=40))
    CustomerTenant.objects.filter(pk=never.pk).update(readiness="ready")
    CustomerTenant.objects.filter(pk=gone.pk).update(missing_since=now, readiness_owner="partner")

    assert listed(staff, "consent=granted") == {fresh.pk}
    assert listed(staff, "consent=none") == {never.pk, gone.pk, theirs.pk}
    assert listed(staff, "readiness__exact=ready") == {never.pk}
    assert listed(staff, "who=us") == {old.pk}
    assert listed(staff, "who=partner") == {gone.pk}
    assert listed(staff, "evidence=7") == {fresh.pk}
    assert listed(staff, "evidence=old") == {old.pk}
    assert listed(staff, "evidence=never") == {never.pk, gone.pk, theirs.pk}
    assert listed(staff, "missing_since__isempty=0") == {gone.pk}
    assert listed(staff, f"partner__id__exact={other.pk}") == {theirs.pk}
    assert listed(staff, f"q={fresh.tenant_id}") == {fresh.pk}
    assert listed(staff, f"q={fresh.domain}") == {fresh.pk}


def test_the_list_is_exported_with_state_reason_owner_and_evidence(staff: Staff, partner: PartnerTenant) -> None:
    customer = builders.customer(partner, company_name="=cmd()")
    consent(customer, state="failed", reason="Refused.", owner="us")

    answer = staff.choose(MODEL, "export_csv", customer.pk)

    [row] = csv.DictReader(b"".join(answer.streaming_content).decode().splitlines())
    assert row["Company name"] == "'=cmd()"
    assert (row["Consent state"], row["Why"], row["Who acts"], row["Readiness"]) == (
        "Failed",
        "Refused.",
        "Us",
        "Not verified",
    )


@pytest.mark.req("R-29")
def test_the_list_costs_the_same_queries_however_many_customers_it_shows(staff: Staff, partner: PartnerTenant) -> None:
    counts = []
    staff.get(LIST)  # the first page of a session costs more
    for number in (1, 40):
        for _ in range(number):
            consent(builders.customer(partner), state="absent")
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(LIST).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 15


@pytest.mark.req("R-29")
def test_among_the_customers_of_one_partner_nobody_elses_are_searched(staff: Staff, partner: PartnerTenant) -> None:
    mine = builders.customer(partner, company_name="Litware")
    builders.customer(builders.partner(), company_name="Litware")

    def keys(query: str) -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            listed(staff, query)
        return [one["sql"] for one in queries.captured_queries if f"LIMIT {FEW_ROWS + 1}" in one["sql"]]

    assert len(keys("q=litware")) == 1
    assert keys(f"q=litware&partner__id__exact={partner.pk}") == []
    assert listed(staff, f"q=litware&partner__id__exact={partner.pk}") == {mine.pk}


@pytest.mark.req("R-29")
def test_a_tenant_id_is_searched_by_the_index_and_a_name_by_its_beginning(staff: Staff, partner: PartnerTenant) -> None:
    wanted = builders.customer(partner, company_name="Fabrikam")
    builders.customer(partner, company_name="Contoso")
    for text in (wanted.tenant_id, f" {{{wanted.tenant_id.upper()}}} ", "fabr"):
        with CaptureQueriesContext(connection) as queries:
            page = staff.get(LIST, {"q": text})
        assert [row.pk for row in page.context["cl"].result_list] == [wanted.pk], text
        found = [query["sql"] for query in queries if f"LIMIT {FEW_ROWS + 1}" in query["sql"]]  # by the words
        assert len(found) == (text == "fabr")
    assert not staff.get(LIST, {"q": builders.guid()}).context["cl"].result_list


def test_a_customers_page_shows_evidence_relationships_and_assignments(staff: Staff, partner: PartnerTenant) -> None:
    customer = builders.customer(partner)
    row = consent(customer, state="granted", service_principal_id=builders.guid(), verified_at=timezone.now())
    for number, grant in enumerate(("older-grant", "newest-grant")):
        ConsentObservation.objects.create(
            consent=row,
            registration=row.registration,
            observed_at=timezone.now() + timedelta(seconds=number),
            state="granted",
            grants=[{"id": grant, "resource": "graph", "scopes": ["User.Read"]}],
            correlation_id=builders.guid(),
        )
    related(customer)
    staff.get(f"{LIST}{customer.pk}/change/")  # the first page of a session costs more

    with CaptureQueriesContext(connection) as first:
        page = staff.get(f"{LIST}{customer.pk}/change/").content.decode()

    assert "Read in the customer&#x27;s directory" in page
    for text in (row.service_principal_id, "Example relationship", "Cloud Application Administrator", "P180D"):
        assert text in page
    assert "5e6f7081-92a3-4b4c-9d5e-6f708192a3b4" in page
    for _ in range(5):
        related(customer)
    with CaptureQueriesContext(connection) as more:
        staff.get(f"{LIST}{customer.pk}/change/")
    assert len(more) == len(first)


def test_a_partners_page_counts_its_customers_and_each_count_leads_to_its_list(
    staff: Staff, partner: PartnerTenant
) -> None:
    by = builders.registration()
    for number, state in enumerate(["absent", "absent", "failed"]):
        customer = builders.customer(partner, readiness="ready" if number else "not_ready")
        consent(customer, state=state, registration=by)
    builders.customer(partner)
    builders.customer(partner, missing_since=timezone.now())
    builders.customer(builders.partner())

    page = staff.get(f"/admin/tenants/partnertenant/{partner.pk}/change/").content.decode()

    base = f"/admin/tenants/partnertenant/{partner.pk}/customers/?missing_since__isempty=1"
    for query, number in (
        ("consent=absent", 2),
        ("consent=failed", 1),
        ("consent=none", 1),
        ("readiness__exact=ready", 2),
        ("readiness__exact=not_ready", 1),
        ("readiness__exact=unknown", 1),
    ):
        assert f"{base}&{query}".replace("&", "&amp;") in page, query
        assert staff.get(f"{base}&{query}").context["cl"].result_count == number, query


@pytest.mark.parametrize("model", [MODEL, "tenants_partnertenant"])
def test_a_sync_is_left_to_the_workers_once_for_partners_and_for_customers(
    staff: Staff, partner: PartnerTenant, model: str
) -> None:
    customer = builders.customer(partner)
    builders.consent(partner, builders.registration())
    action, key = ("sync_partners_of", customer.pk) if model == MODEL else ("sync_partners", partner.pk)

    question = staff.choose(model, action, key)
    assert "of 1 partner are read again" in question.content.decode()
    assert not Run.objects.exists()

    answer = staff.confirm(question)

    run = Run.objects.get()
    assert answer.request["PATH_INFO"] == f"/admin/runs/run/{run.pk}/change/"
    assert (run.kind, run.scope) == ("customer_sync", {"partner": [partner.tenant_id]})
    staff.confirm(question)
    staff.confirm(staff.choose(model, action, key))
    assert Run.objects.count() == 1


def test_nothing_is_synchronised_for_a_disabled_partner(staff: Staff) -> None:
    partner = builders.partner(switch="disabled")
    page = staff.choose("tenants_partnertenant", "sync_partners", partner.pk)
    assert "no token may be used" in told(staff.get(page["Location"]))
    assert not Run.objects.exists()


def _filters() -> Iterator[str]:
    for who in Owner:
        yield f"who={who}"
    for state in CustomerConsent.State:
        yield f"consent={state}"
    yield from ("evidence=7", "evidence=30", "evidence=old", "evidence=never", "consent=none")


@pytest.mark.req("R-29")
def test_a_filter_finds_the_same_for_few_customers_and_for_many(
    staff: Staff, partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = builders.registration(name="First"), builders.registration(name="Second")
    builders.consent(partner, first)
    now, states = timezone.now(), list(CustomerConsent.State)
    for number in range(24):
        of = partner if number % 4 else builders.partner(switch="disabled" if number == 8 else "on")
        owner = list(Owner)[number % 5] if number % 3 else ""
        customer = builders.customer(of, readiness_owner=owner)
        for registration in [first, second][: number % 3]:
            read = None if number % 5 == 0 else now - timedelta(days=number * 2)
            failed = number % 7 == 0
            consent(
                customer,
                registration=registration,
                state=states[number % len(states)] if read else "unknown",
                service_principal_id=builders.guid(),
                verified_at=read,
                owner=list(Owner)[number % 4] if number % 2 else "",
                failed_at=now if failed else None,
                failed_what="apply" if failed else "",
                failed_owner="us" if failed else "",
            )
    chosen = [f"{one}{more}" for one in _filters() for more in ("", f"&registration={second.pk}")]
    chosen += [f"registration={first.pk}", f"registration={second.pk}"]
    by_keys = {one: found(staff, one) for one in chosen}
    assert by_keys[chosen[1]] == listed(staff, chosen[1])
    assert sum(map(bool, by_keys.values())) > len(chosen) / 2
    CustomerTenant.objects.update(first_seen_at=now - timedelta(days=1))
    unread.renew()  # now few are asked whether they were never read
    never = [one for one in chosen if one.startswith(("who", "consent=none", "evidence=never"))]
    assert {one: found(staff, one) for one in never} == {one: by_keys[one] for one in never}
    monkeypatch.setattr(list_filters, "_LITERAL", 0)
    assert {one: found(staff, one) for one in chosen} == by_keys
    monkeypatch.setattr(customer_tenants, "FEW_ROWS", 0)
    assert {one: found(staff, one) for one in chosen} == by_keys
