"""Seals on documents that leave the portal: an HMAC-SHA256 under a key derived from INTEGRITY_KEY.

The holder of the key, which is this portal, can tell later whether a document is unchanged. Why not a signature that
anybody can check stands in docs/adr/0004-reports-are-sealed-by-hmac.md.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

ALGORITHM = "HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A seal and the id of its key, both in hexadecimal; the id tells a changed key from a changed document."""

    key_id: str
    value: str


def canonical(document: Mapping[str, Any]) -> str:
    """Return the one text of a JSON document that is sealed: sorted names, no spaces, ASCII only."""
    return json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def seal(text: str) -> Seal:
    """Return the seal of a text."""
    key = _key()
    value = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return Seal(key_id=hashlib.sha256(key).hexdigest()[:16], value=value)


def fits(text: str, claimed: Seal) -> bool:
    """Tell whether this seal was made by this portal for exactly this text."""
    return hmac.compare_digest(seal(text).value, claimed.value)


def digest(text: str) -> str:
    """Return the SHA-256 of a text, by which the audit trail knows it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _key() -> bytes:
    return hmac.new(settings.INTEGRITY_KEY.encode(), b"document seal", hashlib.sha256).digest()
