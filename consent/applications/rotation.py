"""Add, prove, promote, roll back and retire the application's own credentials (S-39).

A new credential redeems the token of a connected partner, the canary, before it takes over; until then the older one
stays. Promoting is one conditional UPDATE of the registration's pointer, which every use of a token reads again: all
processes work with the new credential from their next redemption on. The older one stays stored for roll back.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.microsoft.credentials import Certificate, read_credential
from consent.microsoft.entra import SERVICE
from consent.microsoft.id_tokens import LEEWAY_SECONDS
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from consent.tokens import health
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Audience, Contained, TokenService
from consent.uses.book import By, Purpose
from consent.vault.base import RECORD_TAG, SecretName, SecretVersion, Vault, VaultKeys, new_secret_name
from consent.vault.leftovers import none_left
from portal.audit.trail import SYSTEM, Actor, Outcome, record
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import AuthenticationFailed, RemoteError
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from portal.rights import require
from tenants.models import PartnerTenant

log = logging.getLogger(__name__)

WARN_DAYS = (60, 30, 14, 7)  # S-39, with the longer look ahead of the Secure Application Model page
_CANARIES = 3  # partners that are asked before we say that none could prove it
Kind = ApplicationCredential.Kind
Door = Callable[[ApplicationCredential], TokenService]


class RotationRefused(Exception):
    """Nothing was changed; the text says why, who must act and what to do next."""


class NoCanary(RotationRefused):
    """No connected partner: no token can prove the credential."""


class NotAccepted(RotationRefused):
    """Microsoft refused the credential.

    Args:
        code: Microsoft's.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


# --- add --------------------------------------------------------------------------------------------------------------


def add_secret(
    registration: ApplicationRegistration,
    value: Secret,
    *,
    key_id: str = "",
    expires_at: datetime | None,
    vault: Vault,
    actor: Actor,
) -> ApplicationCredential:
    """Store a client secret as a candidate.

    Args:
        key_id: the secret's id at Microsoft, to find it there again; empty is allowed.

    Raises:
        ValueError: it is no client secret.
        RemoteError: the vault did not take it; nothing was added.
    """
    require(actor, "consent.add_applicationcredential")
    read_credential(Kind.SECRET, value)
    if key_id:
        key_id = _guid(key_id, "The secret's id")
    if expires_at is not None and expires_at <= timezone.now():
        raise ValueError("The secret has ended already; create a new one at Microsoft")
    name, version = store(registration, value, expires_at, vault)
    with none_left(vault, name, version):
        return add_row(
            registration,
            actor,
            kind=Kind.SECRET,
            secret_name=name,
            secret_version=version,
            key_id=key_id,
            starts_at=timezone.now(),
            expires_at=expires_at,
        )


def add_certificate(
    registration: ApplicationRegistration,
    value: Secret,
    *,
    sends_chain: bool = False,
    vault: Vault,
    actor: Actor,
    how: str = "given",
) -> ApplicationCredential:
    """Store a private key with its certificate as a candidate.

    Args:
        how: where the key comes from, for the audit trail.

    Raises:
        ValueError: it cannot be used; the text repeats nothing of it.
        RemoteError: the vault did not take it; nothing was added.
    """
    require(actor, "consent.add_applicationcredential")
    certificate = usable_certificate(value)
    name, version = store(registration, value, certificate.not_after, vault)
    with none_left(vault, name, version):
        return _add_certificate(registration, certificate, name, version, sends_chain, actor, how)


def add_certificate_of_vault(
    registration: ApplicationRegistration,
    name: str,
    version: str,
    *,
    sends_chain: bool = False,
    vault: Vault,
    actor: Actor,
) -> ApplicationCredential:
    """Use a certificate that somebody else keeps in the vault, as a candidate. It is never switched off by us.

    Raises:
        ValueError: what is there is no certificate with its key.
        RemoteError: it cannot be read.
    """
    require(actor, "consent.add_applicationcredential")
    certificate = usable_certificate(vault.read(SecretName(name), SecretVersion(version)).value)
    return _add_certificate(registration, certificate, name, version, sends_chain, actor, "in the vault")


def add_managed_identity(
    registration: ApplicationRegistration, client_id: str, *, actor: Actor
) -> ApplicationCredential:
    """Name a user-assigned managed identity that the application trusts, as a candidate. Nothing is stored.

    Raises:
        ValueError: no client id, or one of this registration already.
    """
    require(actor, "consent.add_applicationcredential")
    client_id = _guid(client_id, "The client id of the managed identity")
    if registration.credentials.filter(kind=Kind.FEDERATED, key_id=client_id, retired_at__isnull=True).exists():
        raise ValueError("This managed identity is a credential of the registration already; promote it")
    return add_row(registration, actor, kind=Kind.FEDERATED, key_id=client_id, starts_at=timezone.now())


def _guid(text: str, what: str) -> str:
    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        raise ValueError(f"{what} must look like 11111111-2222-3333-4444-555555555555") from None


def usable_certificate(value: Secret) -> Certificate:
    """Read key and certificate. Raises ValueError: they do not fit, or the certificate has ended."""
    certificate = read_credential(Kind.CERTIFICATE, value)
    if not isinstance(certificate, Certificate) or certificate.not_after <= timezone.now():
        raise ValueError("The certificate has expired already")
    return certificate


def _add_certificate(
    registration: ApplicationRegistration,
    certificate: Certificate,
    name: str,
    version: str,
    sends_chain: bool,
    actor: Actor,
    how: str,
) -> ApplicationCredential:
    check_new(registration, "This certificate", name, version)
    return add_row(
        registration,
        actor,
        how=how,
        kind=Kind.CERTIFICATE,
        secret_name=name,
        secret_version=version,
        key_id=certificate.thumbprint,
        public_certificate=certificate.public_pem,
        sends_chain=sends_chain,
        starts_at=certificate.not_before,
        expires_at=certificate.not_after,
    )


def check_new(registration: ApplicationRegistration, what: str, name: str, version: str) -> None:
    """Raise ValueError when this entry is a credential of the registration already."""
    known = registration.credentials.filter(secret_name=name, secret_version=version).first()
    if known is not None and known.retired_at is not None:
        raise ValueError(f"{what} is a retired credential of the registration; name another")
    if known is not None:
        raise ValueError(f"{what} is a credential of the registration already; promote it")


def store(
    registration: ApplicationRegistration, value: Secret, expires_at: datetime | None, vault: Vault
) -> tuple[SecretName, SecretVersion]:
    """Write the vault first: a row never points to something that was not stored.

    Raises:
        RotationRefused: the registration is retired.
        RemoteError: the vault did not take it.
    """
    check_open(registration.pk)
    name = new_secret_name()
    return name, vault.write(name, value, tags={RECORD_TAG: owner(registration.pk)}, expires_at=expires_at)


def add_row(
    registration: ApplicationRegistration, actor: Actor, *, how: str = "given", **columns: Any
) -> ApplicationCredential:
    """Add the candidate with its entry in the audit trail. Raises RotationRefused: the registration is retired."""
    with transaction.atomic():
        check_open(registration.pk)
        credential = ApplicationCredential.objects.create(registration=registration, **columns)
        record(
            "credential.added",
            actor=actor,
            subject={"registration": registration.pk, "credential": credential.pk},
            details={"kind": credential.kind, "key_id": credential.key_id, "how": how},
        )
    return credential


def check_open(registration_id: int) -> None:
    """Raise RotationRefused when the registration takes no credential any more."""
    retired = ApplicationRegistration.objects.filter(pk=registration_id, state=ApplicationRegistration.State.RETIRED)
    if retired.exists():
        raise RotationRefused(
            "The registration is retired and takes no credential. Use another registration, or make this one active."
        )


def owner(registration_id: int) -> str:
    """Return the vault's tag of what we made for this registration."""
    return f"registration-{registration_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What promoting a credential will mean.

    Attributes:
        refused: why it cannot be promoted, as a sentence; empty if it can be tried.
        canaries: names of the partners that are asked, one after the other, until one proves it.
        before: the credential in use until then.
        partners: how many partners' tokens are redeemed with it from then on.
    """

    refused: str
    canaries: Sequence[str]
    before: ApplicationCredential | None
    partners: int


def preview(credential: ApplicationCredential) -> Preview:
    """Say what promoting it will mean; nothing is asked at Microsoft and nothing is changed."""
    try:
        _check_valid(credential)
        refused = ""
    except RotationRefused as reason:
        refused = str(reason)
    consents = _provers(credential)
    return Preview(
        refused=refused,
        canaries=[consent.partner.name for consent in consents[:_CANARIES]],
        before=credential.registration.credential,
        partners=consents.count(),
    )


# --- prove and promote ------------------------------------------------------------------------------------------------


def promote(
    credential: ApplicationCredential,
    *,
    door: Door,
    actor: Actor,
    canary: PartnerTenant | None = None,
    allow_unproven: bool = False,
) -> PartnerTenant | None:
    """Prove this credential and make it the current one; return the partner whose token proved it.

    It is proven once before the switch and once after it, as the registration then points; a refusal after the switch
    rolls back. Runs outside any transaction. Promoting the current one proves it again.

    Args:
        door: gives the token service that works with a credential (``clients.tokens_with``).
        canary: the partner to prove with; without one, those whose token worked last are asked.
        allow_unproven: promote all the same when no partner is connected; the return value is None then.

    Raises:
        NoCanary: no partner to prove with.
        NotAccepted: Microsoft refused it; the row says so, and the older one is current.
        RotationRefused: not provable now, not valid now, retired, or somebody else promoted one meanwhile.
    """
    require(actor, "consent.promote_applicationcredential")
    credential = ApplicationCredential.objects.select_related("registration").get(pk=credential.pk)
    registration, older = credential.registration, credential.registration.credential_id
    _check_valid(credential)
    try:
        partner: PartnerTenant | None = _prove(credential, door=door, canary=canary, actor=actor)
    except NoCanary:
        if not allow_unproven:
            raise
        partner = None
    except NotAccepted as refused:
        _note_refusal(credential, refused.code, actor)
        raise
    _switch(credential, older, partner, actor)
    if partner is not None and older != credential.pk:
        try:
            _prove(_pointed_to(registration), door=door, canary=partner, actor=actor)
        except NotAccepted as refused:
            _note_refusal(credential, refused.code, SYSTEM)
            if older is not None:
                _undo(credential, older)
            raise
        except RotationRefused as unclear:
            log.info("not proven again after the switch: %s", unclear)  # it was proven before; nothing says otherwise
    return partner


def roll_back(registration: ApplicationRegistration, *, door: Door, actor: Actor) -> ApplicationCredential:
    """Promote the credential that was current before, proven like any other.

    Raises:
        RotationRefused: there is none, or what :func:`promote` raises.
    """
    require(actor, "consent.promote_applicationcredential")
    previous = ApplicationCredential.objects.for_roll_back().filter(registration=registration).first()
    if previous is None:
        raise RotationRefused(f"{registration} has no earlier credential to go back to; add a new one.")
    promote(previous, door=door, actor=actor)
    return previous


def retire(credential: ApplicationCredential, *, vault: Vault, keys: Callable[[], VaultKeys], actor: Actor) -> None:
    """Give up a credential for good, and switch its version in the vault off if we made it.

    Args:
        keys: opens the vault's keys; called for a credential that is one of them.

    Raises:
        RotationRefused: it is in use, or retired.
        RemoteError: it is retired, but the vault did not switch it off; retire it there.
    """
    require(actor, "consent.retire_applicationcredential")
    with transaction.atomic():
        # The row first, then the pointer; _switch() goes the other way round, so the second sees the first.
        if not ApplicationCredential.objects.filter(pk=credential.pk, retired_at__isnull=True).update(
            retired_at=timezone.now()
        ):
            raise RotationRefused(f"{credential} is retired already.")
        # A request may have been answered since this row was read: then its key is in another version.
        credential.refresh_from_db(fields=["secret_name", "secret_version"])
        if ApplicationRegistration.objects.filter(credential=credential.pk).exists():
            raise RotationRefused(f"{credential} is in use; promote another one first.")
        record(
            "credential.retired",
            actor=actor,
            subject={"registration": credential.registration_id, "credential": credential.pk},
        )
    if credential.secret_name:
        name, version = SecretName(credential.secret_name), SecretVersion(credential.secret_version)
        own = keys() if credential.kind == Kind.VAULT_KEY else None
        found = vault.read(name, version) if own is None else own.get(name, version)
        if found.tags.get(RECORD_TAG) == owner(credential.registration_id):
            (vault if own is None else own).disable(name, version)


def _check_valid(credential: ApplicationCredential) -> None:
    now = timezone.now()
    if credential.retired_at is not None:
        raise RotationRefused(f"{credential} is retired; add a new one.")
    if credential.certificate_request and not credential.public_certificate:
        raise RotationRefused(f"{credential} waits for its signed certificate; upload that first.")
    if credential.starts_at > now + timedelta(seconds=LEEWAY_SECONDS):  # clocks may differ that much
        raise RotationRefused(f"{credential} is not valid before {credential.starts_at:%Y-%m-%d %H:%M} UTC.")
    if credential.expires_at is not None and credential.expires_at <= now:
        raise RotationRefused(f"{credential} ended on {credential.expires_at:%Y-%m-%d}; add a new one.")


def _prove(
    credential: ApplicationCredential, *, door: Door, canary: PartnerTenant | None, actor: Actor
) -> PartnerTenant:
    """Redeem a canary's token through the door with this credential."""
    consents = _provers(credential)
    if canary is not None:
        consents = consents.filter(partner=canary)
    tokens, why = door(credential), ""
    by = By(actor=actor, purpose=Purpose.CREDENTIAL)
    for consent in consents[:_CANARIES]:
        try:
            tokens.access_token(
                consent, Audience.PARTNER_CENTER, by=by, correlation_id=new_correlation_id(), fresh=True
            )
        except AuthenticationFailed as error:
            if error.service != SERVICE:
                raise
            diagnosis = diagnose(error)
            raise NotAccepted(f"{diagnosis.cause} {diagnosis.remedy} ({error.code})", error.code) from error
        except RemoteError as error:
            diagnosis = diagnose(error)
            why = f"{diagnosis.cause} {diagnosis.remedy}"
        except Contained as stop:
            raise NoCanary(
                f"{stop} So no token can prove the credential now. Promote it unproven: the first wave proves it when "
                "you resume."
            ) from None
        except TokenUnavailable as error:
            why = str(error)
        else:
            return consent.partner
    if not why:
        who = "No partner is" if canary is None else f"{canary} is not"
        raise NoCanary(f"{who} connected through {credential.registration}: there is no token to prove it with.")
    raise RotationRefused(
        f"The credential could not be proven: no partner's token could be redeemed; Microsoft did not refuse it. {why} "
        "Try again later, or name another partner. Nothing was changed."
    )


def _provers(credential: ApplicationCredential) -> QuerySet[PartnerConsent]:
    """Return the consents whose token can prove it, the one that worked last first."""
    return (
        PartnerConsent.objects.usable()
        .filter(
            registration=credential.registration_id,
            state__in=[PartnerConsent.State.CONNECTED, PartnerConsent.State.MFA_MISSING],
        )
        .select_related("partner")
        .order_by(F("last_success_at").desc(nulls_last=True), "pk")
    )


def _switch(credential: ApplicationCredential, older: int | None, partner: PartnerTenant | None, actor: Actor) -> None:
    now = timezone.now()
    proof: dict[str, Any] = {} if partner is None else {"proven_at": now, "proven_with": partner}
    with transaction.atomic():
        pointed = _point(credential.registration_id, older, credential.pk)
        usable = ApplicationCredential.objects.filter(pk=credential.pk, retired_at__isnull=True).update(
            promoted_at=now, refused_at=None, refused_code="", **proof
        )
        if not pointed or not usable:
            raise RotationRefused("Somebody else changed the credentials at this moment. Look, and promote again.")
        record(
            "credential.promoted",
            actor=actor,
            subject={"registration": credential.registration_id, "credential": credential.pk},
            details={"before": older, "proven_with": None if partner is None else partner.pk},
        )
        if partner is not None:
            alarms.settle([Cause.CREDENTIAL_REFUSED], [credential.registration_id])
        if older is not None and older != credential.pk:
            alarms.settle([Cause.CREDENTIAL_EXPIRES], [older])


def _point(registration_id: int, before: int | None, after: int) -> bool:
    """Move the pointer if it still is where it was seen: of two who promote at once, one wins."""
    seen = Q(credential__isnull=True) if before is None else Q(credential=before)
    moved = bool(ApplicationRegistration.objects.filter(seen, pk=registration_id).update(credential=after))
    if moved:
        # One that comes back is warned of again: its incident was settled when it was replaced.
        ApplicationCredential.objects.filter(pk=after).update(warned_days=None)
        health.refresh_registration(registration_id)  # the tokens may end with the credential
    return moved


def _undo(credential: ApplicationCredential, older: int) -> None:
    with transaction.atomic():
        if _point(credential.registration_id, credential.pk, older):
            record(
                "credential.rolled_back",
                actor=SYSTEM,
                subject={"registration": credential.registration_id, "credential": older},
                details={"refused": credential.pk},
            )


def _pointed_to(registration: ApplicationRegistration) -> ApplicationCredential:
    return ApplicationCredential.objects.select_related("registration").get(current_for=registration.pk)


def _note_refusal(credential: ApplicationCredential, code: str, actor: Actor) -> None:
    with transaction.atomic():
        ApplicationCredential.objects.filter(pk=credential.pk).update(refused_at=timezone.now(), refused_code=code)
        record(
            "credential.refused",
            actor=actor,
            outcome=Outcome.REFUSED,
            subject={"registration": credential.registration_id, "credential": credential.pk},
            details={"code": code},
        )


# --- expiry -----------------------------------------------------------------------------------------------------------


def warn_of_expiry() -> int:
    """Open an incident for each credential in use that came nearer to its end than 60, 30, 14 or 7 days (S-39).

    Each threshold is reported once. Call it daily; twice at a time is harmless. Returns how many were reported.
    """
    now, reported = timezone.now(), 0
    nearing = ApplicationCredential.objects.current().filter(expires_at__lte=now + timedelta(days=max(WARN_DAYS)))
    for credential in nearing.select_related("registration"):
        left = (credential.expires_at or now) - now
        threshold = min(days for days in WARN_DAYS if left <= timedelta(days=days))
        with transaction.atomic():
            first = (
                ApplicationCredential.objects.filter(Q(warned_days__isnull=True) | Q(warned_days__gt=threshold))
                .filter(pk=credential.pk)
                .update(warned_days=threshold)
            )
            if first:
                alarms.report(Cause.CREDENTIAL_EXPIRES, credential, days=threshold)
                reported += 1
    return reported
