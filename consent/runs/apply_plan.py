"""Applying a plan as a run: the decision, its waves, and what the engine is told about each customer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from consent import clients
from consent.customers import attempts
from consent.customers.applying import (
    Applied,
    TokenRefused,
    apply_item,
    hold,
    in_between,
    mark_broken,
    overtaken,
    seconds_to_next_look,
)
from consent.customers.finishing import finish
from consent.customers.observations import PROPAGATION
from consent.customers.plans import TO_APPLY, PlanRefused, counts, make_direct
from consent.models import (
    ApplicationRegistration,
    Attempt,
    ConsentPlan,
    ConsentPlanItem,
    CustomerConsent,
    PartnerConsent,
    TokenUse,
)
from consent.naming import registration_names, unit_label
from consent.runs.plan_lines import REFUSED, columns, finished
from consent.runs.verify import NO_DOOR
from consent.selection import Selection, counted
from consent.tokens.custody import TokenUnavailable
from consent.tokens.next_steps import Step
from consent.tokens.serving import why_not
from consent.tokens.versions import IdentityMismatch
from consent.uses.book import By
from portal.audit.trail import Actor, record
from portal.decisions.kinds import Approval
from portal.microsoft.diagnosis import FailureClass, Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId
from portal.rights import require
from portal.runs import service
from portal.runs.kinds import CONTAINED, GONE, OK, SKIPPED, Context, Done, Kind, Outcome, Unit
from portal.runs.models import Run, RunItem
from portal.site.sight import require_sight
from tenants.models import CustomerTenant, PartnerTenant

Action, Purpose, Result = ConsentPlanItem.Action, ConsentPlan.Purpose, ConsentPlanItem.Result

WAVES = (1, 5, 25)
STOP_SHARE = 0.2
CONCURRENCY = 16
WAIT = 60.0  # seconds
HELD, BROKEN = "held", "broken"  # classes beside those of ``FailureClass``
DIRECT = {ConsentPlan.Purpose.PUSH, ConsentPlan.Purpose.REMOVE}
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

    ``trouble`` says why the partner's token cannot serve its customers, as its row or this run knows. ``row`` is that
    of our consent in the customer's tenant.
    """

    item: ConsentPlanItem
    consent: PartnerConsent | None
    trouble: Step | None
    row: CustomerConsent


class SecondPersonNeeded(PlanRefused):
    """More than one customer would lose our consent, which two persons decide about (S-50)."""


_TWO = "Our consent would be removed from {} customer tenants, which two persons decide about. Nothing was sent."


# --- the decision -------------------------------------------------------------------------------------------------


def removes_from(plan: ConsentPlan) -> int:
    """Return from how many customer tenants a plan takes our consent away."""
    taken = plan.items.filter(action=Action.REMOVE)
    return taken.order_by().values("customer__tenant_id").distinct().count()


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
    approved: Approval | None = None,
) -> tuple[Run, bool]:
    """Let a plan be applied as it was shown, or go on where it stopped; the caller enqueues or works the run.

    Args:
        reset: whether items that only DELETE followed by POST can do are done so; without it they are left alone.
        waves: customers of the first waves; the rest is the last one.
        stop_share: a wave in which more than this share fails is the last, until a person lets the run go on.
        approved: of two persons, for a plan that removes our consent from more than one customer.

    Returns:
        The run, and whether it is new.

    Raises:
        PlanRefused: nothing is left to do, the plan is overtaken, or a run of it goes on that chose otherwise.
        SecondPersonNeeded: it lacks the approval.
    """
    require(actor, "consent.apply_consentplan")
    require_sight(actor, plan)
    if not 0 <= stop_share <= 1 or any(size < 1 for size in waves):
        raise PlanRefused("Waves are numbers of customers from 1, and the share goes from 0 to 1.")
    with transaction.atomic():
        plan = ConsentPlan.objects.select_related("registration", "wanted", "run").get(pk=plan.pk)
        unfinished = plan.run if plan.run is not None and plan.run.state in RESUMABLE else None
        if unfinished is not None and reset and not plan.reset:
            raise PlanRefused(
                f"Run {unfinished.pk} applies this plan without resets. Let it end, or cancel it; then choose them."
            )
        if unfinished is not None:
            if unfinished.state != Run.State.OPEN:
                service.resume(unfinished, actor=actor, deadline=deadline)
            return unfinished, False
        _check(plan)
        if approved is None and (tenants := removes_from(plan)) > 1:
            raise SecondPersonNeeded(_TWO.format(f"{tenants:,}"))
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
            details={"reset": reset, "waves": list(waves), "stop_share": stop_share, "counts": counts(plan)}
            | (approved.noted() if approved else {}),
        )
    return run, new


RESUMABLE = {Run.State.OPEN, Run.State.PAUSED, Run.State.STOPPED}


def start_direct(
    purpose: ConsentPlan.Purpose,
    chosen: Selection,
    *,
    actor: Actor,
    wait: float = WAIT,
    concurrency: int = CONCURRENCY,
    rate: float = 0,
    deadline: datetime | None = None,
    approved: Approval | None = None,
) -> tuple[Run, bool]:
    """Make a plan for each registration (``plans.make_direct``), and one run that applies them in one wave.

    Args:
        chosen: to push, customers and a registration by their keys; to remove, consents in customer tenants. An
            unfinished run of the same choice goes on instead.
        wait: seconds that what Microsoft accepted is waited for, customer by customer.
        approved: of two persons, to remove from more than one customer; the run of an offboarding had it before.

    Returns:
        The run, and whether it is new.

    Raises:
        PlanRefused: see ``plans.make_direct``.
        SecondPersonNeeded: it lacks the approval.
    """
    require(actor, *TO_APPLY[purpose])
    by_registration = _customers(purpose, chosen)
    with transaction.atomic():
        # Two that make the same choice at the same moment do it twice: each looks, and their requests are the same.
        if (known := unfinished_direct(purpose, chosen)) is not None:
            return known, False
        if purpose == Purpose.REMOVE and chosen.offboarding is None and approved is None:
            tenants, _ = counted(chosen.customer_consents())
            if tenants > 1:
                raise SecondPersonNeeded(_TWO.format(f"{tenants:,}"))
        plans = [
            make_direct(
                registration,
                purpose,
                CustomerTenant.objects.filter(pk__in=by_registration[registration.pk]),
                chosen,
                actor=actor,
            )
            for registration in ApplicationRegistration.objects.filter(pk__in=by_registration).order_by("pk")
        ]
        run, new = service.start(
            APPLY_PLAN,
            scope={"plan": [plan.pk for plan in plans], "purpose": purpose.value, "reset": False},
            options={"wait": wait},
            actor=actor,
            concurrency=concurrency,
            rate=rate,
            deadline=deadline,
        )
        ConsentPlan.objects.filter(pk__in=run.scope["plan"]).update(
            run=run, applied_at=timezone.now(), applied_by=actor.name[:150], state=ConsentPlan.State.APPLYING
        )
    return run, new


def unfinished_direct(purpose: ConsentPlan.Purpose, chosen: Selection) -> Run | None:
    """Return the run of the same choice that is not over."""
    same = ConsentPlan.objects.filter(purpose=purpose, scope=chosen.to_json(), run__state__in=_UNFINISHED)
    known = same.select_related("run").first()
    return None if known is None else known.run


def _customers(purpose: ConsentPlan.Purpose, chosen: Selection) -> dict[int, list[int]]:
    """Return customers by registration, both by their keys."""
    if purpose == Purpose.PUSH and chosen.registration is not None:
        return {chosen.registration: list(chosen.customers or ())}
    found: dict[int, list[int]] = {}
    rows = chosen.customer_consents().order_by("customer").values_list("registration", "customer")
    for registration, customer in rows:
        found.setdefault(registration, []).append(customer)
    return found


_UNFINISHED = {Run.State.OPEN, Run.State.PAUSED}


def _plans(scope: Mapping[str, Any]) -> list[int]:
    """Return the plans that a run applies: one that was shown, or those of a direct choice."""
    chosen = scope["plan"]
    return list(chosen) if isinstance(chosen, list) else [chosen]


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
    plans = ConsentPlan.objects.filter(pk__in=_plans(scope))
    if state != Run.State.DONE:
        plans.update(state=_PLAN_STATES[Run.State(state)])
        return
    left = ConsentPlanItem.objects.filter(plan__in=_plans(scope)).to_do(reset=scope["reset"]).values("plan")
    stopped = list(left.distinct().values_list("plan", flat=True))
    plans.update(state=ConsentPlan.State.DONE)
    plans.filter(pk__in=stopped).update(state=ConsentPlan.State.STOPPED)


# --- the run ------------------------------------------------------------------------------------------------------


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the items that are to be done."""
    rows = (
        ConsentPlanItem.objects.filter(plan__in=_plans(scope), pk__gt=after)
        .to_do(reset=scope["reset"])
        .order_by("pk")
        .values_list(
            "pk",
            "wave",
            "customer__partner_id",
            "customer__company_name",
            "customer__tenant_id",
            "plan__registration",
        )[:limit]
    )
    names = registration_names() if scope.get("purpose") == Purpose.REMOVE else {}
    return [
        Unit(
            key=key,
            group=partner,
            label=unit_label(name or tenant, names[registration]) if names else name or tenant,
            wave=wave,
        )
        for key, wave, partner, name, tenant, registration in rows
    ]


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
    usable = set(PartnerConsent.objects.usable().filter(partner__in=partners).values_list("pk", flat=True))
    refused = _refused_in(context.run_id, partners)
    now = timezone.now()
    rows = _rows(items)
    tasks = {}
    for item in items:
        consent = consents.get((item.customer.partner_id, item.plan.registration_id))
        direct = item.plan.purpose in DIRECT  # what was asked for directly is tried with any token that may be used
        why = None if direct and consent is not None and consent.pk in usable else why_not(consent, now)
        if direct and not item.target and (consent is None or consent.pk not in usable):
            why = Step(Owner.US, NO_DOOR)
        row = rows[item.customer_id, item.plan.registration_id]
        tasks[item.pk] = Task(item, consent, why or refused.get(item.customer.partner_id), row)
    return tasks


def _rows(items: Sequence[ConsentPlanItem]) -> dict[tuple[int, int], CustomerConsent]:
    """Return the rows of our consents in these customers' tenants, made where there is none yet."""
    wanted = {(item.customer_id, item.plan.registration_id) for item in items}
    chosen = CustomerConsent.objects.filter(
        customer__in={customer for customer, _ in wanted}, registration__in={one for _, one in wanted}
    )
    rows = {(row.customer_id, row.registration_id): row for row in chosen}
    if missing := wanted - rows.keys():
        CustomerConsent.objects.bulk_create(
            [CustomerConsent(customer_id=customer, registration_id=one) for customer, one in sorted(missing)],
            ignore_conflicts=True,
        )
        rows |= {(row.customer_id, row.registration_id): row for row in chosen.all()}
    return rows


def _refused_in(run: int, partners: Collection[int]) -> dict[int, Step]:
    """Return the partners whose token was refused in this run since a person last let it go on, and why."""
    failed = RunItem.objects.filter(run=run, group__in=partners, failure_class__in=TOKEN_FAILURES.values())
    since = Q(run__resumed_at__isnull=True) | Q(finished_at__gt=F("run__resumed_at"))
    return {
        group: Step(Owner(owner), message)
        for group, owner, message in failed.filter(since).values_list("group", "owner", "message")
    }


def work(key: int, task: Task, context: Context) -> Outcome:
    """Apply one item; every request asks for its token again, so a partner disabled meanwhile stops it (S-53)."""
    item, correlation_id = task.item, CorrelationId(context.correlation_id(key))
    if task.trouble is not None and item.phase == ConsentPlanItem.Phase.NONE:
        held = hold(item, task.trouble.text, task.trouble.owner or Owner.PARTNER)
        return finished(Applied(item=held), correlation_id)
    if task.consent is None:
        return _refused(item, correlation_id, _NO_TOKEN, Owner.PARTNER)
    by = By(actor=context.actor, purpose=TokenUse.Purpose.APPLY, run=context.run_id)
    tools = clients.customer_clients(task.consent, item.customer, correlation_id, by=by)
    patience = timedelta(seconds=float(context.options["wait"])) if "wait" in context.options else PROPAGATION
    try:
        applied = apply_item(item, task.row, tools, actor=context.actor, patience=patience)
    except (TokenUnavailable, IdentityMismatch) as error:
        return _refused(item, correlation_id, str(error), Owner.US)
    except TokenRefused as refused:
        return _token_refused(item, correlation_id, refused.error)
    except RemoteError as error:
        return _interrupted(item, correlation_id, error)
    finally:
        tools.forget_customer_tokens()  # not needed any more, and thousands of them need memory
    again = seconds_to_next_look(item, patience)
    if again is not None:
        return Outcome(failure_class=item.result, message=item.message, pending=True, retry_after=again)
    return finished(applied, correlation_id)


def _token_refused(item: ConsentPlanItem, correlation_id: CorrelationId, error: RemoteError) -> Outcome:
    """Hold the item back, and tell the run why: the other customers of this partner are not asked about."""
    diagnosis = diagnose(error)
    if diagnosis.failure_class not in TOKEN_FAILURES:
        return _interrupted(item, correlation_id, error)
    why = f"The partner's token cannot serve its customers. {diagnosis.cause} {diagnosis.remedy}"
    held = Applied(item=hold(item, why, diagnosis.owner))
    outcome = finished(held, correlation_id, TOKEN_FAILURES[diagnosis.failure_class], error.code)
    return replace(outcome, message=why)


def _refused(item: ConsentPlanItem, correlation_id: CorrelationId, why: str, owner: Owner) -> Outcome:
    name = BROKEN if in_between(item) else REFUSED
    fields = columns(item, correlation_id, name, why, owner.value)
    return Outcome(failure_class=name, message=why, owner=owner.value, fields=fields)


def _interrupted(item: ConsentPlanItem, correlation_id: CorrelationId, error: RemoteError) -> Outcome:
    """Return the outcome of what is not known yet: the item stays open."""
    diagnosis = diagnose(error)
    known = diagnosis.failure_class
    name = BROKEN if in_between(item) else known.value
    words = f"{diagnosis.cause} {diagnosis.remedy}"
    return Outcome.of(
        diagnosis,
        error,
        failure_class=name,
        # An item that sent something had looked before, with tokens of all kinds: then one call says nothing about us.
        systemic=known.systemic and item.phase == ConsentPlanItem.Phase.NONE,
        fields=columns(item, correlation_id, name, words, diagnosis.owner.value),
    )


def partner_names(keys: Collection[int]) -> dict[int, str]:
    """Return the partners' names, by their ids; one query."""
    return dict(PartnerTenant.objects.filter(pk__in=keys).values_list("pk", "name"))


def write(done: Sequence[Done], context: Context) -> None:
    """Write what is done. Note with an item why it stays open; what was lost on the way is said loudly.

    Every other result was written when it was known.
    """
    ended = [each for each in done if isinstance(each.outcome.result, Applied) and each.outcome.result.reading]
    for each, applied in zip(ended, finish([one.outcome.result for one in ended], actor=context.actor), strict=True):
        lines = finished(applied, context.correlation_id(each.key))
        each.outcome.fields.update(lines.fields)  # with what the row says now
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
            what=_attempt(item),
            outcome=outcome,
        )
        for item, outcome in ((each.subject.item, each.outcome) for each in done)
    )


def _attempt(item: ConsentPlanItem) -> Attempt:
    if not item.target:
        return Attempt.REMOVE
    return Attempt.PUSH if item.plan.purpose == Purpose.PUSH else Attempt.APPLY


APPLY_PLAN = Kind(
    name="apply_plan",
    label="Applying of a plan",
    words={
        "wait": "Each customer is waited for up to {} seconds",
        "reset": "What failed before is tried again",
    },
    purposes={Purpose.PUSH.value: "Push of consent", Purpose.REMOVE.value: "Removal of customer consents"},
    units=units,
    load=load,
    work=work,
    rights=sorted({"consent.apply_consentplan", *chain(*TO_APPLY.values())}),
    write=write,
    prepare=clients.shared_by_all,
    place=lambda task: (task.item.plan.registration.application_id, task.item.customer.partner.cloud),
    book=lambda context: clients.uses().write_run(context.run_id),
    contained=lambda task: clients.gate().stop(task.item.customer.partner_id, task.item.plan.registration_id),
    all_contained=lambda: clients.gate().stop_of_all(),
    seconds=300.0,
    harmless=frozenset({OK, GONE, SKIPPED, CONTAINED, HELD}),
    unfinished=frozenset({BROKEN}),
    of_group=frozenset(TOKEN_FAILURES.values()),
    group_names=partner_names,
    follow=follow,
    uses_database=True,
)
