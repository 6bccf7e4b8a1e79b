"""The decisions of a redemption, written once: whether it renews, what must hold, and what its end means.

Two drivers carry them out, ``TokenService`` for one partner and the token check for a batch; what they save and write,
and in which order, is ``consent.tokens.saving``. How the sign-in service treats a redeemed refresh token is decided by
a :class:`Rotation` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from django.utils import timezone

from consent.microsoft.entra import REDEMPTION, SERVICE, TokenResponse
from consent.models import PartnerConsent
from consent.tokens.custody import BUSY, LOST, Custody, Place, TokenUnavailable
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import By
from portal.microsoft.errors import ConsentRequired, InteractionRequired, MfaRequired, NotSent, RemoteError
from portal.microsoft.identifiers import CorrelationId, TenantId
from portal.microsoft.secret import Secret


class Rotation(ABC):
    """What the sign-in service does to a refresh token when it is redeemed.

    Attributes:
        spends_stored: whether the stored token is worth nothing afterwards, so that it takes the lease to redeem it.
        wait_seconds: how long a caller waits for another's renewal.
    """

    spends_stored: ClassVar[bool]
    wait_seconds: ClassVar[float]

    @abstractmethod
    def renews(self, consent: PartnerConsent, tenant: TenantId) -> bool:
        """Tell whether a redemption at this tenant's authority is a renewal, which takes the lease (R-11)."""

    @abstractmethod
    def has_lost(self, consent: PartnerConsent, tenant: TenantId, error: RemoteError) -> bool:
        """Tell whether a refusal means that an older, cut-off renewal spent the stored token (R-01)."""


@dataclass(frozen=True, slots=True)
class LenientRotation(Rotation):
    """Microsoft Entra: the stored token stays good, so a rotated one is saved only when the stored one is old.

    A customer's authority also answers with a refresh token; the partner's one stays the master copy.
    """

    save_after: timedelta

    spends_stored = False
    wait_seconds = 0.0

    def renews(self, consent: PartnerConsent, tenant: TenantId) -> bool:
        if tenant != consent.partner.tenant:
            return False
        return consent.stored_at is None or timezone.now() - consent.stored_at >= self.save_after

    def has_lost(self, consent: PartnerConsent, tenant: TenantId, error: RemoteError) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class StrictRotation(Rotation):
    """A service that kills a refresh token at its first use: each redemption is a renewal (R-03)."""

    spends_stored = True
    wait_seconds = 15.0  # for the result of a renewal elsewhere

    def renews(self, consent: PartnerConsent, tenant: TenantId) -> bool:
        return True

    def has_lost(self, consent: PartnerConsent, tenant: TenantId, error: RemoteError) -> bool:
        return (
            tenant == consent.partner.tenant
            and consent.renewal_started_at is not None
            and isinstance(error, ConsentRequired)
            and not isinstance(error, InteractionRequired | MfaRequired)
        )


def rotation(save_after: timedelta) -> Rotation:
    """Return the rotation for this setting; zero stands for a service that kills the redeemed token (R-11)."""
    return LenientRotation(save_after) if save_after else StrictRotation()


@dataclass(slots=True)
class Renewal:
    """One redemption of a partner's stored token: its steps without the database, and what is to be written after it.

    Without a lease it is a redemption only, and what rotates is dropped.

    Attributes:
        consent: the row that the token belongs to; after :meth:`redeem` the one that was really used.
        tenant: whose authority is asked.
        by: who redeems it, for the ledger of uses.
        customer: key of the customer whose authority it is, where that is known.
        owner: of the lease; "" for none. With it the row carries the note of R-02 already.
        mismatch: why the partner must be stopped; "" when it need not be.
        is_lost: an older, cut-off renewal lost the token.
        nothing_spent: the stored token is as good as before, so the note can be taken back.
        rotated: the refresh token to keep.
        place: where it is in the vault; None where it is not.
        not_saved: the code of the vault's failure to take it, which may be empty; None for none.
        saved: the row points to it.
        discarded: why it is not to be used; "" when it is.
        is_off: the version that it replaced is switched off.
    """

    consent: PartnerConsent
    tenant: TenantId
    correlation_id: CorrelationId
    by: By
    customer: int | None = None
    owner: str = ""
    mismatch: str = ""
    is_lost: bool = False
    nothing_spent: bool = False
    rotated: Secret | None = None
    place: Place | None = None
    not_saved: str | None = None
    saved: bool = False
    discarded: str = ""
    is_off: bool = False

    def redeem(
        self, rotation: Rotation, custody: Custody, exchange: Callable[[PartnerConsent, Secret], TokenResponse]
    ) -> TokenResponse:
        """Read the stored token and redeem it. No query, unless another renewed since the row was read, or crashed.

        Args:
            exchange: redeems a token of this row and makes sure that the answer is this partner's.

        Raises:
            TokenUnavailable: the row allows no use of its token, another renews it, or it is lost.
            IdentityMismatch: the vault's token or the answer is somebody else's.
            RemoteError: what the vault or the sign-in service answered.
        """
        try:
            custody.check_usable(self.consent)
            answer = exchange(self.consent, self._read(rotation, custody))
        except TokenUnavailable:  # nothing was sent
            self.nothing_spent = self.consent.renewal_started_at is None
            raise
        except IdentityMismatch as mismatch:
            self.mismatch = mismatch.why
            raise
        except RemoteError as error:
            if self.owner and rotation.has_lost(self.consent, self.tenant, error):
                self.is_lost = True
                raise TokenUnavailable(LOST) from error
            self.nothing_spent = _spends_nothing(self.consent, error)
            raise
        if self.owner:
            self.rotated = answer.refresh_token
            self.nothing_spent = self.rotated is None
        return answer

    def _read(self, rotation: Rotation, custody: Custody) -> Secret:
        if not self.owner:
            if rotation.spends_stored:  # another renews it
                raise TokenUnavailable(BUSY)
            self.consent, stored = custody.look_up(self.consent)
            return stored
        self.consent, stored = custody.fetch_to_renew(self.consent, self.owner)
        custody.check_not_lost(self.consent)
        return stored


def _spends_nothing(consent: PartnerConsent, error: RemoteError) -> bool:
    """Tell whether the stored token is as good as before: refused or never sent, and no older renewal is open."""
    refused = error.status is not None and 400 <= error.status < 500
    never_sent = (error.service, error.operation) != (SERVICE, REDEMPTION) or isinstance(error, NotSent)
    return consent.renewal_started_at is None and (refused or never_sent)
