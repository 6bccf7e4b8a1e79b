"""A customer's page: its next step, and for each application what is there, why, who acts and what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from consent.admin.buttons import (
    PERMISSIONS,
    Button,
    ask_button,
    buttons_of_customer,
    list_action,
    list_actions,
)
from consent.admin.news import without_result
from consent.admin.panels import CUSTOMER_TONES
from consent.admin.partner_head import step_context
from consent.customers import plans
from consent.hub.customer import CustomerFacts, Holding, facts_of_customer, next_step_of_customer
from consent.hub.steps import Action
from consent.models import ApplicationRegistration, CustomerConsent
from consent.runs import on_request
from consent.selection import Selection
from portal.rights import limits_of
from portal.runs.latest import Latest
from portal.site.base import actor_of
from portal.site.display import Tone, distance
from portal.text import number_in
from tenants.admin import CustomerTenantAdmin
from tenants.gdap_path import broken
from tenants.models import CustomerTenant, PartnerTenant
from tenants.panels import READINESS_TONES
from tenants.readiness import NO_EXTENSION, role_name

_LIVE_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingCard:
    """What the tenant holds of one application, with its buttons and the words of a read that is news."""

    holding: Holding
    state: str
    tone: Tone
    buttons: Sequence[Button]
    answer: str
    answer_tone: Tone


def _card(request: HttpRequest, facts: CustomerFacts, holding: Holding, now: Any) -> HoldingCard:
    consent = holding.consent
    seen = consent is not None and consent.verified_at is not None
    buttons = [
        ask_button(facts.customer, action, holding.registration.pk)
        for action in (Action.READ_AGAIN, Action.PLAN)
        if request.user.has_perm(PERMISSIONS[action])
    ]
    there = seen and consent.state != CustomerConsent.State.ABSENT
    if there and request.user.has_perm("consent.remove_customerconsent"):
        buttons.append(list_action(CustomerConsent, "remove_consents", [consent.pk], "Remove", dangerous=True))
    answer, answer_tone = _answer(holding.read, now)
    return HoldingCard(
        holding=holding,
        state=consent.get_state_display() if seen else "Never looked at",
        tone=CUSTOMER_TONES[CustomerConsent.State(consent.state)] if seen else Tone.QUIET,
        buttons=buttons,
        answer=answer,
        answer_tone=answer_tone,
    )


def _answer(read: Latest | None, now: Any) -> tuple[str, Tone]:
    """Return what the newest read says, as long as it is news."""
    if read is None:
        return "", Tone.QUIET
    if (said := without_result(read, now, "read")) is not None:
        return said
    found = read.message or "the tenant is as it should be."
    return f"Read {distance(read.at - now)}: {found}", Tone.GOOD if read.good else Tone.WARN


if TYPE_CHECKING:
    _Base = CustomerTenantAdmin
else:
    _Base = object


class CustomerHub(_Base):
    """The page of one customer, for its admin class."""

    def get_urls(self) -> list[URLPattern]:
        ask = path(
            "<int:customer_id>/ask/<str:word>/",
            self.admin_site.admin_view(require_POST(self.ask_view)),
            name="tenants_customertenant_ask",
        )
        live = path(
            "<int:customer_id>/live/",
            self.admin_site.admin_view(self.live_view),
            name="tenants_customertenant_live",
        )
        return [ask, live, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the customer; nothing of it can be typed."""
        if request.method != "GET" or self.get_object(request, object_id) is None:
            return super().change_view(request, object_id, form_url, extra_context)
        facts = self._facts(request, int(object_id))
        context = {**self.admin_site.each_context(request), "opts": self.opts, **self._context(request, facts)}
        return TemplateResponse(request, "admin/tenants/customertenant/overview.html", context)

    def live_view(self, request: HttpRequest, customer_id: int) -> HttpResponseBase:
        """Return the part that renews itself; the page asks for it while a read is under way."""
        context = self._context(request, self._facts(request, customer_id))
        return TemplateResponse(request, "admin/consent/holdings.html", context)

    def _facts(self, request: HttpRequest, key: int) -> CustomerFacts:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if limits_of(request.user) is not None and self.get_object(request, str(key)) is None:
            raise Http404
        try:
            return facts_of_customer(key, timezone.now())
        except CustomerTenant.DoesNotExist:
            raise Http404 from None

    def _context(self, request: HttpRequest, facts: CustomerFacts) -> dict[str, Any]:
        now = timezone.now()
        customer = facts.customer
        step = next_step_of_customer(facts)
        relationships = getattr(customer, "known_relationships")  # noqa: B009  # made by the prefetch
        sees = request.user.has_perm("consent.view_customerconsent")
        return {
            "title": str(customer),
            "customer": customer,
            "facts": facts,
            "readiness_tone": READINESS_TONES[CustomerTenant.Readiness(customer.readiness)],
            "more": list_actions(request, customer),
            "cards": [_card(request, facts, one, now) for one in facts.holdings] if sees else [],
            "is_live": sees and any(one.read is not None and one.read.under_way for one in facts.holdings),
            "address": reverse("admin:tenants_customertenant_live", args=[customer.pk]),
            "seconds": _LIVE_SECONDS,
            "broken": broken(facts.path),
            "relationships": [
                (
                    one,
                    [role_name(role) for role in one.roles],
                    "" if one.auto_extend_duration in NO_EXTENSION else one.auto_extend_duration,
                )
                for one in relationships
            ],
            **step_context(step, now),
            "step_buttons": buttons_of_customer(request, customer, step),
        }

    def ask_view(self, request: HttpRequest, customer_id: int, word: str) -> HttpResponse:
        """Have the customer read or its partner synchronised by the workers, or make its plan."""
        if word not in {Action.READ_AGAIN, Action.SYNCHRONISE, Action.PLAN}:
            raise Http404
        action = Action(word)
        rows = self.visible_rows(request, CustomerTenant.objects.select_related("partner"))
        customer = rows.filter(pk=customer_id).first()
        if customer is None:
            raise Http404
        if not self.has_view_permission(request, customer) or not request.user.has_perm(PERMISSIONS[action]):
            raise PermissionDenied
        address = reverse("admin:tenants_customertenant_change", args=[customer.pk])
        try:
            match action:
                case Action.READ_AGAIN:
                    started = on_request.read_again(customer, actor=actor_of(request))
                    words = "The read was left to the workers." if started.new else "The read is under way already."
                    self.message_user(request, words)
                case Action.SYNCHRONISE:
                    partners = PartnerTenant.objects.filter(pk=customer.partner_id)
                    run = on_request.synchronise(partners, actor=actor_of(request)).run
                    address = reverse("admin:runs_run_change", args=[run.pk])
                case _:
                    plan = plans.make_plan(
                        _registration(request, customer), Selection(customers=(customer.pk,)), actor=actor_of(request)
                    )
                    # One customer needs no look at a list first: the next page names what is sent, and asks.
                    may_apply = request.user.has_perm("consent.apply_consentplan")
                    changes = plan.items.to_do(reset=True).exists()
                    page = "apply_plan" if may_apply and changes else "change"
                    address = reverse(f"admin:consent_consentplan_{page}", args=[plan.pk])
        except (on_request.NothingToDo, plans.PlanRefused) as refused:
            self.message_user(request, str(refused), messages.ERROR)
        return HttpResponseRedirect(address)


def _registration(request: HttpRequest, customer: CustomerTenant) -> ApplicationRegistration:
    chosen = number_in(request.POST.get("registration"))
    return plans.one_to_plan(customer.partner, chosen)
