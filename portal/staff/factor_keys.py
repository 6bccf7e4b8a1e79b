"""How the keys of factors lie in the database."""

from __future__ import annotations

import base64
import hashlib

from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings


class FactorUnreadable(Exception):
    """A factor was kept under another INTEGRITY_KEY; its owner needs a new one."""


class FactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # the library has no types
    """Keeps the keys of factors encrypted, so that a copy of the database gives no second factor (S-30)."""

    def encrypt(self, text: str) -> str:
        return _cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Return what was encrypted. Raises FactorUnreadable."""
        try:
            return _cipher().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            raise FactorUnreadable from None


def _cipher() -> Fernet:
    # INTEGRITY_KEY never changes, unlike SECRET_KEY, and stands outside the database.
    key = hashlib.blake2b(settings.INTEGRITY_KEY.encode(), digest_size=32, person=b"staff factors").digest()
    return Fernet(base64.urlsafe_b64encode(key))
