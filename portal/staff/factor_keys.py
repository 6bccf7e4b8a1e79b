"""How the keys of factors lie in the database: encrypted (S-30), and bound to what they are and whose.

A text that was moved to the row of another account opens nothing there: whoever can write the database could otherwise
give somebody else's account a factor whose key is known.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_FORM = "2:"  # an older release had another one, which named no account
_NONCE_BYTES = 12


class FactorUnreadable(Exception):
    """A factor belongs to another account, or was kept under another INTEGRITY_KEY; its owner needs a new one."""


def lock(secret: str, *, kind: str, user: int) -> str:
    """Return a key as the database keeps it.

    Args:
        kind: of the factor, such as ``totp``.
        user: key of the account.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    data = nonce + _cipher().encrypt(nonce, secret.encode(), _bound_to(kind, user))
    return _FORM + base64.urlsafe_b64encode(data).decode()


def unlock(text: str, *, kind: str, user: int) -> str:
    """Return the key that was locked for this kind of factor of this account. Raises FactorUnreadable."""
    try:
        data = base64.b64decode(text.removeprefix(_FORM), altchars=b"-_", validate=True)
        if not text.startswith(_FORM) or len(data) <= _NONCE_BYTES:
            raise FactorUnreadable
        return _cipher().decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(kind, user)).decode()
    except (InvalidTag, ValueError):
        raise FactorUnreadable from None


def _bound_to(kind: str, user: int) -> bytes:
    return f"{kind} {user}".encode()


def _cipher() -> AESGCM:
    # INTEGRITY_KEY never changes, unlike SECRET_KEY, and stands outside the database.
    key = hashlib.blake2b(settings.INTEGRITY_KEY.encode(), digest_size=32, person=b"factors of staff").digest()
    return AESGCM(key)


class FactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # the library has no types
    """Lets the library write no key, and read only what ``unlock`` opened before."""

    def encrypt(self, text: str) -> str:
        raise NotImplementedError("keys of factors are locked by portal.staff.factor_keys")

    def decrypt(self, encrypted_text: str) -> str:
        return encrypted_text
