"""Mirror a partner's GDAP relationships and their assignments, and judge its customers by them.

Relationships are listed page by page: only a completed list marks rows missing, and nothing is ever deleted.
Assignments cost a call for each relationship, so they are read where they can matter (the relationship is live) and not
more often than they change: at each sync while there is no active one, else once a week, and so many at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import batched

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Prefetch, Q
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.microsoft.diagnosis import Owner
from portal.microsoft.identifiers import TenantId
from tenants.gdap import AccessAssignment, GdapClient, Relationship
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tenants.readiness import CONSENT_ROLES, LIVE, Readiness, gdap_end, judge
from tenants.sync import TooManyMissing, lacks_too_many

_CHUNK = 500  # rows of one statement
_AGAIN_AFTER = timedelta(days=7)
ASSIGNMENTS_A_RUN = 1000  # relationships whose assignments one run reads; the others come with the next ones
Word = CustomerTenant.Readiness

_NOT_READ = "The relationship's assignments were not read yet; the next sync reads them."
_OWN_TENANT = "This is the partner's or our own tenant, not a customer."


@dataclass(slots=True)
class GdapReport:
    """Counts of one sync."""

    listed: int = 0
    missing: int = 0
    assignments_read: int = 0
    not_ready: int = 0


def sync_relationships(
    partner: PartnerTenant,
    client: GdapClient,
    *,
    actor: Actor,
    own_groups: frozenset[str] | None,
    own_tenants: Collection[str] = (),
    accepted: Collection[str] = tuple(CONSENT_ROLES),
    force: bool = False,
) -> GdapReport:
    """Bring relationships, assignments and the verdicts on the partner's customers in line with Graph.

    Args:
        own_groups: object ids of the groups that the service account is in; None when they cannot be read.
        own_tenants: the vendor's tenants, which are nobody's customers.
        accepted: role template ids that may consent.
        force: believe a list that lacks unusually many relationships; a person's decision.

    Raises:
        RemoteError: something could not be read to its end; what was seen is kept, nothing is marked missing.
        TooManyMissing: more relationships than is believable would be marked missing.
    """
    began, report = timezone.now(), GdapReport()
    for page in batched(client.relationships(), _CHUNK):
        report.listed += len(page)
        _store_relationships(partner, page, began)
    _mark_missing(partner, report, began, actor=actor, force=force)
    for key, relationship_id in _to_read(partner, began):
        _store_assignments(key, client.access_assignments(relationship_id), began)
        report.assignments_read += 1
    report.not_ready = judge_customers(
        partner, own_groups=own_groups, own_tenants={*own_tenants, partner.tenant_id}, accepted=accepted
    )
    return report


def _store_relationships(partner: PartnerTenant, page: Sequence[Relationship], seen_at: datetime) -> None:
    rows = {
        one.relationship_id: GdapRelationship(
            partner=partner,
            relationship_id=one.relationship_id,
            customer_tenant_id=one.customer_tenant_id or "",
            display_name=one.display_name[:100],
            status=one.status[:40],
            roles=sorted(one.roles),
            auto_extend=one.auto_extend[:20],
            activated_at=one.activated_at,
            ends_at=one.ends_at,
            first_seen_at=seen_at,
            last_seen_at=seen_at,
            missing_since=None,
        )
        for one in page
    }
    GdapRelationship.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["partner", "relationship_id"],
        update_fields=GdapRelationship.REMOTE_FIELDS,
    )


def _mark_missing(partner: PartnerTenant, report: GdapReport, began: datetime, *, actor: Actor, force: bool) -> None:
    with transaction.atomic():
        listed = GdapRelationship.objects.filter(partner=partner, missing_since__isnull=True)
        gone, all_of_them = listed.filter(last_seen_at__lt=began), listed.count()
        lacking = gone.count()
        if not force and lacks_too_many(lacking, all_of_them):
            raise TooManyMissing(
                f"Microsoft Graph lists {report.listed:,} GDAP relationships and lacks {lacking:,} of the "
                f"{all_of_them:,} that were known. None was marked missing. Ask the partner; if it is true, run "
                "sync_customers --force."
            )
        report.missing = gone.update(missing_since=began)
        record(
            "partner.relationships_synced",
            actor=actor,
            subject={"partner": partner.pk},
            details={"listed": report.listed, "missing": report.missing},
        )


def _to_read(partner: PartnerTenant, now: datetime) -> list[tuple[int, str]]:
    """Return the relationships whose assignments are due, those never read first."""
    active = GdapAccessAssignment.objects.filter(
        relationship=OuterRef("pk"), status="active", missing_since__isnull=True
    )
    due = Q(assignments_read_at__isnull=True) | Q(assignments_read_at__lt=now - _AGAIN_AFTER) | ~Exists(active)
    live = GdapRelationship.objects.filter(partner=partner, missing_since__isnull=True, status__in=LIVE).filter(due)
    never_first = live.order_by(F("assignments_read_at").asc(nulls_first=True), "pk")
    return list(never_first.values_list("pk", "relationship_id")[:ASSIGNMENTS_A_RUN])


def _store_assignments(key: int, found: Sequence[AccessAssignment], seen_at: datetime) -> None:
    rows = [
        GdapAccessAssignment(
            relationship_id=key,
            assignment_id=one.assignment_id[:64],
            status=one.status[:40],
            group_id=one.group_id.lower()[:64],
            roles=sorted(one.roles),
            created_at=one.created_at,
            last_seen_at=seen_at,
            missing_since=None,
        )
        for one in found
    ]
    with transaction.atomic():
        GdapAccessAssignment.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["relationship", "assignment_id"],
            update_fields=GdapAccessAssignment.REMOTE_FIELDS,
        )
        of_this = GdapAccessAssignment.objects.filter(relationship=key, missing_since__isnull=True)
        of_this.filter(last_seen_at__lt=seen_at).update(missing_since=seen_at)
        GdapRelationship.objects.filter(pk=key).update(assignments_read_at=seen_at)


# --- the verdicts -------------------------------------------------------------------------------------------------


def judge_customers(
    partner: PartnerTenant,
    *,
    own_groups: frozenset[str] | None,
    own_tenants: Collection[str],
    accepted: Collection[str],
) -> int:
    """Write for each listed customer what its mirrored relationships say; return how many are not ready.

    Three statements for 500 customers, whatever their number.
    """
    now, after, not_ready = timezone.now(), 0, 0
    listed = CustomerTenant.objects.for_partner(partner).listed().order_by("pk")
    while chunk := list(listed.filter(pk__gt=after)[:_CHUNK]):
        after = chunk[-1].pk
        theirs = _relationships_of(partner, {customer.tenant_id for customer in chunk})
        for customer in chunk:
            rows = theirs.get(customer.tenant_id, [])
            customer.readiness, customer.readiness_reason, customer.readiness_owner = _verdict(
                customer, rows, now=now, own_groups=own_groups, own_tenants=own_tenants, accepted=accepted
            )
            customer.gdap_ends_at = gdap_end((_relationship(row) for row in rows), now=now)
            customer.judged_at = now
            not_ready += customer.readiness == Word.NOT_READY
        CustomerTenant.objects.bulk_update(
            chunk, ["readiness", "readiness_reason", "readiness_owner", "gdap_ends_at", "judged_at"]
        )
    return not_ready


def _relationships_of(partner: PartnerTenant, tenants: Collection[str]) -> dict[str, list[GdapRelationship]]:
    assignments = GdapAccessAssignment.objects.filter(missing_since__isnull=True)
    rows = GdapRelationship.objects.filter(
        partner=partner, customer_tenant_id__in=tenants, missing_since__isnull=True
    ).prefetch_related(Prefetch("assignments", queryset=assignments))
    found: dict[str, list[GdapRelationship]] = {}
    for row in rows:
        found.setdefault(row.customer_tenant_id, []).append(row)
    return found


def _verdict(
    customer: CustomerTenant,
    rows: Iterable[GdapRelationship],
    *,
    now: datetime,
    own_groups: frozenset[str] | None,
    own_tenants: Collection[str],
    accepted: Collection[str],
) -> tuple[Word, str, str]:
    """Return verdict, reason and owner."""
    if customer.tenant_id in own_tenants:
        return Word.NOT_READY, _OWN_TENANT, Owner.US.value
    live = [row for row in rows if row.status in LIVE and (row.ends_at is None or row.ends_at > now)]
    if any(row.assignments_read_at is None for row in live):
        return Word.UNVERIFIED, _NOT_READ, Owner.NOBODY.value
    known = [(_relationship(row), [_assignment(each) for each in row.assignments.all()]) for row in rows]
    return verdict_words(judge(known, now=now, own_groups=own_groups, accepted=accepted))


def verdict_words(verdict: Readiness) -> tuple[Word, str, str]:
    """Return the verdict as a customer's row keeps it: word, reason, owner."""
    if not verdict.ready:
        return Word.NOT_READY, verdict.reason[:300], verdict.owner.value if verdict.owner else ""
    if verdict.unverified:
        return Word.UNVERIFIED, verdict.unverified[:300], Owner.PARTNER.value
    return Word.READY, "", ""


def _relationship(row: GdapRelationship) -> Relationship:
    return Relationship(
        relationship_id=row.relationship_id,
        display_name=row.display_name,
        customer_tenant_id=TenantId(row.customer_tenant_id) if row.customer_tenant_id else None,
        status=row.status,
        roles=frozenset(row.roles),
        activated_at=row.activated_at,
        ends_at=row.ends_at,
        auto_extend=row.auto_extend,
    )


def _assignment(row: GdapAccessAssignment) -> AccessAssignment:
    return AccessAssignment(
        assignment_id=row.assignment_id,
        status=row.status,
        group_id=row.group_id,
        roles=frozenset(row.roles),
        created_at=row.created_at,
    )
