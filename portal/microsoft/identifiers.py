"""Identifiers that look alike and must not be mixed up.

Everything that goes into a path, a query or a row passes through one of the ``parse_*`` functions first: they
accept the usual ways of writing a GUID and give back the one canonical form (lower case, hyphens, no braces), or
raise :class:`InvalidIdentifier` (S-04, S-26, S-66).
"""

from __future__ import annotations

import random
import re
import uuid
from typing import NewType

TenantId = NewType("TenantId", str)
"""A Microsoft Entra tenant (directory) id."""
ApplicationId = NewType("ApplicationId", str)
"""An application's client id (``appId``), never its object id."""
ObjectId = NewType("ObjectId", str)
"""A directory object's id, valid in one tenant only (``oid``)."""
CorrelationId = NewType("CorrelationId", str)
"""One unit of work of ours; sent as ``client-request-id`` and ``MS-CorrelationId`` (R-47)."""
RequestId = NewType("RequestId", str)
"""One logical call; sent as ``MS-RequestId`` and repeated when that call is repeated (R-20)."""

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")

CONSUMERS_TENANT = TenantId("9188040d-6c67-4c5b-b112-36a304b66dad")
"""The tenant that stands for all personal Microsoft accounts; never a partner."""
_SHORTEST_START = 8
NIL_GUID = "00000000-0000-0000-0000-000000000000"


class InvalidIdentifier(ValueError):
    """The text is not an identifier of the wanted kind. The message repeats no input."""


def _canonical_guid(text: str, what: str) -> str:
    candidate = text.strip(" ").lower()
    if candidate[:1] == "{" and candidate[-1:] == "}":
        candidate = candidate[1:-1]
    if not _CANONICAL.fullmatch(candidate) or candidate == NIL_GUID:
        raise InvalidIdentifier(f"{what} must be a GUID such as 3f2504e0-4f89-41d3-9a0c-0305e82c3301")
    return candidate


def canonical_guid(text: str) -> str | None:
    """Return the canonical form of a GUID of whatever kind, None when the text is none."""
    try:
        return _canonical_guid(text, "This")
    except InvalidIdentifier:
        return None


def guids_from(text: str) -> tuple[str, str] | None:
    """Return the first and the last GUID that begin with these characters, eight at least; None when none can."""
    start = text.strip(" {}").lower()
    if len(start) < _SHORTEST_START:
        return None
    first, last = (f"{start}{NIL_GUID.replace('0', digit)[len(start) :]}" for digit in "0f")
    return (first, last) if _CANONICAL.fullmatch(last) and _CANONICAL.fullmatch(first) else None


def parse_tenant_id(text: str) -> TenantId:
    """Return the canonical tenant id; ``common``, ``organizations``, ``consumers`` and domains are refused.

    Raises:
        InvalidIdentifier: not a GUID, or the personal-accounts tenant.
    """
    guid = _canonical_guid(text, "A tenant id")
    if guid == CONSUMERS_TENANT:
        raise InvalidIdentifier("This is the tenant of personal Microsoft accounts, which is never a partner")
    return TenantId(guid)


def parse_application_id(text: str) -> ApplicationId:
    """Return the canonical application (client) id. Raises InvalidIdentifier."""
    return ApplicationId(_canonical_guid(text, "An application (client) id"))


def parse_object_id(text: str) -> ObjectId:
    """Return the canonical object id. Raises InvalidIdentifier."""
    return ObjectId(_canonical_guid(text, "An object id"))


def parse_domain(text: str) -> str:
    """Return a DNS domain in lower case ASCII, for example ``contoso.onmicrosoft.com``.

    Raises:
        InvalidIdentifier: not a DNS name of at least two labels.
    """
    candidate = text.strip(" ").lower()
    # Asked of the text itself: the lower case of the Kelvin sign is an ASCII k.
    if not text.isascii() or not _DOMAIN.fullmatch(candidate):
        raise InvalidIdentifier("A domain must look like contoso.onmicrosoft.com")
    return candidate


def new_id() -> str:
    """Return a UUID that no other call gets, in any process. It guards nothing: it can be guessed.

    ``uuid.uuid4`` asks the system, and lets other threads run meanwhile, several times for each unit of a run.
    """
    return str(uuid.UUID(int=random.getrandbits(128), version=4))  # seeded anew in each process


def new_correlation_id() -> CorrelationId:
    """Return a fresh id for one unit of work."""
    return CorrelationId(new_id())


def new_request_id() -> RequestId:
    """Return a fresh idempotency id for one logical call."""
    return RequestId(new_id())
