"""TokenService: the only door to access tokens.

Refresh tokens stay with ``consent.tokens.custody``. Errors of a customer's tenant never make the partner's token
suspect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from django.db import transaction

from consent.containment.gate import Gate
from consent.microsoft.entra import SERVICE, EntraClient, TokenResponse
from consent.microsoft.id_tokens import Flaw, IdTokenRefused, IdTokenValidator
from consent.models import ApplicationRegistration, PartnerConsent
from consent.tokens.custody import PARTNER_DISABLED, NewConsent, TokenUnavailable
from consent.tokens.renewal import Renewal, Rotation
from consent.tokens.saving import Renewals
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import Book, By, Purpose, Use
from consent.vault.base import StoredSecret, Vault
from portal.audit.trail import SYSTEM, Actor
from portal.microsoft.api import GuardedSource
from portal.microsoft.clouds import NationalCloud, get_cloud
from portal.microsoft.errors import AuthenticationFailed, RemoteError, UnexpectedResponse
from portal.microsoft.http import last_look
from portal.microsoft.identifiers import CorrelationId, ObjectId, TenantId
from portal.microsoft.secret import Secret
from portal.microsoft.waiting import about_to_wait
from tenants.models import CustomerTenant, PartnerTenant

_EARLY_SECONDS = 300.0  # an access token leaves the cache this long before its end (S-38)
# A signed ID token that names somebody else. Every other flaw proves nothing about anybody: the answer is dropped.
_SOMEBODY_ELSE = {Flaw.TENANT, Flaw.AUDIENCE, Flaw.FOREIGN_ACCOUNT}


class Audience(StrEnum):
    """What an access token is for. There is no other way to name a scope."""

    PARTNER_CENTER = "partner_center"
    GRAPH = "graph"
    PARTNER_API = "partner_api"
    AZURE_MANAGEMENT = "azure_management"

    def scope(self, cloud: NationalCloud) -> str:
        """Return the one scope of a token request for this audience.

        Raises:
            ValueError: this cloud has no such service.
        """
        if self is Audience.PARTNER_CENTER:
            return cloud.partner_center_scope
        origin = {
            Audience.GRAPH: cloud.graph,
            Audience.PARTNER_API: cloud.partner_api,
            Audience.AZURE_MANAGEMENT: cloud.azure_management,
        }[self]
        if origin is None:
            raise ValueError(f"{cloud.name} has no Partner API")
        return f"{origin}/.default"


class Contained(TokenUnavailable):
    """An emergency stop is on: no token of this partner and registration is handed out, renewed or used."""


@dataclass(slots=True)
class _Cached:
    token: Secret
    until: float


class TokenService:
    """Gives access tokens and keeps refresh tokens.

    Args:
        entra: makes the sign-in client of a registration for one unit of work.
        rotation: what the sign-in service does to a redeemed refresh token, so which redemptions renew (R-11).
        gate: knows the emergency stops; asked before each use of a token, of cached ones too.
        uses: the ledger of what is given out.
        credential_refused: called when Entra refuses the registration's own credential (R-14).
    """

    def __init__(
        self,
        *,
        vault: Vault,
        entra: Callable[[ApplicationRegistration, CorrelationId], EntraClient],
        validator: IdTokenValidator,
        clouds: Callable[[str], NationalCloud] = get_cloud,
        rotation: Rotation,
        gate: Gate,
        uses: Book,
        credential_refused: Callable[[ApplicationRegistration, RemoteError], None] = lambda registration, error: None,
    ) -> None:
        self._custody = Renewals(vault)
        self._entra = entra
        self._validator = validator
        self._clouds = clouds
        self.rotation = rotation
        self._gate = gate
        self.uses = uses
        self._credential_refused = credential_refused
        self._cache: dict[tuple[int, Audience, str], _Cached] = {}
        self._locks: dict[tuple[int, Audience, str], threading.Lock] = {}
        self._guard = threading.Lock()

    # --- access tokens --------------------------------------------------------------------------------------------

    def access_token(
        self,
        consent: PartnerConsent,
        audience: Audience,
        *,
        by: By,
        correlation_id: CorrelationId,
        customer: CustomerTenant | None = None,
        fresh: bool = False,
    ) -> Secret:
        """Return a live access token for this partner, at the partner's authority or at a customer's.

        It stands in the ledger of uses before it leaves; a use in a run with the run's results.

        Args:
            by: who uses it and what for.
            fresh: redeem even if a cached token is still good; a check must not believe the cache (R-45).

        Raises:
            Contained: an emergency stop is on; no token is given, whatever was sent before it began.
            TokenUnavailable: nothing was sent; the text says why.
            IdentityMismatch: the partner was stopped.
            RemoteError: what the vault or the sign-in service answered.
        """
        try:
            return self._give(consent, audience, by, correlation_id, customer, fresh=fresh)
        finally:
            self.uses.write()  # also what was issued and is not given out

    def _give(
        self,
        consent: PartnerConsent,
        audience: Audience,
        by: By,
        correlation_id: CorrelationId,
        customer: CustomerTenant | None,
        *,
        fresh: bool = False,
        again: bool = False,
    ) -> Secret:
        """Do what :meth:`access_token` says; ``again`` is no other use of what the same client got before."""
        self.check(consent)
        current = self._usable(consent)
        if customer is not None and customer.partner_id != current.partner_id:
            raise TokenUnavailable("This customer belongs to another partner.")
        tenant = current.partner.tenant if customer is None else customer.tenant
        place = (current.pk, audience, tenant)
        use = _use(current, audience, by, correlation_id, customer)
        with self._guard:
            lock = self._locks.setdefault(place, threading.Lock())
        about_to_wait()
        with lock:  # N callers at once cause one redemption
            cached = self._cache.get(place)
            if cached is not None and not fresh and time.monotonic() < cached.until:
                if not again:
                    self.uses.note(replace(use, cached=True))
                return cached.token
            try:
                answer = self._redeem(current, audience, tenant, use)
            except AuthenticationFailed as error:
                if error.service == SERVICE:
                    self._credential_refused(current.registration, error)
                raise
            self.check(consent)  # it may have begun while the answer was on its way
            until = answer.received_at + answer.expires_in - _EARLY_SECONDS
            self._cache[place] = _Cached(answer.access_token, until)
            return answer.access_token

    def source(
        self,
        consent: PartnerConsent,
        audience: Audience,
        *,
        by: By,
        correlation_id: CorrelationId,
        customer: CustomerTenant | None = None,
    ) -> GuardedSource:
        """Return a token source for a client; each call of the client asks again, so a disabled partner stops it.

        All calls of one client are one use, unless another token is issued meanwhile.
        """
        given = False

        def token() -> Secret:
            nonlocal given
            try:
                found = self._give(consent, audience, by, correlation_id, customer, again=given)
            finally:
                self.uses.write()
            given = True
            return found

        return GuardedSource(token, partial(self.check, consent))

    def held(self, consent: PartnerConsent, token: Secret) -> GuardedSource:
        """Return a token source that gives this token of a consent for as long as no emergency stop is on."""

        def unless_contained() -> Secret:
            self.check(consent)
            return token

        return GuardedSource(unless_contained, partial(self.check, consent))

    # --- the emergency stop -------------------------------------------------------------------------------------------

    def check(self, consent: PartnerConsent) -> None:
        """Raise Contained while an emergency stop is on for this consent. No query."""
        try:
            self.check_pair(consent.partner_id, consent.registration_id)
        except Contained:
            self.forget(consent.pk)
            raise

    def check_pair(self, partner: int, registration: int) -> None:
        """Raise Contained while an emergency stop is on for this partner and registration, by their keys. No query."""
        if (stop := self._gate.stop(partner, registration)) is not None:
            raise Contained(stop.words)

    def forget(self, consent_id: int, tenant: TenantId | None = None) -> None:
        """Drop cached access tokens of this consent in this process, or those of one tenant only (S-38, S-53)."""
        with self._guard:
            if tenant is not None:
                for audience in Audience:
                    self._cache.pop((consent_id, audience, tenant), None)
                return
            for place in [place for place in self._cache if place[0] == consent_id]:
                del self._cache[place]

    def _redeem(self, consent: PartnerConsent, audience: Audience, tenant: TenantId, use: Use) -> TokenResponse:
        """Redeem the stored token, and renew it if that is due: the driver for one partner."""
        renewal = Renewal(consent, tenant, CorrelationId(use.correlation_id), use.by, use.customer)
        if not self.rotation.renews(consent, tenant):
            return self._carry_out(renewal, audience)
        with self._custody.lease(consent, wait_seconds=self.rotation.wait_seconds) as owner:
            if owner is not None:
                renewal.consent = self._usable(consent, anew=True)
                if self.rotation.renews(renewal.consent, tenant):  # else the one who had the lease before did it
                    self._custody.begin(renewal.consent, owner)
                    renewal.owner = owner
            return self._carry_out(renewal, audience)

    def _carry_out(self, renewal: Renewal, audience: Audience) -> TokenResponse:
        try:
            answer = self.redeem(renewal, audience)
        except (TokenUnavailable, IdentityMismatch, RemoteError):
            self._save(renewal)
            raise
        # a partner disabled while the answer was on its way gets nothing out of it.
        try:
            self._usable(renewal.consent)
        except TokenUnavailable:
            self._custody.discarded(renewal.consent, PARTNER_DISABLED, renewal.correlation_id)
            raise
        self._custody.keep_rotated(renewal)
        self._save(renewal)
        return answer

    def _save(self, renewal: Renewal) -> None:
        """Write what came of a renewal; see ``consent.tokens.saving`` for the order."""
        if renewal.mismatch or renewal.is_lost:
            self.forget(renewal.consent.pk)
        if renewal.mismatch or renewal.owner:
            with transaction.atomic():
                self._custody.write([renewal], actor=SYSTEM)
            self._custody.put_away(renewal)
            self._custody.forget_replaced([renewal])
            self._custody.give_back([renewal])

    def redeem(self, renewal: Renewal, audience: Audience) -> TokenResponse:
        """Carry out the steps of a renewal that need no database; what it notes is for the caller to write.

        Raises as :meth:`consent.tokens.renewal.Renewal.redeem`.
        """

        def exchange(consent: PartnerConsent, stored: Secret) -> TokenResponse:
            use = Use(
                by=renewal.by,
                partner=consent.partner_id,
                registration=consent.registration_id,
                audience=audience,
                customer=renewal.customer,
                of_customer=renewal.tenant != consent.partner.tenant,
                correlation_id=renewal.correlation_id,
            )
            return self.exchange(consent, audience, renewal.tenant, stored, use)

        return renewal.redeem(self.rotation, self._custody, exchange)

    def exchange(
        self,
        consent: PartnerConsent,
        audience: Audience,
        tenant: TenantId,
        refresh_token: Secret,
        use: Use,
    ) -> TokenResponse:
        """Redeem a refresh token and make sure that the answer is this partner's. Runs no query.

        Args:
            use: what is noted as soon as a token was issued, whatever the answer proves.

        Raises:
            Contained: an emergency stop is on; nothing was sent.
            IdentityMismatch: it is another account's; the caller stops the partner.
            RemoteError: what the sign-in service answered.
        """
        self.check(consent)
        correlation_id = CorrelationId(use.correlation_id)
        cloud = self._clouds(consent.partner.cloud)
        is_customer = tenant != consent.partner.tenant
        with last_look(partial(self.check, consent)):
            answer = self._entra(consent.registration, correlation_id).redeem_refresh_token(
                tenant_id=tenant,
                refresh_token=refresh_token,
                scope=audience.scope(cloud),
                customer_tenant=is_customer,
            )
        self.uses.note(use)
        try:
            identity = self._validator.validate(
                answer.id_token,
                cloud=cloud,
                tenant_id=tenant,
                application_id=consent.registration.client_id,
                nonce=None,
                check_times=False,
                customer_tenant=is_customer,
            )
        except IdTokenRefused as refused:
            if refused.flaw not in _SOMEBODY_ELSE:
                raise UnexpectedResponse(
                    "entra",
                    "redeem refresh token",
                    correlation_id=correlation_id,
                    detail=f"the answer's ID token proves nothing ({refused.flaw})",
                ) from None
            raise IdentityMismatch(
                "the renewed token does not prove the pinned account", f"id_token_{refused.flaw}"
            ) from None
        # In a customer's tenant the account has another object id; there the tenant is what must agree.
        if not is_customer and identity.object_id != consent.pinned_oid:
            raise IdentityMismatch("the renewed token belongs to another account", "object_id")
        return answer

    def take_up_older(
        self,
        consent: PartnerConsent,
        older: StoredSecret,
        owner: str,
        *,
        actor: Actor,
        correlation_id: CorrelationId,
    ) -> None:
        """Use an older token of a partner again, because the newer one is lost with its vault.

        It is redeemed first and must prove the pinned account in the partner's tenant. What comes back is kept as the
        next generation, so the pointer never goes back.

        Args:
            older: a version that carries this record's tag.
            owner: of the lease that the caller holds.

        Raises:
            TokenUnavailable: the partner is disabled or was renewed meanwhile; nothing was changed.
            IdentityMismatch: it is the token of another account, such as one that was pinned before.
            RemoteError: what the sign-in service or the vault answered.
        """
        self._custody.check_usable(consent)
        tenant = consent.partner.tenant
        by = By(actor=actor, purpose=Purpose.REPAIR)
        use = _use(consent, Audience.PARTNER_CENTER, by, correlation_id, None)
        try:
            answer = self.exchange(consent, Audience.PARTNER_CENTER, tenant, older.value, use)
        finally:
            self.uses.write()
        token = older.value if answer.refresh_token is None else answer.refresh_token
        self._custody.take_up_older(consent, older, token, owner, actor=actor, correlation_id=correlation_id)
        self.forget(consent.pk)

    def _usable(self, consent: PartnerConsent, *, anew: bool = False) -> PartnerConsent:
        """Look at the row again; a partner that may not be used any more leaves the cache at once (S-38, S-53)."""
        try:
            return self._custody.usable(consent, anew=anew)
        except TokenUnavailable:
            self.forget(consent.pk)
            raise

    def store_new_consent(
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
        """Keep a proven refresh token of a new consent; see :meth:`consent.tokens.custody.Custody.store_new`.

        Raises Contained, beside what that raises: an emergency stop is on, and nothing was stored.
        """
        self.check_pair(partner.pk, registration.pk)
        consent = self._custody.store_new(
            partner,
            registration,
            new,
            actor=actor,
            correlation_id=correlation_id,
            in_same_transaction=in_same_transaction,
            check=check,
            replaces=replaces,
        )
        self.forget(consent.pk)  # tokens of the older consent must not outlive it
        return consent


def _use(
    consent: PartnerConsent, audience: Audience, by: By, correlation_id: CorrelationId, customer: CustomerTenant | None
) -> Use:
    return Use(
        by=by,
        partner=consent.partner_id,
        registration=consent.registration_id,
        audience=audience,
        customer=None if customer is None else customer.pk,
        of_customer=customer is not None,
        correlation_id=correlation_id,
    )
