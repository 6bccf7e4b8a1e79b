"""Mirror a partner's customers. Only a completed sync marks rows missing; nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer, PartnerCenterClient

_CHUNK = 500  # customers of one statement


@dataclass(slots=True)
class SyncReport:
    """Counts of one sync."""

    listed: int = 0
    created: int = 0
    missing: int = 0


@dataclass(slots=True)
class Listing:
    """A partner's customers as far as they could be read; ``error`` says why the list is not complete.

    Attributes:
        at: when the reading began; whoever was seen later than that is listed.
    """

    correlation_id: CorrelationId
    at: datetime = field(default_factory=timezone.now)
    customers: list[Customer] = field(default_factory=list)
    error: RemoteError | None = None


def sync_customers(partner: PartnerTenant, client: PartnerCenterClient, *, actor: Actor) -> SyncReport:
    """Bring the partner's customers in line with Partner Center.

    Raises:
        RemoteError: the list could not be read to its end; what was seen is kept, nothing is marked missing.
    """
    listing = read_customers(client)
    report = store_customers(partner, listing, actor=actor)
    if listing.error is not None:
        raise listing.error
    return report


def read_customers(client: PartnerCenterClient) -> Listing:
    """Read all pages, or as many as can be read. No query."""
    listing = Listing(correlation_id=client.correlation_id)
    try:
        for page in client.customers():
            listing.customers += page
    except RemoteError as error:
        listing.error = error
    return listing


def store_customers(partner: PartnerTenant, listing: Listing, *, actor: Actor) -> SyncReport:
    """Write a listing. Only a complete one marks customers missing (S-51)."""
    report = SyncReport(listed=len(listing.customers))
    for chunk in batched(listing.customers, _CHUNK):
        report.created += _store_page(partner, chunk, listing.at)
    if listing.error is not None:
        return report
    with transaction.atomic():
        report.missing = (
            CustomerTenant.objects.for_partner(partner)
            .listed()
            .filter(last_seen_at__lt=listing.at)
            .update(missing_since=listing.at)
        )
        PartnerTenant.objects.filter(pk=partner.pk).update(customers_synced_at=listing.at)
        record(
            "partner.customers_synced",
            actor=actor,
            subject={"partner": partner.pk},
            details={"listed": report.listed, "created": report.created, "missing": report.missing},
            correlation_id=listing.correlation_id,
        )
    return report


def _store_page(partner: PartnerTenant, page: Sequence[Customer], seen_at: datetime) -> int:
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
