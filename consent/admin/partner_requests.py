"""What a partner's page has done at once: by workers, or as a plan. Nothing changes at Microsoft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from consent.admin.plans import PAGE_LIMIT
from consent.customers import plans
from consent.hub.steps import Action
from consent.models import ApplicationRegistration, PartnerConsent
from consent.runs import on_request
from consent.selection import Selection
from portal.audit.trail import Actor
from tenants.models import CustomerTenant, PartnerTenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of it: a sentence for the page, or the address of the page that shows more."""

    said: str = ""
    address: str = ""


def ask(action: Action, partner: PartnerTenant, registration: ApplicationRegistration | None, *, actor: Actor) -> Asked:
    """Have it done for a partner, for one application or for all.

    Raises:
        NothingToDo, PlanRefused: it cannot be done; the text says why.
    """
    return _ASKED[action](partner, registration, actor)


def can_be_asked(word: str) -> bool:
    """Tell whether a word of an address is something that ``ask`` does."""
    return word in _ASKED


def _tokens(partner: PartnerTenant, registration: ApplicationRegistration | None) -> Any:
    consents = PartnerConsent.objects.for_partner(partner)
    return consents if registration is None else consents.filter(registration=registration)


def _check(partner: PartnerTenant, registration: ApplicationRegistration | None, actor: Actor) -> Asked:
    return _left(on_request.check_tokens(_tokens(partner, registration), actor=actor), "The check")


def _renew(partner: PartnerTenant, registration: ApplicationRegistration | None, actor: Actor) -> Asked:
    return _left(on_request.check_tokens(_tokens(partner, registration), actor=actor, renew=True), "The renewal")


def _left(started: on_request.Started, what: str) -> Asked:
    return Asked(said=f"{what} was left to the workers." if started.new else f"{what} is under way already.")


def _synchronise(partner: PartnerTenant, registration: ApplicationRegistration | None, actor: Actor) -> Asked:
    started = on_request.synchronise(PartnerTenant.objects.filter(pk=partner.pk), actor=actor)
    return Asked(address=reverse("admin:runs_run_change", args=[started.run.pk]))


def _plan(partner: PartnerTenant, registration: ApplicationRegistration | None, actor: Actor) -> Asked:
    if CustomerTenant.objects.for_partner(partner).listed().count() > PAGE_LIMIT:
        raise plans.PlanRefused(f"More than {PAGE_LIMIT:,} customers take longer than a page may wait: plan in parts.")
    chosen = plans.one_to_plan(partner, registration.pk if registration else None)
    plan = plans.make_plan(chosen, Selection(partner=(partner.tenant_id,)), actor=actor)
    return Asked(address=reverse("admin:consent_consentplan_change", args=[plan.pk]))


_ASKED: Mapping[str, Callable[[PartnerTenant, ApplicationRegistration | None, Actor], Asked]] = {
    Action.CHECK: _check,
    Action.RENEW: _renew,
    Action.SYNCHRONISE: _synchronise,
    Action.PLAN: _plan,
}
