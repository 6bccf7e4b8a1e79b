"""Mirror a partner's GDAP relationships and access assignments, and judge its customers by them.

The rules are those of ``tenants.sync``: only completed lists without odd items mark rows missing, nothing is ever
deleted, and a row is written when something about it changed. One partner costs a call for each 300 relationships, and
one for each 20 live ones, whose assignments come in batches; so 100,000 live relationships are 334 and 5,000 calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched
from typing import Any

from django.db import transaction
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.bulk import set_each, upsert
from portal.microsoft.diagnosis import Owner
from portal.microsoft.identifiers import CorrelationId, TenantId
from tenants.gdap import BATCH, AccessAssignment, GdapClient, Relationship
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTenant
from tenants.readiness import OWN_TENANT, UNREAD, Readiness, gdap_end, is_live, judge
from tenants.sync import CHUNK, TooManyMissing, is_unbelievable, note_unseen

Verdict = CustomerTenant.Readiness


@dataclass(slots=True)
class GdapReport:
    """Counts of one sync."""

    relationships: int = 0
    assignments: int = 0
    created: int = 0
    """Of both."""
    missing: int = 0
    odd: list[str] = field(default_factory=list)
    """Items that could not be read and were left out, in words; then nothing was marked missing."""


@dataclass(slots=True)
class _Unseen:
    """Rows that were listed before, and that this sync has not met yet, or not at their relationship.

    Attributes:
        known_relationships: how many are known, those that are new among them.
        known_assignments: the same of the assignments of relationships whose assignments were read.
    """

    relationships: set[int]
    assignments: set[int] = field(default_factory=set)
    known_relationships: int = 0
    known_assignments: int = 0


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
    listed = GdapRelationship.objects.filter(partner=partner, missing_since__isnull=True)
    unseen = _Unseen(set(listed.values_list("pk", flat=True)))
    unseen.known_relationships = len(unseen.relationships)
    for page in batched(client.relationships(odd=report.odd), CHUNK):
        live = [each for each in page if is_live(each, began)]
        found: dict[str, list[AccessAssignment]] = {}
        for part in batched(live, BATCH):
            lists = client.access_assignments_of(part, odd=report.odd)
            found |= {one.relationship_id: assignments for one, assignments in zip(part, lists, strict=True)}
        report.created += _store(partner, page, found, began, unseen)
        report.relationships += len(page)
        report.assignments += sum(map(len, found.values()))
    for lacking, of, name in (
        (len(unseen.relationships), unseen.known_relationships, "GDAP relationships"),
        (len(unseen.assignments), unseen.known_assignments, "GDAP access assignments"),
    ):
        if not report.odd and not force and is_unbelievable(lacking, of):
            raise TooManyMissing(
                f"Microsoft Graph lacks {lacking:,} of the {of:,} {name} that were known. None was marked "
                "missing. Ask the partner; if it is true, let an operator accept it (operations guide)."
            )
    _end(partner, report, began, unseen, actor=actor, correlation_id=client.correlation_id, force=force)
    _judge_customers(partner, began, accepted, own_groups, {partner.tenant_id, *own_tenants})
    return report


def note_unread(partner: PartnerTenant) -> None:
    """Write on the partner's customers that their relationships cannot be read, and which permission shows them."""
    now = timezone.now()
    unread = {"readiness": Verdict.UNKNOWN, "readiness_reason": UNREAD, "readiness_owner": Owner.US}
    customers = CustomerTenant.objects.for_partner(partner).listed()
    customers.exclude(judged_at__isnull=False, **unread).update(**unread, judged_at=now)
    PartnerTenant.objects.filter(pk=partner.pk).update(customers_judged_at=now)


# --- storing ------------------------------------------------------------------------------------------------------


def _store(
    partner: PartnerTenant,
    page: Sequence[Relationship],
    found: Mapping[str, list[AccessAssignment]],
    seen_at: datetime,
    unseen: _Unseen,
) -> int:
    """Write what is new or changed in one page, and return how much is new; three statements when nothing is."""
    with transaction.atomic():
        keys, new, met = _store_relationships(partner, page, found, seen_at, unseen)
        lists = {keys[relationship_id]: its_assignments for relationship_id, its_assignments in found.items()}
        return new + _store_assignments(lists, met, seen_at, unseen)


def _store_relationships(
    partner: PartnerTenant, page: Sequence[Relationship], found: Collection[str], seen_at: datetime, unseen: _Unseen
) -> tuple[dict[str, int], int, set[int]]:
    """Return keys by relationship id, how many are new, and the keys of those that were listed and are met first here.

    A relationship listed twice in a page is written once.
    """
    tenants = {each.customer_tenant_id for each in page if each.customer_tenant_id}
    customers = CustomerTenant.objects.for_partner(partner).filter(tenant_id__in=tenants)
    of_tenants = dict(customers.values_list("tenant_id", "pk"))
    listed = {each.relationship_id: _remote(each, of_tenants) for each in page}
    rows = GdapRelationship.objects.filter(partner=partner, relationship_id__in=listed)
    columns = rows.values_list("relationship_id", "pk", "assignments_read_at", *_RELATIONSHIP_COLUMNS)
    known = {name: (key, read_at, tuple(remote)) for name, key, read_at, *remote in columns}
    keys = {name: key for name, (key, *_) in known.items()}
    met = unseen.relationships.intersection(keys.values())
    unseen.relationships -= met
    written = []
    for name, remote in listed.items():
        _, read_at, before = known.get(name, (0, None, ()))
        reads = seen_at if read_at is None and name in found else read_at
        if before != remote or reads != read_at:
            written.append((partner.pk, name, seen_at, reads, *remote))
    if written:
        upsert(
            GdapRelationship,
            ["partner", "relationship_id", "first_seen_at", "assignments_read_at", *GdapRelationship.REMOTE_FIELDS],
            written,
            unique=["partner", "relationship_id"],
            update=["assignments_read_at", *GdapRelationship.REMOTE_FIELDS],
        )
    if new := listed.keys() - known.keys():
        unseen.known_relationships += len(new)
        keys |= dict(rows.filter(relationship_id__in=new).values_list("relationship_id", "pk"))
    return keys, len(new), met


def _store_assignments(
    lists: Mapping[int, list[AccessAssignment]], met: Collection[int], seen_at: datetime, unseen: _Unseen
) -> int:
    """Write what is new or changed of the assignments of these relationships; return how many are new."""
    listed = {
        (relationship, each.assignment_id[:80]): _remote_assignment(each)
        for relationship, its_assignments in lists.items()
        for each in its_assignments
    }
    rows = GdapAccessAssignment.objects.filter(relationship__in=lists)
    columns = rows.values_list("relationship", "assignment_id", "pk", *GdapAccessAssignment.REMOTE_FIELDS)
    known = {(relationship, name): (key, tuple(remote)) for relationship, name, key, *remote in columns}
    for (relationship, name), (key, (*_, missing_since)) in known.items():
        if (relationship, name) in listed:
            unseen.assignments.discard(key)
        elif relationship in met and missing_since is None:
            unseen.assignments.add(key)
        unseen.known_assignments += relationship in met and missing_since is None
    written = [
        (*names, seen_at, *remote)
        for names, remote in listed.items()
        if names not in known or known[names][1] != remote
    ]
    if written:
        upsert(
            GdapAccessAssignment,
            ["relationship", "assignment_id", "first_seen_at", *GdapAccessAssignment.REMOTE_FIELDS],
            written,
            unique=["relationship", "assignment_id"],
            update=GdapAccessAssignment.REMOTE_FIELDS,
        )
    new = len(listed.keys() - known.keys())
    unseen.known_assignments += new
    return new


_RELATIONSHIP_COLUMNS = ["customer_id", *GdapRelationship.REMOTE_FIELDS[1:]]


def _remote(each: Relationship, customers: Mapping[str, int]) -> tuple[object, ...]:
    """Return what the columns ``REMOTE_FIELDS`` hold of a relationship while a list has it."""
    return (
        customers.get(each.customer_tenant_id or ""),
        each.customer_tenant_id or "",
        each.display_name[:100],
        each.status[:40],
        sorted(each.roles),
        each.activated_at,
        each.ends_at,
        each.auto_extend_duration,
        None,
        None,
    )


def _remote_assignment(each: AccessAssignment) -> tuple[object, ...]:
    """Return what the columns ``REMOTE_FIELDS`` hold of an assignment while a list has it."""
    return each.status[:40], each.group_id[:64], sorted(each.roles), each.created_at, None, None


def _end(
    partner: PartnerTenant,
    report: GdapReport,
    began: datetime,
    unseen: _Unseen,
    *,
    actor: Actor,
    correlation_id: CorrelationId,
    force: bool,
) -> None:
    """Mark what the completed lists lack: relationships, and assignments of those whose assignments were read."""
    relationships = GdapRelationship.objects.filter(partner=partner)
    assignments = GdapAccessAssignment.objects.filter(relationship__partner=partner)
    with transaction.atomic():
        before = PartnerTenant.objects.values_list("customers_judged_at", flat=True).get(pk=partner.pk)
        if before is None or before < began:  # else lists that were read later came to their end, and know better
            report.missing = sum(
                note_unseen(rows, keys, before=before, now=began, missing=not report.odd)
                for rows, keys in ((relationships, unseen.relationships), (assignments, unseen.assignments))
            )
        if report.created or report.missing or report.odd or force:  # lists as before stand in their run's results
            record(
                "partner.relationships_synced",
                actor=actor,
                subject={"partner": partner.pk},
                details={
                    "relationships": report.relationships,
                    "assignments": report.assignments,
                    "created": report.created,
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
    """Judge every listed customer, and write verdicts and ends that are others than before.

    A chunk's statements grow with its verdicts, not its rows.
    """
    last = 0
    while chunk := _chunk(partner, last):
        last = chunk[-1].pk
        relationships = _relationships_of([customer.pk for customer in chunk])
        alike: dict[Readiness, list[int]] = {}
        moved: dict[int, datetime | None] = {}
        for customer in chunk:
            known = relationships.get(customer.pk, [])
            verdict = judge(known, now=now, own_groups=own_groups, accepted=accepted)
            if customer.tenant_id in own_tenants:
                verdict = OWN_TENANT
            before = customer.readiness, customer.readiness_reason, customer.readiness_owner
            if before != _columns(verdict) or customer.judged_at is None:
                alike.setdefault(verdict, []).append(customer.pk)
            end = gdap_end((relationship for relationship, _ in known), now=now)
            if end != customer.gdap_ends_at:
                moved[customer.pk] = end
        with transaction.atomic():
            if moved:
                set_each(CustomerTenant, "gdap_ends_at", moved)
            for verdict, keys in alike.items():
                write_verdict(keys, verdict, now)
    PartnerTenant.objects.filter(pk=partner.pk).update(customers_judged_at=now)


def write_end(customer: CustomerTenant, end: datetime | None) -> None:
    """Write when the last live relationship with this customer ends."""
    CustomerTenant.objects.filter(pk=customer.pk).update(gdap_ends_at=end)


def write_verdict(customers: Iterable[int], verdict: Readiness, now: datetime) -> None:
    """Write what is known of these customers, and since when."""
    readiness, reason, owner = _columns(verdict)
    CustomerTenant.objects.filter(pk__in=list(customers)).update(
        readiness=readiness, readiness_reason=reason, readiness_owner=owner, judged_at=now
    )


def _columns(verdict: Readiness) -> tuple[str, str, str]:
    """Return readiness, reason and owner as a row holds them."""
    code = Verdict.NOT_READY if not verdict.ready else Verdict.UNVERIFIED if verdict.unverified else Verdict.READY
    reason = (verdict.reason or verdict.unverified)[:300]
    return code.value, reason, verdict.owner.value if verdict.owner else ""


def _chunk(partner: PartnerTenant, after: int) -> list[Any]:
    """Return the next listed customers, with what is known of them so far."""
    customers = CustomerTenant.objects.for_partner(partner).listed().filter(pk__gt=after).order_by("pk")
    columns = "pk", "tenant_id", "gdap_ends_at", "readiness", "readiness_reason", "readiness_owner", "judged_at"
    return list(customers.values_list(*columns, named=True)[:CHUNK])


def _relationships_of(customers: Sequence[int]) -> Mapping[int, list[tuple[Relationship, list[AccessAssignment]]]]:
    """Return the listed relationships of these customers as the client would, each with its listed assignments.

    By columns: making a model's instance of each row would cost more than judging it.
    """
    rows = GdapRelationship.objects.filter(customer__in=customers, missing_since__isnull=True).values_list(
        "pk",
        "customer_id",
        "relationship_id",
        "display_name",
        "customer_tenant_id",
        "status",
        "roles",
        "activated_at",
        "ends_at",
        "auto_extend_duration",
    )
    found: dict[int, list[tuple[Relationship, list[AccessAssignment]]]] = {}
    assignments: dict[int, list[AccessAssignment]] = {}
    for key, customer, relationship_id, name, tenant_id, status, roles, activated_at, ends_at, extends in rows:
        relationship = Relationship(
            relationship_id=relationship_id,
            display_name=name,
            customer_tenant_id=TenantId(tenant_id),
            status=status,
            roles=frozenset(roles),
            activated_at=activated_at,
            ends_at=ends_at,
            auto_extend_duration=extends,
        )
        found.setdefault(customer, []).append((relationship, assignments.setdefault(key, [])))
    given = GdapAccessAssignment.objects.filter(relationship__in=assignments, missing_since__isnull=True)
    columns = given.values_list("relationship_id", "assignment_id", "status", "group_id", "roles", "created_at")
    for relationship_key, assignment_id, of_assignment, group_id, given_roles, created_at in columns:
        assignment = AccessAssignment(
            assignment_id=assignment_id,
            status=of_assignment,
            group_id=group_id,
            roles=frozenset(given_roles),
            created_at=created_at,
        )
        assignments[relationship_key].append(assignment)
    return found


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
