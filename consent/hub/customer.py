"""All that the page of one customer tenant shows: by application what is there, why, who acts, and what was done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings

from consent.customers.consents import wanted_grants
from consent.customers.observations import Change
from consent.grants import Grants
from consent.hub.connection import Event, Permission, listed
from consent.hub.steps import Action, NextStep
from consent.models import (
    ApplicationRegistration,
    Attempt,
    ChangedBy,
    ConsentObservation,
    ConsentPlan,
    ConsentPlanItem,
    CustomerConsent,
    PartnerConsent,
)
from consent.runs.verify import CONSENT_VERIFY
from consent.tokens.next_steps import Step
from consent.tokens.serving import why_not
from portal.microsoft.diagnosis import Owner
from portal.runs.latest import Latest, latest
from portal.site.display import Tone
from tenants.gdap_path import Edge, broken, path_of, with_relationships
from tenants.models import CustomerTenant

State = CustomerConsent.State
_READS = 30
_ITEMS = 20
_WHO = {ChangedBy.US: "we changed it", ChangedBy.OUTSIDE: "somebody outside changed it", ChangedBy.FIRST: "first read"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one customer tenant holds of one application.

    Attributes:
        consent: with ``why``, ``who``, ``attempt`` and ``attempt_at``; None while the tenant was never looked at.
        trouble: why the partner's token cannot serve the customer; None while it can.
        permissions: what is missing first, then what is there as wanted, then what is extra; unknown before a read.
        read: the newest run that read it, of any person or of the schedule.
        evidence: the newest read, with its grants; None without one.
    """

    registration: ApplicationRegistration
    consent: Any
    trouble: Step | None
    permissions: Sequence[Permission]
    read: Latest | None
    evidence: ConsentObservation | None
    timeline: Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerFacts:
    """A customer of one partner, with everything that its page says.

    Attributes:
        others: the same tenant as a customer of other partners.
        path: the four edges from relationship to service account.
    """

    customer: CustomerTenant
    others: Sequence[CustomerTenant]
    holdings: Sequence[Holding]
    path: Sequence[Edge]


def facts_of_customer(key: int, now: datetime) -> CustomerFacts:
    """Read a customer; fourteen queries at most, whatever it has.

    Raises:
        CustomerTenant.DoesNotExist: there is none.
    """
    rows = CustomerTenant.objects.select_related("partner")
    customer = with_relationships(rows).get(pk=key)
    return CustomerFacts(
        customer=customer,
        others=tuple(rows.filter(tenant_id=customer.tenant_id).exclude(pk=key).order_by("partner__name")),
        holdings=tuple(_holdings(customer, now)),
        path=tuple(path_of(customer, accepted=settings.GDAP_ACCEPTED_ROLES, now=now)),
    )


def _holdings(customer: CustomerTenant, now: datetime) -> list[Holding]:
    rows: Any = CustomerConsent.objects.filter(customer=customer).with_words()
    consents = {one.registration_id: one for one in rows.select_related("registration")}
    for consent in consents.values():
        consent.customer = customer
    doors = {
        one.registration_id: one
        for one in PartnerConsent.objects.filter(partner=customer.partner_id).select_related(
            "partner", "registration__own_set"
        )
    }
    registrations = list(
        ApplicationRegistration.objects.filter(pk__in={*consents, *doors})
        .prefetch_related("grants")
        .order_by("name", "pk")
    )
    keys = {one.pk: one.pk for one in consents.values()}
    reads = latest(CONSENT_VERIFY, keys, "consents")
    observed = list(ConsentObservation.objects.filter(consent__in=keys).order_by("-observed_at", "-pk")[:_READS])
    done = list(
        ConsentPlanItem.objects.filter(customer=customer).select_related("plan").order_by("-plan", "-pk")[:_ITEMS]
    )
    found = []
    for registration in registrations:
        consent = consents.get(registration.pk)
        if consent is None and registration.state == ApplicationRegistration.State.RETIRED:
            continue
        own = [one for one in observed if consent is not None and one.consent_id == consent.pk]
        events = [*map(_observed, own), *_read_again(consent, own), *_requests(consent)]
        events += [one for item in done if item.plan.registration_id == registration.pk for one in _of_plan(item)]
        found.append(
            Holding(
                registration=registration,
                consent=consent,
                trouble=why_not(doors.get(registration.pk), now),
                permissions=tuple(_permissions(wanted_grants(registration), consent)),
                read=None if consent is None else reads.get(consent.pk),
                evidence=own[0] if own else None,
                timeline=tuple(sorted(events, key=lambda one: one.at, reverse=True)),
            )
        )
    return found


def _permissions(wanted: Grants, consent: CustomerConsent | None) -> Iterable[Permission]:
    if consent is None or consent.verified_at is None:
        return listed(("Not looked at", Tone.QUIET, wanted))
    there = Grants(consent.actual_grants)
    missing = wanted - there
    return listed(
        ("Missing", Tone.BAD, missing),
        ("Granted", Tone.GOOD, wanted - missing),
        ("Granted, not wanted", Tone.WARN, there - wanted),
    )


# --- the timeline -------------------------------------------------------------------------------------------------


def _observed(one: ConsentObservation) -> Event:
    change, by = Change.of(one), ChangedBy(one.changed_by)
    text = f"Read: {str(State(one.state).label).lower()}"
    if by == ChangedBy.NOBODY:
        return Event(at=one.observed_at, text=text, detail="Nothing changed since the read before.")
    words = change.words() if one.added or one.removed else ""
    who = f"{_WHO[by]}{f' ({one.actor})' if one.actor else ''}"
    tone = Tone.WARN if by == ChangedBy.OUTSIDE else Tone.GOOD
    detail = f"{words}; {who}" if words else who
    return Event(at=one.observed_at, text=text, detail=f"{detail[0].upper()}{detail[1:]}.", tone=tone)


def _read_again(consent: CustomerConsent | None, observed: Sequence[ConsentObservation]) -> Iterable[Event]:
    """Yield the last read, where it showed what the newest observation did: such a read has no row of its own."""
    if consent is not None and consent.verified_at and observed and consent.verified_at > observed[0].observed_at:
        text = f"Read again: {str(State(observed[0].state).label).lower()}"
        yield Event(at=consent.verified_at, text=text, detail="Nothing changed since the read before.")


def _requests(consent: CustomerConsent | None) -> Iterable[Event]:
    if consent is None:
        return
    if consent.requested_at:
        verb = "Its removal" if consent.was_removed else "Its grants"
        by = f"By {consent.requested_by}" if consent.requested_by else ""
        yield Event(
            at=consent.requested_at,
            text=f"{verb} were requested" if not consent.was_removed else f"{verb} was requested",
            detail=by,
            tone=Tone.BUSY,
        )
    if consent.failed_at:
        what = Attempt(consent.failed_what).label
        detail = _owned(consent.failed_reason, consent.failed_owner)
        yield Event(at=consent.failed_at, text=f"{what} failed", detail=detail, tone=Tone.BAD)
    if consent.unread_since:
        detail = _owned(consent.unread_reason, consent.unread_owner)
        yield Event(at=consent.unread_since, text="It cannot be read since then", detail=detail, tone=Tone.BAD)


def _owned(reason: str, owner: str) -> str:
    return f"{reason} Who must act: {Owner(owner).label}." if owner else reason


_Result = ConsentPlanItem.Result
_CAME_TO = {
    _Result.DONE: Tone.GOOD,
    _Result.WAITING: Tone.BUSY,
    _Result.HELD: Tone.WARN,
    _Result.RESTORED: Tone.WARN,
    _Result.FAILED: Tone.BAD,
    _Result.BROKEN: Tone.BAD,
}


def _of_plan(item: ConsentPlanItem) -> Iterable[Event]:
    plan, page = item.plan, ("consent_consentplan_change", item.plan_id)
    action = str(item.get_action_display()).lower()
    yield Event(
        at=plan.created_at,
        text=f"Plan {plan.pk} ({str(ConsentPlan.Purpose(plan.purpose).label).lower()}): {action}",
        detail=_owned(item.reason, item.owner),
        tone=Tone.WARN if item.action == ConsentPlanItem.Action.BLOCKED else Tone.QUIET,
        page=page,
    )
    if item.finished_at:
        result = ConsentPlanItem.Result(item.result)
        text = f"Plan {plan.pk} was applied here: {str(result.label).lower()}"
        tone = _CAME_TO.get(result, Tone.QUIET)
        yield Event(at=item.finished_at, text=text, detail=item.message, tone=tone, page=page)


# --- the next step ------------------------------------------------------------------------------------------------


def next_step_of_customer(facts: CustomerFacts) -> NextStep:
    """Return what is wrong with a customer or comes next; no query."""
    customer = facts.customer
    if not customer.partner.is_active:
        return NextStep(
            what=f"{customer.partner.name} is {customer.partner.get_switch_display().lower()}: nothing is done here.",
            remedy="Nothing to do.",
        )
    if customer.missing_since is not None:
        return NextStep(
            what="Partner Center does not list this customer any more.",
            remedy="Ask the partner whether the relationship ended; nothing can be read or changed without it.",
            owner=Owner.PARTNER,
            since=customer.missing_since,
            actions=(Action.SYNCHRONISE,),
        )
    if not facts.holdings:
        return NextStep(
            what="The partner consented to none of our applications.",
            remedy="Connect the partner first: its page says how.",
            owner=Owner.US,
        )
    steps = [_of_holding(facts, one) for one in facts.holdings]
    return next((one for one in steps if one.owner is not None), steps[0])


def _of_holding(facts: CustomerFacts, holding: Holding) -> NextStep:
    name = f"{holding.registration.name}: " if len(facts.holdings) > 1 else ""
    if holding.trouble is not None:
        what, _, remedy = holding.trouble.text.partition(". ")
        return NextStep(what=f"{name}{what}.", remedy=remedy, owner=holding.trouble.owner)
    consent = holding.consent
    if consent is not None and consent.attempt:
        return NextStep(
            what=f"{name}{Attempt(consent.attempt).label} failed.",
            remedy=consent.why,
            owner=Owner(consent.who) if consent.who else Owner.US,
            since=consent.attempt_at,
            actions=(Action.READ_AGAIN, Action.PLAN),
        )
    state = State.UNKNOWN if consent is None or consent.verified_at is None else State(consent.state)
    since = None if consent is None else consent.changed_at or consent.verified_at
    if state is State.GRANTED and not consent.was_removed:
        return NextStep(
            what=f"{name}All wanted permissions are granted.",
            remedy="Nothing to do.",
            since=since,
            actions=(Action.READ_AGAIN,),
        )
    if state is State.ABSENT and consent.was_removed:
        return NextStep(
            what=f"{name}The consent was removed, and it is gone.", remedy="Nothing to do.", since=since,
            actions=(Action.READ_AGAIN,),
        )  # fmt: skip
    if state is State.WAITING:
        return NextStep(
            what=f"{name}Microsoft accepted the request and does not show it yet.",
            remedy="Nothing to do: it is read again.",
            owner=Owner.NOBODY,
            since=since,
            actions=(Action.READ_AGAIN,),
        )
    if (edge := broken(facts.path)) is not None:
        return NextStep(
            what=f"{name}The customer is not ready for consent: {edge.joint.value}.",
            remedy=edge.text,
            owner=edge.owner,
            since=facts.customer.read_at,
            actions=(Action.SYNCHRONISE, Action.READ_AGAIN),
        )
    if state in {State.UNKNOWN, State.ABSENT}:
        return NextStep(
            what=f"{name}{'The tenant was never looked at.' if state is State.UNKNOWN else 'Nothing is granted yet.'}",
            remedy="Plan the consent: nothing is sent until the plan is applied.",
            owner=Owner.US,
            since=since,
            actions=(Action.PLAN, Action.READ_AGAIN),
            is_wrong=False,
        )
    return NextStep(
        what=f"{name}{State(consent.state).label}.",
        remedy=consent.why or "Plan the consent, and look at what it would change.",
        owner=Owner(consent.who) if consent.who else Owner.US,
        since=since,
        actions=(Action.PLAN, Action.READ_AGAIN),
    )
