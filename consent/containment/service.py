"""Turn an emergency stop on, and let it go again: one person is enough to stop, two are needed to resume.

What is stopped is let go in waves. A wave releases some partners, and a token check shows that their tokens work; only
then the next wave comes. ``consent.runs.resuming`` takes that step, and ``release`` and ``end`` here write it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils import timezone

from consent import alarms
from consent.alarms import Cause
from consent.models import ApplicationCredential, ApplicationRegistration, Containment
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.rights import require, require_unlimited
from portal.runs import service as runs
from portal.runs.models import Run
from portal.runs.registry import UnknownKind, kind_named
from portal.site.sight import require_sight
from tenants.models import PartnerTenant

State = Containment.State
LONGEST_REASON = 300
BEGIN, RESUME = "consent.begin_containment", "consent.resume_containment"


class ResumeRefused(ValueError):
    """It is not resumed; the text says why, who must act and what to do next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What an emergency stop is about: everything without either."""

    registration: ApplicationRegistration | None = None
    partner: PartnerTenant | None = None

    def __post_init__(self) -> None:
        if self.registration is not None and self.partner is not None:
            raise ValueError("An emergency stop is about a registration or about a partner, not about both.")


def contain(scope: Scope, *, reason: str, actor: Actor) -> Containment:
    """Stop all use of these tokens, from the commit on in every process within half a second, and tell staff.

    A stop that is being resumed is on again for all of it. One that is on already stays as it is.

    Raises:
        ValueError: no reason, or one of more than 300 characters.
    """
    require(actor, BEGIN)
    if scope.partner is None:
        require_unlimited(actor)
    else:
        require_sight(actor, scope.partner)
    reason = reason.strip()
    if not 0 < len(reason) <= LONGEST_REASON:
        raise ValueError(f"Say why in at most {LONGEST_REASON} characters: others will read it in a hurry.")
    about = {"registration": scope.registration, "partner": scope.partner}
    mine = Containment.objects.open().filter(**_columns(scope))
    try:
        with transaction.atomic():
            again = mine.filter(state=State.RESUMING).update(
                state=State.ON,
                reason=reason,
                began_by=actor.name,
                released_to=None,
                wave=0,
                run=None,
                halted="",
                resumed_at=None,
                resumed_by="",
                resume_asked_by="",
            )
            one = mine.select_related("registration", "partner").first()
            if one is not None and not again:
                return one
            if one is None:
                one = Containment.objects.create(reason=reason, began_by=actor.name, **about)
            _hold_runs(one)
            record(
                "containment.began",
                actor=actor,
                subject=subject(one),
                details={"again": bool(again)},  # what people wrote stands in the row, and goes with it (S-68)
            )
            alarms.settle([Cause.RESUME_HALTED], [one.pk])
            alarms.report(Cause.CONTAINED, one, by=actor.name)
    except IntegrityError:  # somebody else did it at the same moment
        return mine.get()
    return one


def _columns(scope: Scope) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, row in (("registration", scope.registration), ("partner", scope.partner)):
        found |= {f"{name}__isnull": True} if row is None else {name: row}
    return found


def _hold_runs(one: Containment) -> None:
    """Hold the runs of which nothing may be done; their executors would find out by themselves, but not say it yet."""
    if one.registration_id is not None or one.partner_id is not None:
        return
    for run in Run.objects.open():
        try:
            containable = kind_named(run.kind).is_containable
        except UnknownKind:
            continue
        if containable:
            runs.hold(run, reason=str(one))


# --- letting go -------------------------------------------------------------------------------------------------------


def resume(one: Containment, *, approved: Approval) -> None:
    """Begin to let it go in waves. The first one comes when no registration of it is deactivated at Microsoft any more.

    Args:
        approved: what two persons decided (S-50); it names who asked.

    Raises:
        ResumeRefused: it is not on.
    """
    require(approved.actor, RESUME)
    with transaction.atomic():
        resumed = Containment.objects.filter(pk=one.pk, state=State.ON).update(
            state=State.RESUMING,
            resumed_at=timezone.now(),
            resumed_by=approved.approved_by or approved.actor.name,
            resume_asked_by=approved.actor.name,
            released_to=0,
        )
        if not resumed:
            raise ResumeRefused(f"{one} is not on; there is nothing to resume.")
        details = approved.noted() | {"credentials_older": [str(each) for each in older_credentials(one)]}
        record("containment.resumed", actor=approved.actor, subject=subject(one), details=details)
    one.refresh_from_db()


def older_credentials(one: Containment) -> list[ApplicationCredential]:
    """Return the credentials in use that were promoted before the stop began: who had them then has them still."""
    current = ApplicationCredential.objects.current().select_related("registration").order_by("pk")
    if one.registration_id is not None:
        current = current.filter(current_for=one.registration_id)
    if one.partner_id is not None:
        current = current.filter(current_for__consents__partner=one.partner_id).distinct()
    return [each for each in current if each.promoted_at is None or each.promoted_at < one.began_at]


def note_deactivated(one: Containment, registration: ApplicationRegistration, *, is_off: bool) -> None:
    """Note that a registration was deactivated at Microsoft for this stop, or activated again."""
    with transaction.atomic():
        kept = {*Containment.objects.values_list("deactivated", flat=True).get(pk=one.pk)} - {registration.pk}
        one.deactivated = sorted(kept | {registration.pk} if is_off else kept)
        Containment.objects.filter(pk=one.pk).update(deactivated=one.deactivated)


def release(one: Containment, *, to: int, run: Run | None) -> bool:
    """Release the partners up to this key as the next wave, in the caller's transaction.

    Args:
        run: what checks their tokens; None when none of them worked before.

    Returns:
        False when it is not being resumed any more, or somebody else released this wave.
    """
    mine = Containment.objects.filter(pk=one.pk, state=State.RESUMING, wave=one.wave, halted="")
    released = mine.update(released_to=to, run=run, wave=one.wave + 1)
    if released:
        about = subject(one) | ({} if run is None else {"run": run.pk})
        record("containment.released", actor=_resumer(one), subject=about, details={"wave": one.wave + 1})
    return bool(released)


def halt(one: Containment, why: str) -> None:
    """Note that no further wave is released, and tell staff."""
    with transaction.atomic():
        mine = Containment.objects.filter(pk=one.pk, state=State.RESUMING, halted="")
        if mine.update(halted=why[:LONGEST_REASON]):
            record("containment.halted", actor=_resumer(one), subject=subject(one), details={"why": why})
            alarms.report(Cause.RESUME_HALTED, one, why=why)


def go_on(one: Containment, *, actor: Actor) -> None:
    """Let the waves go on: a person looked why the latest one ended badly, or activated a registration by hand.

    Raises:
        ResumeRefused: nothing holds them.
    """
    require(actor, RESUME)
    with transaction.atomic():
        mine = Containment.objects.filter(pk=one.pk, state=State.RESUMING).exclude(halted="", deactivated=[])
        if not mine.update(halted="", run=None, deactivated=[]):
            raise ResumeRefused(f"Nothing holds the waves of {one}.")
        details = {"deactivated": one.deactivated} if one.deactivated else {}
        record("containment.went_on", actor=actor, subject=subject(one), details=details)
        alarms.settle([Cause.RESUME_HALTED], [one.pk])


def end(one: Containment) -> list[Run]:
    """Note that everybody is released; return the runs that go on, for the workers."""
    with transaction.atomic():
        mine = Containment.objects.filter(pk=one.pk, state=State.RESUMING)
        if not mine.update(state=State.OVER, over_at=timezone.now()):
            return []
        record("containment.over", actor=_resumer(one), subject=subject(one))
        alarms.settle([Cause.CONTAINED, Cause.RESUME_HALTED], [one.pk])
        return runs.let_go() if one.registration_id is None and one.partner_id is None else []


def _resumer(one: Containment) -> Actor:
    """Return who decided what the waves do: the second person."""
    return Actor.staff(one.resumed_by, None)


def subject(one: Containment) -> dict[str, str | int]:
    """Return the ids of what it is about."""
    known = {"registration": one.registration_id, "partner": one.partner_id}
    return {"containment": one.pk, **{name: key for name, key in known.items() if key is not None}}
