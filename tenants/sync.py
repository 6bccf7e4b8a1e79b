"""Mirror a partner's customers. Only a completed sync marks rows missing; nothing is ever deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from portal.audit.trail import Actor, record
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer, PartnerCenterClient


@dataclass(slots=True)
class SyncReport:
    """Counts of one sync."""

    listed: int = 0
    created: int = 0
    missing: int = 0


def sync_customers(partner: PartnerTenant, client: PartnerCenterClient, *, actor: Actor) -> SyncReport:
    """Bring the partner's customers in line with Partner Center, page by page.

    Raises:
        RemoteError: the list could not be read to its end; what was seen is kept, nothing is marked missing.
    """
    started = timezone.now()
    report = SyncReport()
    for page in client.customers():
        report.listed += len(page)
        report.created += _store_page(partner, page, started)
    with transaction.atomic():
        report.missing = (
            CustomerTenant.objects.for_partner(partner)
            .listed()
            .filter(last_seen_at__lt=started)
            .update(missing_since=started)
        )
        PartnerTenant.objects.filter(pk=partner.pk).update(customers_synced_at=started)
        record(
            "partner.customers_synced",
            actor=actor,
            subject={"partner": partner.pk},
            details={"listed": report.listed, "created": report.created, "missing": report.missing},
            correlation_id=client.correlation_id,
        )
    return report


def _store_page(partner: PartnerTenant, page: list[Customer], seen_at: datetime) -> int:
    """Write one page in two statements; a customer listed twice in a page is written once."""
    rows = {
        customer.tenant_id: CustomerTenant(
            partner=partner,
            tenant_id=customer.tenant_id,
            partner_center_id=customer.partner_center_id,
            company_name=customer.company_name,
            domain=customer.domain,
            relationship=customer.relationship,
            first_seen_at=seen_at,
            last_seen_at=seen_at,
            missing_since=None,
        )
        for customer in page
    }
    with transaction.atomic():
        known = CustomerTenant.objects.for_partner(partner).filter(tenant_id__in=rows).count()
        CustomerTenant.objects.bulk_create(
            rows.values(),
            update_conflicts=True,
            unique_fields=["partner", "tenant_id"],
            update_fields=CustomerTenant.REMOTE_FIELDS,
        )
    return len(rows) - known
