"""One partner's refresh token as versions of a secret: written with read-back, found again, recognised, switched off.

The vault's half of custody, without the database: what a row points to, and what its tags must say.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from consent.models import PartnerConsent
from consent.vault.base import (
    GENERATION_TAG,
    RECORD_TAG,
    NameBlocked,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    Vault,
    VaultDamaged,
    new_secret_name,
)
from portal.microsoft.errors import NotFound, RemoteError, UnexpectedResponse, Unreachable
from portal.microsoft.http import budget_left
from portal.microsoft.secret import Secret

log = logging.getLogger(__name__)

REFRESH_TOKEN_LIFETIME = timedelta(days=90)  # Entra; each redemption starts a new token's 90 days
_WRITE_SECONDS = 60.0  # tried again under the lease, because a lost token cannot be had again
_WRITE_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
_LONGEST_WAIT = 15.0
# Answers about the newest version that say for certain that nothing newer waits there to be adopted.
NEWEST_IS_NONE = (NotFound, VaultDamaged, SecretDisabled)


class IdentityMismatch(Exception):
    """The answer belongs to another tenant or account than the pinned one: everything of this partner stops (S-51).

    ``why`` is the word that row and audit trail keep.
    """

    def __init__(self, text: str, why: str = "") -> None:
        super().__init__(text)
        self.why = why


def token_fingerprint(token: Secret) -> str:
    """Return the fingerprint that the row keeps; the key is outside the database (S-30)."""
    key = hmac.new(settings.INTEGRITY_KEY.encode(), b"token fingerprint", hashlib.sha256).digest()
    return token.fingerprint(key)


def record_id(consent: PartnerConsent) -> str:
    """Return the vault's tag that says whose token it is."""
    return f"consent-{consent.pk}"


def generation_of(stored: StoredSecret) -> int:
    text = stored.tags.get(GENERATION_TAG, "")
    return int(text) if text.isdecimal() else 0


class TokenVersions:
    """The versions of partners' refresh tokens in one vault. Runs no query; usable by many threads."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def look_up(self, consent: PartnerConsent) -> StoredSecret:
        """Read the version that the row points to and make sure that it is this record's token (S-51).

        Raises:
            IdentityMismatch: it is not the token that this record stored; the caller stops the partner.
            RemoteError: as :meth:`consent.vault.base.Vault.read`.
        """
        name = SecretName(consent.secret_name)
        stored: StoredSecret | None
        try:
            stored = self._vault.read(name, SecretVersion(consent.secret_version))
        except NotFound:
            # A name that was swapped with another record's holds none of our versions, but that record's tag.
            try:
                stored = self._vault.read_newest(name)
            except SecretDisabled:
                stored = None
            if stored is None or stored.tags.get(RECORD_TAG) == record_id(consent):
                raise
        self.check(consent, stored)
        return stored

    @staticmethod
    def check(consent: PartnerConsent, stored: StoredSecret) -> None:
        """Raise IdentityMismatch when this is not the token that the row knows."""
        if stored.tags.get(RECORD_TAG) != record_id(consent) or not hmac.compare_digest(
            token_fingerprint(stored.value), consent.fingerprint
        ):
            raise IdentityMismatch("the vault's token is not the one that this partner stored", "fingerprint")

    def newest(self, consent: PartnerConsent) -> StoredSecret:
        """Read the newest version, whatever the row points to. Raises as :meth:`Vault.read_newest`."""
        return self._vault.read_newest(SecretName(consent.secret_name))

    def write(self, consent: PartnerConsent, token: Secret, generation: int) -> tuple[SecretName, SecretVersion]:
        """Write a version and read it back. Returns where it is.

        After an unclear outcome it looks before it writes again (R-09).
        """
        name = SecretName(consent.secret_name)
        until = time.monotonic() + min(_WRITE_SECONDS, budget_left())
        for attempt, wait in enumerate((*_WRITE_WAITS, None)):
            try:
                if attempt and (found := self._find_written(name, token)):
                    return name, found
                version = self._vault.write(
                    name,
                    token,
                    tags={RECORD_TAG: record_id(consent), GENERATION_TAG: str(generation)},
                    expires_at=timezone.now() + REFRESH_TOKEN_LIFETIME,
                )
                break
            except NameBlocked:
                name = new_secret_name()  # a deleted secret blocks the old one
            except RemoteError as error:
                if not error.retryable or wait is None:
                    raise
                seconds = min(max(wait, error.retry_after or 0.0), _LONGEST_WAIT)
                if time.monotonic() + seconds >= until:
                    raise
                time.sleep(seconds)
        else:
            raise Unreachable("vault", "write token", detail="the vault did not take the token")
        written = self._vault.read(name, version)
        if not written.value.same_as(token):
            raise UnexpectedResponse("vault", "read back token", detail="the vault returned another value")
        return name, version

    def _find_written(self, name: SecretName, token: Secret) -> SecretVersion | None:
        try:
            newest = self._vault.read_newest(name)
        except NEWEST_IS_NONE:
            return None
        return newest.version if newest.value.same_as(token) else None

    def switch_off(self, name: SecretName, version: SecretVersion) -> bool:
        """Switch a version off and tell whether it is. A failure does not affect the token in use."""
        try:
            self._vault.disable(name, version)
        except NotFound:
            return True
        except RemoteError as error:
            log.warning("an old version of a secret is still enabled: %s", error)
            return False
        return True
