"""Mirror a partner's GDAP relationships and access assignments, and judge its customers by them.

The rules are those of ``tenants.sync``: only completed lists without odd items mark rows missing, and nothing is ever
deleted. One partner costs a call for each 300 relationships, and one for each 20 live ones, whose assignments come in
batches; so 100,000 live relationships are 334 and 5,000 calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched

from django.db import transaction
from django.db.models import Prefetch
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.microsoft.diagnosis import Owner
from portal.microsoft.identifiers import CorrelationId, TenantId
from tenants.gdap import BATCH, AccessAssignment, GdapClient, Relationship
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tenants.readiness import OWN_TENANT, UNREAD, Readiness, gdap_end, is_live, judge
from tenants.sync import TooManyMissing, is_unbelievable

_CHUNK = 500  # rows of one statement
Verdict = CustomerTenant.Readiness


@dataclass(slots=True)
class GdapReport:
    """Counts of one sync."""

    relationships: int = 0
    assignments: int = 0
    missing: int = 0
    odd: list[str] = field(default_factory=list)
    """Items that could not be read and were left out, in words; then nothing was marked missing."""


def sync_relationships(
    partner: PartnerTenant,
    client: GdapClient,
    *,
    actor: Actor,
    accepted: Collection[str],
    own_groups: frozenset[str] | None,
    own_tenants: Collection[str],
    force: bool = False,
) -> GdapReport:
    """Bring relationships and assignments in line with Graph, page by page, and judge the customers.

    Run it after ``sync_customers``: a relationship is joined to the customers that are known then.

    Args:
        accepted: role template ids that may consent.
        own_groups: object ids of the groups that the service account is in, directly or through other groups; None when
            they cannot be read.
        own_tenants: tenant ids that are no customers, besides the partner's.
        force: believe lists that lack unusually many rows; a person's decision.

    Raises:
        RemoteError: a list could not be read to its end; what was seen is kept, nothing is marked missing.
        TooManyMissing: unusually many relationships or assignments would be marked missing.
    """
    began, report = timezone.now(), GdapReport()
    for page in batched(client.relationships(odd=report.odd), _CHUNK):
        live = [each for each in page if is_live(each, began)]
        found: dict[str, list[AccessAssignment]] = {}
        for part in batched(live, BATCH):
            lists = client.access_assignments_of(part, odd=report.odd)
            found |= {one.relationship_id: assignments for one, assignments in zip(part, lists, strict=True)}
        _store(partner, page, found, began)
        report.relationships += len(page)
        report.assignments += sum(map(len, found.values()))
    _mark_missing(partner, report, began, actor=actor, correlation_id=client.correlation_id, force=force)
    _judge_customers(partner, began, accepted, own_groups, {partner.tenant_id, *own_tenants})
    return report


def note_unread(partner: PartnerTenant) -> None:
    """Write on the partner's customers that their relationships cannot be read, and which permission shows them."""
    CustomerTenant.objects.for_partner(partner).listed().update(
        readiness=Verdict.UNKNOWN, readiness_reason=UNREAD, readiness_owner=Owner.US, judged_at=timezone.now()
    )


# --- storing ------------------------------------------------------------------------------------------------------


def _store(
    partner: PartnerTenant, page: Sequence[Relationship], found: Mapping[str, list[AccessAssignment]], seen_at: datetime
) -> None:
    """Write one page in three statements; a relationship listed twice in a page is written once."""
    tenants = {each.customer_tenant_id for each in page if each.customer_tenant_id}
    with transaction.atomic():
        known = CustomerTenant.objects.for_partner(partner).filter(tenant_id__in=tenants)
        customers = dict(known.values_list("tenant_id", "pk"))
        rows = {each.relationship_id: _row(partner, each, customers, found, seen_at) for each in page}
        for alike, columns in (
            ([row for row in rows.values() if row.assignments_read_at], ("assignments_read_at",)),
            ([row for row in rows.values() if not row.assignments_read_at], ()),  # an older reading stays
        ):
            GdapRelationship.objects.bulk_create(
                alike,
                update_conflicts=True,
                unique_fields=["partner", "relationship_id"],
                update_fields=[*GdapRelationship.REMOTE_FIELDS, *columns],
            )
        assignments = {
            (relationship_id, each.assignment_id): GdapAccessAssignment(
                relationship=rows[relationship_id],
                assignment_id=each.assignment_id[:80],
                status=each.status[:40],
                group_id=each.group_id[:64],
                roles=sorted(each.roles),
                created_at=each.created_at,
                first_seen_at=seen_at,
                last_seen_at=seen_at,
            )
            for relationship_id, its_assignments in found.items()
            for each in its_assignments
        }
        GdapAccessAssignment.objects.bulk_create(
            assignments.values(),
            batch_size=_CHUNK,
            update_conflicts=True,
            unique_fields=["relationship", "assignment_id"],
            update_fields=GdapAccessAssignment.REMOTE_FIELDS,
        )


def _row(
    partner: PartnerTenant,
    each: Relationship,
    customers: Mapping[str, int],
    found: Mapping[str, list[AccessAssignment]],
    seen_at: datetime,
) -> GdapRelationship:
    return GdapRelationship(
        partner=partner,
        relationship_id=each.relationship_id[:80],
        customer_id=customers.get(each.customer_tenant_id or ""),
        customer_tenant_id=each.customer_tenant_id or "",
        display_name=each.display_name[:100],
        status=each.status[:40],
        roles=sorted(each.roles),
        activated_at=each.activated_at,
        ends_at=each.ends_at,
        auto_extend_duration=each.auto_extend_duration,
        first_seen_at=seen_at,
        last_seen_at=seen_at,
        assignments_read_at=seen_at if each.relationship_id in found else None,
    )


def _mark_missing(
    partner: PartnerTenant,
    report: GdapReport,
    began: datetime,
    *,
    actor: Actor,
    correlation_id: CorrelationId,
    force: bool,
) -> None:
    """Mark what the completed lists lack: relationships, and assignments of those whose assignments were read."""
    relationships = GdapRelationship.objects.filter(partner=partner, missing_since__isnull=True)
    assignments = GdapAccessAssignment.objects.filter(
        relationship__partner=partner, relationship__assignments_read_at=began, missing_since__isnull=True
    )
    with transaction.atomic():
        if report.odd:  # one of them may be what seems to be missing
            relationships, assignments = relationships.none(), assignments.none()
        for rows, name in ((relationships, "GDAP relationships"), (assignments, "GDAP access assignments")):
            lacking, known = rows.filter(last_seen_at__lt=began).count(), rows.count()
            if not force and is_unbelievable(lacking, known):
                raise TooManyMissing(
                    f"Microsoft Graph lacks {lacking:,} of the {known:,} {name} that were known. None was marked "
                    "missing. Ask the partner; if it is true, let an operator accept it (operations guide)."
                )
        for gone in (relationships, assignments):
            report.missing += gone.filter(last_seen_at__lt=began).update(missing_since=began)
        created = sum(
            rows.filter(first_seen_at=began).count()
            for rows in (
                GdapRelationship.objects.filter(partner=partner),
                GdapAccessAssignment.objects.filter(relationship__partner=partner),
            )
        )
        if created or report.missing or report.odd or force:  # lists as before stand in their run's results
            record(
                "partner.relationships_synced",
                actor=actor,
                subject={"partner": partner.pk},
                details={
                    "relationships": report.relationships,
                    "assignments": report.assignments,
                    "created": created,
                    "missing": report.missing,
                    "odd": len(report.odd),
                },
                correlation_id=correlation_id,
            )


# --- judging ------------------------------------------------------------------------------------------------------


def _judge_customers(
    partner: PartnerTenant,
    now: datetime,
    accepted: Collection[str],
    own_groups: frozenset[str] | None,
    own_tenants: Collection[str],
) -> None:
    """Write verdict and end on every listed customer; a chunk's statements grow with its verdicts, not its rows."""
    last = 0
    while chunk := _chunk(partner, last):
        last = chunk[-1].pk
        alike: dict[Readiness, list[int]] = {}
        moved = []
        for customer in chunk:
            known = list(as_read(customer.gdap_relationships.all()))
            verdict = judge(known, now=now, own_groups=own_groups, accepted=accepted)
            alike.setdefault(OWN_TENANT if customer.tenant_id in own_tenants else verdict, []).append(customer.pk)
            end = gdap_end((relationship for relationship, _ in known), now=now)
            if end != customer.gdap_ends_at:
                customer.gdap_ends_at = end
                moved.append(customer)
        with transaction.atomic():
            CustomerTenant.objects.bulk_update(moved, ["gdap_ends_at"])
            for verdict, keys in alike.items():
                write_verdict(keys, verdict, now)


def write_end(customer: CustomerTenant, end: datetime | None) -> None:
    """Write when the last live relationship with this customer ends."""
    CustomerTenant.objects.filter(pk=customer.pk).update(gdap_ends_at=end)


def write_verdict(customers: Iterable[int], verdict: Readiness, now: datetime) -> None:
    """Write what is known of these customers, and since when."""
    code = Verdict.NOT_READY if not verdict.ready else Verdict.UNVERIFIED if verdict.unverified else Verdict.READY
    CustomerTenant.objects.filter(pk__in=list(customers)).update(
        readiness=code,
        readiness_reason=(verdict.reason or verdict.unverified)[:300],
        readiness_owner=verdict.owner.value if verdict.owner else "",
        judged_at=now,
    )


def _chunk(partner: PartnerTenant, after: int) -> list[CustomerTenant]:
    listed = GdapAccessAssignment.objects.filter(missing_since__isnull=True)
    relationships = GdapRelationship.objects.filter(missing_since__isnull=True)
    return list(
        CustomerTenant.objects.for_partner(partner)
        .listed()
        .filter(pk__gt=after)
        .order_by("pk")
        .only("pk", "tenant_id", "gdap_ends_at")
        .prefetch_related(
            Prefetch("gdap_relationships", relationships.prefetch_related(Prefetch("assignments", listed)))
        )[:_CHUNK]
    )


def as_read(rows: Iterable[GdapRelationship]) -> Iterator[tuple[Relationship, list[AccessAssignment]]]:
    """Yield rows of the mirror as the client would return them."""
    for row in rows:
        relationship = Relationship(
            relationship_id=row.relationship_id,
            display_name=row.display_name,
            customer_tenant_id=TenantId(row.customer_tenant_id),
            status=row.status,
            roles=frozenset(row.roles),
            activated_at=row.activated_at,
            ends_at=row.ends_at,
            auto_extend_duration=row.auto_extend_duration,
        )
        yield (
            relationship,
            [
                AccessAssignment(
                    assignment_id=one.assignment_id,
                    status=one.status,
                    group_id=one.group_id,
                    roles=frozenset(one.roles),
                    created_at=one.created_at,
                )
                for one in row.assignments.all()
            ],
        )
