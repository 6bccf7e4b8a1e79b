"""Customers with their readiness, their relationships, and the partner's page that counts them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from consent.models import CustomerConsent
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship
from tests import builders
from tests.staff import Staff

pytestmark = pytest.mark.django_db
CUSTOMERS, RELATIONSHIPS = "tenants_customertenant", "tenants_gdaprelationship"


def world(number: int = 1) -> CustomerTenant:
    partner = builders.partner(name="Northwind Cloud")
    now = timezone.now()
    for _ in range(number):
        customer = builders.customer(partner, company_name="Contoso")
        CustomerTenant.objects.filter(pk=customer.pk).update(
            readiness="not_ready",
            readiness_reason="No active GDAP relationship with this customer.",
            readiness_owner="partner",
            judged_at=now,
            gdap_ends_at=now + timedelta(days=9),
        )
        row = GdapRelationship.objects.create(
            partner=partner,
            relationship_id=f"{builders.guid()}-{builders.guid()}",
            customer_tenant_id=customer.tenant_id,
            display_name="Contoso 2026",
            status="expired",
            roles=["158c047a-c907-4556-b7ef-446551a6b5f7"],
            first_seen_at=now,
            last_seen_at=now,
        )
        GdapAccessAssignment.objects.create(
            relationship=row, assignment_id=builders.guid(), status="active", group_id=builders.guid(), last_seen_at=now
        )
    return customer


def page(staff: Staff, model: str, *keys: int, query: str = "") -> str:
    name = f"admin:{model}_{'change' if keys else 'changelist'}"
    answer = staff.get(reverse(name, args=keys) + query, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_the_list_of_customers_shows_filters_and_exports_readiness_with_reason_and_owner() -> None:
    customer, staff = world(), Staff()
    assert "No active GDAP relationship with this customer." in page(staff, CUSTOMERS)
    assert "Contoso" in page(staff, CUSTOMERS, query="?readiness__exact=not_ready&readiness_owner__exact=partner")
    assert "Contoso" not in page(staff, CUSTOMERS, query="?readiness__exact=ready")
    export = b"".join(staff.choose(CUSTOMERS, "export_csv", customer.pk).streaming_content).decode()
    assert '"readiness","readiness_reason","readiness_owner","judged_at","gdap_ends_at"' in export


def test_a_customers_page_leads_to_its_relationships_with_groups_and_roles() -> None:
    customer, staff = world(), Staff()
    row = GdapRelationship.objects.get()
    assert reverse(f"admin:{RELATIONSHIPS}_change", args=[row.pk]) in page(staff, CUSTOMERS, customer.pk)
    text = page(staff, RELATIONSHIPS, row.pk)
    assert "Cloud Application Administrator" in text
    assert GdapAccessAssignment.objects.get().group_id in text
    assert "Contoso 2026" in page(staff, RELATIONSHIPS, query=f"?q={customer.tenant_id}")


def test_the_partners_page_counts_its_customers_by_state_and_leads_to_each_list() -> None:
    customer, staff = world(), Staff()
    CustomerConsent.objects.create(customer=customer, registration=builders.registration(), state="absent")
    text = page(staff, "tenants_partnertenant", customer.partner_id)
    assert "Not ready: 1" in text
    assert "Consent absent: 1" in text
    for address in (
        f"{reverse('admin:tenants_customertenant_changelist')}?partner__id__exact={customer.partner_id}",
        f"{reverse('admin:consent_customerconsent_changelist')}?customer__partner__id__exact={customer.partner_id}",
    ):
        assert address in text.replace("&amp;", "&")
    assert "Contoso" in page(
        staff,
        "consent_customerconsent",
        query=f"?customer__partner__id__exact={customer.partner_id}&state__exact=absent",
    )


@pytest.mark.parametrize("model", [CUSTOMERS, RELATIONSHIPS])
def test_the_lists_cost_the_same_for_any_number_of_rows(model: str, django_assert_max_num_queries: Any) -> None:
    staff = Staff()
    world(3)
    page(staff, model)
    with django_assert_max_num_queries(20) as few:
        page(staff, model)
    world(10)
    with django_assert_max_num_queries(len(few)):
        page(staff, model)
