"""Apply one item of a plan: look, change what was shown and nothing else, read back, and say what is true.

Every request that changes something is preceded by a committed ``phase`` of the item. The process that goes on after a
crash knows by it what may have been sent, looks, and repeats only what is not there (R-20, R-21). Nothing waits in
here: what Microsoft accepted and does not show yet is looked at again later (R-23). That an item is done is not written
here either: ``finishing`` writes it, for many of them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from consent.customers import consents
from consent.customers.consents import CustomerClients, PushRefused, State, compare
from consent.customers.observations import NOWHERE, PROPAGATION, Reading, Unreadable, note_unreadable
from consent.customers.observations import write as write_readings
from consent.grants import Grants
from consent.microsoft.directory import Presence
from consent.models import ApplicationRegistration, ConsentObservation, ConsentPlan, ConsentPlanItem, CustomerConsent
from portal.audit.trail import Actor, Outcome, record
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AccessDenied, AlreadyExists, ConsentRequired, RemoteError, Throttled
from portal.microsoft.identifiers import CorrelationId

Phase, Purpose, Result = ConsentPlanItem.Phase, ConsentPlan.Purpose, ConsentPlanItem.Result

GRANTS_LOST = "customer_grants_lost"  # cause of the incident
STILL_THERE, NOT_PROVEN = "still_there", "not_proven"  # how a removal can fail, beside what Microsoft answers
_STILL_THERE = "Microsoft accepted the removal and still shows the consent. Remove it again later, or ask Microsoft."
_FIRST_LOOK, _LONGEST_PAUSE = 5.0, 600.0  # seconds


class TokenRefused(Exception):
    """The partner's own token was refused in the partner's own tenant, and nothing was sent for the customer."""

    def __init__(self, error: RemoteError) -> None:
        self.error = error
        super().__init__(str(error))


@dataclass(slots=True, kw_only=True)
class ItemWork:
    """One item while it is applied, and what it is applied with."""

    item: ConsentPlanItem
    clients: CustomerClients
    actor: Actor
    consent: CustomerConsent
    patience: timedelta
    seen: ConsentObservation | None = None
    reading: Reading | None = None
    failure: str = ""

    @property
    def registration(self) -> ApplicationRegistration:
        return self.item.plan.registration

    @property
    def target(self) -> Grants:
        return Grants(self.item.target)

    @property
    def snapshot(self) -> Grants:
        return Grants(self.item.snapshot or {})

    def look(self) -> Presence | None:
        """Read the tenant with a token that was issued after the last change."""
        self.clients.forget_customer_tokens()
        return consents.look(self.clients, self.registration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of one item.

    Attributes:
        consent: as it is after the last read; None when nothing was looked at.
        seen: the last read, where one was written.
        reading: the last read of an item that is done, which is not written yet: neither it nor the item's result.
        failure: what kind it was, of a removal that failed: a ``FailureClass``, or a word of this module.
    """

    item: ConsentPlanItem
    consent: CustomerConsent | None = None
    seen: ConsentObservation | None = None
    reading: Reading | None = None
    failure: str = ""


def apply_item(
    item: ConsentPlanItem,
    consent: CustomerConsent,
    clients: CustomerClients,
    *,
    actor: Actor,
    patience: timedelta = PROPAGATION,
) -> Applied:
    """Do what the plan shows for this customer, or hold it back because the world is not as it was shown.

    Args:
        consent: the row of this customer and the plan's registration.
        patience: how long what Microsoft accepted is waited for; at most half an hour (R-23).

    Note: this reads ``item.plan.registration`` and ``item.customer.partner``; load them.

    Raises:
        TokenRefused: the partner's token cannot serve any of its customers; nothing was sent.
        RemoteError, TokenUnavailable, IdentityMismatch: a read failed, the outcome is unknown, or nothing may be sent
            any more. The item stays open and may be repeated; when :func:`in_between`, the customer may have lost its
            consent, see :func:`mark_broken`.
    """
    untouched = item.phase == Phase.NONE
    if untouched:
        if why := _out_of_line(item):
            return Applied(item=_refuse(item, why, actor, clients.correlation_id))
        if item.target and not _is_known(item):
            _check_is_theirs(item, clients)
    work = ItemWork(item=item, clients=clients, actor=actor, consent=consent, patience=patience)
    item = _work(work, untouched=untouched)
    return Applied(item=item, consent=work.consent, seen=work.seen, reading=work.reading, failure=work.failure)


def _work(work: ItemWork, *, untouched: bool) -> ConsentPlanItem:
    item = work.item
    there: Presence | None = None
    blind: ConsentRequired | AccessDenied | None = None
    try:
        there = work.look()
    except AccessDenied as error:
        if item.target:
            raise
        blind = error  # a consent that does not let us read goes all the same
    except ConsentRequired as error:
        if item.target and not untouched:
            raise
        blind = error  # most often a missing relationship, which readiness says better
    if blind is None and _reached(work.target, there):
        return _done(work, there)
    changed = _grants(there) != work.consent.actual_grants
    if untouched and blind is None and (changed or not item.target):
        _observe(work, there)  # what was there, and what somebody took away, is noted before we change it
    if untouched and (held := _held_back(work, there, blind)):
        return held
    if item.accepted_at is not None:
        if blind is not None:
            return _unproven(work, blind)
        over = timezone.now() - item.accepted_at >= PROPAGATION
        return _overdue(work, there) if over else _wait(work, there)
    if item.needs_reset:
        return _reset(work, there)
    if item.target:
        return _create(work, there)
    return _remove(work, _grants(there) if blind is None else Grants(work.consent.actual_grants))


def hold(item: ConsentPlanItem, why: str, owner: Owner) -> ConsentPlanItem:
    """Hold an item back for which nothing was sent, or all was refused: it stays, whatever happens to others."""
    if item.phase != Phase.NONE:
        return _finish(item, Result.HELD, f"Microsoft refused the request. {why}", owner)
    if item.plan.purpose in {Purpose.PUSH, Purpose.REMOVE}:
        return _finish(item, Result.HELD, f"Nothing was sent: {why}", owner)
    return _finish(item, Result.HELD, f"{why[:250]} Nothing was sent; make a new plan then.", owner)


def _refuse(item: ConsentPlanItem, why: str, actor: Actor, correlation_id: CorrelationId) -> ConsentPlanItem:
    """Hold an item back that is outside the lines, and say so in the audit trail."""
    with transaction.atomic():
        record(
            "customer_consent.create" if item.target else "customer_consent.remove",
            actor=actor,
            outcome=Outcome.REFUSED,
            subject={"customer": item.customer_id, "registration": item.plan.registration_id},
            details={"reason": why},
            correlation_id=correlation_id,
        )
        direct = item.plan.purpose in {Purpose.PUSH, Purpose.REMOVE}
        return _finish(item, Result.HELD, f"Nothing was sent: {why}" if direct else why, Owner.US)


def in_between(item: ConsentPlanItem) -> bool:
    """Tell whether a DELETE was or may have been sent whose POST has no result yet."""
    return item.needs_reset and item.phase != Phase.NONE


def seconds_to_next_look(item: ConsentPlanItem, patience: timedelta = PROPAGATION) -> float | None:
    """Return when to look again at what was accepted: pauses double, and the last look is at the end (R-23).

    None when the time is over, or nothing waits.
    """
    if item.result != Result.WAITING or item.accepted_at is None:
        return None
    passed = (timezone.now() - item.accepted_at).total_seconds()
    left = patience.total_seconds() - passed
    if left <= 0 and patience < PROPAGATION:
        return None
    return max(min(max(passed, _FIRST_LOOK), _LONGEST_PAUSE, left), 1.0)


# --- before anything is sent --------------------------------------------------------------------------------------


def _check_is_theirs(item: ConsentPlanItem, clients: CustomerClients) -> None:
    """Make sure that the customer is in what this partner's own token may see (S-52).

    Raises:
        TokenRefused, RemoteError: as :func:`apply_item`.
    """
    try:
        clients.partner_center.customer(item.customer.tenant)
    except AccessDenied:
        # Of this customer, or of everything? A role that was lost refuses the partner's own profile as well.
        with _for_the_partner():
            clients.partner_center.organization_profile()
        raise
    except ConsentRequired as error:
        raise TokenRefused(error) from error


@contextmanager
def _for_the_partner() -> Iterator[None]:
    """Say TokenRefused for what is refused in the partner's own tenant: it is the same for all its customers."""
    try:
        yield
    except (ConsentRequired, AccessDenied) as error:
        raise TokenRefused(error) from error


def _out_of_line(item: ConsentPlanItem) -> str:
    """Return why nothing may be sent, without any call (S-52, S-53).

    The allow list is asked before the first change only: what this item took away it puts back, whatever the list
    says by then, because the customer was promised to have what it had.
    """
    try:
        consents.check_customer(item.customer, item.plan.registration, removing=not item.target)
        consents.check_grants(Grants(item.target))
    except PushRefused as refused:
        return str(refused)
    return overtaken(item.plan)


def overtaken(plan: ConsentPlan) -> str:
    """Return why this plan does not show any more what is wanted; empty when it does."""
    if plan.wanted is None or plan.wanted.grants_hash == consents.wanted_grants(plan.registration).digest:
        return ""
    return "The wanted grants were changed after this plan was made. Make a new plan."


def _held_back(
    work: ItemWork, there: Presence | None, blind: ConsentRequired | AccessDenied | None
) -> ConsentPlanItem | None:
    """Hold the item back when the tenant is not as the plan showed it, or not ready. Nothing was sent so far."""
    item = work.item
    unread = item.read_at is None
    moved = blind is None and _grants(there) != item.before
    if moved and (item.target or not unread):
        if work.seen is None:
            _observe(work, there)
        what = "It was never read before, and holds" if unread else "Since this plan was made it was changed, and holds"
        names = _grants(there).words()[:180] or "nothing"
        return _finish(item, Result.HELD, f"{what} {names}. Nothing was sent; make a new plan.", Owner.US)
    if item.target and blind is None and _is_known(item):
        with _for_the_partner():
            work.clients.prove_partner()  # a partner that is dead is found before anything is sent
        return None
    if item.target:
        if _is_known(item):  # and the tenant says otherwise: what was not asked before is asked now
            _check_is_theirs(item, work.clients)
        return _not_ready(work) or (None if blind is None else _fail(work, blind))
    known = None if blind is None else consents.why_locked_out(item.customer, work.clients)
    return None if known is None else _not_reachable(work, *known)


def _is_known(item: ConsentPlanItem) -> bool:
    """Tell whether the mirror answers for this customer. What loses its grants on the way is always asked about."""
    return not item.needs_reset and consents.is_known_ready(item.customer)


def _not_ready(work: ItemWork) -> ConsentPlanItem | None:
    """Read the relationships, and hold the item back when they do not let us consent."""
    with _for_the_partner():
        verdict = consents.readiness(work.item.customer, work.clients)
    if verdict.ready:
        return None
    consents.block(work.consent, verdict, work.actor, work.clients.correlation_id)
    return _finish(work.item, Result.HELD, verdict.reason, verdict.owner or Owner.US)


def _not_reachable(work: ItemWork, cause: str, owner: Owner) -> ConsentPlanItem:
    """Send nothing, because the relationship does not let us in. State and evidence stay, with their age."""
    note_unreadable([Unreadable(consent_id=work.consent.pk, reason=cause, owner=owner.value)])
    words = (
        f"Nothing was sent: {cause} The customer's administrator can delete the enterprise application "
        f"{work.registration.application_id}."
    )
    return _finish(work.item, Result.HELD, words, owner)


# --- the three kinds of change ------------------------------------------------------------------------------------


def _create(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Create what is missing, resource by resource; a resource that has a grant is left alone (R-21)."""
    held = _grants(there)
    missing = Grants({resource: scopes for resource, scopes in work.target.items() if resource not in held})
    if not missing:  # between two tries somebody else created something
        consent = _observe(work, there, exists=True)
        return _finish(work.item, Result.FAILED, consent.reason, Owner.US)
    failure = _post(work, Phase.POSTING, there, work.target, missing)
    exists = isinstance(failure, AlreadyExists)
    if isinstance(failure, Throttled):
        raise failure
    if failure is not None and not failure.retryable and not exists:
        return _refused(work, failure)
    there = _look_after(work, accepted=failure is None)
    if _reached(work.target, there):
        return _done(work, there)
    if exists and _grants(there):
        consent = _observe(work, there, exists=True)
        return _finish(work.item, Result.FAILED, consent.reason, Owner.US)
    if failure is not None and not exists:
        _observe(work, there, waiting=consents.UNCLEAR)
        raise failure  # the item stays open; a repeat looks first and sends the same request id
    if exists:
        _accepted(work.item)
    return _wait(work, there)


def _refused(work: ItemWork, failure: RemoteError) -> ConsentPlanItem:
    """Say why nothing was created; what the mirror had answered for is asked now, because it can say it better."""
    if isinstance(failure, AccessDenied) and _is_known(work.item):
        with suppress(AccessDenied):  # of this customer alone: then the first refusal says as much
            _check_is_theirs(work.item, work.clients)
            if held := _not_ready(work):
                return held
    return _fail(work, failure)


def _remove(work: ItemWork, before: Grants) -> ConsentPlanItem:
    """Remove the consent and read back; what Partner Center answers is no proof, in either direction."""
    failure: RemoteError | None = None
    try:
        _delete(work, before)
    except Throttled:
        raise
    except RemoteError as error:
        failure = error
    try:
        there = _look_after(work, accepted=failure is None)
    except (ConsentRequired, AccessDenied) as blind:
        if failure is None or failure.retryable:
            return _unproven(work, blind)
        return _not_removed(work, failure)
    if _reached(Grants(), there):
        return _done(work, there)
    if failure is None:
        return _wait(work, there)
    _observe(work, there)
    if failure.retryable:
        raise failure
    return _not_removed(work, failure)


def _not_removed(work: ItemWork, failure: RemoteError) -> ConsentPlanItem:
    """Say why Microsoft refused to remove it; the state stays as it was read.

    Raises:
        RemoteError: the cause is on our side; no customer's row says it.
    """
    diagnosis = diagnose(failure)
    if diagnosis.failure_class.systemic:
        raise failure
    work.failure = diagnosis.failure_class.value
    words = f"Not removed: {diagnosis.cause} {diagnosis.remedy}"
    return _not_gone(work, words, diagnosis.owner)


def _unproven(work: ItemWork, blind: RemoteError) -> ConsentPlanItem:
    """Say that the removal was sent, and that nothing lets us look: its result is unknown."""
    diagnosis = diagnose(blind)
    work.failure = NOT_PROVEN
    words = f"The removal was sent, but its result could not be read: {diagnosis.cause} {diagnosis.remedy}"
    return _not_gone(work, words, diagnosis.owner, state=State.UNKNOWN)


def _not_gone(work: ItemWork, words: str, owner: Owner, **columns: str) -> ConsentPlanItem:
    with transaction.atomic():
        row = CustomerConsent.objects.filter(pk=work.consent.pk)
        row.update(reason=words[:300], owner=owner.value, **columns)
        record(
            "customer_consent.remove",
            actor=work.actor,
            outcome=Outcome.FAILED,
            subject=consents.subject(work.consent),
            details={"reason": words},
            correlation_id=work.clients.correlation_id,
        )
        item = _finish(work.item, Result.FAILED, words, owner)
    work.consent.refresh_from_db()
    return item


def _reset(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Remove, then create; if the second half fails, put back what was there, or say loudly what is missing.

    A person chose this. After the removal all resources are posted, whatever a read shows: it may show the past.
    """
    phase = work.item.phase
    if phase == Phase.NONE or (phase == Phase.REMOVING and not _reached(Grants(), there)):
        try:
            _delete(work, _grants(there))
        except RemoteError as error:
            if error.retryable:
                raise
            return _fail(work, error)
    failure = _post(work, Phase.REMOVED, there, work.target, work.target)
    if isinstance(failure, Throttled):
        raise failure
    there = _look_after(work, accepted=failure is None)
    if _reached(work.target, there):
        return _done(work, there)
    return _wait(work, there) if failure is None else _restore(work, diagnose(failure).cause)


def _restore(work: ItemWork, why: str) -> ConsentPlanItem:
    """Put back what was there before the removal: exactly that, so a part that got there meanwhile goes first."""
    item = work.item
    failure = _post(work, Phase.RESTORING, None, work.snapshot, work.snapshot)
    there = work.look()
    if isinstance(failure, AlreadyExists) and not _is_as_before(work, there):
        _delete(work, _grants(there), phase=Phase.RESTORING)
        failure = _post(work, Phase.RESTORING, there, work.snapshot, work.snapshot)
        there = work.look()
    if _is_as_before(work, there):
        return _restored(work, there, why)
    if failure is None:
        _accepted(item)
        return _wait(work, there)
    if failure.retryable:
        raise failure
    _observe(work, there)
    words = f"{why} Putting it back failed: {diagnose(failure).cause}"
    return mark_broken(item, words, actor=work.actor, there=_grants(there))


def _delete(work: ItemWork, before: Grants, phase: ConsentPlanItem.Phase = Phase.REMOVING) -> None:
    """Remove the consent. Nothing there is success. Raises RemoteError."""
    with transaction.atomic():
        _mark(work, phase, before)
        request_id = consents.write_intent(work.consent, before, work.actor, work.clients.correlation_id, removing=True)
    work.clients.consents.remove(
        customer=work.item.customer.tenant, application_id=work.registration.client_id, request_id=request_id
    )


def _post(
    work: ItemWork, phase: ConsentPlanItem.Phase, there: Presence | None, whole: Grants, missing: Grants
) -> RemoteError | None:
    """Store the intent, then send one POST for each resource that is missing; return the failure that says most.

    The intent is the whole set, so that a repeat for the rest of it sends the request ids of the first time (R-20).
    """
    with transaction.atomic():
        _mark(work, phase, _grants(there))
        request_id = consents.write_intent(work.consent, whole, work.actor, work.clients.correlation_id)
    return consents.post_grants(work.item.customer, work.registration, work.clients, missing, request_id)


def _mark(work: ItemWork, phase: ConsentPlanItem.Phase, before: Grants) -> None:
    """Note what is about to be sent; and before the first change, what was there."""
    item = work.item
    if item.snapshot is None:
        item.snapshot = before.to_json()
    item.phase, item.accepted_at, item.result = phase, None, Result.OPEN
    item.save(update_fields=["phase", "snapshot", "accepted_at", "result"])


def _accepted(item: ConsentPlanItem) -> None:
    item.accepted_at = timezone.now()
    item.save(update_fields=["accepted_at"])


# --- reading back -------------------------------------------------------------------------------------------------


def _look_after(work: ItemWork, *, accepted: bool) -> Presence | None:
    """Look what a request did. That Microsoft accepted it is stored with what the look shows.

    Args:
        accepted: it was. Where the look fails, that is stored at once, so that a repeat waits and sends nothing again.
    """
    if not accepted:
        return work.look()
    work.item.accepted_at = timezone.now()
    try:
        return work.look()
    except BaseException:
        work.item.save(update_fields=["accepted_at"])
        raise


def _grants(there: Presence | None) -> Grants:
    return (there or NOWHERE).granted


def _reached(target: Grants, there: Presence | None) -> bool:
    if not target:
        return there is None or there.service_principal_id is None
    return compare(target, there or NOWHERE)[0] == State.GRANTED


def _is_as_before(work: ItemWork, there: Presence | None) -> bool:
    return _grants(there) == work.snapshot


def _observe(work: ItemWork, there: Presence | None, *, waiting: str = "", exists: bool = False) -> CustomerConsent:
    found = _reading(work, there, waiting=waiting, exists=exists)
    work.seen = write_readings([found], actor=work.actor).get(work.consent.pk)
    work.consent.refresh_from_db()
    return work.consent


def _reading(work: ItemWork, there: Presence | None, *, waiting: str = "", exists: bool = False) -> Reading:
    return consents.reading(
        work.consent,
        there,
        consents.wanted_grants(work.registration),
        correlation_id=work.clients.correlation_id,
        waiting=waiting,
        exists=exists,
    )


# --- what came of it ----------------------------------------------------------------------------------------------


def _done(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Note that it is done; it is not written yet, see ``Applied.reading``."""
    work.reading = _reading(work, there)
    already = "It was so already; nothing was sent." if work.item.target else "It was not there; nothing was sent."
    item = work.item
    item.result, item.owner = Result.DONE, ""
    item.message = "" if item.phase != Phase.NONE else already
    return item


def _wait(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Look again later: Microsoft accepted it. One observation says so, not one for each look."""
    if work.item.phase == Phase.RESTORING and _is_as_before(work, there):
        return _restored(work, there, "The new grants could not be created.")
    accepted = work.item.accepted_at
    if not work.item.target and accepted is not None and timezone.now() - accepted >= work.patience:
        return _still_there(work, there)
    if work.item.result == Result.WAITING:
        return work.item
    _observe(work, there, waiting=consents.ACCEPTED)
    return _finish(work.item, Result.WAITING, consents.ACCEPTED, Owner.NOBODY)


def _overdue(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Accepted and not shown for half an hour: it failed (R-23)."""
    item, words = work.item, "Accepted by Microsoft, and not shown after 30 minutes."
    if not item.target:
        return _still_there(work, there)
    if item.phase == Phase.REMOVED:
        return _restore(work, words)
    consent = _observe(work, there)
    if item.phase != Phase.RESTORING:
        return _finish(item, Result.FAILED, f"{words} {consent.reason}", Owner.MICROSOFT)
    if _is_as_before(work, there):
        return _restored(work, there, "The new grants could not be created.")
    return mark_broken(item, words, actor=work.actor, there=_grants(there))


def _still_there(work: ItemWork, there: Presence | None) -> ConsentPlanItem:
    """Say that what Microsoft accepted to remove is not gone. The next removal is another request: a repeat could be
    answered from memory."""
    _observe(work, there)
    work.failure = STILL_THERE
    return _not_gone(work, _STILL_THERE, Owner.MICROSOFT, request_id="")


def _restored(work: ItemWork, there: Presence | None, why: str) -> ConsentPlanItem:
    _observe(work, there)
    settle(GRANTS_LOST, about=about(work.item))
    return _finish(work.item, Result.RESTORED, f"The grants are as they were before. {why}", Owner.US)


def mark_broken(item: ConsentPlanItem, why: str, *, actor: Actor, there: Grants | None = None) -> ConsentPlanItem:
    """Say loudly, in row, incident and audit trail, that a consent was removed and not put back. Sends nothing.

    Args:
        there: what a read showed; None when nothing could be read.
    """
    missing = Grants(item.snapshot or {}) - (there or {})
    what = "not put back" if there is not None else "what is there now could not be read"
    words = f"Removed, and {what}; customer {item.customer.tenant_id} lacks {missing.words()}. {why}"[:300]
    subject: dict[str, str | int] = {"plan": item.plan_id, "customer": item.customer_id}
    with transaction.atomic():
        if item.phase == Phase.RESTORING:
            item.phase = Phase.REMOVED  # the next try begins with what the plan wants
        item.save(update_fields=["phase"])
        consents = CustomerConsent.objects.filter(customer=item.customer_id, registration=item.plan.registration_id)
        consents.update(reason=words, owner=Owner.US)
        report(
            GRANTS_LOST,
            about=about(item),
            name=f"{item.customer}, customer of {item.customer.partner}",
            owner=Owner.US,
            words=f"{words} Remove the cause, then apply plan {item.plan_id} again on its page.",
            subject=subject,
        )
        record(
            "consent_plan.grants_lost",
            actor=actor,
            outcome=Outcome.FAILED,
            subject=subject,
            details={"missing": missing.to_json(), "read": there is not None},
        )
        return _finish(item, Result.BROKEN, words, Owner.US)


def _fail(work: ItemWork, error: RemoteError) -> ConsentPlanItem:
    consent = consents.fail(work.consent, error, work.actor, work.clients.correlation_id)
    return _finish(work.item, Result.FAILED, consent.reason, Owner(consent.owner))


def about(item: ConsentPlanItem) -> str:
    """Return what an incident about this customer is about."""
    return f"customer:{item.customer_id}"


def _finish(
    item: ConsentPlanItem, result: ConsentPlanItem.Result, message: str, owner: Owner | None = None
) -> ConsentPlanItem:
    item.result, item.message, item.finished_at = result, message[:300], timezone.now()
    item.owner = owner.value if owner else ""
    if result in {Result.FAILED, Result.BROKEN}:
        item.accepted_at = None  # a repeat sends it again, and does not wait for what did not come
    item.save(update_fields=["result", "message", "finished_at", "owner", "accepted_at"])
    return item
