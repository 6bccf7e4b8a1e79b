"""Plans for customer tenants: say what would change, keep it as shown, and lead it through its waves.

Nothing here calls Microsoft: a plan compares the wanted grants with what was last read in each tenant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched, islice
from typing import Any

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from consent.customers import PushRefused, check_customer, check_grants, wanted_grants
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem, CustomerConsent, PartnerConsent
from consent.selection import partners_in
from portal.audit.trail import Actor, record
from portal.incidents.desk import report, settle
from portal.microsoft.diagnosis import Owner
from tenants.models import CustomerTenant

Action, Result = ConsentPlanItem.Action, ConsentPlanItem.Result
Grants = Mapping[str, Sequence[str]]

WAVES = (1, 5, 25)
STOP_SHARE = 0.2
PLAN_STOPPED = "plan_stopped"  # cause of the incident
_CHUNK = 1000  # customers of one statement


class PlanRefused(ValueError):
    """This plan cannot be made or applied; the text says why and what to do."""


def differences(wanted: Grants, actual: Grants) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what is missing and what is extra, by resource; permission names do not differ by case."""

    def without(these: Grants, those: Grants) -> dict[str, list[str]]:
        known = {resource: {scope.lower() for scope in scopes} for resource, scopes in those.items()}
        left = {
            resource: [scope for scope in scopes if scope.lower() not in known.get(resource, set())]
            for resource, scopes in these.items()
        }
        return {resource: scopes for resource, scopes in left.items() if scopes}

    return without(wanted, actual), without(actual, wanted)


def make_plan(
    registration: ApplicationRegistration,
    scope: Mapping[str, Any],
    *,
    actor: Actor,
    purpose: ConsentPlan.Purpose = ConsentPlan.Purpose.APPLY,
) -> ConsentPlan:
    """Store a plan for the customers of a selection; see ``consent.selection``, and ``customer`` for tenant ids.

    Raises:
        PlanRefused: the registration wants nothing, or more than this deployment allows.
    """
    target = {} if purpose == ConsentPlan.Purpose.REMOVE else wanted_grants(registration)
    if purpose == ConsentPlan.Purpose.APPLY and not target:
        raise PlanRefused("The registration has no wanted grants yet; add them in the admin.")
    try:
        check_grants(target)
    except PushRefused as refused:
        raise PlanRefused(str(refused)) from None
    customers = CustomerTenant.objects.filter(partner__in=partners_in(scope).in_cloud(registration.cloud))
    customers = customers.filter(tenant_id__in=scope["customer"]) if scope.get("customer") else customers.listed()
    with transaction.atomic():
        plan = ConsentPlan.objects.create(
            registration=registration, purpose=purpose, scope=dict(scope), created_by=actor.name[:150]
        )
        chosen = customers.select_related("partner").order_by("pk").iterator(chunk_size=_CHUNK)
        for chunk in batched(chosen, _CHUNK):
            ConsentPlanItem.objects.bulk_create(_items(plan, chunk, target))
        _planned(plan, actor)
    return plan


def make_undo(plan: ConsentPlan, *, actor: Actor) -> ConsentPlan:
    """Store a plan that brings each customer that a plan changed back to what was read immediately before.

    Raises:
        PlanRefused: the plan changed nothing.
    """
    changed = {item.customer_id: item for item in plan.items.filter(snapshot__isnull=False)}
    if not changed:
        raise PlanRefused("This plan changed nothing that could be undone.")
    with transaction.atomic():
        undo = ConsentPlan.objects.create(
            registration=plan.registration,
            purpose=ConsentPlan.Purpose.UNDO,
            scope={"undo": plan.pk},
            created_by=actor.name[:150],
        )
        for keys in batched(sorted(changed), _CHUNK):
            customers = CustomerTenant.objects.filter(pk__in=keys).select_related("partner").order_by("pk")
            items = [
                _items(undo, [customer], changed[customer.pk].snapshot or {}, rows=rows, connected=connected)[0]
                for rows, connected in [_known(undo, list(customers))]
                for customer in customers
            ]
            ConsentPlanItem.objects.bulk_create(items)
        _planned(undo, actor)
    return undo


def _planned(plan: ConsentPlan, actor: Actor) -> None:
    record(
        "consent_plan.made",
        actor=actor,
        subject={"plan": plan.pk, "registration": plan.registration_id},
        details={"purpose": str(plan.purpose), "counts": counts(plan)},
    )


def _known(plan: ConsentPlan, customers: Sequence[CustomerTenant]) -> tuple[dict[int, CustomerConsent], set[int]]:
    rows = {
        row.customer_id: row
        for row in CustomerConsent.objects.filter(registration=plan.registration_id, customer__in=customers)
    }
    connected = set(
        PartnerConsent.objects.usable()
        .filter(registration=plan.registration_id, partner__in={customer.partner_id for customer in customers})
        .values_list("partner_id", flat=True)
    )
    return rows, connected


def _items(
    plan: ConsentPlan,
    customers: Sequence[CustomerTenant],
    target: Grants,
    *,
    rows: Mapping[int, CustomerConsent] | None = None,
    connected: set[int] | None = None,
) -> list[ConsentPlanItem]:
    if rows is None or connected is None:
        rows, connected = _known(plan, customers)
    return [_item(plan, each, target, rows.get(each.pk), each.partner_id in connected) for each in customers]


def _item(
    plan: ConsentPlan, customer: CustomerTenant, target: Grants, row: CustomerConsent | None, connected: bool
) -> ConsentPlanItem:
    item = ConsentPlanItem(plan=plan, customer=customer, target=dict(target), before=row.actual_grants if row else {})
    item.action, item.needs_reset, item.reason, item.owner = _judge(item, row, connected)
    return item


def _judge(
    item: ConsentPlanItem, row: CustomerConsent | None, connected: bool
) -> tuple[ConsentPlanItem.Action, bool, str, str]:
    """Return action, whether only DELETE and POST can do it, reason and owner."""
    try:
        check_customer(item.customer, item.plan.registration)
    except PushRefused as refused:
        return Action.BLOCKED, False, str(refused), Owner.US
    if not connected:
        return Action.BLOCKED, False, "The partner's consent has no usable token; send it a link.", Owner.PARTNER
    missing, extra = differences(item.target, item.before)
    read = row is not None and row.verified_at is not None
    if not item.target:
        if read and not item.before and row is not None and not row.service_principal_id:
            return Action.NOTHING, False, "", ""
        return Action.REMOVE, False, _words({}, extra), ""
    if row is not None and row.state == CustomerConsent.State.BLOCKED:
        return Action.BLOCKED, False, row.reason, row.owner
    if not missing and not extra:
        return Action.NOTHING, False, "", ""
    if not item.before:
        unread = "" if read else "Never read: the tenant is looked at before anything is sent. "
        return Action.CREATE, False, (unread + _words(missing, {}))[:300], ""
    if extra:
        return Action.NARROW, True, _words(missing, extra), Owner.US
    # A second POST for a resource that has a grant is answered with "already exists" and adds nothing.
    return Action.WIDEN, bool(missing.keys() & item.before.keys()), _words(missing, {}), ""


def _words(missing: Grants, extra: Grants) -> str:
    parts = [
        f"{word} {', '.join(scope for scopes in grants.values() for scope in scopes)}."
        for word, grants in (("Adds", missing), ("Takes away", extra))
        if grants
    ]
    return " ".join(parts)[:300]


def counts(plan: ConsentPlan) -> dict[str, int]:
    """Return how many items each action has, and under ``needs_reset`` how many only DELETE and POST can do."""
    numbers = dict(plan.items.order_by().values_list("action").annotate(Count("pk")))
    return {action.value: numbers.get(action.value, 0) for action in Action} | {
        "needs_reset": plan.items.filter(needs_reset=True).count()
    }


def results(plan: ConsentPlan) -> dict[str, int]:
    """Return how many items came to each result."""
    items = plan.items.exclude(action__in=[Action.NOTHING, Action.BLOCKED])
    return {name or "open": number for name, number in items.order_by().values_list("result").annotate(Count("pk"))}


def lines(plan: ConsentPlan) -> Iterator[dict[str, Any]]:
    """Yield the plan for export, one record a customer."""
    for item in plan.items.select_related("customer__partner").iterator(chunk_size=_CHUNK):
        yield {
            "partner": item.customer.partner.name,
            "customer": item.customer.company_name,
            "tenant_id": item.customer.tenant_id,
            "action": item.action,
            "needs_reset": item.needs_reset,
            "reason": item.reason,
            "owner": item.owner,
            "before": item.before,
            "target": item.target,
            "result": item.result,
            "message": item.message,
        }


# --- applying ------------------------------------------------------------------------------------------------------


def begin(
    plan: ConsentPlan, *, actor: Actor, reset: bool, waves: Sequence[int] = WAVES, stop_share: float = STOP_SHARE
) -> None:
    """Let a plan be applied, or go on after a stop; a plan that is being applied stays as it is.

    Args:
        reset: whether items that only DELETE followed by POST can do may be done so.

    Raises:
        PlanRefused: it was applied to its end.
    """
    with transaction.atomic():
        plan.refresh_from_db()
        if plan.state == ConsentPlan.State.APPLYING:
            return
        todo = plan.items.to_do()
        if plan.state == ConsentPlan.State.DONE or not todo.exists():
            raise PlanRefused("Nothing is left to apply in this plan; make a new one.")
        todo.update(wave=len(waves))
        first = iter(list(todo.order_by("pk").values_list("pk", flat=True)[: sum(waves)]))
        for number, size in enumerate(waves):
            plan.items.filter(pk__in=list(islice(first, size))).update(wave=number)
        plan.state, plan.wave, plan.waves = ConsentPlan.State.APPLYING, 0, list(waves)
        plan.reset, plan.stop_share = reset, stop_share
        plan.applied_at, plan.applied_by = timezone.now(), actor.name[:150]
        plan.save()
        record(
            "consent_plan.applied",
            actor=actor,
            subject={"plan": plan.pk, "registration": plan.registration_id},
            details={"reset": reset, "waves": list(waves), "counts": counts(plan)},
        )
    settle(PLAN_STOPPED, about=f"plan:{plan.pk}")


def advance(plan: ConsentPlan) -> ConsentPlan.State:
    """Judge the wave that ended: the next one, the end, or a stop when too many failed. Returns the plan's state."""
    plan.refresh_from_db()
    if plan.state != ConsentPlan.State.APPLYING:
        return ConsentPlan.State(plan.state)
    worked = plan.items.filter(wave=plan.wave).exclude(action__in=[Action.NOTHING, Action.BLOCKED])
    tally = Counter(worked.values_list("result", flat=True))
    failed = sum(tally[name] for name in (Result.FAILED, Result.RESTORED, Result.BROKEN))
    last = plan.wave >= len(plan.waves)
    if tally[Result.BROKEN] or failed > plan.stop_share * tally.total():
        plan.state = ConsentPlan.State.STOPPED
    elif last:
        # What was not reached stays to be done: the plan is open until nothing is.
        plan.state = ConsentPlan.State.STOPPED if tally[Result.OPEN] else ConsentPlan.State.DONE
    else:
        plan.wave += 1
    plan.save(update_fields=["state", "wave"])
    if plan.state == ConsentPlan.State.STOPPED:
        report(
            PLAN_STOPPED,
            about=f"plan:{plan.pk}",
            owner=Owner.US,
            words=(
                f"Plan {plan.pk} stopped in wave {plan.wave + 1}: {failed} of {tally.total()} customers failed, "
                f"{tally[Result.BROKEN]} of them without the grants they had. See its items; then apply it again."
            ),
            subject={"plan": plan.pk},
        )
    return ConsentPlan.State(plan.state)
