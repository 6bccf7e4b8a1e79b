"""Delegated permissions in plain language, for the page that asks for them (S-05)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from portal.microsoft.clouds import (
    AZURE_MANAGEMENT_APPLICATION_ID,
    GRAPH_APPLICATION_ID,
    PARTNER_API_APPLICATION_ID,
    PARTNER_CENTER_APPLICATION_ID,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionWords:
    """A delegated permission in plain language: what it allows, and what we need it for."""

    title: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionLine:
    """One line of the landing page; ``name`` is the scope as Microsoft writes it."""

    title: str
    why: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionGroup:
    """The permissions of one Microsoft service."""

    resource: str
    permissions: tuple[PermissionLine, ...]


_NONE: Mapping[str, Any] = MappingProxyType({})
# Asked for at each sign-in, whatever the permission set; Microsoft counts them as permissions of Graph.
_SIGN_IN_SCOPES = ("openid", "profile", "offline_access")

RESOURCE_NAMES: Mapping[str, str] = {
    PARTNER_CENTER_APPLICATION_ID: "Microsoft Partner Center",
    GRAPH_APPLICATION_ID: "Microsoft Graph",
    PARTNER_API_APPLICATION_ID: "Microsoft Partner API",
    AZURE_MANAGEMENT_APPLICATION_ID: "Azure management",
}

PERMISSION_WORDS: Mapping[str, PermissionWords] = MappingProxyType(
    {
        f"{PARTNER_CENTER_APPLICATION_ID}/user_impersonation": PermissionWords(
            title="Work in Partner Center as the service account",
            why="We read your list of customers, and set up our application for the customers that you choose.",
        ),
        f"{PARTNER_API_APPLICATION_ID}/user_impersonation": PermissionWords(
            title="Work with the Partner API as the service account",
            why="We read what Microsoft offers to partners there, such as price sheets and referrals.",
        ),
        f"{AZURE_MANAGEMENT_APPLICATION_ID}/user_impersonation": PermissionWords(
            title="Manage Azure resources as the service account",
            why="We read and change Azure resources, as far as the roles of the account allow it.",
        ),
        f"{GRAPH_APPLICATION_ID}/DelegatedAdminRelationship.ReadWrite.All": PermissionWords(
            title="Read and manage your GDAP relationships",
            why=(
                "We see for which customers, with which roles and until when you have delegated access. "
                "Microsoft’s Secure Application Model requires this permission."
            ),
        ),
        f"{GRAPH_APPLICATION_ID}/DelegatedAdminRelationship.Read.All": PermissionWords(
            title="Read your GDAP relationships",
            why="We see for which customers, with which roles and until when you have delegated access.",
        ),
        f"{GRAPH_APPLICATION_ID}/User.Read.All": PermissionWords(
            title="Read the profiles of the users in a tenant",
            why=(
                "We recognize the service account among the users. "
                "Microsoft’s Secure Application Model requires this permission."
            ),
        ),
        f"{GRAPH_APPLICATION_ID}/User.Read": PermissionWords(
            title="Read the profile of the service account",
            why="We make sure that the account is a member of your tenant and not a guest.",
        ),
        f"{GRAPH_APPLICATION_ID}/Directory.Read.All": PermissionWords(
            title="Read roles, groups and applications in the directory",
            why="We check the roles of the service account, and that consent was really set up.",
        ),
        f"{GRAPH_APPLICATION_ID}/Application.Read.All": PermissionWords(
            title="Read the applications in a tenant",
            why="We check that our application has exactly the permissions that were agreed, and no others.",
        ),
        f"{GRAPH_APPLICATION_ID}/GroupMember.Read.All": PermissionWords(
            title="Read groups and their members",
            why="We check that the service account is in the Admin Agents group and in your GDAP groups.",
        ),
        f"{GRAPH_APPLICATION_ID}/Organization.Read.All": PermissionWords(
            title="Read the organization’s details",
            why="We show the right company name and domains for each tenant.",
        ),
        f"{GRAPH_APPLICATION_ID}/RoleManagement.Read.Directory": PermissionWords(
            title="Read which roles are assigned",
            why="We check that the service account holds the roles that Microsoft asks for.",
        ),
        f"{GRAPH_APPLICATION_ID}/openid": PermissionWords(
            title="Sign the account in",
            why="Microsoft tells us which account signed in, and in which tenant.",
        ),
        f"{GRAPH_APPLICATION_ID}/profile": PermissionWords(
            title="See the account’s name and identifier",
            why="We recognize the same account next time, and hold a different one for approval.",
        ),
        f"{GRAPH_APPLICATION_ID}/offline_access": PermissionWords(
            title="Keep this access until you take it back",
            why="We work when no person is signed in. You can end it at any time, without us.",
        ),
    }
)


def resource_name(resource: str, services: Mapping[str, str] = _NONE) -> str:
    """Return what the service with this application id is called; one without a name is shown as it is.

    Args:
        services: names that a permission set gives to resources of our own.
    """
    return RESOURCE_NAMES.get(resource) or services.get(resource, resource)


def permission_title(resource: str, scope: str, words: Mapping[str, tuple[str, str]] = _NONE) -> str:
    """Return what a permission allows, in a few words; empty for one without words.

    Args:
        words: title and why that a permission set gives, by ``resource/name``.
    """
    known = _words_of(f"{resource}/{scope}", words)
    return "" if known is None else str(known.title)


def permission_groups(
    resources: Mapping[str, Iterable[str]],
    *,
    words: Mapping[str, tuple[str, str]] = _NONE,
    services: Mapping[str, str] = _NONE,
) -> list[PermissionGroup]:
    """Return the landing page's list: the given permissions, then those that belong to each sign-in.

    Args:
        resources: scope names by resource application id. A name without words is shown as it is.
        words: see :func:`permission_title`.
        services: see :func:`resource_name`.
    """
    sign_in = tuple(_permission_line(GRAPH_APPLICATION_ID, scope, _NONE) for scope in _SIGN_IN_SCOPES)
    asked = groups_of(resources, words=words, services=services)
    return [*asked, PermissionGroup(resource="Microsoft sign-in", permissions=sign_in)]


def groups_of(
    resources: Mapping[str, Iterable[str]],
    *,
    words: Mapping[str, tuple[str, str]] = _NONE,
    services: Mapping[str, str] = _NONE,
) -> list[PermissionGroup]:
    """Return exactly these permissions in words, by the service that they belong to. The arguments are as above."""
    return [
        PermissionGroup(
            resource=resource_name(resource, services),
            permissions=tuple(_permission_line(resource, scope, words) for scope in scopes),
        )
        for resource, scopes in resources.items()
    ]


def _words_of(key: str, words: Mapping[str, tuple[str, str]]) -> PermissionWords | None:
    """Return the set's words for a permission, else ours."""
    if key in words:
        title, why = words[key]
        return PermissionWords(title=title, why=why)
    return PERMISSION_WORDS.get(key)


def _permission_line(resource: str, scope: str, words: Mapping[str, tuple[str, str]]) -> PermissionLine:
    known = _words_of(f"{resource}/{scope}", words) or PermissionWords(
        title="Another permission",
        why="We have no short description of it. Microsoft describes it on the next page; ask us if in doubt.",
    )
    return PermissionLine(title=known.title, why=known.why, name=scope)
