"""Offboard a partner: remove our consent in each customer, prove it, close every door, and report (S-69).

The order is what makes it right: the partner's token must live until the customers are done. Every step may be
repeated, and its name is stored before it, so what goes on after a crash repeats at most one step:

    removing   no link works from the first moment; a run removes and reads back, customer by customer
    waiting    only when customers remain: somebody tries again, or decides to finish all the same
    closing    the partner is offboarded: no use of its tokens in any process; then its vault entries go
    done       the report is sealed and in the trail
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils import timezone

from consent import clients
from consent.invitations import links
from consent.models import ConsentPlan, CustomerConsent, Offboarding, PartnerConsent
from consent.models.customers import CustomerConsentQuerySet
from consent.moving_in import partners as imported
from consent.naming import registration_names
from consent.offboarding.erasure import entries_of, erase_all
from consent.offboarding.personal import forget_contacts
from consent.offboarding.report import build, never_read
from consent.runs.apply_plan import start_direct
from consent.selection import Selection
from consent.tokens.custody import TokenUnavailable
from consent.vault.base import VaultConfigurationError
from portal.audit.seals import canonical, digest, seal
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.incidents.service import report as report_incident
from portal.incidents.service import settle
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import RemoteError
from portal.rights import require
from portal.runs.models import Run
from portal.site.sight import require_sight
from tenants.models import PartnerTenant

log = logging.getLogger(__name__)

State = Offboarding.State
REMAINS = "offboarding_waits"  # cause of the incident
_UNFINISHED = (Run.State.OPEN, Run.State.PAUSED)
_CONCURRENCY = 16


class OffboardingRefused(ValueError):
    """It cannot be begun or finished so; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What an offboarding will touch, for the person who confirms it."""

    customers: int
    registrations: str
    customers_never_read: int
    open_links: int
    tokens: int


def reach(partner: PartnerTenant) -> Reach:
    """Count what an offboarding of this partner touches; seven queries."""
    consents, names = CustomerConsent.objects.for_partner(partner), registration_names()
    held = set(consents.order_by().values_list("registration", flat=True).distinct())
    return Reach(
        customers=consents.order_by().values("customer").distinct().count(),
        registrations=", ".join(names[key] for key in sorted(held)),
        customers_never_read=never_read(partner).count(),
        open_links=links.open_of(partner.pk).count(),
        tokens=PartnerConsent.objects.for_partner(partner).filter(generation__gt=0).count(),
    )


def start(
    partner: PartnerTenant, *, approved: Approval, wait_seconds: float = 60.0, concurrency: int = _CONCURRENCY
) -> Offboarding:
    """Begin, or go on with what was begun: close the links, and start the run over the partner's customers.

    The caller works the run, or leaves it to the workers.

    Args:
        approved: of two persons (S-50), which holds for all of it: also for the tokens, in the end.

    Raises:
        OffboardingRefused: the partner was offboarded before.
    """
    actor = approved.actor
    require(actor, "consent.offboard_partner")
    require_sight(actor, partner)
    known = Offboarding.objects.open().filter(partner=partner).first()
    if known is not None:
        return try_again(known, actor=actor, wait_seconds=wait_seconds, concurrency=concurrency)
    if partner.switch == PartnerTenant.Switch.OFFBOARDED:
        raise OffboardingRefused(f"{partner.name} was offboarded before; its report is in the admin.")
    try:
        with transaction.atomic():
            offboarding = Offboarding.objects.create(partner=partner, started_by=actor.name)
            PartnerTenant.objects.filter(pk=partner.pk).update(offboarding_since=timezone.now())
            links.revoke_all(partner.pk, actor=actor)
            record("partner.offboarding_started", actor=actor, subject=_subject(offboarding), details=approved.noted())
            _start_run(offboarding, actor, wait_seconds, concurrency)
    except IntegrityError:  # another process began at the same moment
        return Offboarding.objects.open().select_related("partner", "run").get(partner=partner)
    return offboarding


def try_again(
    offboarding: Offboarding, *, actor: Actor, wait_seconds: float = 60.0, concurrency: int = _CONCURRENCY
) -> Offboarding:
    """Go on with removing: the run that was begun, or another one over the customers that remain."""
    require(actor, "consent.offboard_partner")
    require_sight(actor, offboarding)
    with transaction.atomic():
        waited = Offboarding.objects.filter(pk=offboarding.pk, state=State.WAITING).update(state=State.REMOVING)
        if waited:
            record("partner.offboarding_repeated", actor=actor, subject=_subject(offboarding))
        offboarding = Offboarding.objects.select_related("partner", "run").get(pk=offboarding.pk)
        lost = offboarding.run is None or offboarding.run.state not in _UNFINISHED  # a stopped one is not waited for
        if offboarding.state == State.REMOVING and (waited or lost):
            _start_run(offboarding, actor, wait_seconds, concurrency)
    return offboarding


def _start_run(offboarding: Offboarding, actor: Actor, wait_seconds: float, concurrency: int) -> None:
    """Remove our consent wherever a row of it is; without one there is nothing to run."""
    chosen = Selection(partner=(offboarding.partner.tenant_id,), offboarding=offboarding.pk)
    offboarding.run = None
    if chosen.customer_consents().exists():
        offboarding.run, _ = start_direct(
            ConsentPlan.Purpose.REMOVE, chosen, actor=actor, wait=wait_seconds, concurrency=concurrency
        )
    offboarding.save(update_fields=["run"])


def finish_anyway(offboarding: Offboarding, *, approved: Approval) -> None:
    """Begin to close although customers remain; the report lists each of them and who must act. ``advance`` closes.

    Args:
        approved: of two persons. The approval of the offboarding covers tokens only when no customer remains.

    Raises:
        OffboardingRefused: nothing waits for this decision.
    """
    actor = approved.actor
    require(actor, "consent.offboard_partner")
    require_sight(actor, offboarding)
    with transaction.atomic():
        if not Offboarding.objects.filter(pk=offboarding.pk, state=State.WAITING).update(
            decided_at=timezone.now(), decided_by=actor.name
        ):
            raise OffboardingRefused("No decision is waited for: see how far this offboarding is.")
        record(
            "partner.offboarding_decided",
            actor=actor,
            subject=_subject(offboarding),
            details=approved.noted() | {"remaining": offboarding.remaining},
        )
        _begin_to_close(offboarding, State.WAITING, actor)


def advance(offboarding: Offboarding, *, actor: Actor) -> Offboarding:
    """Do what is due; safe to call at any time, again, and by several processes at once."""
    require(actor, "consent.offboard_partner")
    offboarding = Offboarding.objects.select_related("partner", "run").get(pk=offboarding.pk)
    if offboarding.state == State.REMOVING and (offboarding.run is None or offboarding.run.is_over):
        _customers_are_done(offboarding, actor)
        offboarding.refresh_from_db()
    if offboarding.state == State.CLOSING:
        _close(offboarding, actor)
    return Offboarding.objects.select_related("partner", "run").get(pk=offboarding.pk)


def remaining(offboarding: Offboarding) -> CustomerConsentQuerySet:
    """Return the consents of this partner that were not proven to be absent since the offboarding began."""
    return CustomerConsent.objects.for_partner(offboarding.partner).exclude(
        state=CustomerConsent.State.ABSENT, verified_at__gte=offboarding.started_at
    )


def _remaining_tenants(offboarding: Offboarding) -> int:
    return remaining(offboarding).order_by().values("customer").distinct().count()


def _customers_are_done(offboarding: Offboarding, actor: Actor) -> None:
    number = _remaining_tenants(offboarding)
    with transaction.atomic():
        if not number:
            _begin_to_close(offboarding, State.REMOVING, actor)
            return
        if not Offboarding.objects.filter(pk=offboarding.pk, state=State.REMOVING).update(
            state=State.WAITING, remaining=number
        ):
            return
        report_incident(
            REMAINS,
            about=f"partner:{offboarding.partner_id}",
            name=offboarding.partner.name,
            owner=Owner.US,
            words=(
                f"{number} customer{'' if number == 1 else 's'} could not be proven to be without our consent. The "
                "offboarding waits: see each reason, then try again, or finish with what remains."
            ),
            subject={"partner": offboarding.partner_id, "offboarding": offboarding.pk},
        )


def _begin_to_close(offboarding: Offboarding, before: Offboarding.State, actor: Actor) -> None:
    """With this transaction nothing is done for the partner any more, in any process (S-53)."""
    partner = offboarding.partner_id
    moved = Offboarding.objects.filter(pk=offboarding.pk, state=before).update(
        state=State.CLOSING, remaining=_remaining_tenants(offboarding), vault_entries=entries_of(partner)
    )
    if moved:
        PartnerTenant.objects.filter(pk=partner).update(switch=PartnerTenant.Switch.OFFBOARDED)
        links.revoke_all(partner, actor=actor)
        settle(REMAINS, about=f"partner:{partner}")
        record("partner.offboarding_closes", actor=actor, subject=_subject(offboarding))


def _close(offboarding: Offboarding, actor: Actor) -> None:
    """Switch tokens off and erase them as far as our identities may, then seal the report."""
    partner = PartnerTenant.objects.get(pk=offboarding.partner_id)
    try:
        vault, eraser = clients.vault(), clients.eraser()
        erased = erase_all(partner, vault=vault, eraser=eraser, actor=actor, allowed_by=offboarding)
    except (RemoteError, TokenUnavailable, VaultConfigurationError) as error:
        log.warning("an offboarding is not finished, it is tried again: %s", error, extra={"partner": partner.pk})
        return
    for entry in offboarding.vault_entries:
        entry["result"] = erased.outcomes.get(
            entry["name"], "erased"
        )  # what is not held any more, an earlier try erased
    offboarding.finished_at = timezone.now()
    text = canonical(build(offboarding))
    sealed = seal(text)
    with transaction.atomic():
        if Offboarding.objects.filter(pk=offboarding.pk, state=State.CLOSING).update(
            state=State.DONE,
            finished_at=offboarding.finished_at,
            vault_entries=offboarding.vault_entries,
            report=text,
            seal=sealed.value,
            seal_key=sealed.key_id,
        ):
            forget_contacts(partner)
            imported.forget_people(partner)
            record(
                "partner.offboarded",
                actor=actor,
                subject=_subject(offboarding),
                details={"report_sha256": digest(text), "remaining": offboarding.remaining},
            )


def _subject(offboarding: Offboarding) -> dict[str, str | int]:
    return {"partner": offboarding.partner_id, "offboarding": offboarding.pk}
