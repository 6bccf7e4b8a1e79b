"""Plans for customer tenants: say what would change, keep it as shown, and lead it through its waves.

Nothing here calls Microsoft: a plan compares the wanted grants with what was last read in each tenant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from consent.customers import PushRefused, check_grants, grants_hash, wanted_grants
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem
from consent.plan_judging import CHUNK, Grants, add_to, in_chunks, judged, new_tally
from consent.plan_judging import differences as differences
from consent.selection import partners_in
from consent.wanted import current
from portal.audit.trail import Actor, record
from portal.incidents.desk import report, settle
from portal.microsoft.diagnosis import Owner
from tenants.models import CustomerTenant
from tenants.querysets import CustomerTenantQuerySet

Action, Result = ConsentPlanItem.Action, ConsentPlanItem.Result

WAVES = (1, 5, 25)
STOP_SHARE = 0.2
PLAN_STOPPED = "plan_stopped"  # cause of the incident


class PlanRefused(ValueError):
    """This plan cannot be made or applied; the text says why and what to do."""


def customers_in(registration: ApplicationRegistration, scope: Mapping[str, Any]) -> CustomerTenantQuerySet:
    """Return the customers of a selection: of its partners (``consent.selection``) in the registration's cloud.

    ``customer`` names customers by tenant id and ``customers`` by row, then also those that are not listed any more;
    without either it is all that are listed.
    """
    customers = CustomerTenant.objects.filter(partner__in=partners_in(scope).in_cloud(registration.cloud))
    if "customer" not in scope and "customers" not in scope:
        return customers.listed()
    if "customer" in scope:
        customers = customers.filter(tenant_id__in=scope["customer"])
    return customers.filter(pk__in=scope["customers"]) if "customers" in scope else customers


def make_plan(
    registration: ApplicationRegistration,
    scope: Mapping[str, Any],
    *,
    actor: Actor,
    purpose: ConsentPlan.Purpose = ConsentPlan.Purpose.APPLY,
) -> ConsentPlan:
    """Store a plan for the customers of a selection (:func:`customers_in`). Memory is flat; four statements a thousand.

    Raises:
        PlanRefused: the registration wants nothing, or more than this deployment allows, or nobody is chosen.
    """
    target = wanted_grants(registration) if purpose == ConsentPlan.Purpose.APPLY else {}
    if purpose == ConsentPlan.Purpose.APPLY:
        if not target:
            raise PlanRefused("The registration has no wanted grants yet; add them in the admin.")
        try:
            check_grants(target)
        except PushRefused as refused:
            raise PlanRefused(str(refused)) from None
    wanted = current(registration, actor=actor) if target else None
    chosen = ([(customer, target) for customer in chunk] for chunk in in_chunks(customers_in(registration, scope)))
    plan = ConsentPlan(registration=registration, purpose=purpose, wanted=wanted, scope=dict(scope))
    return _store(plan, chosen, actor, empty="No customer is chosen by this; run sync_customers, or choose others.")


def make_undo(plan: ConsentPlan, *, actor: Actor) -> ConsentPlan:
    """Store a plan that brings each customer that a plan changed back to what was read immediately before.

    Raises:
        PlanRefused: the plan changed nothing.
    """

    def chosen() -> Iterator[list[tuple[CustomerTenant, Grants]]]:
        after = 0
        changed = plan.items.filter(snapshot__isnull=False).select_related("customer__partner").order_by("pk")
        while chunk := list(changed.filter(pk__gt=after)[:CHUNK]):
            after = chunk[-1].pk
            yield [(item.customer, item.snapshot or {}) for item in chunk]

    undo = ConsentPlan(registration=plan.registration, purpose=ConsentPlan.Purpose.UNDO, scope={"undo": plan.pk})
    return _store(undo, chosen(), actor, empty="This plan changed nothing that could be undone.")


def _store(
    plan: ConsentPlan, chosen: Iterable[Sequence[tuple[CustomerTenant, Grants]]], actor: Actor, *, empty: str
) -> ConsentPlan:
    """Save the plan with one item for each customer, whole or not at all."""
    plan.created_by = actor.name[:150]
    tally = new_tally()
    with transaction.atomic():
        plan.save()
        for chunk in chosen:
            add_to(tally, ConsentPlanItem.objects.bulk_create(judged(plan, chunk)))
        if not any(tally.values()):
            raise PlanRefused(empty)
        plan.planned = dict(tally)
        plan.save(update_fields=["planned"])
        record(
            "consent_plan.made",
            actor=actor,
            subject={"plan": plan.pk, "registration": plan.registration_id},
            details={"purpose": str(plan.purpose), "scope": plan.scope, "counts": counts(plan)},
        )
    return plan


def counts(plan: ConsentPlan) -> dict[str, int]:
    """Return how many items each action has, and under ``needs_reset`` how many only DELETE and POST can do.

    They are those of the day it was made: an item never changes its action.
    """
    return {name: plan.planned.get(name, 0) for name in new_tally()}


def results(plan: ConsentPlan) -> dict[str, int]:
    """Return how many items came to each result."""
    items = plan.items.exclude(action__in=[Action.NOTHING, Action.BLOCKED])
    return {name or "open": number for name, number in items.order_by().values_list("result").annotate(Count("pk"))}


def moved(plan: ConsentPlan) -> list[str]:
    """Say what changed since the plan was made, as far as we know; such customers are held back when it is applied."""
    said = []
    if plan.wanted is not None and plan.wanted.grants_hash != grants_hash(wanted_grants(plan.registration)):
        said.append(f"{plan.wanted} of the wanted grants is not what we want any more: all of it would be held back.")
    read_since = plan.items.exclude(action__in=[Action.NOTHING, Action.BLOCKED]).filter(
        customer__consents__registration=plan.registration_id, customer__consents__verified_at__gt=plan.created_at
    )
    pairs = read_since.order_by().values_list("before", "customer__consents__actual_grants").iterator(chunk_size=CHUNK)
    if number := sum(any(differences(before, now)) for before, now in pairs):
        said.append(f"{number:,} × the tenant was read since, and holds other grants: it would be held back.")
    return said


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
