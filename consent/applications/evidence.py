"""Whether Microsoft gives our application a token for Partner Center in its home tenant, and what that proves.

One request answers three questions: the registration exists in the home tenant, Microsoft accepts its credential, and
Partner Center's service principal is there. The token itself opens nothing, because our registrations hold no
application permission, and it is dropped at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from django.db import transaction
from django.utils import timezone

from consent.applications import comparing
from consent.models import ApplicationCredential, ApplicationRegistration, RegistrationEvidence
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.errors import RemoteError
from portal.rights import require

type Ask = Callable[[ApplicationCredential], object]
"""Asks for that token with a credential; raises RemoteError (``consent.clients.ask_for_application_token``)."""


class Blame(StrEnum):
    """Which of the three questions a refusal answers with no; the questions before it are answered with yes."""

    APPLICATION = "application"
    CREDENTIAL = "credential"
    RESOURCE = "resource"
    MANIFEST = "manifest"
    """The application is there and its credential good, but its manifest does not list Partner Center."""
    NOTHING = "nothing"
    """It answers none of them: no answer came, or one that says nothing about us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a refusal means, and what to do."""

    blame: Blame
    what: str
    remedy: str


_CREDENTIAL_REMEDY = "See the credentials of this application: upload the certificate, or promote another one."
_REFUSALS = {
    **dict.fromkeys(
        ("AADSTS700016", "AADSTS70001", "AADSTS700011", "AADSTS7000229"),
        Refusal(
            blame=Blame.APPLICATION,
            what="The home tenant does not know the application, or has no service principal of it.",
            remedy=(
                "Compare application id, home tenant and cloud; then run the script of the step “Create the app "
                "registration”, which makes the service principal too."
            ),
        ),
    ),
    **dict.fromkeys(
        ("AADSTS90002", "AADSTS90038"),
        Refusal(
            blame=Blame.APPLICATION,
            what="The cloud of this registration does not know the home tenant.",
            remedy="Compare the home tenant id and the cloud with those of the Entra admin center.",
        ),
    ),
    "AADSTS7000112": Refusal(
        blame=Blame.APPLICATION,
        what="The application is disabled in its home tenant.",
        remedy="Find out who disabled it and why, then activate it under App registrations, Overview.",
    ),
    **dict.fromkeys(
        (
            "AADSTS7000215",
            "AADSTS7000222",
            "AADSTS7000218",
            "AADSTS700027",
            "AADSTS700030",
            "AADSTS50012",
            "AADSTS50013",
        ),
        Refusal(
            blame=Blame.CREDENTIAL,
            what="Microsoft knows the application and does not accept its credential.",
            remedy=_CREDENTIAL_REMEDY,
        ),
    ),
    **dict.fromkeys(
        ("AADSTS70021", "AADSTS700211", "AADSTS700212", "AADSTS700213", "AADSTS700229", "no_managed_identity"),
        Refusal(
            blame=Blame.CREDENTIAL,
            what="The application does not trust the managed identity, or this host does not have it.",
            remedy="See the credential's page for the values of the federated credential, and assign the identity.",
        ),
    ),
    **dict.fromkeys(
        ("AADSTS500011", "AADSTS650052"),
        Refusal(
            blame=Blame.RESOURCE,
            what="The home tenant has no service principal of Microsoft Partner Center.",
            remedy="Create it with one of the commands of this step, wait a minute, and verify again.",
        ),
    ),
}


_REFUSALS["AADSTS650057"] = Refusal(
    blame=Blame.MANIFEST,
    what="The manifest of the registration does not list a permission of Microsoft Partner Center.",
    remedy="Run the script of the step “Create the app registration” again: it puts the permissions right.",
)


def meaning_of(code: str) -> Refusal:
    """Return what a refusal's code says of the registration."""
    return _REFUSALS.get(code) or Refusal(
        blame=Blame.NOTHING,
        what=f"No answer that says something about this registration came ({code}).",
        remedy="Try again later. If it stays so, see whether this server reaches Microsoft at all.",
    )


def verify(registration: ApplicationRegistration, *, ask: Ask, actor: Actor) -> RegistrationEvidence:
    """Ask for the token, and keep what it shows; with the credential in use, or else the newest candidate.

    Runs outside any transaction. Without a credential nothing is asked and nothing is kept.
    """
    require(actor, "consent.change_applicationregistration")
    credential = credential_of(registration)
    known = RegistrationEvidence.objects.filter(registration=registration).first()
    if credential is None:
        return known or RegistrationEvidence(registration=registration)
    code = ""
    try:
        ask(credential)
    except RemoteError as error:
        code = error.code or type(error).__name__
    columns = {"asked_at": timezone.now(), "asked_by": actor.name, "asked_with": credential, "refusal": code}
    with transaction.atomic():
        evidence, _ = RegistrationEvidence.objects.update_or_create(registration=registration, defaults=columns)
        record(
            "registration.verified",
            actor=actor,
            outcome=Outcome.REFUSED if code else Outcome.DONE,
            subject={"registration": registration.pk, "credential": credential.pk},
            details={"code": code},
        )
    return evidence


def credential_of(registration: ApplicationRegistration) -> ApplicationCredential | None:
    """Return the credential in use, or the newest candidate that could be."""
    if registration.credential is not None:
        return registration.credential
    now = timezone.now()
    candidates = registration.credentials.complete().filter(retired_at__isnull=True, starts_at__lte=now).order_by("-pk")
    return next((one for one in candidates if one.expires_at is None or one.expires_at > now), None)


def unproven(registration: ApplicationRegistration) -> str:
    """Say why nothing proves that Microsoft accepts the credential in use now; empty when it does. One query."""
    evidence = RegistrationEvidence.objects.filter(registration=registration).first()
    if evidence is None or evidence.asked_at is None or evidence.asked_with_id != registration.credential_id:
        return f"Microsoft was not asked yet whether it accepts the credential in use. {_VERIFY}"
    if evidence.refusal:
        refusal = meaning_of(evidence.refusal)
        return f"{refusal.what} {refusal.remedy}"
    if evidence.asked_at < timezone.now() - _RECENT:
        return f"Microsoft was last asked on {evidence.asked_at:%Y-%m-%d}; it may be otherwise now. {_VERIFY}"
    return ""


_RECENT = timedelta(days=1)  # within one, a person who verified also activates
_VERIFY = "Press Verify at Microsoft on its page, then activate it."


def obstacles(registration: ApplicationRegistration) -> list[str]:
    """Say why the registration cannot work as it is known: with what is not known it may be tried. Two queries."""
    credential, found = credential_of(registration), []
    evidence = RegistrationEvidence.objects.filter(registration=registration).first()
    if credential is None:
        found.append("It has no credential: add one, and make it known at Microsoft.")
    elif credential.expires_at is not None and credential.expires_at <= timezone.now():
        found.append(f"Its credential ended on {credential.expires_at:%Y-%m-%d}: add and promote another one.")
    if evidence is None:
        return found
    if evidence.refusal and credential is not None and evidence.asked_with_id == credential.pk:
        refusal = meaning_of(evidence.refusal)
        if refusal.blame != Blame.NOTHING:
            found.append(f"{refusal.what} {refusal.remedy}")
    if evidence.seen_at is not None:
        found += [f"{one.blocks} {one.remedy}" for one in comparing.differences(registration, evidence) if one.blocks]
    return found
