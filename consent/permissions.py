"""Which permissions we ask for: permission sets, the manifest, and what may be granted in customer tenants."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from django.conf import settings

from consent.grants import Grants
from portal.microsoft.clouds import (
    AZURE_MANAGEMENT_APPLICATION_ID,
    GRAPH_APPLICATION_ID,
    PARTNER_API_APPLICATION_ID,
    PARTNER_CENTER_APPLICATION_ID,
    NationalCloud,
)

_SCOPE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,119}")
# Microsoft lists them beside the permissions of a resource; they belong to each sign-in, and no set asks for them.
_SIGN_IN_SCOPES = {"openid", "profile", "email", "offline_access"}


# Delegated permissions by resource and name, with the id that the manifest of a registration lists. The id belongs to
# the name in each cloud. Source: Microsoft Graph permissions reference; for the other resources the service principals
# that Microsoft publishes in each tenant (``oauth2PermissionScopes``). The one of the Partner API is confirmed by no
# page of Microsoft that we know (``UNCONFIRMED_IDS``).
PERMISSION_IDS: Mapping[str, Mapping[str, str]] = {
    PARTNER_CENTER_APPLICATION_ID: {"user_impersonation": "1cebfa2a-fb4d-419e-b5f9-839b4383e05a"},
    PARTNER_API_APPLICATION_ID: {"user_impersonation": "eabf9ef3-1f9e-f3da-19a1-bcd60d080567"},
    AZURE_MANAGEMENT_APPLICATION_ID: {"user_impersonation": "41094075-9dad-400e-a0bd-54e686782033"},
    GRAPH_APPLICATION_ID: {
        "Application.Read.All": "c79f8feb-a9db-4090-85f9-90d820caa0eb",
        "Application.ReadWrite.All": "bdfbf15f-ee85-4955-8675-146e8e5296b5",
        "AppRoleAssignment.ReadWrite.All": "84bccea3-f856-4a8a-967b-dbe0a3d53a64",
        "AuditLog.Read.All": "e4c9e354-4dc5-45b8-9e7c-e1393b0b1a20",
        "CrossTenantInformation.ReadBasic.All": "81594d25-e88e-49cf-ac8c-fecbff49f994",
        "DelegatedAdminRelationship.Read.All": "0c0064ea-477b-4130-82a5-4c2cc4ff68aa",
        "DelegatedAdminRelationship.ReadWrite.All": "885f682f-a990-4bad-a642-36736a74b0c7",
        "DelegatedPermissionGrant.ReadWrite.All": "41ce6ca6-6826-4807-84f1-1c82854f7ee5",
        "Directory.AccessAsUser.All": "0e263e50-5827-48a4-b97c-d940288653c7",
        "Directory.Read.All": "06da0dbc-49e2-44d2-8312-53f166ab848a",
        "Directory.ReadWrite.All": "c5366453-9fb0-48a5-a156-24f0c49a4b84",
        "Domain.Read.All": "2f9ee017-59c1-4f1d-9472-bd5529a7b311",
        "Group.Read.All": "5f8c59db-677d-491f-a6b8-5f174b11ec1d",
        "GroupMember.Read.All": "bc024368-1153-4739-b217-4326f2e966d0",
        "Organization.Read.All": "4908d5b9-3fb2-4b1e-9336-1888b7937185",
        "Policy.Read.All": "572fea84-0151-49b2-9301-11cb16974376",
        "RoleManagement.Read.Directory": "741c54c3-0c1e-44a1-818b-3f97ab4e8c83",
        "User.Read": "e1fe6dd8-ba31-4d61-89e7-88639da4683d",
        "User.Read.All": "a154be20-db9c-4678-8ab7-66f6cc099a59",
        "User.ReadBasic.All": "b340eb25-3456-403f-be2f-af7a0d370277",
    },
}

# Ids that staff compare in their own tenant before they rely on them, and may replace in a set of their own.
UNCONFIRMED_IDS = frozenset(PERMISSION_IDS[PARTNER_API_APPLICATION_ID].values())

# Application permissions have names of delegated ones and ids of their own. Those that people mix up most.
APPLICATION_PERMISSION_IDS = {
    "cc13eba4-8cd8-44c6-b4d4-f93237adce58",  # DelegatedAdminRelationship.ReadWrite.All
    "7ab1d382-f21e-4acd-a863-ba3e13f7da61",  # Directory.Read.All
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One delegated permission that a set asks for.

    Attributes:
        resource: application id of the service.
        name: as Microsoft writes it, for example ``User.Read.All``.
        id: of the delegated permission; the manifest of a registration lists ids only.
        service: what a resource of our own is called; empty for those of Microsoft.
        title: what it allows, for partners; empty where ``consent.words`` has words for it.
        why: what we need it for, for partners; empty as well.
    """

    resource: str
    name: str
    id: str
    service: str = ""
    title: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionSet:
    """Delegated permissions that a partner consents to, in the partner's own tenant."""

    permissions: tuple[Permission, ...]

    @classmethod
    def from_json(cls, lines: Iterable[Mapping[str, str]]) -> PermissionSet:
        """Return the set of a row's lines."""
        return cls(permissions=tuple(Permission(**line) for line in lines))

    def to_json(self) -> list[dict[str, str]]:
        """Return the lines that a row keeps: one for each permission."""
        return [asdict(one) for one in self.permissions]

    @property
    def digest(self) -> str:
        """One SHA-256 of everything that staff see of it: also of its words."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def authorize_scopes(self, cloud: NationalCloud) -> list[str]:
        """Return the scopes of the authorize request: each permission of each resource, by its full name.

        The authorize request may name several resources, and the person consents to all of them on one screen. It
        names no ``.default``: Entra refuses a request that mixes it with named permissions (AADSTS70011), and alone
        it would ask for what the registration's manifest lists, which may be more than the set.

        A token request may name one resource only (AADSTS28000). So the code is redeemed for the first one, Partner
        Center, by its one named permission (:attr:`NationalCloud.partner_center_scope`), and the refresh token for
        each other one by ``.default``: that gives all that was granted there. Named permissions would fail as a whole
        when one of them was not granted (AADSTS65001), and the comparison would learn nothing.

        Source: Microsoft identity platform, "Scopes and permissions", sections on ``.default`` and several resources.

        Raises:
            ValueError: this cloud lacks one of the services.
        """
        return [
            "openid",
            "profile",
            "offline_access",
            *(f"{origin_of(one.resource, cloud)}/{one.name}" for one in self.permissions),
        ]

    def resources(self) -> Grants:
        """Return what is asked for on each resource."""
        found: dict[str, list[str]] = {}
        for one in self.permissions:
            found.setdefault(one.resource, []).append(one.name)
        return Grants(found)

    def words(self) -> dict[str, tuple[str, str]]:
        """Return the set's own words, title and why, by ``resource/name``."""
        return {f"{one.resource}/{one.name}": (one.title, one.why) for one in self.permissions if one.title}

    def services(self) -> dict[str, str]:
        """Return what resources of our own are called, by their application id."""
        return {one.resource: one.service for one in self.permissions if one.service}

    def absent_in(self, cloud: NationalCloud) -> list[str]:
        """Return the application ids of asked services that this cloud does not have."""
        return [resource for resource in self.resources() if _origins(cloud).get(resource, resource) is None]


def _origins(cloud: NationalCloud) -> dict[str, str | None]:
    return {
        PARTNER_CENTER_APPLICATION_ID: cloud.partner_center,
        GRAPH_APPLICATION_ID: cloud.graph,
        PARTNER_API_APPLICATION_ID: cloud.partner_api,
        AZURE_MANAGEMENT_APPLICATION_ID: cloud.azure_management,
    }


def origin_of(resource: str, cloud: NationalCloud) -> str:
    """Return what stands before a permission's name in a scope: the address of the service in this cloud.

    A resource of our own is named by its application id. So no set holds a host, and none can hold one of another
    cloud.

    Raises:
        ValueError: this cloud has no such service.
    """
    origin = _origins(cloud).get(resource, resource)
    if origin is None:
        raise ValueError(f"{cloud.name} has no Partner API")
    return origin


def _built_in(**names: Iterable[str]) -> PermissionSet:
    resources = {"partner_center": PARTNER_CENTER_APPLICATION_ID, "graph": GRAPH_APPLICATION_ID}
    return PermissionSet(
        permissions=tuple(
            Permission(resource=resources[key], name=name, id=PERMISSION_IDS[resources[key]][name])
            for key, some in names.items()
            for name in some
        )
    )


_STRICT = ("DelegatedAdminRelationship.ReadWrite.All", "User.Read.All", "User.Read")
PERMISSION_SETS: Mapping[str, PermissionSet] = {
    "strict": _built_in(partner_center=["user_impersonation"], graph=_STRICT),
    "extended": _built_in(partner_center=["user_impersonation"], graph=[*_STRICT, "Directory.Read.All"]),
}


class Asking(Protocol):
    """What asks partners for permissions: a row of ``ApplicationRegistration``."""

    @property
    def asked(self) -> PermissionSet:
        """The permission set in use."""


def manifest_permissions(registration: Asking) -> Mapping[str, tuple[str, ...]]:
    """Return what the manifest of a registration must list: ids of delegated permissions by resource application id.

    ``required_resource_access`` says the same in the form of Microsoft Graph. Sign-in scopes (``openid``, ``profile``,
    ``offline_access``) are asked for in each request and need no line in the manifest.
    """
    found: dict[str, list[str]] = {}
    for one in registration.asked.permissions:
        found.setdefault(one.resource, []).append(one.id)
    return {resource: tuple(ids) for resource, ids in found.items()}


def required_resource_access(registration: Asking) -> list[dict[str, Any]]:
    """Return ``requiredResourceAccess`` of Microsoft Graph's ``application``: delegated permissions only."""
    return [
        {"resourceAppId": resource, "resourceAccess": [{"id": one, "type": "Scope"} for one in ids]}
        for resource, ids in manifest_permissions(registration).items()
    ]


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
