"""Custody of refresh tokens: the only reader and writer of those in use.

Order of a stored token: vault, read back, pointer, old version off (R-02). A lease with an owner and a compare-and-set
on the generation keep a late writer from winning (R-03). Nothing here opens a transaction around a network call (R-35).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.grants import Grants
from consent.models import ApplicationRegistration, PartnerConsent
from consent.tokens import health
from consent.tokens.versions import (
    NEWEST_IS_NONE,
    TokenVersions,
    generation_of,
    record_id,
    token_fingerprint,
)
from consent.vault.base import (
    RECORD_TAG,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    Vault,
    new_secret_name,
)
from portal.audit.trail import SYSTEM, Actor, Outcome, record
from portal.microsoft.diagnosis import FailureClass, Owner
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import time_budget
from portal.microsoft.identifiers import CorrelationId, ObjectId
from portal.microsoft.secret import Secret
from portal.microsoft.waiting import about_to_wait
from tenants.models import PartnerTenant

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=150)
_LEASED_SECONDS = 120.0  # for all calls under one lease together, so that it outlasts them
_POLL_SECONDS = 0.1
_PUT_AWAY_SECONDS = 15.0  # wait of a late writer for the faster one
BUSY = "This partner's token is being renewed right now; try again in a minute."
INTERRUPTED = "interrupted_while_saving"  # the row's ``last_code`` after a token was lost
FASTER = "another renewal was faster"  # why a token was discarded
PARTNER_DISABLED = "partner disabled"
# What a use of a token goes by: whether it may be used, whose it is, where it is, and with which credential.
_GONE_BY = (
    "state",
    "generation",
    "secret_name",
    "secret_version",
    "fingerprint",
    "pinned_oid",
    "partner__switch",
    "partner__tenant_id",
    "partner__cloud",
    "registration__state",
    "registration__application_id",
    "registration__credential_id",
    "stored_at",
)
_gone_by = attrgetter(*(name.replace("__", ".") for name in _GONE_BY))


LOST = (
    "A renewal was interrupted while saving the new token, and the sign-in service no longer accepts the old one. The "
    "partner must consent again."
)


class TokenUnavailable(Exception):
    """No token may be used: the partner is disabled, never connected, stopped, or busy. Says why in plain words."""


class AnotherAccountPinned(Exception):
    """The consent is another account's; nothing was stored. A person decides whether the account changes (S-15)."""


class ProvesLess(Exception):
    """The token in use is proven by MFA and the new one is not; nothing was stored (S-17)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConsent:
    """A refresh token that was just proven, on its way into the vault."""

    refresh_token: Secret
    object_id: ObjectId
    granted: Grants
    mfa: PartnerConsent.Mfa
    amr: tuple[str, ...]
    checks: list[dict[str, str]]

    @property
    def is_proven(self) -> bool:
        """Whether the sign-in was proven by MFA."""
        return self.mfa is PartnerConsent.Mfa.PROVEN

    def columns(self, consent: PartnerConsent, now: datetime) -> dict[str, object]:
        """Return what the row says of this consent: the account, its permissions, and a health without a failure."""
        return {
            "state": PartnerConsent.State.CONNECTED if self.is_proven else PartnerConsent.State.MFA_MISSING,
            "pinned_oid": self.object_id,
            "consented_at": now,
            "granted_scopes": self.granted.to_json(),
            "mfa": self.mfa,
            "amr": self.amr,
            "mfa_checked_at": None if self.mfa is PartnerConsent.Mfa.UNPROVEN else now,
            "last_success_at": now,
            "last_try_at": now,
            "last_problem": "",
            "last_code": "",
            "last_message": "",
            "first_denied_at": None,
            "last_class": FailureClass.OK.value if self.is_proven else FailureClass.NEEDS_INTERACTION.value,
            "last_owner": "" if self.is_proven else Owner.PARTNER.value,
            "failures": 0,
            "next_try_at": health.try_after_success(consent, now),
            "checks": self.checks,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token is in the vault, as a row points to it."""

    generation: int
    name: SecretName
    version: SecretVersion
    fingerprint: str

    def columns(self, stored_at: datetime | Now, replaced: str) -> dict[str, object]:
        """Return the columns of a row that moves here.

        Args:
            replaced: the version that the row leaves, remembered until it is off (S-42); "" for none.
        """
        return {
            "generation": self.generation,
            "secret_name": self.name,
            "secret_version": self.version,
            "fingerprint": self.fingerprint,
            "stored_at": stored_at,
            "replaced_version": replaced,
            "renewal_started_at": None,
        }


class Custody:
    """Keeps the refresh tokens in use: which one is a partner's, where it is, and who may replace it."""

    def __init__(self, vault: Vault) -> None:
        self.versions = TokenVersions(vault)

    def usable(self, consent: PartnerConsent, *, anew: bool = False) -> PartnerConsent:
        """Look at the row again, immediately before use (S-51, S-53).

        The caller's own row is returned while it says the same of everything that a use goes by. Making four models of
        a row anew costs more than all the rest of a cached token.

        Args:
            anew: read the whole row, whatever the caller's one says; for a renewal, which goes by more.

        Note: this reads partner and registration of the consent; load them.

        Raises:
            TokenUnavailable: it is gone, or allows no use of its token.
        """
        if not anew:
            anew = _read_what_is_gone_by(consent.pk) != _gone_by(consent)
        if anew:
            rows = PartnerConsent.objects.select_related("partner", "registration__credential")
            read = rows.filter(pk=consent.pk).first()
            if read is None:
                raise TokenUnavailable("There is no such consent.")
            consent = read
        self.check_usable(consent)
        return consent

    @staticmethod
    def check_usable(consent: PartnerConsent) -> None:
        """Raise TokenUnavailable when this row, as it was read, allows no use of its token."""
        problem = ""
        if not consent.partner.is_active:
            problem = consent.partner.why_inactive
        elif consent.state == PartnerConsent.State.STOPPED:
            problem = "The partner was stopped: a token belonged to another account or tenant. Look at the audit trail."
        elif consent.state in PartnerConsent.LEFT_STATES:
            problem = "The partner is disconnected; it must consent again."
        elif consent.generation == 0:
            problem = "The partner has not consented yet."
        elif consent.registration.state != ApplicationRegistration.State.ACTIVE:
            problem = "The application registration is not active."
        if problem:
            raise TokenUnavailable(problem)

    def look_up(self, consent: PartnerConsent) -> tuple[PartnerConsent, Secret]:
        """Read the token in use, and the row again, once, where another process renewed it since the row was read.

        A renewal switches the older version off, so a reader with an older row meets a disabled one. That alone costs
        a query.

        Returns:
            The row that the token belongs to, and the token.

        Raises:
            TokenUnavailable: the row that was read again allows no use of its token.
            IdentityMismatch: it is not the token that this record stored; the caller stops the partner.
            RemoteError: as :meth:`consent.vault.base.Vault.read`; SecretDisabled when the row names that version still.
        """
        try:
            return consent, self.versions.look_up(consent).value
        except SecretDisabled:
            newer = self.usable(consent, anew=True)
            if newer.secret_version == consent.secret_version:
                raise
        return newer, self.versions.look_up(newer).value

    def fetch_to_renew(self, consent: PartnerConsent, owner: str) -> tuple[PartnerConsent, Secret]:
        """Read the token that is in use, looking for what a crash left behind (R-02).

        Runs no query unless there is something left behind. Returns the row, changed if a version was adopted.

        Raises:
            TokenUnavailable, IdentityMismatch: as :meth:`look_up`.
            RemoteError: as :meth:`look_up`; or a renewal was cut off, and the vault does not say whether it wrote.
        """
        if consent.replaced_version:  # a crash came before it was switched off
            self.versions.switch_off(SecretName(consent.secret_name), SecretVersion(consent.replaced_version))
        newest = self._newest(consent)
        if newest is None:  # a look at the version in use says what is wrong, if that concerns it
            return self.look_up(consent)
        if newest.version == consent.secret_version:
            self.versions.check(consent, newest)
            return consent, newest.value
        row = self.adopt_or_disable(consent, newest, owner)
        if row.generation != consent.generation:  # that ended the older renewal and took its note away
            self.begin(row, owner)
        return self.look_up(row)

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
            record(
                "token.identity_mismatch",
                actor=SYSTEM,
                outcome=Outcome.REFUSED,
                subject={"partner": consent.partner_id, "consent": consent.pk},
                details={"what": why},
                correlation_id=correlation_id,
            )
            alarms.report(Cause.IDENTITY_MISMATCH, consent)
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
        check: Callable[[PartnerConsent], None] = lambda consent: None,
        replaces: ObjectId | None = None,
    ) -> PartnerConsent:
        """Keep a proven refresh token of a new consent: vault first, then row, link and partner in one transaction.

        Args:
            check: raises where the caller may not replace what stands there now; it gets the row as it is under the
                lease, with its partner and registration, before anything is written. Its exceptions pass through.
            in_same_transaction: the caller's own writes (link, flow), committed together with the pointer or not at
                all.
            replaces: the pinned account that a person agreed to replace.

        Raises:
            AnotherAccountPinned, ProvesLess: what stands there now may not be replaced by it.
            TokenUnavailable: another renewal holds the lease; nothing was stored.
            RemoteError: the vault did not take it; an older token stays as it was.
        """
        consent = self._row_of(partner, registration, new)
        with self.lease(consent) as owner:
            if owner is None:
                raise TokenUnavailable(BUSY)
            consent = self.roll_forward(self._read_again(consent), owner)
            # The row as it is under the lease: what was looked at before may be another flow's by now (S-15).
            check(consent)
            self._check_replaceable(consent, new, replaces)
            replaced = SecretVersion(consent.secret_version)
            if consent.state == PartnerConsent.State.STOPPED:
                # Its name may be another record's; nothing under it is touched.
                consent.secret_name, replaced = new_secret_name(), SecretVersion("")
            place = self.keep(consent, new.refresh_token)
            with transaction.atomic():
                won = self._point_to_new(consent, owner, place, new, replaced)
                if won:
                    in_same_transaction(consent)
                    self._tell_of_new(consent, new, actor, correlation_id)
                else:
                    transaction.set_rollback(True)
            if not won:
                self.versions.switch_off(place.name, place.version)
                raise TokenUnavailable("The partner was switched off or renewed meanwhile; nothing was stored.")
            if replaced:
                self._switch_off_replaced(consent, replaced)
        consent.refresh_from_db()
        return consent

    @staticmethod
    def _row_of(partner: PartnerTenant, registration: ApplicationRegistration, new: NewConsent) -> PartnerConsent:
        """Return this partner's row for this application; made empty, with generation 0, if there is none."""
        return PartnerConsent.objects.get_or_create(
            partner=partner,
            registration=registration,
            defaults={
                "state": PartnerConsent.State.NEEDS_CONSENT,
                "consented_at": timezone.now(),
                "pinned_oid": new.object_id,
                "secret_name": new_secret_name(),
            },
        )[0]

    @staticmethod
    def _read_again(consent: PartnerConsent) -> PartnerConsent:
        return PartnerConsent.objects.select_related("partner", "registration__credential").get(pk=consent.pk)

    def keep(self, consent: PartnerConsent, token: Secret) -> Place:
        """Write the next generation's token into the vault and read it back; no query. Raises RemoteError."""
        generation = consent.generation + 1
        name, version = self.versions.write(consent, token, generation)
        return Place(generation, name, version, token_fingerprint(token))

    def _point_to_new(
        self, consent: PartnerConsent, owner: str, place: Place, new: NewConsent, replaced: SecretVersion
    ) -> bool:
        """Move the row to a new consent's token, unless the partner was switched off or renewed; in a transaction.

        Who was disabled, stopped or disconnected meanwhile, or is being offboarded, is not revived by an answer that
        was on its way (R-12, S-53). The partner's update changes nothing: a decision of staff waits for it, or is seen
        by it.
        """
        now = timezone.now()
        # The state of a partner who consents again after a stop is one of these; it may not have become one meanwhile.
        ended = {PartnerConsent.State.STOPPED, *PartnerConsent.LEFT_STATES} - {consent.state}
        rows = self._mine(consent, owner).exclude(state__in=ended)
        if not rows.update(**place.columns(now, replaced), **new.columns(consent, now)):
            return False
        active = PartnerTenant.objects.active().filter(pk=consent.partner_id, offboarding_since__isnull=True)
        return bool(active.update(switch=PartnerTenant.Switch.ON))

    @staticmethod
    def _tell_of_new(consent: PartnerConsent, new: NewConsent, actor: Actor, correlation_id: CorrelationId) -> None:
        """Write what follows from a new consent: the partner's health, alarms, and the audit entry."""
        health.refresh([consent.pk])
        alarms.settle(alarms.BEFORE_A_NEW_CONSENT, [consent.pk])
        alarms.settle([Cause.CREDENTIAL_REFUSED], [consent.registration_id])
        if not new.is_proven:
            alarms.report(Cause.MFA_MISSING, consent)
        record(
            "token.stored",
            actor=actor,
            subject={"partner": consent.partner_id, "consent": consent.pk},
            details={"generation": consent.generation + 1, "mfa": new.mfa.value},
            correlation_id=correlation_id,
        )

    @staticmethod
    def _check_replaceable(consent: PartnerConsent, new: NewConsent, replaces: ObjectId | None) -> None:
        if consent.generation == 0:
            return
        if consent.pinned_oid not in {new.object_id, replaces}:
            raise AnotherAccountPinned
        if consent.state == PartnerConsent.State.CONNECTED and not new.is_proven:
            raise ProvesLess

    def begin(self, consent: PartnerConsent, owner: str) -> None:
        """Note that the stored token is about to be redeemed for a new one: the intent row of R-02.

        The note stays until it is known how that ended. ``consent`` keeps the older note, if there is one.

        Raises:
            TokenUnavailable: the lease is another's.
        """
        mine = PartnerConsent.objects.filter(pk=consent.pk, lease_owner=owner)
        if not mine.update(renewal_started_at=Coalesce("renewal_started_at", Now())):
            raise TokenUnavailable(BUSY)

    @staticmethod
    def check_not_lost(consent: PartnerConsent) -> None:
        """Raise TokenUnavailable when an interrupted renewal lost this row's token, and it was not found since."""
        if consent.last_code == INTERRUPTED:
            raise TokenUnavailable(LOST)

    def interrupted(self, consent: PartnerConsent, correlation_id: CorrelationId) -> None:
        """Mark a partner whose token was lost between redemption and vault, and tell staff (R-01)."""
        with transaction.atomic():
            live = PartnerConsent.objects.filter(pk=consent.pk, generation=consent.generation).exclude(
                state__in=PartnerConsent.LEFT_STATES
            )
            marked = live.update(
                state=PartnerConsent.State.NEEDS_CONSENT,
                last_class=FailureClass.NEEDS_CONSENT.value,
                last_owner=Owner.PARTNER.value,
                next_try_at=None,
                renewal_started_at=None,
                last_try_at=timezone.now(),
                last_problem=FailureClass.NEEDS_CONSENT.value,
                last_code=INTERRUPTED,
                last_message=LOST,
            )
            if not marked:
                return
            health.refresh([consent.pk])
            record(
                "token.lost",
                actor=SYSTEM,
                outcome=Outcome.FAILED,
                subject={"partner": consent.partner_id, "consent": consent.pk},
                details={"why": INTERRUPTED, "generation": consent.generation + 1},
                correlation_id=correlation_id,
            )
            alarms.report(Cause.INTERRUPTED, consent)

    def discarded(self, consent: PartnerConsent, why: str, correlation_id: CorrelationId) -> None:
        """Record that an answer of the sign-in service was not used (R-12)."""
        record(
            "token.discarded",
            actor=SYSTEM,
            outcome=Outcome.REFUSED,
            subject={"partner": consent.partner_id, "consent": consent.pk},
            details={"why": why},
            correlation_id=correlation_id,
        )

    def decide_late(self, consent: PartnerConsent, owner: str, place: Place, correlation_id: CorrelationId) -> None:
        """Decide under a lease about a version that came too late: adopt it if no other was faster, else switch it off.

        Without the lease it could be switched off in the moment in which another renewal adopts it (R-03).
        """
        self._free([consent.pk], owner)
        with self.lease(consent, wait_seconds=_PUT_AWAY_SECONDS) as new_owner:
            if new_owner is None:
                log.warning("a late version of a secret is left to the next renewal", extra={"consent": consent.pk})
                return
            row = self._read_again(consent)
            if row.partner.is_active:
                row = self.roll_forward(row, new_owner)
            if row.secret_version != place.version:
                self.versions.switch_off(place.name, place.version)
                self.discarded(consent, FASTER, correlation_id)

    def _point_to(self, consent: PartnerConsent, owner: str, **columns: object) -> bool:
        """Compare-and-set on generation and lease owner: a late writer cannot win (R-03)."""
        return bool(self._mine(consent, owner).update(**columns))

    @staticmethod
    def _mine(consent: PartnerConsent, owner: str) -> QuerySet[PartnerConsent]:
        return PartnerConsent.objects.filter(pk=consent.pk, generation=consent.generation, lease_owner=owner)

    def roll_forward(self, consent: PartnerConsent, owner: str) -> PartnerConsent:
        """Adopt a version that was written before a crash, or switch off a leftover (R-02).

        Raises:
            RemoteError: a renewal was cut off, and the vault does not say whether it wrote.
        """
        if consent.replaced_version:
            self._switch_off_replaced(consent, SecretVersion(consent.replaced_version))
        newest = self._newest(consent)
        return consent if newest is None else self.adopt_or_disable(consent, newest, owner)

    def _newest(self, consent: PartnerConsent) -> StoredSecret | None:
        """Read the newest version; None when there is none to adopt. No query.

        A vault that cannot say is no reason to fail, the pointer's version is still there; unless a renewal was cut
        off: then the newer token may be in the vault, and the older one is worth nothing if the service rotates
        strictly.

        Raises:
            RemoteError: a renewal was cut off, and the vault does not say whether it wrote.
        """
        try:
            return self.versions.newest(consent)
        except NEWEST_IS_NONE:
            return None
        except RemoteError as error:
            if consent.renewal_started_at is not None:
                raise
            log.info("newest version not readable: %s", error)
            return None

    def adopt_or_disable(self, consent: PartnerConsent, newest: StoredSecret, owner: str) -> PartnerConsent:
        """Adopt or switch off the newest version of a secret where the row does not know it."""
        if newest.version == consent.secret_version or newest.tags.get(RECORD_TAG) != record_id(consent):
            return consent
        # A first consent that was cut off (generation 0) is not adopted: the partner is consenting anew. Nor is what
        # comes too late for a partner that was disconnected.
        left = consent.state in PartnerConsent.LEFT_STATES
        if left or consent.generation == 0 or generation_of(newest) <= consent.generation:
            self.versions.switch_off(newest.name, newest.version)
            return consent
        return self.adopt(consent, newest, owner)

    def adopt(self, consent: PartnerConsent, newer: StoredSecret, owner: str) -> PartnerConsent:
        """Point to a version of a higher generation, and switch the older one off.

        Returns the row as it is then: unchanged for a caller that lost the lease meanwhile.
        """
        name = SecretName(consent.secret_name)
        found = Place(generation_of(newer), name, newer.version, token_fingerprint(newer.value))
        columns: dict[str, object] = {}
        if consent.last_code == INTERRUPTED:  # it was not lost, only late
            proven = consent.mfa == PartnerConsent.Mfa.PROVEN
            columns = {
                "state": PartnerConsent.State.CONNECTED if proven else PartnerConsent.State.MFA_MISSING,
                "last_problem": "",
                "last_code": "",
                "last_message": "",
                "next_try_at": timezone.now(),
            }
        with transaction.atomic():
            moved = found.columns(newer.created_at, consent.secret_version)
            adopted = self._point_to(consent, owner, **moved, **columns)
            if adopted:
                health.refresh([consent.pk])
                record(
                    "token.rolled_forward",
                    actor=SYSTEM,
                    subject={"partner": consent.partner_id, "consent": consent.pk},
                    details={"from": consent.generation, "to": generation_of(newer)},
                )
                if columns:
                    alarms.settle([Cause.INTERRUPTED], [consent.pk])
        if adopted:
            self._switch_off_replaced(consent, SecretVersion(consent.secret_version))
            return self._read_again(consent)
        return consent

    def take_up_older(
        self,
        consent: PartnerConsent,
        older: StoredSecret,
        token: Secret,
        owner: str,
        *,
        actor: Actor,
        correlation_id: CorrelationId,
    ) -> None:
        """Keep what an older token was redeemed for, in the order of a renewal; the lost version is passed over.

        Raises:
            TokenUnavailable: the partner was disabled or renewed meanwhile; nothing was changed.
            RemoteError: the vault did not take it; the older version stays as it was.
        """
        place = self.keep(consent, token)
        with transaction.atomic():
            moved = place.columns(Now(), older.version)
            # The check, due at once, then says how the partner is.
            taken = self._point_to(consent, owner, **moved, next_try_at=timezone.now())
            taken = taken and PartnerTenant.objects.active().filter(pk=consent.partner_id).exists()
            if taken:
                health.refresh([consent.pk])
                record(
                    "token.older_taken_up",
                    actor=actor,
                    subject={"partner": consent.partner_id, "consent": consent.pk},
                    details={"older": generation_of(older), "lost": consent.generation, "generation": place.generation},
                    correlation_id=correlation_id,
                )
            else:
                transaction.set_rollback(True)
        if not taken:
            self.versions.switch_off(place.name, place.version)
            raise TokenUnavailable("The partner was disabled or renewed meanwhile; nothing was changed.")
        self._switch_off_replaced(consent, older.version)

    def _switch_off_replaced(self, consent: PartnerConsent, version: SecretVersion) -> None:
        """Switch off the version that the pointer left; until that is done the row remembers it (S-42)."""
        if self.versions.switch_off(SecretName(consent.secret_name), version):
            PartnerConsent.objects.filter(pk=consent.pk, replaced_version=version).update(replaced_version="")

    @contextmanager
    def lease(self, consent: PartnerConsent, *, wait_seconds: float = 0.0) -> Iterator[str | None]:
        """Hold the renewal lease of this consent, by database time; None when somebody else keeps it (R-03)."""
        owner = str(uuid.uuid4())
        until = time.monotonic() + wait_seconds
        while not self._take([consent.pk], owner):
            if time.monotonic() >= until:
                yield None
                return
            about_to_wait()
            time.sleep(_POLL_SECONDS)
        try:
            with time_budget(_LEASED_SECONDS):
                yield owner
        finally:
            self._free([consent.pk], owner)

    @staticmethod
    def _take(keys: Collection[int], owner: str, **columns: object) -> int:
        """Take the leases of these rows as far as they are free, by database time; return how many were."""
        free = PartnerConsent.objects.lease_free().filter(pk__in=keys)
        return free.update(lease_owner=owner, lease_until=Now() + LEASE, **columns)

    @staticmethod
    def _free(keys: Collection[int], owner: str) -> None:
        """Give back the leases of these rows that are still this owner's."""
        PartnerConsent.objects.filter(pk__in=keys, lease_owner=owner).update(lease_owner="", lease_until=None)


@cache
def _statement(vendor: str) -> str:
    """Return the statement that reads ``_GONE_BY`` of one row; Django takes longer to write it than to run it."""
    statement, _ = PartnerConsent.objects.filter(pk=0).order_by().values_list(*_GONE_BY).query.sql_with_params()
    return statement


def _read_what_is_gone_by(consent_id: int) -> tuple[object, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(_statement(connection.vendor), [consent_id])
        row = cursor.fetchone()
    if row is None:
        return None
    *texts, stored_at = row
    column = PartnerConsent._meta.get_field("stored_at").cached_col
    for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection)):
        stored_at = convert(stored_at, column, connection)  # the only column that drivers give in another form
    return *texts, stored_at
