"""Apply one item of a plan: look, change what was shown and nothing else, read back, and say what is true.

Every request that changes something is preceded by a committed ``phase`` of the item, so whoever goes on after a crash
knows what may have been sent, looks, and repeats only what is not there (R-20, R-21).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from consent import customers
from consent.customers import CustomerClients, PushRefused, State, compare, grants_hash
from consent.directory import Presence
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem, CustomerConsent
from consent.plans import differences
from portal.audit.trail import Actor, Outcome, record
from portal.incidents.desk import report, settle
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import AlreadyExists, ConsentRequired, RemoteError, Throttled
from portal.microsoft.identifiers import RequestId

Action, Phase, Result = ConsentPlanItem.Action, ConsentPlanItem.Phase, ConsentPlanItem.Result
Grants = Mapping[str, list[str]]

GRANTS_LOST = "customer_grants_lost"  # cause of the incident
_PROPAGATION = timedelta(minutes=30)
_NOWHERE = Presence(service_principal_id=None)
_WAITING = "Microsoft accepted the request but does not show the result yet."


@dataclass(slots=True, kw_only=True)
class ItemWork:
    """One item while it is applied, and what it is applied with."""

    item: ConsentPlanItem
    clients: CustomerClients
    actor: Actor
    wait_seconds: float
    sleep: Callable[[float], None]
    consent: CustomerConsent

    @property
    def registration(self) -> ApplicationRegistration:
        return self.item.plan.registration

    @property
    def target(self) -> dict[str, list[str]]:
        return dict(self.item.target)


def apply_item(
    item: ConsentPlanItem,
    clients: CustomerClients,
    *,
    actor: Actor,
    wait_seconds: float = 60.0,
    sleep: Callable[[float], None],
) -> ConsentPlanItem:
    """Do what the plan shows for this customer, or hold it back because the world is not as it was shown.

    Note: this reads ``item.plan.registration`` and ``item.customer.partner``; load them.

    Raises:
        RemoteError: a read or the partner's token failed, or a limit was met; the item stays open and may be repeated.
    """
    if why := _out_of_line(item):
        return _finish(item, Result.HELD, why)
    clients.partner_center.customer(item.customer.tenant)  # S-52: it is in what this partner's own token may see
    consent, _ = CustomerConsent.objects.get_or_create(customer=item.customer, registration=item.plan.registration)
    work = ItemWork(item=item, clients=clients, actor=actor, wait_seconds=wait_seconds, sleep=sleep, consent=consent)
    locked_out: ConsentRequired | None = None
    try:
        there = customers.look(clients, work.registration) or _NOWHERE
    except ConsentRequired as error:
        there, locked_out = _NOWHERE, error  # most often a missing relationship, which readiness says better
    if locked_out is None and _reached(work.target, there):
        return _done(work, there)
    if item.result == Result.WAITING:
        return _still_waiting(work, there)
    if item.phase == Phase.NONE:
        if held := _held_back(work, there, locked_out):
            return held
    elif locked_out is not None:
        raise locked_out
    if item.needs_reset:
        return _reset(work, there)
    return _create(work, there) if item.target else _remove(work, there)


def _out_of_line(item: ConsentPlanItem) -> str:
    """Return why nothing may be sent any more, without any call (S-52, S-53)."""
    try:
        customers.check_customer(item.customer, item.plan.registration)
        if item.phase == Phase.NONE:  # what was taken away is put back whatever the rules say by now
            customers.check_grants(item.target)
    except PushRefused as refused:
        return str(refused)
    if item.plan.purpose == ConsentPlan.Purpose.APPLY and grants_hash(
        customers.wanted_grants(item.plan.registration)
    ) != grants_hash(item.target):
        return "The wanted grants were changed after this plan was made. Make a new plan."
    return ""


def _held_back(work: ItemWork, there: Presence, locked_out: ConsentRequired | None) -> ConsentPlanItem | None:
    """Hold the item back when the tenant is not as the plan showed it, or not ready. Nothing was sent so far."""
    item = work.item
    if locked_out is None and grants_hash(there.scopes_by_resource()) != grants_hash(item.before):
        _observe(work, there)
        return _finish(item, Result.HELD, "The tenant was changed after this plan was made. Make a new plan.")
    if item.needs_reset and not item.plan.reset:
        _observe(work, there)
        words = "Only removing and creating again can do this, which was not chosen (apply_plan --reset)."
        return _finish(item, Result.HELD, words)
    if item.target:
        verdict = customers.readiness(item.customer, work.clients)
        if not verdict.ready:
            customers.block(work.consent, verdict, work.actor, work.clients.correlation_id)
            return _finish(item, Result.HELD, verdict.reason, verdict.owner or Owner.US)
    if locked_out is not None:
        return _fail(work, locked_out)
    return None


# --- the three kinds of change -------------------------------------------------------------------------------------


def _create(work: ItemWork, there: Presence) -> ConsentPlanItem:
    """Create what is missing, resource by resource; a resource that has a grant is left alone."""
    if work.item.phase == Phase.NONE:
        _mark(work.item, Phase.POSTING, work, there)
    held = there.scopes_by_resource()
    failure = _post(work, {resource: scopes for resource, scopes in work.target.items() if not held.get(resource)})
    there = _wait_for(work.target, work)
    if _reached(work.target, there):
        return _done(work, there)
    if isinstance(failure, AlreadyExists):
        consent = _observe(work, there)
        return _finish(work.item, Result.FAILED, consent.reason, Owner.US)
    if failure is not None and not failure.retryable:
        return _fail(work, failure)
    if failure is not None:
        _observe(work, there, waiting=customers.UNCLEAR)
        raise failure  # the item stays open; whoever repeats it looks first and sends the same request id
    return _wait(work, there)


def _remove(work: ItemWork, there: Presence) -> ConsentPlanItem:
    _delete(work, there)
    there = _wait_for({}, work)
    return _done(work, there) if _reached({}, there) else _wait(work, there)


def _reset(work: ItemWork, there: Presence) -> ConsentPlanItem:
    """Remove, then create; if the second half fails, put back what was there, or say loudly what is missing."""
    if work.item.phase != Phase.REMOVED:
        _delete(work, there)
        _mark(work.item, Phase.REMOVED, work, there)
    failure = _post(work, work.target)
    there = _wait_for(work.target, work)
    if _reached(work.target, there):
        return _done(work, there)
    snapshot = dict(work.item.snapshot or {})
    held = there.scopes_by_resource()
    _post(work, {resource: scopes for resource, scopes in snapshot.items() if not held.get(resource)})
    there = _wait_for(snapshot, work)
    consent = _observe(work, there)
    if _reached(work.target, there):
        return _done(work, there)
    why = "it was accepted but is not shown" if failure is None else diagnose(failure).cause
    missing, _ = differences(snapshot, there.scopes_by_resource())
    if not missing:
        _settle(work.item)
        return _finish(work.item, Result.RESTORED, f"The grants are as they were before: {why}", Owner.US)
    lost = ", ".join(scope for scopes in missing.values() for scope in scopes)
    words = f"Removed and not put back: {lost} missing in customer {work.item.customer.tenant_id}; {why}"
    CustomerConsent.objects.filter(pk=consent.pk).update(reason=words[:300], owner=Owner.US)
    report(
        GRANTS_LOST,
        about=f"customer:{work.item.customer_id}",
        owner=Owner.US,
        words=f"{words} Apply plan {work.item.plan_id} again.",
        subject={"plan": work.item.plan_id, "customer": work.item.customer_id},
    )
    return _finish(work.item, Result.BROKEN, words, Owner.US)


def _delete(work: ItemWork, there: Presence) -> None:
    if work.item.phase == Phase.NONE:
        _mark(work.item, Phase.REMOVING, work, there)
    if there.service_principal_id is not None:
        work.clients.consents.remove(
            customer=work.item.customer.tenant,
            application_id=work.registration.client_id,
            request_id=RequestId(str(uuid.uuid5(customers.REQUEST_SPACE, f"delete/{work.item.pk}"))),
        )
    work.clients.forget_customer_tokens()
    # A later creation is another request than the one before the removal: its id must not be answered from memory.
    CustomerConsent.objects.filter(pk=work.consent.pk).update(request_id="", requested_hash="")


def _post(work: ItemWork, grants: Grants) -> RemoteError | None:
    """Store the intent and post; return what failed. Raises Throttled."""
    if not grants:
        return None
    request_id = customers.write_intent(work.consent, grants, work.actor, work.clients.correlation_id)
    failure = customers.post_grants(work.item.customer, work.registration, work.clients, grants, request_id)
    if isinstance(failure, Throttled):
        raise failure
    work.clients.forget_customer_tokens()
    return failure


def _mark(item: ConsentPlanItem, phase: ConsentPlanItem.Phase, work: ItemWork, there: Presence) -> None:
    """Commit what is about to be sent, and once what was there before."""
    if item.snapshot is None:
        item.snapshot = there.scopes_by_resource()
    item.phase = phase
    with transaction.atomic():
        item.save(update_fields=["phase", "snapshot"])
        record(
            f"consent_plan.item_{phase}",
            actor=work.actor,
            outcome=Outcome.INTENT,
            subject={"plan": item.plan_id, "item": item.pk, "customer": item.customer_id},
            details={"snapshot": item.snapshot, "target": item.target},
            correlation_id=work.clients.correlation_id,
        )


# --- reading back --------------------------------------------------------------------------------------------------


def _reached(target: Grants, there: Presence) -> bool:
    if not target:
        return there.service_principal_id is None
    return compare(target, there)[0] == State.GRANTED


def _wait_for(target: Grants, work: ItemWork) -> Presence:
    """Look until the target shows or the time is over; pauses double (R-23)."""
    waited, pause = 0.0, 1.0
    while True:
        there = customers.look(work.clients, work.registration) or _NOWHERE
        if _reached(target, there) or waited >= work.wait_seconds:
            return there
        pause = min(pause * 2, work.wait_seconds - waited)
        work.sleep(pause)
        waited += pause
        work.clients.forget_customer_tokens()


def _observe(work: ItemWork, there: Presence, waiting: str = "") -> CustomerConsent:
    return customers.observe(
        work.consent,
        there,
        customers.wanted_grants(work.registration),
        actor=work.actor,
        correlation_id=work.clients.correlation_id,
        waiting=waiting,
    )


def _done(work: ItemWork, there: Presence) -> ConsentPlanItem:
    _observe(work, there)
    _settle(work.item)
    words = "" if work.item.phase != Phase.NONE else "It was so already; nothing was sent."
    return _finish(work.item, Result.DONE, words)


def _wait(work: ItemWork, there: Presence) -> ConsentPlanItem:
    _observe(work, there, waiting=_WAITING if work.target else "")
    return _finish(work.item, Result.WAITING, _WAITING, Owner.NOBODY)


def _still_waiting(work: ItemWork, there: Presence) -> ConsentPlanItem:
    """Only look: it was accepted before. After half an hour it failed (R-23)."""
    since = work.item.finished_at or timezone.now()
    if timezone.now() - since < _PROPAGATION:
        _observe(work, there, waiting=_WAITING if work.target else "")
        return work.item
    consent = _observe(work, there)
    words = f"Accepted by Microsoft, and not shown after 30 minutes. {consent.reason}"
    return _finish(work.item, Result.FAILED, words, Owner.MICROSOFT)


def _fail(work: ItemWork, error: RemoteError) -> ConsentPlanItem:
    consent = customers.fail(work.consent, error, work.actor, work.clients.correlation_id)
    return _finish(work.item, Result.FAILED, consent.reason, Owner(consent.owner))


def _settle(item: ConsentPlanItem) -> None:
    settle(GRANTS_LOST, about=f"customer:{item.customer_id}")


def _finish(
    item: ConsentPlanItem, result: ConsentPlanItem.Result, message: str, owner: Owner | None = None
) -> ConsentPlanItem:
    item.result, item.message, item.finished_at = result, message[:300], timezone.now()
    item.owner = owner.value if owner else ""
    item.save(update_fields=["result", "message", "finished_at", "owner"])
    return item
