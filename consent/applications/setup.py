"""From an app registration that does not exist to a first granted customer: the steps, and how far we are.

Each step's state is worked out from rows each time. What Microsoft said stands in ``RegistrationEvidence``, with its
time; a step of which nothing was seen is never done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from django.db.models import Min
from django.utils import timezone

from consent.applications import comparing, manifest, posture, registrations
from consent.applications.comparing import Difference
from consent.applications.evidence import Ask, Blame, credential_of, meaning_of, obstacles, verify
from consent.applications.seen import PARTS, not_looked_at
from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    CustomerConsent,
    PartnerConsent,
    RegistrationEvidence,
)
from portal.audit.trail import Actor
from portal.rights import require
from portal.text import number_are, number_of

State = ApplicationRegistration.State


class Key(StrEnum):
    """The steps, in order."""

    ENROLMENT = "enrolment"
    PARTNER_CENTER = "partner-center"
    REGISTRATION = "registration"
    PERMISSIONS = "permissions"
    PUBLISHER = "publisher"
    CREDENTIAL = "credential"
    ACTIVATION = "activation"
    SIGN_IN = "sign-in"
    GRANTS = "grants"
    CUSTOMER = "customer"
    WATCH = "watch"


class Standing(StrEnum):
    """How far a step is."""

    DONE = "Done"
    OPEN = "Not done"
    UNKNOWN = "Could not be verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        how: how its state was found, and what is wrong.
        at: when that was seen; None when it is read from our own rows now.
        optional: whether everything works without it.
    """

    key: Key
    standing: Standing
    how: str
    at: datetime | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the steps are worked out from; a fixed number of queries."""

    registration: ApplicationRegistration
    evidence: RegistrationEvidence
    differences: list[Difference] = field(default_factory=list)
    credential: ApplicationCredential | None = None
    partners: int = 0
    first_partner_at: datetime | None = None
    grants: int = 0
    customers: int = 0


def facts_of(registration: ApplicationRegistration) -> Facts:
    """Read them; seven queries."""
    evidence = RegistrationEvidence.objects.filter(registration=registration).first()
    connected = PartnerConsent.objects.filter(registration=registration, generation__gt=0).exclude(
        state__in=PartnerConsent.LEFT_STATES
    )
    return Facts(
        registration=registration,
        evidence=evidence or RegistrationEvidence(registration=registration),
        differences=[] if evidence is None or not evidence.seen else comparing.differences(registration, evidence),
        credential=credential_of(registration),
        partners=connected.count(),
        first_partner_at=connected.aggregate(first=Min("consented_at"))["first"],
        grants=registration.grants.count(),
        customers=CustomerConsent.objects.filter(
            registration=registration, state=CustomerConsent.State.GRANTED
        ).count(),
    )


def steps_of(facts: Facts) -> list[Step]:
    """Return the checklist; no query."""
    return [step(facts) for step in _STEPS]


def first_open(steps: list[Step]) -> Step | None:
    """Return the step to do next: the first that is not done and without which the rest does not work."""
    return next((one for one in steps if one.standing == Standing.OPEN and not one.optional), None)


def unseen(steps: list[Step]) -> list[Step]:
    """Return the needed steps that were not looked at; of the enrolment only a granted customer tells anything."""
    return [one for one in steps if one.standing == Standing.UNKNOWN and not one.optional and one.key != Key.ENROLMENT]


# --- the steps --------------------------------------------------------------------------------------------------------


def _enrolment(facts: Facts) -> Step:
    if facts.registration.kind == ApplicationRegistration.Kind.CSP:
        return Step(
            key=Key.ENROLMENT,
            standing=Standing.DONE,
            how="Not needed: a CSP application belongs to its own partner, who is in Partner Center already.",
        )
    if facts.customers:
        return Step(
            key=Key.ENROLMENT,
            standing=Standing.DONE,
            how="Partner Center accepted consents of this application for customers.",
        )
    return Step(
        key=Key.ENROLMENT,
        standing=Standing.UNKNOWN,
        how="Microsoft offers no way to ask. The first granted customer shows it.",
    )


def _partner_center(facts: Facts) -> Step:
    evidence, key = facts.evidence, Key.PARTNER_CENTER
    if evidence.asked_at is None:
        return Step(key=key, standing=Standing.UNKNOWN, how=f"No token was asked for yet.{_needs_credential(facts)}")
    if not evidence.refusal:
        how = "Microsoft gave the application a token for Partner Center in the home tenant."
        return Step(key=key, standing=Standing.DONE, how=how, at=evidence.asked_at)
    refusal = meaning_of(evidence.refusal)
    missing = refusal.blame == Blame.RESOURCE
    return Step(
        key=key,
        standing=Standing.OPEN if missing else Standing.UNKNOWN,
        how=refusal.what if missing else f"The request ended before that question. {refusal.what}",
        at=evidence.asked_at,
    )


def _needs_credential(facts: Facts) -> str:
    return " Add a credential first, then verify." if facts.credential is None else ""


_OF_OTHER_STEPS = {"permission_missing", "permission_extra", "application_permission", "publisher"}


def _registration(facts: Facts) -> Step:
    evidence, key = facts.evidence, Key.REGISTRATION
    if evidence.refusal and meaning_of(evidence.refusal).blame == Blame.APPLICATION:
        what = meaning_of(evidence.refusal).what
        return Step(key=key, standing=Standing.OPEN, how=what, at=evidence.asked_at)
    if evidence.seen:
        wrong = [one for one in facts.differences if one.key not in _OF_OTHER_STEPS and one.risk != comparing.Risk.NOTE]
        if wrong:
            how = f"{wrong[0].what} {_more(len(wrong) - 1)}"
            return Step(key=key, standing=Standing.OPEN, how=how.strip(), at=evidence.seen_at)
        if hidden := not_looked_at(evidence.seen):
            how = f"What was seen is right. Not seen: {', '.join(hidden)}."
            return Step(key=key, standing=Standing.UNKNOWN, how=how, at=evidence.seen_at)
        how = f"It was {evidence.get_source_display()} and is as it should be."
        return Step(key=key, standing=Standing.DONE, how=how, at=evidence.looked_at(*PARTS))
    if evidence.asked_at is not None and not evidence.refusal:
        how = "It exists: Microsoft gave it a token. What it allows was not looked at; compare it."
        return Step(key=key, standing=Standing.UNKNOWN, how=how, at=evidence.asked_at)
    return Step(key=key, standing=Standing.UNKNOWN, how="It was not looked at yet.")


def _more(number: int) -> str:
    return f"{number_of(number, 'more difference')} on the tab “At Microsoft”." if number else ""


def _permissions(facts: Facts) -> Step:
    evidence, key = facts.evidence, Key.PERMISSIONS
    if evidence.refusal and (refusal := meaning_of(evidence.refusal)).blame == Blame.MANIFEST:
        return Step(key=key, standing=Standing.OPEN, how=refusal.what, at=evidence.asked_at)
    if "requiredResourceAccess" not in evidence.seen:
        return Step(key=key, standing=Standing.UNKNOWN, how="The permissions of the manifest were not looked at yet.")
    wrong = [one for one in facts.differences if one.key in _OF_OTHER_STEPS - {"publisher"}]
    at = evidence.looked_at("requiredResourceAccess")
    if wrong:
        how = f"{wrong[0].what} {_more(len(wrong) - 1)}"
        return Step(key=key, standing=Standing.OPEN, how=how.strip(), at=at)
    how = "The manifest lists exactly the permissions that partners are asked for, and no application permission."
    return Step(key=key, standing=Standing.DONE, how=how, at=at)


def _publisher(facts: Facts) -> Step:
    evidence, key = facts.evidence, Key.PUBLISHER
    if facts.registration.cloud not in manifest.CLOUDS_WITH_PUBLISHERS:
        how = "Microsoft verifies no publishers in this cloud, so there is nothing to do."
        return Step(key=key, standing=Standing.DONE, how=how, optional=True)
    if "verifiedPublisher" not in evidence.seen:
        how = "The registration was not looked at yet."
        return Step(key=key, standing=Standing.UNKNOWN, how=how, optional=True)
    name = evidence.seen["verifiedPublisher"]
    return Step(
        key=key,
        standing=Standing.DONE if name else Standing.OPEN,
        how=f"Microsoft shows {name} as the verified publisher." if name else "Microsoft shows no verified publisher.",
        at=evidence.looked_at("verifiedPublisher"),
        optional=True,
    )


def _credential(facts: Facts) -> Step:
    credential, evidence, key = facts.credential, facts.evidence, Key.CREDENTIAL
    if credential is None:
        return Step(key=key, standing=Standing.OPEN, how="There is none that is valid now.")
    if credential.expires_at is not None and credential.expires_at <= timezone.now():
        return Step(key=key, standing=Standing.OPEN, how=f"It ended on {credential.expires_at:%Y-%m-%d}.")
    asked = evidence.asked_with_id == credential.pk
    if asked and evidence.refusal and meaning_of(evidence.refusal).blame == Blame.CREDENTIAL:
        how = meaning_of(evidence.refusal).what
        return Step(key=key, standing=Standing.OPEN, how=how, at=evidence.asked_at)
    accepted = asked and (
        not evidence.refusal or meaning_of(evidence.refusal).blame in (Blame.RESOURCE, Blame.MANIFEST)
    )
    if not accepted and credential.proven_at is None:
        how = f"{credential} is stored. Microsoft was not asked yet whether it accepts it."
        return Step(key=key, standing=Standing.UNKNOWN, how=how)
    at = evidence.asked_at if accepted else credential.proven_at
    return Step(key=key, standing=Standing.DONE, how=f"Microsoft accepted {credential}.", at=at)


def _activation(facts: Facts) -> Step:
    match State(facts.registration.state):
        case State.ACTIVE:
            return Step(key=Key.ACTIVATION, standing=Standing.DONE, how="It is active: links can be made for it.")
        case State.RETIRED:
            return Step(key=Key.ACTIVATION, standing=Standing.OPEN, how="It is retired: no token of it is used.")
        case _:
            return Step(key=Key.ACTIVATION, standing=Standing.OPEN, how="It is a draft: no link can be made for it.")


def _sign_in(facts: Facts) -> Step:
    if facts.partners:
        how = f"{number_are(facts.partners, 'partner')} connected through it."
        return Step(key=Key.SIGN_IN, standing=Standing.DONE, how=how, at=facts.first_partner_at)
    return Step(key=Key.SIGN_IN, standing=Standing.OPEN, how="No partner is connected through it.")


def _grants(facts: Facts) -> Step:
    if facts.grants:
        how = f"Grants on {number_of(facts.grants, 'resource')} are wanted in customer tenants."
        return Step(key=Key.GRANTS, standing=Standing.DONE, how=how)
    return Step(key=Key.GRANTS, standing=Standing.OPEN, how="Nothing is wanted in customer tenants yet.")


def _customer(facts: Facts) -> Step:
    if facts.customers:
        how = f"{number_of(facts.customers, 'customer')} granted."
        return Step(key=Key.CUSTOMER, standing=Standing.DONE, how=how)
    return Step(key=Key.CUSTOMER, standing=Standing.OPEN, how="No customer has granted it yet.")


def _watch(facts: Facts) -> Step:
    evidence, key = facts.evidence, Key.WATCH
    if evidence.unread_at is not None:
        how = f"The last read failed. {evidence.unread_reason}"
        return Step(key=key, standing=Standing.OPEN, how=how, at=evidence.unread_at, optional=True)
    if evidence.read_at is not None and evidence.read_at > timezone.now() - posture.UNREAD_FOR:
        how = "The portal reads the registration by itself every day."
        return Step(key=key, standing=Standing.DONE, how=how, at=evidence.read_at, optional=True)
    how = "The portal does not read the registration by itself; a change at Microsoft is seen when staff compare it."
    return Step(key=key, standing=Standing.OPEN, how=how, optional=True)


_STEPS: tuple[Callable[[Facts], Step], ...] = (
    _enrolment,
    _partner_center,
    _registration,
    _permissions,
    _publisher,
    _credential,
    _activation,
    _sign_in,
    _grants,
    _customer,
    _watch,
)


# --- activate ---------------------------------------------------------------------------------------------------------

type Promote = Callable[[ApplicationCredential], object]
"""Puts a first credential to use although no partner can prove it yet; raises RotationRefused or RemoteError."""


def activate(registration: ApplicationRegistration, *, ask: Ask, promote: Promote, actor: Actor) -> None:
    """Ask Microsoft now, and make the registration active unless it is known not to work.

    A first credential that Microsoft has just accepted is put to use: before the first partner signed in, the token in
    the home tenant is the only proof there is.

    Raises:
        ChangeRefused: it cannot work; says why and what to do.
        RotationRefused, RemoteError: the first credential could not be put to use; nothing was changed.
    """
    require(actor, "consent.change_applicationregistration")
    shown = {"state": registration.state}
    evidence = verify(registration, ask=ask, actor=actor)
    registration.refresh_from_db()
    if reasons := obstacles(registration):
        raise registrations.ChangeRefused(" ".join(reasons))
    if evidence.refusal:
        refusal = meaning_of(evidence.refusal)
        raise registrations.ChangeRefused(f"{refusal.what} {refusal.remedy}")
    if registration.credential is None and evidence.asked_with is not None:
        promote(evidence.asked_with)  # just this one was accepted: a newer candidate may have come meanwhile
    registrations.change(registration, {"state": State.ACTIVE}, shown=shown, actor=actor)
