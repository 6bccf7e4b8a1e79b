"""Refresh tokens that a vendor already has: which may be adopted, and adopting one after it proved itself.

A token is redeemed with our registration's credential and proves tenant, account, MFA and permissions as after a
sign-in (``consent.sign_in.proof``). It is kept by the same door as there, or refused with a reason. No person is at the
browser who could put right what is missing, so what is not proven is refused: a link then does what an import cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import batched

from django.views.decorators.debug import sensitive_variables

from consent.microsoft.entra import SERVICE as ENTRA
from consent.microsoft.id_tokens import Flaw, IdTokenRefused
from consent.models import ApplicationRegistration, PartnerConsent
from consent.moving_in.sources import Line
from consent.permissions import held
from consent.sign_in.proof import AnotherAccount, ConsentTools, GuestAccount, Proven, prove
from consent.tokens.custody import AnotherAccountPinned, NewConsent
from consent.uses.book import By, Purpose
from consent.words import CheckState
from portal.audit.trail import Actor, record
from portal.microsoft.clouds import get_cloud
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId, TenantId
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant

_AT_ONCE = 500
_LINK = "Send the partner a consent link."
_AGAIN = "Run the import again; if it says the same, send the partner a consent link."
State = PartnerConsent.State
Mfa = PartnerConsent.Mfa


class Why(StrEnum):
    """Why a token is not adopted; a class of results, so at most 24 characters."""

    MALFORMED = "malformed"
    DUPLICATE = "duplicate"
    UNKNOWN_PARTNER = "unknown_partner"
    OTHER_CLOUD = "other_cloud"
    REGISTRATION_OFF = "registration_off"
    PARTNER_OFF = "partner_off"
    ALREADY_CONNECTED = "already_connected"
    STOPPED = "stopped"
    DISCONNECTED = "disconnected"
    OTHER_TENANT = "other_tenant"
    GUEST = "guest_account"
    MEMBER_UNPROVEN = "member_unproven"
    NOT_PROVEN = "not_proven"
    NO_MFA = "mfa_missing"
    MFA_UNPROVEN = "mfa_unproven"
    PERMISSIONS_MISSING = "permissions_missing"
    PERMISSIONS_UNPROVEN = "permissions_unproven"
    OTHER_ACCOUNT = "other_account"
    NOT_READABLE = "not_readable"
    NO_INPUT = "no_input"


_OWNERS: Mapping[Why, Owner] = {
    Why.ALREADY_CONNECTED: Owner.NOBODY,
    Why.GUEST: Owner.PARTNER,
    Why.NO_MFA: Owner.PARTNER,
    Why.PERMISSIONS_MISSING: Owner.PARTNER,
}
"""Who must act; we, where nothing is said."""


class NotAdopted(Exception):
    """This token is not adopted, and nothing was stored. The text says why, and what to do."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why

    @property
    def owner(self) -> Owner:
        return _OWNERS.get(self.why, Owner.US)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is known of a line before anything is redeemed. ``refused`` is None for one that can be tried."""

    line: Line
    partner: PartnerTenant | None
    refused: NotAdopted | None


def judge(lines: Sequence[Line], registration: ApplicationRegistration) -> list[Judged]:
    """Say of each line whether it can be tried: its form, its partner, and what is connected already.

    Two queries for every 500 tenants; nothing is sent.
    """
    tenants = sorted({line.tenant_id for line in lines if line.tenant_id is not None})
    partners: dict[TenantId, PartnerTenant] = {}
    consents: dict[int, PartnerConsent] = {}
    for some in batched(tenants, _AT_ONCE):
        found = {partner.tenant: partner for partner in PartnerTenant.objects.filter(tenant_id__in=some)}
        partners |= found
        rows = PartnerConsent.objects.filter(registration=registration, partner__in=found.values())
        consents |= {row.partner_id: row for row in rows}
    return list(_judged(lines, registration, partners, consents))


def _judged(
    lines: Iterable[Line],
    registration: ApplicationRegistration,
    partners: Mapping[TenantId, PartnerTenant],
    consents: Mapping[int, PartnerConsent],
) -> Iterator[Judged]:
    first: dict[TenantId, str] = {}
    for line in lines:
        partner = None if line.tenant_id is None else partners.get(line.tenant_id)
        refused: NotAdopted | None = None
        if line.tenant_id is None or line.problem:
            refused = NotAdopted(Why.MALFORMED, f"{line.problem} Correct the line.")
        elif line.tenant_id in first:
            refused = NotAdopted(
                Why.DUPLICATE, f"The tenant stands in {first[line.tenant_id]} already, which is the one that counts."
            )
        elif partner is None:
            refused = NotAdopted(Why.UNKNOWN_PARTNER, "No partner has this tenant id. Add or import the partner first.")
        else:
            refused = why_not(partner, consents.get(partner.pk), registration)
        if line.tenant_id is not None and not line.problem:
            first.setdefault(line.tenant_id, line.where)
        yield Judged(line=line, partner=partner, refused=refused)


def why_not(
    partner: PartnerTenant, consent: PartnerConsent | None, registration: ApplicationRegistration
) -> NotAdopted | None:
    """Say why no token of this partner may be adopted now; None when one may. No query."""
    if partner.cloud != registration.cloud:
        names = get_cloud(partner.cloud).name, get_cloud(registration.cloud).name
        return NotAdopted(Why.OTHER_CLOUD, "The partner is in {}, the registration in {}. Name another.".format(*names))
    if registration.state != ApplicationRegistration.State.ACTIVE:
        return NotAdopted(
            Why.REGISTRATION_OFF, f"The registration is {registration.get_state_display().lower()}. Activate it first."
        )
    if not partner.is_active:
        return NotAdopted(Why.PARTNER_OFF, partner.why_inactive)
    if partner.offboarding_since is not None:
        return NotAdopted(Why.PARTNER_OFF, "The partner is being offboarded.")
    if consent is None or consent.generation == 0:
        return None
    if consent.state in PartnerConsent.LIVING_STATES:
        return NotAdopted(Why.ALREADY_CONNECTED, "The partner is connected already; nothing is done.")
    if consent.state == State.STOPPED:
        return NotAdopted(
            Why.STOPPED, f"The partner was stopped: a token belonged to another account. Look into it first. {_LINK}"
        )
    if consent.state in PartnerConsent.LEFT_STATES:
        return NotAdopted(Why.DISCONNECTED, f"The partner was disconnected, so only a new consent counts. {_LINK}")
    return None


@sensitive_variables("token", "proven")
def adopt(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    token: Secret,
    *,
    source: str,
    tools: ConsentTools,
    actor: Actor,
    correlation_id: CorrelationId,
) -> PartnerConsent:
    """Let a token prove itself, and keep it as a sign-in's is kept; with one audit entry that says where it came from.

    Args:
        source: name of the source, for the trail.

    Raises:
        NotAdopted: it is not what it must be; nothing was stored.
        TokenUnavailable: the partner was disabled meanwhile, or its token is being renewed; nothing was stored.
        RemoteError: Microsoft or the vault refused or did not answer; nothing was stored.
    """
    try:
        proven = prove(
            partner,
            registration,
            token,
            object_id=None,
            tools=tools,
            by=By(actor=actor, purpose=Purpose.IMPORT),
            correlation_id=correlation_id,
            strict=True,
        )
    except AnotherAccount:
        raise NotAdopted(Why.OTHER_TENANT, _OF_OTHER_TENANT) from None
    except GuestAccount:
        raise NotAdopted(Why.GUEST, _OF_A_GUEST) from None
    except IdTokenRefused as refused:
        raise _refused_id_token(refused) from None
    except RemoteError as error:
        if (refusal := _OF_THE_TOKEN.get(error.code)) is not None and error.service == ENTRA:
            raise NotAdopted(*refusal) from None
        raise
    _check_proven(registration, proven)
    try:
        return tools.tokens.store_new_consent(
            partner,
            registration,
            NewConsent(
                refresh_token=proven.refresh_token,
                object_id=proven.object_id,
                granted=proven.granted,
                mfa=proven.mfa,
                amr=proven.amr,
                checks=proven.checks,
            ),
            actor=actor,
            correlation_id=correlation_id,
            in_same_transaction=lambda consent: _note(consent, source, actor, correlation_id),
            check=_check_still,
        )
    except AnotherAccountPinned:
        raise NotAdopted(
            Why.OTHER_ACCOUNT, f"It belongs to another account than the one that consented before. {_LINK}"
        ) from None


def _check_still(consent: PartnerConsent) -> None:
    """Raise NotAdopted when the partner connected, or was stopped or switched off, while its token proved itself."""
    if refused := why_not(consent.partner, consent, consent.registration):
        raise refused


_OF_OTHER_TENANT = f"It belongs to another tenant than the line says. Correct the tenant id. {_LINK}"
_OF_A_GUEST = f"Its account is a guest in the partner's tenant. Let a member account of that tenant sign in. {_LINK}"
# What the sign-in service says of a token that does not fit its line, where it would say another thing of a stored one.
_OF_THE_TOKEN: Mapping[str, tuple[Why, str]] = {
    "AADSTS50020": (Why.OTHER_TENANT, _OF_OTHER_TENANT),
    "AADSTS9002313": (Why.MALFORMED, f"Microsoft does not take it for a refresh token; it may be cut off. {_LINK}"),
}


def _refused_id_token(refused: IdTokenRefused) -> NotAdopted:
    if refused.flaw is Flaw.TENANT:
        return NotAdopted(Why.OTHER_TENANT, _OF_OTHER_TENANT)
    if refused.flaw is Flaw.FOREIGN_ACCOUNT:
        return NotAdopted(Why.GUEST, _OF_A_GUEST)
    return NotAdopted(Why.NOT_PROVEN, f"Microsoft's answer does not prove whose token it is ({refused.flaw}). {_LINK}")


def _check_proven(registration: ApplicationRegistration, proven: Proven) -> None:
    """Raise NotAdopted unless membership, MFA and every permission that the registration asks for are proven."""
    if {"check": "member", "state": CheckState.PASSED} not in proven.checks:
        raise NotAdopted(Why.MEMBER_UNPROVEN, f"Graph did not say whether its account is a guest. {_AGAIN}")
    if proven.mfa is Mfa.MISSING:
        raise NotAdopted(Why.NO_MFA, f"Partner Center says that the sign-in was without MFA. {_LINK}")
    if proven.mfa is Mfa.UNPROVEN:
        raise NotAdopted(Why.MFA_UNPROVEN, f"Partner Center did not say whether the sign-in was with MFA. {_LINK}")
    found = held(proven.granted, registration.asked)
    if found.missing:
        raise NotAdopted(
            Why.PERMISSIONS_MISSING, f"These permissions are not granted: {found.missing.words()}. {_LINK}"
        )
    if found.unproven:
        raise NotAdopted(
            Why.PERMISSIONS_UNPROVEN, f"Microsoft did not confirm these permissions: {found.unproven.words()}. {_AGAIN}"
        )


def _note(consent: PartnerConsent, source: str, actor: Actor, correlation_id: CorrelationId) -> None:
    record(
        "token.imported",
        actor=actor,
        subject={"partner": consent.partner_id, "consent": consent.pk},
        details={"source": source},
        correlation_id=correlation_id,
    )
