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

CONSENT_ROLES: dict[str, str] = {
    "62e90394-69f5-4237-9190-012177145e10": "Global Administrator",
    "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3": "Application Administrator",
    "158c047a-c907-4556-b7ef-446551a6b5f7": "Cloud Application Administrator",
}
ROLE_NAMES: Mapping[str, str] = CONSENT_ROLES | {
    "0526716b-113d-4c15-b2c8-68e3c22b9f80": "Authentication Policy Administrator",
    "11648597-926c-4cf3-9c36-bcebb0ba8dcc": "Power Platform Administrator",
    "17315797-102d-40b4-93e0-432062caca18": "Compliance Administrator",
    "194ae4cb-b126-40b2-bd5b-6091b380977d": "Security Administrator",
    "29232cdf-9323-42fd-ade2-1d097af3e4de": "Exchange Administrator",
    "3a2c62db-5318-420d-8d74-23affee5d9d5": "Intune Administrator",
    "44367163-eba1-44c3-98af-f5787879f96a": "Dynamics 365 Administrator",
    "4a5d8f65-41da-4de4-8968-e035b65339cf": "Reports Reader",
    "4d6ac14f-3453-41d0-bef9-a3e0c569773a": "License Administrator",
    "5d6b6bb7-de71-4623-b4af-96380a352509": "Security Reader",
    "69091246-20e8-4a56-aa4d-066075b2a7a8": "Teams Administrator",
    "729827e3-9c14-49f7-bb1b-9608f156bbb8": "Helpdesk Administrator",
    "7698a772-787b-4ac8-901f-60d6b08affd2": "Cloud Device Administrator",
    "790c1fb9-7f7d-4f88-86a1-ef1f95c05c1b": "Message Center Reader",
    "7be44c8a-adaf-4e2a-84d6-ab2649e08a13": "Privileged Authentication Administrator",
    "8329153b-31d0-4727-b945-745eb3bc5f31": "Domain Name Administrator",
    "88d8e3e3-8f55-4a1e-953a-9b9898b8876b": "Directory Readers",
    "9360feb5-f418-4baa-8175-e2a00bac4301": "Directory Writers",
    "966707d0-3269-4727-9be2-8c3a10f19b9d": "Password Administrator",
    "b0f54661-2d74-4c50-afa3-1ec803f12efe": "Billing Administrator",
    "b1be1c3e-b65d-4f19-8427-f6fa0d97feb9": "Conditional Access Administrator",
    "c4e39bd9-1100-46d3-8c65-fb160da0071f": "Authentication Administrator",
    "e8611ab8-c189-46e8-94e1-60213ab1f814": "Privileged Role Administrator",
    "f023fd81-a637-4b56-95fd-791ac0226033": "Service Support Administrator",
    "f28a1f50-f6e7-4571-818b-6a12f2af6b6c": "SharePoint Administrator",
    "f2ef992c-3afb-46b9-b7cf-a126ee74c451": "Global Reader",
    "fdd7a751-b60b-444a-984c-02652fe8fa1c": "Groups Administrator",
    "fe930be7-5e62-47db-91af-98c3a49a38b1": "User Administrator",
}
"""Names by role template id, the same in every tenant. Source: Microsoft Entra built-in roles."""
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


def role_name(role: str) -> str:
    """Return a role template's name, or the first characters of the id of one that we do not know."""
    return ROLE_NAMES.get(role.lower(), f"Role {role[:8]}")


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
        own_groups: object ids of the groups that the service account is in, directly or through other groups; None when
            they cannot be read.
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
            + ", ".join(sorted(role_name(role) for role in roles))
            + ".",
            owner=Owner.PARTNER,
        )
    if own_groups is not None:
        able = [assignment for assignment in able if assignment.group_id.lower() in own_groups]
        if not able:
            return Readiness(
                ready=False,
                reason=(
                    "The service account is in none of the groups that hold a role that may consent, neither directly "
                    "nor through another group."
                ),
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
