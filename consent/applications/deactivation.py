"""Deactivate registrations at Microsoft during an emergency stop, and activate them before it is let go.

A deactivated registration gets no new token in any tenant, whoever asks and from wherever: it also stops a stranger who
has our credential. Access tokens that were issued before live on until they expire. Consents stay.

Our application cannot do it itself: it holds no application permission. An identity of the deployment does it where it
may; else a person does it, by the instruction that stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from consent.containment.service import ResumeRefused, note_deactivated
from consent.models import ApplicationRegistration, Containment
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.rights import require

type Switch = Callable[..., bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """What became of one registration.

    Attributes:
        done: Microsoft was told, and a read shows it.
        words: what happened; where it was not done, who does it and how.
    """

    registration: ApplicationRegistration
    done: bool
    words: str


def concerned(one: Containment) -> list[ApplicationRegistration]:
    """Return the registrations that a stop is about; none for a stop of one partner, whose others go on working."""
    active = ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE).order_by("pk")
    if one.partner_id is not None:
        return []
    return list(active if one.registration_id is None else active.filter(pk=one.registration_id))


def deactivate(
    one: Containment,
    *,
    may_switch: Callable[[ApplicationRegistration], bool],
    switch: Switch,
    clouds: Callable[[str], NationalCloud],
    actor: Actor,
) -> list[Switched]:
    """Deactivate the registrations of a stop, each read back; says of each what came of it. Outside any transaction.

    Args:
        may_switch: whether this deployment has an identity for it (``consent.clients.reads_registration``).
        switch: ``consent.clients.switch_registration``.
    """
    require(actor, "consent.begin_containment")
    found = []
    for registration in concerned(one):
        switched = _switch(one, registration, True, may_switch, switch, clouds, actor)
        if switched.done:
            note_deactivated(one, registration, is_off=True)
        found.append(switched)
    return found


def activate(
    one: Containment,
    *,
    may_switch: Callable[[ApplicationRegistration], bool],
    switch: Switch,
    clouds: Callable[[str], NationalCloud],
    actor: Actor,
) -> list[Switched]:
    """Activate what was deactivated for this stop, after two persons decided to resume it; as :func:`deactivate`.

    Raises:
        ResumeRefused: nobody decided that yet.
    """
    require(actor, "consent.resume_containment")
    if Containment.objects.filter(pk=one.pk, state=Containment.State.ON).exists():
        raise ResumeRefused(
            f"{one} is on. Two persons decide to resume it; then it can be activated, and the waves begin."
        )
    found = []
    for registration in ApplicationRegistration.objects.filter(pk__in=one.deactivated).order_by("pk"):
        switched = _switch(one, registration, False, may_switch, switch, clouds, actor)
        if switched.done:
            note_deactivated(one, registration, is_off=False)
        found.append(switched)
    return found


def _switch(
    one: Containment,
    registration: ApplicationRegistration,
    disabled: bool,
    may_switch: Callable[[ApplicationRegistration], bool],
    switch: Switch,
    clouds: Callable[[str], NationalCloud],
    actor: Actor,
) -> Switched:
    how = instruction(registration, clouds(registration.cloud), disabled=disabled)
    word = "deactivated" if disabled else "activated"
    if not may_switch(registration):
        words = f"{registration} is not {word} by us: this deployment has no identity for it (READER_CLIENT_ID). {how}"
        return Switched(registration=registration, done=False, words=words)
    subject: dict[str, str | int] = {"registration": registration.pk, "containment": one.pk}
    details = {"is_disabled": disabled}
    record("containment.registration_switched", actor=actor, outcome=Outcome.INTENT, subject=subject, details=details)
    try:
        done = switch(registration, disabled=disabled) is disabled
        why = "" if done else "Microsoft took it, and a read does not show it yet."
    except RemoteError as error:
        done, why = False, f"{diagnose(error).cause} ({error.code})"
    except WrongSetup as error:
        done, why = False, str(error)
    outcome = Outcome.DONE if done else Outcome.FAILED
    record("containment.registration_switched", actor=actor, outcome=outcome, subject=subject, details=details)
    words = f"{registration} is {word} at Microsoft; a read shows it." if done else f"{registration}: {why} {how}"
    return Switched(registration=registration, done=done, words=words)


def instruction(registration: ApplicationRegistration, cloud: NationalCloud, *, disabled: bool) -> str:
    """Return how a person does it."""
    word = "Deactivate" if disabled else "Activate"
    body = f'{{"isDisabled": {"true" if disabled else "false"}}}'
    return (
        f"An administrator of tenant {registration.home_tenant_id} does it: in the Entra admin center under App "
        f"registrations, {registration.name}, {word}; or by az rest --method PATCH --url "
        f"\"{cloud.graph}/v1.0/applications(appId='{registration.application_id}')\" --body '{body}'."
    )
