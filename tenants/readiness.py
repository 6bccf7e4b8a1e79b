"""May consent be pushed to this customer? If not: the exact reason and who must act.

Source: Microsoft Graph GDAP documentation and Partner Center "GDAP and the Secure Application Model": an active
relationship, an active assignment of a group that contains the service account, and one of the accepted roles.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from portal.microsoft.diagnosis import Owner
from tenants.gdap import AccessAssignment, Relationship

CONSENT_ROLES: Mapping[str, str] = {
    "62e90394-69f5-4237-9190-012177145e10": "Global Administrator",
    "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3": "Application Administrator",
    "158c047a-c907-4556-b7ef-446551a6b5f7": "Cloud Application Administrator",
}
_LIVE = {"active", "expiring"}
NO_EXTENSION = {"", "P0D", "PT0S"}  # autoExtendDuration of what does not extend itself
_SETTLING = timedelta(minutes=15)  # a new assignment needs this long until Partner Center obeys it (GDAP FAQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The verdict on one customer; ``reason`` and ``owner`` are empty when ready.

    ``unverified`` says what could not be looked at, and which permission would show it.
    """

    ready: bool
    reason: str = ""
    owner: Owner | None = None
    unverified: str = ""


READY = Readiness(ready=True)
_GROUPS_UNREAD = (
    "Whether the service account is in the assigned group could not be verified: Directory.Read.All shows it."
)


OWN_TENANT = Readiness(
    ready=False, reason="This is the partner's or our own tenant, not a customer.", owner=Owner.NOBODY
)
UNREAD = (
    "Could not verify: the GDAP relationships of this partner cannot be read. "
    "DelegatedAdminRelationship.Read.All shows them; ask the partner to consent again with it."
)


def is_live(relationship: Relationship, now: datetime) -> bool:
    """Tell whether the relationship gives access now."""
    return relationship.status in _LIVE and (relationship.ends_at is None or relationship.ends_at > now)


def gdap_end(relationships: Iterable[Relationship], *, now: datetime) -> datetime | None:
    """Return when the last live relationship ends, None when none is live, or one has no end or extends itself."""
    ends = [
        one.ends_at if one.auto_extend_duration in NO_EXTENSION else None for one in relationships if is_live(one, now)
    ]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def judge(
    relationships: Iterable[tuple[Relationship, Iterable[AccessAssignment]]],
    *,
    now: datetime,
    own_groups: frozenset[str] | None = None,
    accepted: Collection[str] = tuple(CONSENT_ROLES),
) -> Readiness:
    """Judge from the relationships with one customer, each with its assignments.

    Args:
        own_groups: object ids of the groups that the service account is in; None when they cannot be read.
        accepted: role template ids that may consent.
    """
    known = list(relationships)
    live = [(relationship, list(assignments)) for relationship, assignments in known if is_live(relationship, now)]
    if not live:
        if any(relationship.status == "approvalPending" for relationship, _ in known):
            return Readiness(
                ready=False,
                reason="The GDAP relationship waits for the customer's approval.",
                owner=Owner.CUSTOMER,
            )
        return Readiness(ready=False, reason="No active GDAP relationship with this customer.", owner=Owner.PARTNER)
    active = [a for _, assignments in live for a in assignments if a.status == "active"]
    if not active:
        return Readiness(
            ready=False,
            reason="The GDAP relationship is active, but no security group is assigned to it yet.",
            owner=Owner.PARTNER,
        )
    roles = {role.lower() for role in accepted}
    able = [assignment for assignment in active if assignment.roles & roles]
    if not able:
        return Readiness(
            ready=False,
            reason="No assigned group holds one of the roles that may consent: "
            + ", ".join(sorted(CONSENT_ROLES.get(role, role) for role in roles))
            + ".",
            owner=Owner.PARTNER,
        )
    if own_groups is not None:
        able = [assignment for assignment in able if assignment.group_id.lower() in own_groups]
        if not able:
            return Readiness(
                ready=False,
                reason="The service account is in none of the groups that hold a role that may consent.",
                owner=Owner.PARTNER,
            )
    if all(each.created_at is not None and each.created_at > now - _SETTLING for each in able):
        return Readiness(
            ready=False,
            reason="The access assignment is younger than 15 minutes; Microsoft does not obey it everywhere yet.",
            owner=Owner.NOBODY,
        )
    if own_groups is None:
        return Readiness(ready=True, unverified=_GROUPS_UNREAD)
    return READY
