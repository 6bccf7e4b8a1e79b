"""Mirror a partner's customers. Only a completed sync marks rows missing; nothing is ever deleted.

One odd item does not stop a partner's sync: it is left out and named, and that sync marks nothing missing, because the
item may be what seems to be missing.

A row is written when something about it changed, and not to say that it is as before: when the latest list came to its
end stands once, at the partner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.db.models import F, Model, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.bulk import upsert
from portal.microsoft.identifiers import CorrelationId
from portal.search_text import LONGEST, folded
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer, PartnerCenterClient

CHUNK = 500  # rows of one statement
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
    unseen = set(CustomerTenant.objects.for_partner(partner).listed().values_list("pk", flat=True))
    known = len(unseen)
    for page in client.customers(odd=report.odd):
        report.listed += len(page)
        for chunk in batched(page, CHUNK):
            report.created += _store_page(partner, chunk, began, unseen)
    all_of_them = known + report.created
    if not report.odd and not force and is_unbelievable(len(unseen), all_of_them):
        raise TooManyMissing(
            f"Partner Center lists {report.listed:,} customers and lacks {len(unseen):,} of the {all_of_them:,} that "
            "were known. None was marked missing. Ask the partner; if it is true, let an operator "
            "accept it (operations guide)."
        )
    _end(partner, report, began, unseen, actor=actor, correlation_id=client.correlation_id, force=force)
    return report


def is_unbelievable(lacking: int, all_of_them: int) -> bool:
    """Tell whether a complete list lacks so many of the known rows that a person must confirm it."""
    return lacking > max(_FEW, _MISSING_SHARE * all_of_them)


def note_unseen[Row: Model](
    rows: QuerySet[Row], keys: Iterable[int], *, before: datetime | None, now: datetime, missing: bool
) -> int:
    """Write on rows that a list which came to its end did not have them; return how many of them are missing since now.

    Args:
        before: when the list before this one began; then they were seen last.
        missing: whether they are gone. Otherwise an odd item may be what they seem to lack.
    """
    seen = F("first_seen_at") if before is None else Greatest("first_seen_at", Value(before))
    columns = {"last_seen_at": Coalesce("last_seen_at", seen), **({"missing_since": now} if missing else {})}
    listed = rows.filter(missing_since__isnull=True)
    noted = sum(listed.filter(pk__in=chunk).update(**columns) for chunk in batched(keys, CHUNK))
    return noted if missing else 0


def _end(
    partner: PartnerTenant,
    report: SyncReport,
    began: datetime,
    unseen: Collection[int],
    *,
    actor: Actor,
    correlation_id: CorrelationId,
    force: bool,
) -> None:
    """Write that the list came to its end, and what it lacks."""
    row = PartnerTenant.objects.filter(pk=partner.pk)
    with transaction.atomic():
        before = row.values_list("customers_synced_at", flat=True).get()
        # Where a list that began later came to its end already, it knows better who is gone.
        if row.filter(Q(customers_synced_at=None) | Q(customers_synced_at__lt=began)).update(customers_synced_at=began):
            customers = CustomerTenant.objects.for_partner(partner)
            report.missing = note_unseen(customers, unseen, before=before, now=began, missing=not report.odd)
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


def _store_page(partner: PartnerTenant, page: Sequence[Customer], seen_at: datetime, unseen: set[int]) -> int:
    """Write what is new or changed in a page, and take what it lists from ``unseen``; return how many are new.

    One statement where nothing changed; a customer listed twice in a page is written once.
    """
    customers = CustomerTenant.objects.for_partner(partner)
    listed = {customer.tenant_id: customer for customer in page}
    rows = customers.filter(tenant_id__in=listed).values_list("tenant_id", "pk", *CustomerTenant.REMOTE_FIELDS)
    known = {tenant_id: (key, tuple(remote)) for tenant_id, key, *remote in rows}
    unseen.difference_update(key for key, _ in known.values())
    changed = {key for tenant_id, (key, remote) in known.items() if remote != _remote(listed[tenant_id])}
    written = [
        (partner.pk, each.tenant_id, seen_at, *_remote(each), folded(each.company_name, each.domain)[:LONGEST])
        for each in listed.values()
        if each.tenant_id not in known or known[each.tenant_id][0] in changed
    ]
    if not written:
        return 0
    with transaction.atomic():
        if changed:  # what was known of the relationships of one that was gone is known no more
            customers.missing().filter(pk__in=changed).update(
                readiness=CustomerTenant.Readiness.UNKNOWN, readiness_reason="", readiness_owner="", judged_at=None
            )
        upsert(
            CustomerTenant,
            ["partner", "tenant_id", "first_seen_at", *CustomerTenant.REMOTE_FIELDS, "search_text"],
            written,
            unique=["partner", "tenant_id"],
            update=[*CustomerTenant.REMOTE_FIELDS, "search_text"],
        )
    return len(listed) - len(known)


def _remote(customer: Customer) -> tuple[str | None, ...]:
    """Return what the columns ``REMOTE_FIELDS`` hold of a customer while a list names it."""
    return customer.partner_center_id, customer.company_name, customer.domain, customer.relationship, None, None
