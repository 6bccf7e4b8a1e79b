"""Erase a partner's tokens for good, with an identity that may delete; say plainly where the vault does not allow it.

The order makes it safe to kill: first the rows forbid every use, then the vault's entries go, and only then the rows
forget their names. A name is never used again, because a deleted one stays blocked (S-41).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from consent import clients
from consent.models import Erasure, Offboarding, PartnerConsent, WaitingToken
from consent.offboarding.disconnect import disconnect
from consent.sign_in import approvals
from consent.tokens.custody import BUSY, Custody, TokenUnavailable
from consent.vault.base import Eraser, SecretName, SecretVersion, Vault, new_secret_name
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.microsoft.errors import AccessDenied, NotFound
from portal.rights import require
from tenants.models import PartnerTenant


@dataclass(slots=True, kw_only=True)
class ErasureReport:
    """How many entries went how far."""

    erased: int = 0
    recoverable: int = 0
    """Deleted; the vault keeps them recoverable for its retention time."""
    disabled: int = 0
    """Only switched off, because the identity may not delete."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """The same word for each entry, by its name."""


class StillActive(Exception):
    """The partner is active; disabling it comes first."""


def erase_tokens(
    partner: PartnerTenant,
    *,
    custody: Custody,
    vault: Vault,
    eraser: Eraser,
    actor: Actor,
    allowed_by: Approval | Offboarding | Erasure,
) -> ErasureReport:
    """Erase every token of a partner that was disabled. Running it again goes on with what is not gone yet.

    Args:
        allowed_by: the approval of two persons (S-50), or the offboarding or erasure that had one.

    Raises:
        StillActive: nothing was done.
        TokenUnavailable: a token is being renewed right now; run it again.
        RemoteError: the vault failed; nothing can be used any more, run it again.
    """
    require(actor, "consent.offboard_partner")
    if partner.is_active:
        raise StillActive(f"{partner.name} is active. Disable it in the admin first; then its tokens can be erased.")
    report = ErasureReport()
    for consent in PartnerConsent.objects.for_partner(partner).order_by("pk"):
        with custody.lease(consent) as owner:
            if owner is None:
                raise TokenUnavailable(BUSY)
            PartnerConsent.objects.filter(pk=consent.pk).update(state=PartnerConsent.State.DISCONNECTED)
            consent.refresh_from_db()
            for waiting in WaitingToken.objects.filter(consent=consent).exclude(secret_version=""):
                if waiting.decision == WaitingToken.Decision.WAITING:
                    approvals.reject(waiting, vault=vault, actor=actor)
                if _erase(waiting.secret_name, waiting.secret_version, vault, eraser, report):
                    WaitingToken.objects.filter(pk=waiting.pk).update(secret_version="", fingerprint="")
            if consent.generation and _erase(consent.secret_name, consent.secret_version, vault, eraser, report):
                PartnerConsent.objects.filter(pk=consent.pk, lease_owner=owner).update(
                    generation=0, secret_name=new_secret_name(), secret_version="", replaced_version="", fingerprint=""
                )
    if isinstance(allowed_by, Approval):
        because = allowed_by.noted()
    else:
        because = {str(allowed_by._meta.model_name): allowed_by.pk}
    numbers = {"erased": report.erased, "recoverable": report.recoverable, "disabled": report.disabled}
    record("partner.tokens_erased", actor=actor, subject={"partner": partner.pk}, details=numbers | because)
    return report


def erase_all(
    partner: PartnerTenant, *, vault: Vault, eraser: Eraser, actor: Actor, allowed_by: Offboarding | Erasure
) -> ErasureReport:
    """Drop cached tokens, switch every version off, and erase what the eraser's identity may.

    Raises:
        TokenUnavailable: a renewal is on its way, or the vault did not switch a version off; try again.
        StillActive, RemoteError: as ``erase_tokens``.
    """
    for consent in PartnerConsent.objects.for_partner(partner).order_by("pk"):
        clients.tokens().forget(consent.pk)
        if consent.generation and not disconnect(consent, vault=vault, actor=actor):
            raise TokenUnavailable("the vault did not switch every version off")
    return erase_tokens(partner, custody=Custody(vault), vault=vault, eraser=eraser, actor=actor, allowed_by=allowed_by)


def entries_of(partner: int) -> list[dict[str, str]]:
    """Return what the vault holds for this partner: names of entries, and what each is."""
    consents = PartnerConsent.objects.filter(partner=partner, generation__gt=0).order_by("pk")
    held = [(name, "refresh token") for name in consents.values_list("secret_name", flat=True)]
    waiting = WaitingToken.objects.filter(consent__partner=partner).exclude(secret_version="").order_by("pk")
    held += [(name, "token of a changed account") for name in waiting.values_list("secret_name", flat=True)]
    return [{"name": name, "what": what} for name, what in held]


def _erase(name: str, version: str, vault: Vault, eraser: Eraser, report: ErasureReport) -> bool:
    """Erase one entry as far as the identity may. Returns whether it is gone for good."""
    try:
        gone = eraser.erase(SecretName(name))
    except AccessDenied:
        with suppress(NotFound):  # deleted by somebody else
            vault.disable(SecretName(name), SecretVersion(version))
        report.disabled += 1
        report.outcomes[name] = "disabled"
        return False
    if gone:
        report.erased += 1
    else:
        report.recoverable += 1
    report.outcomes[name] = "erased" if gone else "recoverable"
    return gone
