"""The way from a role to the service account, edge by edge, as the mirror has it: where it is broken, and who mends it.

It says in parts what ``tenants.readiness`` says as one verdict. Runs no query: see :func:`with_relationships`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import Prefetch, QuerySet

from portal.microsoft.diagnosis import Owner
from tenants.gdap import AccessAssignment, Relationship
from tenants.gdap_sync import as_read
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship
from tenants.readiness import is_live, role_name

Verdict = CustomerTenant.Readiness
type Known = Sequence[tuple[Relationship, Sequence[AccessAssignment]]]


class Joint(StrEnum):
    """What an edge leads to, in order."""

    RELATIONSHIP = "GDAP relationship"
    ROLE = "Role"
    GROUP = "Security group"
    MEMBER = "Service account"


class Holds(StrEnum):
    """Whether an edge holds."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    UNREACHED = "unreached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One edge: what is there, or what is missing and how it is mended. ``owner`` is who mends it."""

    joint: Joint
    holds: Holds
    text: str
    owner: Owner | None = None


def with_relationships(customers: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
    """Load with customers what their paths need: two queries more, whatever their number."""
    assignments = Prefetch("assignments", GdapAccessAssignment.objects.filter(missing_since__isnull=True))
    relationships = GdapRelationship.objects.filter(missing_since__isnull=True).prefetch_related(assignments)
    return customers.prefetch_related(Prefetch("gdap_relationships", relationships, to_attr="known_relationships"))


def path_of(customer: CustomerTenant, *, accepted: Collection[str], now: datetime) -> list[Edge]:
    """Return the four edges of a customer whose relationships were loaded (:func:`with_relationships`).

    Args:
        accepted: role template ids that may consent.
    """
    known: Known = list(as_read(getattr(customer, "known_relationships")))  # noqa: B009  # made by the prefetch
    wanted = {role.lower() for role in accepted}
    edges = [_relationship(known, now)]
    live = [(relationship, assignments) for relationship, assignments in known if is_live(relationship, now)]
    active = [one for _, assignments in live for one in assignments if one.status == "active"]
    able = [one for one in active if {role.lower() for role in one.roles} & wanted]
    for edge in (_role(live, active, wanted), _group(active, able), _member(customer)):
        reached = edges[-1].holds in {Holds.YES, Holds.UNKNOWN}
        edges.append(edge if reached else Edge(joint=edge.joint, holds=Holds.UNREACHED, text="Not reached."))
    return edges


def broken(edges: Sequence[Edge]) -> Edge | None:
    """Return the edge that does not hold; None while all do."""
    return next((edge for edge in edges if edge.holds is Holds.NO), None)


def _relationship(known: Known, now: datetime) -> Edge:
    live = [relationship for relationship, _ in known if is_live(relationship, now)]
    if live:
        named = ", ".join(one.display_name or one.relationship_id[:8] for one in live)
        return Edge(joint=Joint.RELATIONSHIP, holds=Holds.YES, text=f"Active: {named}.")
    if any(relationship.status == "approvalPending" for relationship, _ in known):
        text = "It waits for the customer's approval: the customer opens the invitation and approves it."
        return Edge(joint=Joint.RELATIONSHIP, holds=Holds.NO, text=text, owner=Owner.CUSTOMER)
    ended = [relationship.ends_at for relationship, _ in known if relationship.ends_at is not None]
    over = f"The last one ended on {max(ended):%Y-%m-%d}" if ended and max(ended) <= now else "None is active"
    text = f"{over}. The partner asks for a new one, and the customer approves it."
    return Edge(joint=Joint.RELATIONSHIP, holds=Holds.NO, text=text, owner=Owner.PARTNER)


def _role(live: Known, active: Sequence[AccessAssignment], wanted: Collection[str]) -> Edge:
    offered = sorted({role.lower() for relationship, _ in live for role in relationship.roles} & set(wanted))
    if offered:
        return Edge(joint=Joint.ROLE, holds=Holds.YES, text=f"{', '.join(map(role_name, offered))}.")
    names = " or ".join(sorted(role_name(role) for role in wanted))
    if any({role.lower() for role in one.roles} & set(wanted) for one in active):
        return Edge(joint=Joint.ROLE, holds=Holds.YES, text="Assigned to a group.")
    text = (
        f"No relationship holds {names}. Roles cannot be added to a relationship: the partner asks for a new one "
        "with it, and the customer approves it."
    )
    return Edge(joint=Joint.ROLE, holds=Holds.NO, text=text, owner=Owner.PARTNER)


def _group(active: Sequence[AccessAssignment], able: Sequence[AccessAssignment]) -> Edge:
    if able:
        groups = sorted({one.group_id for one in able})
        return Edge(joint=Joint.GROUP, holds=Holds.YES, text=f"Holds the role: group {', '.join(groups)}.")
    text = (
        "The assigned groups do not hold the role. The partner adds it to the assignment in Partner Center."
        if active
        else "No security group is assigned. The partner assigns one with the role in Partner Center."
    )
    return Edge(joint=Joint.GROUP, holds=Holds.NO, text=text, owner=Owner.PARTNER)


def _member(customer: CustomerTenant) -> Edge:
    match customer.readiness:
        case Verdict.READY:
            return Edge(
                joint=Joint.MEMBER,
                holds=Holds.YES,
                text="The service account is a member of the group, directly or through another group.",
            )
        case Verdict.NOT_READY if customer.readiness_owner == Owner.NOBODY:
            text = customer.readiness_reason
            return Edge(joint=Joint.MEMBER, holds=Holds.UNKNOWN, text=text, owner=Owner.NOBODY)
        case Verdict.NOT_READY:
            text = (
                "The service account is not a member of the group, neither directly nor through another group. The "
                "partner adds the account to it, then synchronise."
            )
            return Edge(joint=Joint.MEMBER, holds=Holds.NO, text=text, owner=Owner.PARTNER)
    text = customer.readiness_reason or "The relationships were not read yet: synchronise the partner."
    return Edge(joint=Joint.MEMBER, holds=Holds.UNKNOWN, text=text, owner=Owner.US)
