"""What would change in a customer tenant, judged from what was last read there. No network, no writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from django.db.models import QuerySet
from django.utils import timezone

from consent.customers.consents import PushRefused, check_customer, check_grants
from consent.grants import Grants
from consent.models import ConsentPlan, ConsentPlanItem, CustomerConsent, PartnerConsent
from consent.tokens.next_steps import Step
from consent.tokens.serving import why_not
from portal.microsoft.diagnosis import Owner
from tenants.models import CustomerTenant

Action = ConsentPlanItem.Action

_THEIRS = {Owner.PARTNER.value, Owner.CUSTOMER.value}  # what is in the way stays until they act
CHUNK = 1000  # customers of one statement


def in_chunks(customers: QuerySet[CustomerTenant]) -> Iterator[list[CustomerTenant]]:
    """Yield customers with their partners in key order, one query a chunk, whatever their number."""
    after = 0
    while chunk := list(customers.filter(pk__gt=after).select_related("partner").order_by("pk")[:CHUNK]):
        after = chunk[-1].pk
        yield chunk


def judged(plan: ConsentPlan, chosen: Sequence[tuple[CustomerTenant, Grants]]) -> list[ConsentPlanItem]:
    """Return items that are not saved, one for each customer and what it shall hold; two queries.

    Note: this reads ``plan.registration`` and ``customer.partner``; load them.
    """
    customers = [customer for customer, _ in chosen]
    rows = {
        row.customer_id: row
        for row in CustomerConsent.objects.filter(registration=plan.registration_id, customer__in=customers)
    }
    now = timezone.now()
    tokens = {
        consent.partner_id: consent
        for consent in PartnerConsent.objects.filter(
            registration=plan.registration_id, partner__in={customer.partner_id for customer in customers}
        ).select_related("partner", "registration")
    }
    troubles = {key: why_not(tokens.get(key), now) for key in {customer.partner_id for customer in customers}}
    return [
        _item(plan, customer, target, rows.get(customer.pk), troubles[customer.partner_id])
        for customer, target in chosen
    ]


def new_tally() -> Counter[str]:
    """Return the counts of a plan without items: one for each action, and ``needs_reset``."""
    return Counter({action.value: 0 for action in Action} | {"needs_reset": 0})


def add_to(tally: Counter[str], items: Sequence[ConsentPlanItem]) -> None:
    """Count these items as well."""
    for item in items:
        tally[item.action] += 1
        tally["needs_reset"] += item.needs_reset


def _item(
    plan: ConsentPlan, customer: CustomerTenant, target: Grants, row: CustomerConsent | None, trouble: Step | None
) -> ConsentPlanItem:
    item = ConsentPlanItem(plan=plan, customer=customer, target=target.to_json())
    if row is not None:
        item.before, item.read_at = row.actual_grants, row.verified_at
    if blocked := _blocked(item, target, row, trouble):
        item.action, (reason, item.owner) = Action.BLOCKED, blocked
    else:
        item.action, item.needs_reset, reason = _change(item, target, row)
    item.reason = reason[:300]
    return item


def _blocked(
    item: ConsentPlanItem, target: Grants, row: CustomerConsent | None, trouble: Step | None
) -> tuple[str, str] | None:
    """Return why nothing may or can be changed, and who must act; None when nothing stands in the way.

    Args:
        trouble: why the partner's token cannot serve the customer.
    """
    try:
        check_customer(item.customer, item.plan.registration, removing=not target)
        check_grants(target)
    except PushRefused as refused:
        return str(refused), Owner.US
    if trouble is not None:
        return trouble.text, trouble.owner or Owner.PARTNER
    if not target:
        return None
    customer = item.customer
    # What settles by itself is not held against a customer: applying reads the relationships again.
    not_ready = customer.readiness == CustomerTenant.Readiness.NOT_READY and customer.readiness_owner != Owner.NOBODY
    if not_ready and target != item.before:
        return f"{customer.readiness_reason} As of the last sync.", customer.readiness_owner
    if row is None:
        return None
    if row.state == CustomerConsent.State.BLOCKED:
        return row.reason, row.owner
    if row.unread_since is not None and row.unread_owner in _THEIRS:
        return f"The tenant cannot be read, and is not changed unread: {row.unread_reason}", row.unread_owner
    return None


def _change(
    item: ConsentPlanItem, target: Grants, row: CustomerConsent | None
) -> tuple[ConsentPlanItem.Action, bool, str]:
    """Return action, whether only DELETE and POST can do it, and what it adds and takes away."""
    before = Grants(item.before)
    missing, extra = target - before, before - target
    words = " ".join(f"{verb} {some.words()}." for verb, some in (("Adds", missing), ("Takes away", extra)) if some)
    if not target:
        # Without a grant the service principal is still there, until a read says that it is not.
        gone = row is not None and row.verified_at is not None and not before and not row.service_principal_id
        return (Action.NOTHING, False, "") if gone else (Action.REMOVE, False, words)
    if not missing and not extra:
        return Action.NOTHING, False, ""
    if not before:
        note = "" if item.read_at else "Never read: the tenant is looked at before anything is sent. "
        return Action.CREATE, False, note + words
    if extra:
        return Action.NARROW, True, words
    # A second POST for a resource that has a grant is answered with "already exists" and adds nothing.
    return Action.WIDEN, bool(missing.keys() & before.keys()), words
