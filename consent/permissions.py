"""Which permissions we ask for: permission sets, the manifest, and what may be granted in customer tenants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.conf import settings

from consent.grants import Grants
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID, NationalCloud

_SCOPE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,119}")
# Microsoft lists them beside the permissions of a resource; they belong to each sign-in, and no set asks for them.
_SIGN_IN_SCOPES = {"openid", "profile", "email", "offline_access"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionSet:
    """Delegated permissions that a partner consents to, in the partner's own tenant."""

    partner_center: tuple[str, ...]
    graph: tuple[str, ...]

    def authorize_scopes(self, cloud: NationalCloud) -> list[str]:
        """Return the scopes of the authorize request, which may name several resources."""
        return [
            "openid",
            "profile",
            "offline_access",
            *(f"{cloud.partner_center}/{scope}" for scope in self.partner_center),
            *(f"{cloud.graph}/{scope}" for scope in self.graph),
        ]

    def resources(self) -> Grants:
        """Return what is asked for on each resource."""
        return Grants({PARTNER_CENTER_APPLICATION_ID: self.partner_center, GRAPH_APPLICATION_ID: self.graph})


PERMISSION_SETS: Mapping[str, PermissionSet] = {
    "strict": PermissionSet(
        partner_center=("user_impersonation",),
        graph=("DelegatedAdminRelationship.ReadWrite.All", "User.Read.All", "User.Read"),
    ),
    "extended": PermissionSet(
        partner_center=("user_impersonation",),
        graph=("DelegatedAdminRelationship.ReadWrite.All", "User.Read.All", "User.Read", "Directory.Read.All"),
    ),
}


def granted_names(scopes: Iterable[str]) -> list[str]:
    """Return the delegated permissions among the scope names of a token answer, sorted; nothing else enters a row."""
    return sorted(scope for scope in scopes if scope not in _SIGN_IN_SCOPES and _SCOPE.fullmatch(scope))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a partner granted, beside what its registration asks for now.

    Attributes:
        missing: asked for, and not granted on a resource whose grants were proven.
        extra: granted, and not asked for any more.
        unproven: asked for on resources whose grants no sign-in proved.
    """

    missing: Grants
    extra: Grants
    unproven: Grants


def held(scopes: Mapping[str, Iterable[str]], chosen: PermissionSet) -> Held:
    """Compare what the last sign-in proved with a permission set; ``PartnerConsentQuerySet`` says the same in SQL."""
    granted, asked = Grants(scopes), chosen.resources()
    proven = Grants({resource: asked[resource] for resource in asked if resource in scopes})
    return Held(missing=proven - granted, extra=granted - proven, unproven=asked - proven)


def parse_scopes(value: object) -> list[str]:
    """Return sorted permission names out of a list or a text with commas or blanks.

    Raises:
        ValueError: not permission names, or none.
    """
    words = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not words:
        raise ValueError("Name at least one delegated permission, for example User.Read.All")
    for word in words:
        if not isinstance(word, str) or not _SCOPE.fullmatch(word):
            raise ValueError("A permission name has letters, digits and dots, for example User.Read.All")
    return sorted(set(words), key=str.lower)


def outside_allow_list(grants: Grants) -> Grants:
    """Return what this deployment does not allow to be granted in customer tenants (S-52)."""
    allowed: dict[str, list[str]] = {}
    for entry in settings.CONSENT_GRANT_ALLOW_LIST:
        resource, _, scope = entry.partition("/")
        allowed.setdefault(resource.lower(), []).append(scope)
    return grants - allowed


def can_read_back(grants: Grants) -> bool:
    """Tell whether these grants let us read in the customer tenant what it holds of our application.

    Source: Microsoft Graph permissions reference, servicePrincipal and oAuth2PermissionGrant, list, delegated.
    """
    held = {scope.lower().replace(".readwrite.", ".read.") for scope in grants.get(GRAPH_APPLICATION_ID, ())}
    both = {"application.read.all", "delegatedpermissiongrant.read.all"}
    return "directory.read.all" in held or both <= held
