"""Change one of our registrations: what a change will mean for how many partners, and the change itself.

Which application a registration is at Microsoft is fixed as soon as a partner has a link or a consent of it
(``ApplicationRegistration.save``): tokens and consents belong to that application. For another one a new registration
is made, and the old one retired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Model, QuerySet

from consent import alarms
from consent.alarms import Cause
from consent.applications import permission_sets
from consent.applications.evidence import obstacles, unproven
from consent.models import (
    ApplicationRegistration,
    ConsentLink,
    OwnPermissionSet,
    PartnerConsent,
    RegistrationEvidence,
)
from consent.permissions import PERMISSION_SETS, PermissionSet
from portal.audit.trail import Actor, record
from portal.rights import require

State = ApplicationRegistration.State
EDITABLE = ("name", "kind", *ApplicationRegistration.IDENTITY, "permission_set", "own_set", "state")


class ChangeRefused(ValueError):
    """The registration cannot be changed so; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How many partners one consequence of a change concerns."""

    label: str
    partners: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a change will mean; ``before`` and ``after`` hold the columns that differ."""

    before: dict[str, str]
    after: dict[str, str]
    sentences: list[str]
    effects: list[Effect]
    takes_away: bool
    """Whether some partners can do less afterwards."""


def preview(registration: ApplicationRegistration, values: Mapping[str, object]) -> Preview:
    """Say what it will mean to give the registration these values: nothing is saved.

    Args:
        values: new values by the names of ``EDITABLE``; those that are the same as before are left out.
    """
    before = {name: _text(getattr(registration, name)) for name in EDITABLE if name in values}
    after = {name: _text(values[name]) for name, value in before.items() if _text(values[name]) != value}
    consents = PartnerConsent.objects.usable().filter(registration=registration)
    links = ConsentLink.objects.unanswered().filter(registration=registration)
    sentences, effects = [], []
    if "name" in after:
        sentences.append("Partners read the new name on the page behind their link.")
        effects.append(Effect(label="Partners with an open link", partners=_partners(links)))
    if "kind" in after:
        if after["kind"] == ApplicationRegistration.Kind.CSP:
            home = after.get("home_tenant_id", registration.home_tenant_id)
            others = consents.exclude(partner__tenant_id=home)
            sentences.append("Only the partner in whose tenant it is registered can be invited then.")
            effects.append(Effect(label="Connected partners that cannot be invited again", partners=_partners(others)))
        else:
            sentences.append("Every partner of the cloud can be invited then.")
    if (chosen := _asked_then(registration, after)) is not None:
        sentences.append(
            "Partners keep what they granted. Those that lack something must consent again: invite them in a campaign."
        )
        lacking, unproven = consents.lacking_permissions(chosen), consents.permissions_unproven(chosen)
        effects.append(Effect(label="Partners that lack permissions then", partners=_partners(lacking)))
        effects.append(Effect(label="Partners whose permissions are not proven", partners=_partners(unproven)))
    if "state" in after and State.ACTIVE in {after["state"], registration.state}:
        again = after["state"] == State.ACTIVE
        sentences.append(
            "Its tokens are used again, and its open links work again."
            if again
            else "No token of it is used any more, in any process, and its links stop working at once."
        )
        tokens = "Partners whose token is used again" if again else "Partners whose token is not used any more"
        links_then = "Partners whose open link works again" if again else "Partners whose open link stops working"
        effects.append(Effect(label=tokens, partners=_partners(consents)))
        effects.append(Effect(label=links_then, partners=_partners(links)))
    if after.keys() & set(ApplicationRegistration.IDENTITY):
        sentences.append("No partner has a link or a consent of it yet, so no partner is touched.")
    return Preview(
        before={name: before[name] for name in after},
        after=after,
        sentences=sentences,
        effects=effects,
        takes_away=registration.state == State.ACTIVE != after.get("state", State.ACTIVE)
        or after.get("kind") == ApplicationRegistration.Kind.CSP,
    )


def change(
    registration: ApplicationRegistration, values: Mapping[str, str], *, shown: Mapping[str, str], actor: Actor
) -> None:
    """Give the registration these values.

    Args:
        shown: the values before, as the person saw them.

    Raises:
        ChangeRefused: somebody else changed it meanwhile, or it cannot be so. It cannot be active unless Microsoft
            accepted the credential in use within the last day.
    """
    require(actor, "consent.change_applicationregistration")
    if unknown := (values.keys() | shown.keys()) - set(EDITABLE):
        raise ValueError(f"not editable: {', '.join(sorted(unknown))}")
    try:
        with transaction.atomic():
            # Writes nothing new; the row is held until the end, so that of two changes the second one is refused.
            if not ApplicationRegistration.objects.filter(pk=registration.pk, **_columns(shown)).update(name=F("name")):
                raise ChangeRefused("Somebody else changed this registration meanwhile; look at it first.")
            row = ApplicationRegistration.objects.get(pk=registration.pk)
            activated = values.get("state") == State.ACTIVE != row.state
            before = [getattr(row, name) for name in ApplicationRegistration.IDENTITY]
            for name, value in _columns(values).items():
                setattr(row, name, value)
            row.full_clean()
            if before != [getattr(row, name) for name in ApplicationRegistration.IDENTITY]:
                _forget_evidence(row)
            if activated and (reasons := obstacles(row) or [one for one in [unproven(row)] if one]):
                raise ChangeRefused(f"It cannot be active as it is. {' '.join(reasons)}")
            row.save(update_fields=list(values))
            record(
                "registration.changed",
                actor=actor,
                subject={"registration": row.pk, "application_id": row.application_id},
                details={"before": dict(shown), "after": dict(values)},
            )
            if values.keys() & {"permission_set", "own_set", "state"}:
                permission_sets.tell(permission_sets.concerned(row, row.asked))
    except ValidationError as error:
        raise ChangeRefused(" ".join(error.messages)) from None


def _forget_evidence(registration: ApplicationRegistration) -> None:
    """Drop all that Microsoft said of the application that this registration was before: of the new one it is no proof.

    Its credentials are unproven again, and a refusal of one does not count any more.
    """
    RegistrationEvidence.objects.filter(registration=registration).delete()
    registration.credentials.update(proven_at=None, proven_with=None, refused_at=None, refused_code="")
    alarms.settle([Cause.REGISTRATION_CHANGED, Cause.REGISTRATION_UNREAD], [registration.pk])


def _text(value: object) -> str:
    """Return a value as proposals and the trail keep it: a row by its key, nothing as an empty text."""
    return "" if value is None else str(value.pk if isinstance(value, Model) else value)


def _columns(values: Mapping[str, str]) -> dict[str, str | None]:
    """Return what rows and queries take: the own set by its key, None for none."""
    return {("own_set_id" if name == "own_set" else name): value or None for name, value in values.items()}


def _asked_then(registration: ApplicationRegistration, after: Mapping[str, str]) -> PermissionSet | None:
    """Return the permission set after a change of it; None when it stays, or is named wrongly."""
    if not after.keys() & {"permission_set", "own_set"}:
        return None
    name = after.get("permission_set", registration.permission_set)
    if name != ApplicationRegistration.PermissionSet.OWN:
        return PERMISSION_SETS.get(name)
    key = after.get("own_set", _text(registration.own_set))
    own = OwnPermissionSet.objects.filter(pk=key or 0).first()
    return None if own is None else own.value


def _partners(rows: QuerySet[PartnerConsent] | QuerySet[ConsentLink]) -> int:
    """Count partners as partners: one may have several links."""
    return rows.order_by().values("partner").distinct().count()
