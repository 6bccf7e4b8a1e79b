"""What Microsoft says of an application object, reduced to what we compare.

The text may come from anybody who has a page of the admin open, so it is small, it is JSON, only known keys are kept,
and of credentials only what identifies them and when they end.

A part is kept only where the text holds it whole and in the form that Microsoft gives: what has another form is
refused, so that nothing passes as looked at because it could not be understood.

Source: Microsoft Graph v1.0, application, servicePrincipal, appRoleAssignment, keyCredential, passwordCredential,
federatedIdentityCredential.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from consent.applications import manifest

MOST_CHARACTERS = 200_000
_LONGEST = 300
_MOST_ITEMS = 100
type Seen = Mapping[str, Any]
"""Of Graph's application object what is compared, with ``owners`` and ``federatedIdentityCredentials`` where they were
read as well. A part that was not read has no key."""


class NotReadable(ValueError):
    """The text cannot be compared; says why, and repeats nothing of it."""


def read_text(text: str) -> Seen:
    """Return what a pasted text says of an application: ``az ad app show``, Graph, or our own command's answer.

    Raises:
        NotReadable: it is too long, no JSON, or no application object.
    """
    if len(text) > MOST_CHARACTERS:
        raise NotReadable(f"The text is longer than {MOST_CHARACTERS:,} characters. Paste the answer of one command.")
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise NotReadable("The text is no JSON. Paste all of what the command printed, from { to }.") from None
    return read(found)


def read(found: object) -> Seen:
    """Return what is compared of a parsed answer; everything else is dropped, every credential's value among it.

    Raises:
        NotReadable: it is no application object.
    """
    if not isinstance(found, dict):
        raise NotReadable("This is no application object: it must begin with {.")
    whole = found if "application" in found else {"application": found}
    told = whole["application"]
    if not isinstance(told, dict) or not isinstance(told.get("appId"), str):
        raise NotReadable("This is no application object: it has no appId.")
    seen: dict[str, Any] = {name: _text(told[name]) for name in _TEXTS if name in told}
    seen |= {name: _flag(told[name]) for name in _FLAGS if name in told}
    for platform in ("web", "spa", "publicClient"):
        if "redirectUris" in (inner := _dict(told.get(platform))):
            seen[platform] = {"redirectUris": [_text(uri) for uri in _list(inner["redirectUris"])]}
    if "implicitGrantSettings" in (web := _dict(told.get("web"))):
        chosen = _dict(web["implicitGrantSettings"])
        seen["implicitGrantSettings"] = {name: _flag(chosen.get(name)) for name in IMPLICIT_GRANTS}
    if "requiredResourceAccess" in told:
        seen["requiredResourceAccess"] = [
            {
                "resourceAppId": _text(each.get("resourceAppId")).lower(),
                "resourceAccess": _items(each.get("resourceAccess"), ("id", "type")),
            }
            for each in _dicts(told["requiredResourceAccess"])
        ]
    if "servicePrincipalLockConfiguration" in told:
        lock = _dict(told["servicePrincipalLockConfiguration"])
        seen["servicePrincipalLockConfiguration"] = {name: _flag(lock.get(name)) for name in manifest.LOCK}
    if "verifiedPublisher" in told:
        seen["verifiedPublisher"] = _text(_dict(told["verifiedPublisher"]).get("displayName"))
    for name, keys in _LISTS.items():
        holder = told if name in told else whole
        if name in holder and not (holder is whole and holder[name] is None):
            seen[name] = _items(_whole_list(name, holder[name]), keys)
    principal = _dict(whole.get("servicePrincipal"))
    if principal.keys() >= {"appId", "accountEnabled", *_OF_PRINCIPAL}:
        if _text(principal["appId"]) != seen["appId"]:
            raise NotReadable("The service principal is one of another application.")
        seen["servicePrincipal"] = {
            "accountEnabled": _flag(principal["accountEnabled"]),
            **{name: _items(_whole_list(name, principal[name]), _LISTS[name]) for name in _OF_PRINCIPAL},
        }
    return seen


def _whole_list(name: str, listed: object) -> list[Any]:
    items = listed.get("value") if isinstance(listed, dict) else listed
    if not isinstance(items, list) or (isinstance(listed, dict) and "@odata.nextLink" in listed):
        raise NotReadable(f"{name} is no whole list. Paste all of what the command printed.")
    return items


_OF_PRINCIPAL = ("passwordCredentials", "keyCredentials")


_TEXTS = ("appId", "displayName", "signInAudience", "disabledByMicrosoftStatus")
_FLAGS = ("isDisabled", "isFallbackPublicClient")
IMPLICIT_GRANTS = ("enableIdTokenIssuance", "enableAccessTokenIssuance")
_AUDIENCES = "audiences"  # a list within an item; kept as its words
_LISTS = {
    "passwordCredentials": ("keyId", "endDateTime"),
    "keyCredentials": ("keyId", "customKeyIdentifier", "endDateTime"),
    "owners": ("id", "displayName"),
    "federatedIdentityCredentials": ("issuer", "subject", _AUDIENCES),
    "appRoleAssignments": ("appRoleId", "resourceDisplayName"),
}


def _no_number(text: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


_OTHER_FORM = "A value has another form than Microsoft gives it. Paste all of what the command printed, unchanged."


def _text(value: object) -> str:
    """Return a short printable text; null is an empty one."""
    if value is not None and not isinstance(value, str):
        raise NotReadable(_OTHER_FORM)
    return "".join(c for c in value or "" if c.isprintable())[:_LONGEST]


def _flag(value: object) -> bool:
    if not isinstance(value, bool | None):
        raise NotReadable(_OTHER_FORM)
    return bool(value)


def _dict(value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise NotReadable(_OTHER_FORM)
    return value or {}


def _list(value: object) -> list[Any]:
    if value is not None and (not isinstance(value, list) or len(value) > _MOST_ITEMS):
        raise NotReadable(f"A list has more than {_MOST_ITEMS} entries, or is none.")
    return value or []


def _dicts(value: object) -> list[dict[str, Any]]:
    found = _list(value)
    if not all(isinstance(each, dict) for each in found):
        raise NotReadable(_OTHER_FORM)
    return found


def _items(value: object, names: Sequence[str]) -> list[dict[str, str]]:
    def kept(each: dict[str, Any], name: str) -> str:
        return " ".join(map(_text, _list(each.get(name)))) if name == _AUDIENCES else _text(each.get(name))

    return [{name: kept(each, name) for name in names} for each in _dicts(value)]


def not_looked_at(seen: Seen) -> list[str]:
    """Name the parts of the application that no look showed."""
    return [word for name, word in PARTS.items() if name not in seen]


PARTS = {
    "signInAudience": "account types",
    "isDisabled": "whether it is disabled by its owner",
    "disabledByMicrosoftStatus": "whether it is disabled by Microsoft",
    "web": "redirect URIs",
    "spa": "redirect URIs of single-page applications",
    "publicClient": "redirect URIs of mobile and desktop applications",
    "implicitGrantSettings": "implicit grants",
    "isFallbackPublicClient": "public client flows",
    "requiredResourceAccess": "permissions",
    "servicePrincipalLockConfiguration": "property lock",
    "passwordCredentials": "client secrets",
    "keyCredentials": "certificates",
    "federatedIdentityCredentials": "federated credentials",
    "owners": "owners",
    "servicePrincipal": "service principal",
    "appRoleAssignments": "granted application permissions",
    "verifiedPublisher": "publisher verification",
}
