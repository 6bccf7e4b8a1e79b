"""Custody of refresh tokens: the only reader and writer of those in use.

Order of a stored token: vault, read back, pointer, old version off (R-02). A lease with an owner and a compare-and-set
on the generation keep a late writer from winning (R-03). Nothing here opens a transaction around a network call (R-35).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from consent import alarms, health
from consent.models import ApplicationRegistration, PartnerConsent
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
from portal.audit.trail import SYSTEM, Actor, Outcome, record
from portal.microsoft.diagnosis import FailureClass, Owner
from portal.microsoft.errors import NotFound, RemoteError, UnexpectedResponse, Unreachable
from portal.microsoft.identifiers import CorrelationId, ObjectId
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant

log = logging.getLogger(__name__)

REFRESH_TOKEN_LIFETIME = timedelta(days=90)  # Entra; each redemption starts a new token's 90 days
LEASE = timedelta(seconds=150)  # longer than all calls of one renewal together
_POLL_SECONDS = 0.1
_WRITE_TRIES = 3
BUSY = "This partner's token is being renewed right now; try again in a minute."


class TokenUnavailable(Exception):
    """No token may be used: the partner is disabled, never connected, stopped, or busy. Says why in plain words."""


class IdentityMismatch(Exception):
    """The answer belongs to another tenant or account than the pinned one: everything of this partner stops (S-51).

    ``why`` is the word that row and audit trail keep.
    """

    def __init__(self, text: str, why: str = "") -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConsent:
    """A refresh token that was just proven, on its way into the vault."""

    refresh_token: Secret
    object_id: ObjectId
    scopes: frozenset[str]
    mfa: PartnerConsent.Mfa
    checks: list[dict[str, str]]


def token_fingerprint(token: Secret) -> str:
    """Return the fingerprint that the row keeps; the key is outside the database (S-30)."""
    key = hmac.new(settings.INTEGRITY_KEY.encode(), b"token fingerprint", hashlib.sha256).digest()
    return token.fingerprint(key)


class Custody:
    """Keeps the refresh tokens in use: which one is a partner's, where it is, and who may replace it."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def usable(self, consent_id: int) -> PartnerConsent:
        """Read the row again, immediately before use (S-51, S-53)."""
        consent = PartnerConsent.objects.select_related("partner", "registration").filter(pk=consent_id).first()
        if consent is None:
            raise TokenUnavailable("There is no such consent.")
        self.check_usable(consent)
        return consent

    @staticmethod
    def check_usable(consent: PartnerConsent) -> None:
        """Raise TokenUnavailable when this row, as it was read, allows no use of its token."""
        problem = ""
        if not consent.partner.is_active:
            problem = f"The partner is {consent.partner.get_state_display().lower()}; enable it first."
        elif consent.state == PartnerConsent.State.STOPPED:
            problem = "The partner was stopped: a token belonged to another account or tenant. Look at the audit trail."
        elif consent.state in {PartnerConsent.State.DISCONNECTED, PartnerConsent.State.REVOKED}:
            problem = "The partner is disconnected; it must consent again."
        elif consent.generation == 0:
            problem = "The partner has not consented yet."
        elif consent.registration.state != ApplicationRegistration.State.ACTIVE:
            problem = "The application registration is not active."
        if problem:
            raise TokenUnavailable(problem)

    def read(self, consent: PartnerConsent) -> Secret:
        """Read the pointer's version and make sure that it is this record's token (S-51)."""
        try:
            return self.fetch(consent)
        except IdentityMismatch as mismatch:
            self.stop(consent, mismatch.why, CorrelationId(""))
            raise

    def fetch(self, consent: PartnerConsent) -> Secret:
        """Do what ``read`` does without the database: whoever calls stops the partner when the token is another's."""
        name = SecretName(consent.secret_name)
        try:
            stored = self._vault.read(name, SecretVersion(consent.secret_version))
        except NotFound:
            # A name that was swapped with another record's holds none of our versions, but that record's tag.
            stored = self._vault.read_newest(name)
            if stored.tags.get(RECORD_TAG) == _record_id(consent):
                raise
        self.check_record(consent, stored)
        return stored.value

    @staticmethod
    def check_record(consent: PartnerConsent, stored: StoredSecret) -> None:
        """Raise IdentityMismatch when this is not the token that the row knows."""
        if stored.tags.get(RECORD_TAG) != _record_id(consent) or not hmac.compare_digest(
            token_fingerprint(stored.value), consent.fingerprint
        ):
            raise IdentityMismatch("the vault's token is not the one that this partner stored", "fingerprint")

    def stop(self, consent: PartnerConsent, why: str, correlation_id: CorrelationId) -> None:
        """Stop the partner at once: a swapped record or secret is the worst failure of a vault of many tenants."""
        with transaction.atomic():
            PartnerConsent.objects.filter(pk=consent.pk).update(
                state=PartnerConsent.State.STOPPED,
                last_problem="identity_mismatch",
                last_code=why,
                last_class="identity_mismatch",
                last_owner=Owner.US.value,
                next_try_at=None,
            )
            health.refresh([consent.pk])
            PartnerTenant.objects.active().filter(pk=consent.partner_id).update(state=PartnerTenant.State.ATTENTION)
            record(
                "token.identity_mismatch",
                actor=SYSTEM,
                outcome=Outcome.REFUSED,
                subject={"partner": consent.partner_id, "consent": consent.pk},
                details={"what": why},
                correlation_id=correlation_id,
            )
            alarms.identity_mismatch(consent)
        log.error("identity mismatch, partner stopped", extra={"partner": consent.partner_id, "what": why})

    def store_new(
        self,
        partner: PartnerTenant,
        registration: ApplicationRegistration,
        new: NewConsent,
        *,
        actor: Actor,
        correlation_id: CorrelationId,
        in_same_transaction: Callable[[PartnerConsent], None],
    ) -> PartnerConsent:
        """Keep a proven refresh token of a new consent: vault first, then row, link and partner in one transaction.

        Args:
            in_same_transaction: the caller's own writes (link, flow), committed together with the pointer or not at
                all.

        Raises:
            TokenUnavailable: another renewal holds the lease; nothing was stored.
            RemoteError: the vault did not take it; an older token stays as it was.
        """
        consent, _ = PartnerConsent.objects.get_or_create(
            partner=partner,
            registration=registration,
            defaults={
                "state": PartnerConsent.State.NEEDS_CONSENT,
                "consented_at": timezone.now(),
                "pinned_oid": new.object_id,
                "permission_set_version": registration.permission_set_version,
                "secret_name": new_secret_name(),
            },
        )
        with self.lease(consent) as owner:
            if owner is None:
                raise TokenUnavailable(BUSY)
            consent = self.roll_forward(
                PartnerConsent.objects.select_related("partner", "registration").get(pk=consent.pk), owner
            )
            stopped = consent.state == PartnerConsent.State.STOPPED
            if stopped:  # its name may be another record's; nothing under it is touched
                consent.secret_name = new_secret_name()
            generation = consent.generation + 1
            name, version = self._write(consent, new.refresh_token, generation)
            connected = new.mfa is PartnerConsent.Mfa.PROVEN
            with transaction.atomic():
                now = timezone.now()
                won = self._point_to(
                    consent,
                    owner,
                    generation=generation,
                    secret_name=name,
                    secret_version=version,
                    fingerprint=token_fingerprint(new.refresh_token),
                    stored_at=now,
                    state=PartnerConsent.State.CONNECTED if connected else PartnerConsent.State.MFA_MISSING,
                    pinned_oid=new.object_id,
                    consented_at=now,
                    granted_scopes=sorted(new.scopes),
                    permission_set_version=registration.permission_set_version,
                    mfa=new.mfa,
                    mfa_checked_at=now,
                    last_success_at=now,
                    last_try_at=now,
                    last_problem="",
                    last_code="",
                    last_message="",
                    first_denied_at=None,
                    last_class=FailureClass.OK.value if connected else FailureClass.NEEDS_INTERACTION.value,
                    last_owner="" if connected else Owner.PARTNER.value,
                    failures=0,
                    next_try_at=health.try_after_success(consent, now),
                    checks=new.checks,
                )
                # R-12, S-53: a partner disabled meanwhile is not revived by an answer that was on its way.
                active = PartnerTenant.objects.active().filter(pk=partner.pk)
                won = won and bool(
                    active.update(state=PartnerTenant.State.CONNECTED if connected else PartnerTenant.State.ATTENTION)
                )
                if won:
                    in_same_transaction(consent)
                    health.refresh([consent.pk])
                    alarms.works_again(consent)
                    if not connected:
                        alarms.mfa_missing(consent)
                    record(
                        "token.stored",
                        actor=actor,
                        subject={"partner": partner.pk, "consent": consent.pk},
                        details={"generation": generation, "mfa": new.mfa.value},
                        correlation_id=correlation_id,
                    )
                else:
                    transaction.set_rollback(True)
            if not won:
                self._disable(name, version)
                raise TokenUnavailable("The partner was disabled or renewed meanwhile; nothing was stored.")
            if consent.generation and not stopped:
                self._disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
        consent.refresh_from_db()
        return consent

    def save_rotated(
        self, consent: PartnerConsent, refresh_token: Secret, owner: str, correlation_id: CorrelationId
    ) -> None:
        """Save a rotated token. A failure loses nothing at Entra: the stored one stays good (R-06)."""
        generation = consent.generation + 1
        try:
            name, version = self._write(consent, refresh_token, generation)
        except RemoteError as error:
            log.warning("renewed but not saved: %s", error, extra={"partner": consent.partner_id})
            record(
                "token.stored",
                actor=SYSTEM,
                outcome=Outcome.FAILED,
                subject={"partner": consent.partner_id, "consent": consent.pk},
                details={"generation": generation, "code": error.code},
                correlation_id=correlation_id,
            )
            return
        with transaction.atomic():
            won = self._point_to(
                consent,
                owner,
                generation=generation,
                secret_name=name,
                secret_version=version,
                fingerprint=token_fingerprint(refresh_token),
                stored_at=timezone.now(),
            )
            # for a partner disabled in the meantime the pointer stays and the new version is switched off.
            won = won and PartnerTenant.objects.active().filter(pk=consent.partner_id).exists()
            if won:
                health.refresh([consent.pk])
                record(
                    "token.stored",
                    actor=SYSTEM,
                    subject={"partner": consent.partner_id, "consent": consent.pk},
                    details={"generation": generation},
                    correlation_id=correlation_id,
                )
            else:
                transaction.set_rollback(True)
        if won:
            self._disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
        else:
            self._disable(name, version)

    def _write(self, consent: PartnerConsent, token: Secret, generation: int) -> tuple[SecretName, SecretVersion]:
        """Write a version and read it back. Returns where it is.

        After an unclear outcome it looks before it writes again (R-09).
        """
        name = SecretName(consent.secret_name)
        for attempt in range(1, _WRITE_TRIES + 1):
            try:
                if attempt > 1 and (found := self._find_written(name, token)):
                    return name, found
                version = self._vault.write(
                    name,
                    token,
                    tags={RECORD_TAG: _record_id(consent), GENERATION_TAG: str(generation)},
                    expires_at=timezone.now() + REFRESH_TOKEN_LIFETIME,
                )
                break
            except NameBlocked:
                name = new_secret_name()
            except RemoteError as error:
                if not error.retryable or attempt == _WRITE_TRIES:
                    raise
                time.sleep(min(error.retry_after or 0.5 * attempt, 5.0))
        else:
            raise Unreachable("vault", "write token", detail="the vault did not take the token")
        written = self._vault.read(name, version)
        if not written.value.same_as(token):
            raise UnexpectedResponse("vault", "read back token", detail="the vault returned another value")
        return name, version

    def _find_written(self, name: SecretName, token: Secret) -> SecretVersion | None:
        try:
            newest = self._vault.read_newest(name)
        except (NotFound, VaultDamaged, SecretDisabled):
            return None
        return newest.version if newest.value.same_as(token) else None

    def _point_to(self, consent: PartnerConsent, owner: str, **columns: object) -> bool:
        """Compare-and-set on generation and lease owner: a late writer cannot win (R-03)."""
        return bool(
            PartnerConsent.objects.filter(pk=consent.pk, generation=consent.generation, lease_owner=owner).update(
                **columns
            )
        )

    def roll_forward(self, consent: PartnerConsent, owner: str) -> PartnerConsent:
        """Adopt a version that was written before a crash, or switch off a leftover (R-02).

        A vault that cannot say is no reason to fail: the pointer's version is still there.
        """
        try:
            newest = self._vault.read_newest(SecretName(consent.secret_name))
        except (NotFound, VaultDamaged):
            return consent
        except RemoteError as error:
            log.info("newest version not readable: %s", error)
            return consent
        return self.adopt(consent, owner, newest)

    def adopt(self, consent: PartnerConsent, owner: str, newest: StoredSecret) -> PartnerConsent:
        """Adopt or switch off the newest version of a secret where the row does not know it."""
        if newest.version == consent.secret_version or newest.tags.get(RECORD_TAG) != _record_id(consent):
            return consent
        # A first consent that was cut off (generation 0) is not adopted: the partner is consenting anew.
        if consent.generation == 0 or _generation(newest) <= consent.generation:
            self._disable(newest.name, newest.version)
            return consent
        with transaction.atomic():
            adopted = self._point_to(
                consent,
                owner,
                generation=_generation(newest),
                secret_version=newest.version,
                fingerprint=token_fingerprint(newest.value),
                stored_at=newest.created_at,
            )
            if adopted:
                health.refresh([consent.pk])
                record(
                    "token.rolled_forward",
                    actor=SYSTEM,
                    subject={"partner": consent.partner_id, "consent": consent.pk},
                    details={"from": consent.generation, "to": _generation(newest)},
                )
        if adopted:
            self._disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
            return PartnerConsent.objects.select_related("partner", "registration").get(pk=consent.pk)
        return consent

    def _disable(self, name: SecretName, version: SecretVersion) -> None:
        """Switch an old version off. A failure is repaired by the next renewal; the token in use is not affected."""
        try:
            self._vault.disable(name, version)
        except RemoteError as error:
            log.warning("an old version of a secret is still enabled: %s", error)

    @contextmanager
    def lease(self, consent: PartnerConsent, *, wait_seconds: float = 0.0) -> Iterator[str | None]:
        """Hold the renewal lease of this consent, by database time; None when somebody else keeps it (R-03)."""
        owner = str(uuid.uuid4())
        free = PartnerConsent.objects.lease_free().filter(pk=consent.pk)
        until = time.monotonic() + wait_seconds
        while not free.update(lease_owner=owner, lease_until=Now() + LEASE):
            if time.monotonic() >= until:
                yield None
                return
            time.sleep(_POLL_SECONDS)
        try:
            yield owner
        finally:
            PartnerConsent.objects.filter(pk=consent.pk, lease_owner=owner).update(lease_owner="", lease_until=None)


def _record_id(consent: PartnerConsent) -> str:
    return f"consent-{consent.pk}"


def _generation(stored: StoredSecret) -> int:
    text = stored.tags.get(GENERATION_TAG, "")
    return int(text) if text.isdecimal() else 0
