"""Who the signed-in account is in its own tenant: member or guest, which groups and roles (Graph ``/me``, app+user).

Source: Microsoft Graph v1.0, "Get a user" (User.Read) and "List a user's direct memberships" and "List a
user's memberships (direct and transitive)". Types that the token may not read come back with no more than an id, so a
missing name proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from portal.microsoft.graph import GraphApi

GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"  # role template id, the same in every tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What could be read. None means: could not be verified with these permissions."""

    is_member: bool | None
    is_global_administrator: bool | None


class AccountClient(GraphApi):
    """Reads the account that the token belongs to."""

    def standing(self) -> Standing:
        """Return member and Global Administrator as far as the permissions show them.

        Raises:
            RemoteError: Graph refused or did not answer.
        """
        operation = "read account"
        me = self.record(
            self.request("GET", "/v1.0/me", operation=operation, params={"$select": "id,userType"}).body, operation
        )
        kind = str(me.get("userType") or "").lower()
        memberships = list(self.collection("/v1.0/me/memberOf", operation="list memberships", params={"$top": "999"}))
        return Standing(
            is_member={"member": True, "guest": False}.get(kind),
            is_global_administrator=_is_global_administrator(memberships),
        )

    def groups(self) -> frozenset[str]:
        """Return the object ids of the groups and roles that the account is in, directly or through other groups.

        Ids need no extra permission.

        Raises:
            RemoteError: Graph refused or did not answer.
        """
        listed = self.collection("/v1.0/me/transitiveMemberOf", operation="list memberships", params={"$top": "999"})
        return frozenset(str(one.get("id") or "").lower() for one in listed)


def _is_global_administrator(memberships: Iterable[Mapping[str, Any]]) -> bool | None:
    """Tell whether one membership is this role; None when roles were hidden from us."""
    roles = [
        one.get("roleTemplateId") for one in memberships if str(one.get("@odata.type", "")).endswith(".directoryRole")
    ]
    if GLOBAL_ADMINISTRATOR in {str(role).lower() for role in roles}:
        return True
    return None if not roles or None in roles else False
