"""Plans for customer tenants: say what would change, and keep it as shown (``plan_runs`` applies it).

Nothing here calls Microsoft: a plan compares the wanted grants with what was last read in each tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Count, QuerySet

from consent.customers.consents import PushRefused, check_grants, wanted_grants
from consent.customers.judging import CHUNK, add_to, in_chunks, judged, new_tally
from consent.customers.wanted import current
from consent.grants import Grants
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem, PartnerConsent, WantedGrants
from consent.models.plans import ConsentPlanItemQuerySet
from consent.selection import Selection
from portal.audit.trail import Actor, record
from portal.rights import require
from portal.site.sight import require_sight, within
from tenants.models import CustomerTenant, CustomerTenantQuerySet, PartnerTenant

Action, Result = ConsentPlanItem.Action, ConsentPlanItem.Result
TO_APPLY = {
    ConsentPlan.Purpose.PUSH: ("consent.apply_consentplan",),
    ConsentPlan.Purpose.REMOVE: ("consent.remove_customerconsent", "consent.offboard_partner"),
}
"""The right to a plan that is applied at once; an offboarding removes consents as well."""


class PlanRefused(ValueError):
    """This plan cannot be made or applied; the text says why and what to do."""


def customers_in(registration: ApplicationRegistration, chosen: Selection) -> CustomerTenantQuerySet:
    """Return the customers of a selection: of its partners (``consent.selection``) in the registration's cloud.

    Those of disabled partners are among them: a plan says that they are blocked, and does not leave them out.

    ``customer`` names customers by tenant id and ``customers`` by row, then also those that are not listed any more;
    without either it is all that are listed.
    """
    customers = CustomerTenant.objects.filter(
        partner__in=chosen.partners(also_disabled=True).in_cloud(registration.cloud)
    )
    if chosen.customer is None and chosen.customers is None:
        return customers.listed()
    if chosen.customer is not None:
        customers = customers.filter(tenant_id__in=chosen.customer)
    return customers if chosen.customers is None else customers.filter(pk__in=chosen.customers)


def make_plan(
    registration: ApplicationRegistration,
    chosen: Selection,
    *,
    actor: Actor,
    purpose: ConsentPlan.Purpose = ConsentPlan.Purpose.APPLY,
) -> ConsentPlan:
    """Store a plan for the customers of a selection (:func:`customers_in`). Memory is flat; four statements a thousand.

    Raises:
        PlanRefused: the registration wants nothing, or more than this deployment allows, or no customer is chosen.
    """
    require(actor, "consent.add_consentplan")
    wanted = _wanted_now(registration, actor) if purpose == ConsentPlan.Purpose.APPLY else None
    target = Grants(wanted.grants if wanted else {})
    plan = ConsentPlan(registration=registration, purpose=purpose, wanted=wanted, scope=chosen.to_json())
    chunks = in_chunks(within(customers_in(registration, chosen), actor))
    items = (judged(plan, [(customer, target) for customer in chunk]) for chunk in chunks)
    return _store(plan, items, actor, empty="No customer is chosen by this. Synchronise first, or choose others.")


def make_direct(
    registration: ApplicationRegistration,
    purpose: ConsentPlan.Purpose,
    customers: QuerySet[CustomerTenant],
    chosen: Selection,
    *,
    actor: Actor,
) -> ConsentPlan:
    """Store a plan that is applied at once: each customer is looked at when its turn comes, whatever was read before.

    Args:
        purpose: PUSH brings the wanted grants where nothing is granted, and leaves everything else as it is; REMOVE
            takes the consent away, whatever it holds.
        chosen: what was chosen, for people, and to find the unfinished run of the same choice.

    Raises:
        PlanRefused: the registration wants nothing, or no customer is chosen.
    """
    require(actor, *TO_APPLY[purpose])
    customers = within(customers, actor)
    wanted = _some_wanted(registration, actor) if purpose == ConsentPlan.Purpose.PUSH else None
    plan = ConsentPlan(registration=registration, purpose=purpose, wanted=wanted, scope=chosen.to_json())
    action, target = (Action.CREATE, wanted.grants) if wanted else (Action.REMOVE, {})
    items = (
        [ConsentPlanItem(plan=plan, customer=customer, action=action, target=target) for customer in chunk]
        for chunk in in_chunks(customers)
    )
    return _store(plan, items, actor, empty="No customer is chosen by this.")


def one_to_plan(partner: PartnerTenant, chosen: int | None) -> ApplicationRegistration:
    """Return the registration that a plan for a partner is about: the chosen one, or the only one that it consented to.

    Raises:
        PlanRefused: it is not active, or none was chosen and not exactly one has a usable token.
    """
    if chosen is not None:
        active = ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE)
        if (registration := active.filter(pk=chosen).first()) is None:
            raise PlanRefused("The application registration is not active.")
        return registration
    usable = PartnerConsent.objects.usable().filter(partner=partner).select_related("registration")
    found = [one.registration for one in usable]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise PlanRefused(f"Say for which application to plan ({names}): choose the partner in the list.")
    return found[0]


def _some_wanted(registration: ApplicationRegistration, actor: Actor) -> WantedGrants:
    if not wanted_grants(registration):
        raise PlanRefused("The registration has no wanted grants yet; add them in the admin.")
    return current(registration, actor=actor)


def _wanted_now(registration: ApplicationRegistration, actor: Actor) -> WantedGrants:
    version = _some_wanted(registration, actor)
    try:
        check_grants(Grants(version.grants))
    except PushRefused as refused:
        raise PlanRefused(str(refused)) from None
    return version


def make_undo(plan: ConsentPlan, *, actor: Actor, customers: Collection[int] | None = None) -> ConsentPlan:
    """Store a plan that brings each customer that a plan changed back to what was read immediately before.

    Args:
        customers: only these of them, by row.

    Raises:
        PlanRefused: the plan changed nothing there.
    """
    require(actor, "consent.add_consentplan")
    require_sight(actor, plan)
    scope = Selection(undo=plan.pk, customers=None if customers is None else tuple(sorted(customers))).to_json()
    undo = ConsentPlan(registration=plan.registration, purpose=ConsentPlan.Purpose.UNDO, scope=scope)
    changed = plan.items.filter(snapshot__isnull=False)
    if customers is not None:
        changed = changed.filter(customer__in=customers)
    items = _undoing(undo, changed.with_later_plan())
    return _store(undo, items, actor, empty="This plan changed nothing there that could be undone.")


def _undoing(undo: ConsentPlan, changed: ConsentPlanItemQuerySet) -> Iterator[list[ConsentPlanItem]]:
    after = 0
    rows = changed.select_related("customer__partner").order_by("pk")
    while chunk := list(rows.filter(pk__gt=after)[:CHUNK]):
        after = chunk[-1].pk
        items = judged(undo, [(item.customer, Grants(item.snapshot or {})) for item in chunk])
        for item, done in zip(items, chunk, strict=True):
            later = getattr(done, "later_plan", None)
            if later and item.action not in {Action.NOTHING, Action.BLOCKED}:
                item.reason = f"Plan {later} changed it afterwards, which is undone as well. {item.reason}"[:300]
        yield items


def _store(plan: ConsentPlan, chunks: Iterable[Sequence[ConsentPlanItem]], actor: Actor, *, empty: str) -> ConsentPlan:
    """Save the plan with one item for each customer, whole or not at all."""
    plan.created_by = actor.name[:150]
    tally = new_tally()
    with transaction.atomic():
        plan.save()
        for items in chunks:
            add_to(tally, ConsentPlanItem.objects.bulk_create(items))
        if not any(tally.values()):
            raise PlanRefused(empty)
        plan.planned = dict(tally)
        plan.save(update_fields=["planned"])
        record(
            "consent_plan.made",
            actor=actor,
            subject={"plan": plan.pk, "registration": plan.registration_id},
            details={"purpose": str(plan.purpose), "scope": _short(plan.scope), "counts": counts(plan)},
        )
    return plan


def _short(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return a selection without long lists of rows, which the plan's items say."""
    return {name: f"{len(value)} of them" if name == "customers" else value for name, value in scope.items()}


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
    if plan.wanted is not None and plan.wanted.grants_hash != wanted_grants(plan.registration).digest:
        said.append(f"{plan.wanted} of the wanted grants is not what we want any more: all of it would be held back.")
    read_since = plan.items.exclude(action__in=[Action.NOTHING, Action.BLOCKED]).filter(
        customer__consents__registration=plan.registration_id, customer__consents__verified_at__gt=plan.created_at
    )
    pairs = read_since.order_by().values_list("before", "customer__consents__actual_grants").iterator(chunk_size=CHUNK)
    if number := sum(Grants(before) != now for before, now in pairs):
        said.append(f"{number:,} × the tenant was read since, and holds other grants: it would be held back.")
    return said
