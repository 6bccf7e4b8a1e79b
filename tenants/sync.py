"""Mirror a partner's customers. Only a completed sync marks rows missing; nothing is ever deleted.

One odd item does not stop a partner's sync: it is left out and named, and that sync marks nothing missing, because the
item may be what seems to be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.microsoft.identifiers import CorrelationId
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer, PartnerCenterClient

_CHUNK = 500  # customers of one statement
_MISSING_SHARE = 0.2  # more than this of a partner's rows do not leave between two syncs
_FEW = 10  # so many may always go


@dataclass(slots=True)
class SyncReport:
    """Counts of one sync."""

    listed: int = 0
    created: int = 0
    missing: int = 0
    odd: list[str] = field(default_factory=list)
    """Items that could not be read and were left out, in words."""


class TooManyMissing(Exception):
    """A complete list lacks more rows than is believable; none was marked missing. The text says how many."""


def sync_customers(
    partner: PartnerTenant, client: PartnerCenterClient, *, actor: Actor, force: bool = False
) -> SyncReport:
    """Bring the partner's customers in line with Partner Center, page by page, so that memory stays flat.

    Args:
        force: believe a list that lacks unusually many customers; a person's decision.

    Raises:
        RemoteError: the list could not be read to its end; what was seen is kept, nothing is marked missing.
        TooManyMissing: more than a fifth of the partner's customers, and more than ten, would be marked missing.
    """
    began, report = timezone.now(), SyncReport()
    for page in client.customers(odd=report.odd):
        report.listed += len(page)
        for chunk in batched(page, _CHUNK):
            report.created += _store_page(partner, chunk, began)
    _mark_missing(partner, report, began, actor=actor, correlation_id=client.correlation_id, force=force)
    return report


def is_unbelievable(lacking: int, all_of_them: int) -> bool:
    """Tell whether a complete list lacks so many of the known rows that a person must confirm it."""
    return lacking > max(_FEW, _MISSING_SHARE * all_of_them)


def _mark_missing(
    partner: PartnerTenant,
    report: SyncReport,
    began: datetime,
    *,
    actor: Actor,
    correlation_id: CorrelationId,
    force: bool,
) -> None:
    with transaction.atomic():
        listed = CustomerTenant.objects.for_partner(partner).listed()
        if report.odd:
            listed = listed.none()
        gone, all_of_them = listed.filter(last_seen_at__lt=began), listed.count()
        lacking = gone.count()
        if not force and is_unbelievable(lacking, all_of_them):
            raise TooManyMissing(
                f"Partner Center lists {report.listed:,} customers and lacks {lacking:,} of the {all_of_them:,} that "
                "were known. None was marked missing. Ask the partner; if it is true, let an operator "
                "accept it (operations guide)."
            )
        report.missing = gone.update(missing_since=began)
        PartnerTenant.objects.filter(pk=partner.pk).update(customers_synced_at=began)
        if report.created or report.missing or report.odd or force:  # a list as before stands in its run's results
            record(
                "partner.customers_synced",
                actor=actor,
                subject={"partner": partner.pk},
                details={
                    "listed": report.listed,
                    "created": report.created,
                    "missing": report.missing,
                    "odd": len(report.odd),
                },
                correlation_id=correlation_id,
            )


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
            update_fields=[*CustomerTenant.REMOTE_FIELDS, "search_text"],
        )
    return len(rows) - known
