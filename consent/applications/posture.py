"""Compare a registration as it is at Microsoft with what we want of it, and tell staff what is dangerous.

What is there comes from a text that staff paste, or from a daily read by an identity of its own: our application holds
no application permission, so it cannot read itself.

What a difference is, and how bad, says ``consent.applications.comparing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.applications.comparing import Difference, Risk, differences
from consent.applications.seen import NotReadable, Seen, read
from consent.models import ApplicationRegistration, RegistrationEvidence
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.rights import require

type Read = Callable[[ApplicationRegistration], Mapping[str, Any]]
_LONGEST_REASON = 300
UNREAD_FOR = timedelta(days=2)  # how old the last read of a daily job may be
Source = RegistrationEvidence.Source


def keep(
    registration: ApplicationRegistration,
    seen: Seen,
    *,
    source: RegistrationEvidence.Source,
    actor: Actor,
) -> list[Difference]:
    """Keep what was seen, open or settle the incident, and return the differences.

    A part that this look did not show stays as it was seen before: a text that lacks it says nothing of it, so a known
    fault is over only when its own part was seen again.

    Raises:
        NotReadable: it is another application.
    """
    require(actor, "consent.change_applicationregistration")
    if seen["appId"].lower() != registration.application_id:
        raise NotReadable(f"This is another application than {registration.name}: its appId is not ours.")
    with transaction.atomic():
        RegistrationEvidence.objects.get_or_create(registration=registration)
        # Writes nothing new; the row is held until the end, so that of two looks neither loses the other's parts.
        RegistrationEvidence.objects.filter(registration=registration).update(seen_by=F("seen_by"))
        evidence = RegistrationEvidence.objects.get(registration=registration)
        evidence.add(seen, source=source, at=timezone.now(), by=actor.name)
        evidence.save(update_fields=["seen", "seen_at", "seen_by", "source", "unread_at", "unread_reason"])
        if source == Source.READ:
            alarms.settle([Cause.REGISTRATION_UNREAD], [registration.pk])
        found = differences(registration, evidence)
        record(
            "registration.looked_at",
            actor=actor,
            subject=_subject(registration),
            details={"source": source.value, "differences": [one.key for one in found]},
        )
        _tell(registration, found)
    return found


def look(registration: ApplicationRegistration, read_it: Read, *, actor: Actor) -> list[Difference]:
    """Read the registration at Microsoft and keep what is there. Runs outside any transaction.

    Args:
        read_it: ``consent.clients.read_registration``.

    Raises:
        RemoteError, WrongSetup: it could not be read; that is noted, and what was seen before stays with its time.
        NotReadable: the answer is no application object, or another one.
    """
    require(actor, "consent.change_applicationregistration")
    try:
        seen = read(read_it(registration))
    except (RemoteError, WrongSetup, NotReadable) as error:
        if isinstance(error, RemoteError):
            diagnosis = diagnose(error)
            reason = f"{diagnosis.cause} {diagnosis.remedy} ({error.code})"
        else:
            reason = str(error)
        _note_unread(registration, reason[:_LONGEST_REASON], actor)
        raise
    return keep(registration, seen, source=Source.READ, actor=actor)


def _note_unread(registration: ApplicationRegistration, reason: str, actor: Actor) -> None:
    columns = {"unread_at": timezone.now(), "unread_reason": reason}
    with transaction.atomic():
        evidence, _ = RegistrationEvidence.objects.update_or_create(registration=registration, defaults=columns)
        record(
            "registration.not_read",
            actor=actor,
            outcome=Outcome.FAILED,
            subject=_subject(registration),
            details={"reason": reason},
        )
        if evidence.read_at is None or evidence.read_at < timezone.now() - UNREAD_FOR:
            since = "never" if evidence.read_at is None else f"last on {evidence.read_at:%Y-%m-%d}"
            alarms.report(Cause.REGISTRATION_UNREAD, registration, since=since, reason=reason)


def accept_owners(registration: ApplicationRegistration, *, actor: Actor, shown: Sequence[str]) -> None:
    """Note that these owners are ours; the list that the person saw must be the one that was seen last.

    Raises:
        NotReadable: no owners were seen, or others meanwhile.
    """
    require(actor, "consent.change_applicationregistration")
    with transaction.atomic():
        evidence = RegistrationEvidence.objects.filter(registration=registration).first()
        owners = [] if evidence is None else sorted(one["id"] for one in evidence.seen.get("owners", []))
        if evidence is None or not owners or owners != sorted(shown):
            raise NotReadable("The owners are others now than this page showed. Look at them again.")
        before, evidence.known_owners = evidence.known_owners, owners
        evidence.save(update_fields=["known_owners"])
        details = {"before": before, "after": owners}
        record("registration.owners_confirmed", actor=actor, subject=_subject(registration), details=details)
        _tell(registration, differences(registration, evidence))


def _tell(registration: ApplicationRegistration, found: Sequence[Difference]) -> None:
    dangerous = [one for one in found if one.risk == Risk.DANGEROUS]
    if dangerous:
        what = " ".join(one.what for one in dangerous[:3])
        more = f" And {len(dangerous) - 3} more." if len(dangerous) > 3 else ""
        alarms.report(Cause.REGISTRATION_CHANGED, registration, what=f"{what}{more}")
    else:
        alarms.settle([Cause.REGISTRATION_CHANGED], [registration.pk])


def _subject(registration: ApplicationRegistration) -> dict[str, str | int]:
    return {"registration": registration.pk, "application_id": registration.application_id}
