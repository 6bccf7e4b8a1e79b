"""Applying a plan as a run: the decision, its waves, and what the engine is told about each customer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from consent import clients
from consent.customers import attempts
from consent.customers.applying import (
    TokenRefused,
    apply_item,
    hold,
    in_between,
    mark_broken,
    overtaken,
    seconds_to_next_look,
)
from consent.customers.plans import PlanRefused, counts
from consent.models import ApplicationRegistration, Attempt, ConsentPlan, ConsentPlanItem, PartnerConsent
from consent.naming import line_names
from consent.tokens.custody import TokenUnavailable
from consent.tokens.next_steps import Step
from consent.tokens.serving import why_not
from consent.tokens.versions import IdentityMismatch
from portal.audit.trail import Actor, record
from portal.microsoft.diagnosis import FailureClass, Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.runs import service
from portal.runs.kinds import GONE, OK, SKIPPED, Context, Done, Kind, Outcome, Unit
from portal.runs.models import Run, RunItem
from tenants.models import PartnerTenant

Action, Result = ConsentPlanItem.Action, ConsentPlanItem.Result

WAVES = (1, 5, 25)
STOP_SHARE = 0.2
CONCURRENCY = 16
HELD, BROKEN, REFUSED = "held", "broken", "refused"  # classes beside those of ``FailureClass``
TOKEN_FAILURES = {
    known: f"token_{known}"
    for known in (FailureClass.NEEDS_CONSENT, FailureClass.NEEDS_INTERACTION, FailureClass.NOT_PERMITTED)
}
"""Classes of what the partner's own token is refused for."""
_NO_TOKEN = "The partner's consent to this application is gone; something was sent with it. It must consent again."
_PLAN_STATES = {
    Run.State.OPEN: ConsentPlan.State.APPLYING,
    Run.State.PAUSED: ConsentPlan.State.STOPPED,
    Run.State.STOPPED: ConsentPlan.State.STOPPED,
    Run.State.CANCELLED: ConsentPlan.State.STOPPED,
}


@dataclass(frozen=True, slots=True)
class Task:
    """One item of a plan, and the partner's consent; None without one.

    ``trouble`` says why the partner's token cannot serve its customers, as its row or this run knows.
    """

    item: ConsentPlanItem
    consent: PartnerConsent | None
    trouble: Step | None


# --- the decision -------------------------------------------------------------------------------------------------


def start_apply(
    plan: ConsentPlan,
    *,
    actor: Actor,
    reset: bool = False,
    waves: Sequence[int] = WAVES,
    stop_share: float = STOP_SHARE,
    concurrency: int = CONCURRENCY,
    rate: float = 0,
    deadline: datetime | None = None,
) -> tuple[Run, bool]:
    """Let a plan be applied as it was shown, or go on where it stopped; whoever calls enqueues or works the run.

    Args:
        reset: whether items that only DELETE followed by POST can do are done so; without it they are left alone.
        waves: customers of the first waves; the rest is the last one.
        stop_share: a wave in which more than this share fails is the last, until a person lets the run go on.

    Returns:
        The run, and whether it is new.

    Raises:
        PlanRefused: nothing is left to do, the plan is overtaken, or a run of it goes on that chose otherwise.
    """
    if not 0 <= stop_share <= 1 or any(size < 1 for size in waves):
        raise PlanRefused("Waves are numbers of customers from 1, and the share goes from 0 to 1.")
    with transaction.atomic():
        plan = ConsentPlan.objects.select_related("registration", "wanted", "run").get(pk=plan.pk)
        unfinished = plan.run if plan.run is not None and plan.run.state in _RESUMABLE else None
        if unfinished is not None and reset and not plan.reset:
            raise PlanRefused(
                f"Run {unfinished.pk} applies this plan without resets. Let it end, or cancel it; then choose them."
            )
        if unfinished is not None:
            if unfinished.state != Run.State.OPEN:
                service.resume(unfinished, actor=actor, deadline=deadline)
            return unfinished, False
        _check(plan)
        as_read = Q(run=plan.run_id) if plan.run_id else Q(run__isnull=True)
        plan.reset = reset
        claimed = ConsentPlan.objects.filter(as_read, pk=plan.pk).update(
            reset=reset, applied_at=timezone.now(), applied_by=actor.name[:150], state=ConsentPlan.State.APPLYING
        )
        if not claimed:
            raise PlanRefused("Somebody else began to apply this plan at this moment; look at its run.")
        if not _divide(plan, waves):
            raise PlanRefused(_nothing_left(plan))
        run, new = service.start(
            APPLY_PLAN,
            scope={"plan": plan.pk, "reset": reset},
            actor=actor,
            concurrency=concurrency,
            rate=rate,
            deadline=deadline,
            stop_share=stop_share,
        )
        ConsentPlan.objects.filter(pk=plan.pk).update(run=run)
        record(
            "consent_plan.applied",
            actor=actor,
            subject={"plan": plan.pk, "registration": plan.registration_id, "run": run.pk},
            details={"reset": reset, "waves": list(waves), "stop_share": stop_share, "counts": counts(plan)},
        )
    return run, new


_RESUMABLE = {Run.State.OPEN, Run.State.PAUSED, Run.State.STOPPED}


def _check(plan: ConsentPlan) -> None:
    """Raise PlanRefused for what would hold every item back; each is asked again before its own request."""
    if plan.registration.state != ApplicationRegistration.State.ACTIVE:
        raise PlanRefused("The application registration is not active.")
    if why := overtaken(plan):
        raise PlanRefused(why)


def _nothing_left(plan: ConsentPlan) -> str:
    only_by_reset = plan.items.filter(needs_reset=True, result=Result.OPEN).exclude(action=Action.BLOCKED)
    if not plan.reset and only_by_reset.exists():
        return "What is left in this plan only DELETE followed by POST can do; apply it again and choose resets."
    return "Nothing is left to apply in this plan; make a new one."


def _divide(plan: ConsentPlan, waves: Sequence[int]) -> int:
    """Put what is to be done into its waves; return how much that is."""
    chosen = plan.items.to_do(reset=plan.reset)
    first = iter(list(chosen.order_by("pk").values_list("pk", flat=True)[: sum(waves)]))
    number = chosen.update(wave=len(waves))
    for wave, size in enumerate(waves):
        plan.items.filter(pk__in=list(islice(first, size))).update(wave=wave)
    return number


def follow(scope: Mapping[str, Any], state: str) -> None:
    """Let the plan say what its run says. Done is only a plan of which nothing is left."""
    plans = ConsentPlan.objects.filter(pk=scope["plan"])
    if state == Run.State.DONE:
        left = ConsentPlanItem.objects.filter(plan=scope["plan"]).to_do(reset=scope["reset"]).exists()
        plans.update(state=ConsentPlan.State.STOPPED if left else ConsentPlan.State.DONE)
    else:
        plans.update(state=_PLAN_STATES[Run.State(state)])


# --- the run ------------------------------------------------------------------------------------------------------


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the items that are to be done."""
    rows = (
        ConsentPlanItem.objects.filter(plan=scope["plan"], pk__gt=after)
        .to_do(reset=scope["reset"])
        .order_by("pk")
        .values_list("pk", "wave", "customer__partner_id", "customer__company_name", "customer__tenant_id")[:limit]
    )
    return [Unit(key=key, group=partner, label=name or tenant, wave=wave) for key, wave, partner, name, tenant in rows]


def load(keys: Sequence[int], context: Context) -> dict[int, Task]:
    """Read items, customers and consents again, immediately before use; few queries for any number."""
    items = list(
        ConsentPlanItem.objects.filter(pk__in=keys)
        .select_related("customer__partner", "plan__registration", "plan__wanted")
        .prefetch_related("plan__registration__grants")
    )
    partners = {item.customer.partner_id for item in items}
    consents = {
        (consent.partner_id, consent.registration_id): consent
        for consent in PartnerConsent.objects.filter(
            partner__in=partners, registration__in={item.plan.registration_id for item in items}
        ).select_related("partner", "registration__credential")
    }
    refused = _refused_in(context.run_id, partners)
    now = timezone.now()
    tasks = {}
    for item in items:
        consent = consents.get((item.customer.partner_id, item.plan.registration_id))
        tasks[item.pk] = Task(item, consent, why_not(consent, now) or refused.get(item.customer.partner_id))
    return tasks


def _refused_in(run: int, partners: Collection[int]) -> dict[int, Step]:
    """Return the partners whose token was refused in this run since a person last let it go on, and why."""
    failed = RunItem.objects.filter(run=run, group__in=partners, failure_class__in=TOKEN_FAILURES.values())
    since = Q(run__resumed_at__isnull=True) | Q(finished_at__gt=F("run__resumed_at"))
    return {
        group: Step(Owner(owner), message)
        for group, owner, message in failed.filter(since).values_list("group", "owner", "message")
    }


def work(key: int, task: Task, context: Context) -> Outcome:
    """Apply one item; every request asks for its token again, so whoever is disabled meanwhile stops it (S-53)."""
    item = task.item
    if task.trouble is not None and item.phase == ConsentPlanItem.Phase.NONE:
        return _finished(hold(item, task.trouble.text, task.trouble.owner or Owner.PARTNER))
    if task.consent is None:
        return _refused(item, _NO_TOKEN, Owner.PARTNER)
    correlation_id = CorrelationId(context.correlation_id(key))
    tools = clients.customer_clients(task.consent, item.customer, correlation_id)
    try:
        item = apply_item(item, tools, actor=context.actor)
    except (TokenUnavailable, IdentityMismatch) as error:
        return _refused(item, str(error), Owner.US)
    except TokenRefused as refused:
        return _token_refused(item, refused.error)
    except RemoteError as error:
        return _interrupted(item, error)
    finally:
        tools.forget_customer_tokens()  # nobody needs it any more, and thousands of them need memory
    if item.result == Result.WAITING:
        return Outcome(
            failure_class=item.result, message=item.message, pending=True, retry_after=seconds_to_next_look(item)
        )
    return _finished(item)


def _finished(item: ConsentPlanItem, failure_class: str = "", *, message: str = "", code: str = "") -> Outcome:
    return Outcome(
        failure_class=failure_class or (OK if item.result == Result.DONE else item.result),
        message=message or item.message,
        owner=item.owner,
        code=code,
        fields=_fields(item, item.result, item.message, item.owner),
        result=item,
    )


def _token_refused(item: ConsentPlanItem, error: RemoteError) -> Outcome:
    """Hold the item back, and tell the run why: the other customers of this partner are not asked about."""
    diagnosis = diagnose(error)
    if diagnosis.failure_class not in TOKEN_FAILURES:
        return _interrupted(item, error)
    why = f"The partner's token cannot serve its customers. {diagnosis.cause} {diagnosis.remedy}"
    held = hold(item, why, diagnosis.owner)
    return _finished(held, TOKEN_FAILURES[diagnosis.failure_class], message=why, code=error.code)


def _refused(item: ConsentPlanItem, why: str, owner: Owner) -> Outcome:
    name = BROKEN if in_between(item) else REFUSED
    return Outcome(failure_class=name, message=why, owner=owner.value, fields=_fields(item, name, why, owner.value))


def _interrupted(item: ConsentPlanItem, error: RemoteError) -> Outcome:
    """Return the outcome of what nobody knows yet: the item stays open."""
    diagnosis = diagnose(error)
    known = diagnosis.failure_class
    name = BROKEN if in_between(item) else known.value
    words = f"{diagnosis.cause} {diagnosis.remedy}"
    return Outcome.of(
        diagnosis,
        error,
        failure_class=name,
        # Whoever sent something had looked before, with tokens of all kinds: then one call says nothing about us.
        systemic=known.systemic and item.phase == ConsentPlanItem.Phase.NONE,
        fields=_fields(item, name, words, diagnosis.owner.value),
    )


def _fields(item: ConsentPlanItem, result: str, reason: str, owner: str) -> dict[str, Any]:
    return {
        "plan": item.plan_id,
        **line_names(item.customer.partner, item.plan.registration, item.customer),
        "action": item.action,
        "result": result,
        "reason": reason,
        "owner": owner,
    }


def partner_names(keys: Collection[int]) -> dict[int, str]:
    """Return the partners' names, by their ids; one query."""
    return dict(PartnerTenant.objects.filter(pk__in=keys).values_list("pk", "name"))


def write(done: Sequence[Done], context: Context) -> None:
    """Note with the item why it stays open; what was lost on the way is said loudly. Everything else is written."""
    for each in done:
        item, outcome = each.subject.item, each.outcome
        if outcome.result is not None:
            continue
        if in_between(item):
            mark_broken(item, outcome.message, actor=context.actor)
        else:
            ConsentPlanItem.objects.filter(pk=item.pk).update(
                message=outcome.message[:300], owner=outcome.owner[:10], result=Result.OPEN
            )
    attempts.note(
        attempts.Tried(
            customer_id=item.customer_id,
            registration_id=item.plan.registration_id,
            what=Attempt.APPLY if item.target else Attempt.REMOVE,
            outcome=outcome,
        )
        for item, outcome in ((each.subject.item, each.outcome) for each in done)
    )


APPLY_PLAN = Kind(
    name="apply_plan",
    label="Applying of a plan",
    units=units,
    load=load,
    work=work,
    write=write,
    prepare=clients.shared_by_all,
    place=lambda task: (task.item.plan.registration.application_id, task.item.customer.partner.cloud),
    seconds=300.0,
    harmless=frozenset({OK, GONE, SKIPPED, HELD}),
    unfinished=frozenset({BROKEN}),
    of_group=frozenset(TOKEN_FAILURES.values()),
    group_names=partner_names,
    follow=follow,
    uses_database=True,
)
