"""A partner's page: its next step, and tabs with addresses of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from consent.admin.buttons import PERMISSIONS, link_button
from consent.admin.partner_cards import (
    SHOWN,
    activity_rows,
    campaign_rows,
    customer_figures,
    gdap_cards,
    incident_rows,
    plan_rows,
    readiness_figures,
)
from consent.admin.partner_head import Hub
from consent.admin.partner_requests import ask, can_be_asked
from consent.customers import plans
from consent.hub.activity import activity_of
from consent.hub.steps import Action
from consent.models import ApplicationRegistration
from consent.runs import on_request
from portal.audit.models import AuditEvent
from portal.site.base import actor_of
from portal.text import number_in
from tenants.admin import PartnerTenantAdmin
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant

_LIVE_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One tab of the page, with the number of what it lists."""

    title: str
    address: str
    active: bool
    count: int | None = None


if TYPE_CHECKING:
    _Base = PartnerTenantAdmin
else:
    _Base = object


class PartnerHub(_Base):
    """The tabs of a partner's page, for its admin class."""

    # --- addresses ---

    def get_urls(self) -> list[URLPattern]:
        def tab(name: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
            route = f"<int:partner_id>/{name}/"
            return path(route, self.admin_site.admin_view(view), name=f"tenants_partnertenant_{name}")

        ask = path(
            "<int:partner_id>/ask/<str:word>/",
            self.admin_site.admin_view(require_POST(self.ask_view)),
            name="tenants_partnertenant_ask",
        )
        return [
            ask,
            tab("live", self.live_view),
            tab("connection", self.connection_view),
            tab("customers", self.customers_view),
            tab("gdap", self.gdap_view),
            tab("activity", self.activity_view),
            tab("audit", self.audit_view),
            tab("details", self.details_view),
            *super().get_urls(),
        ]

    def tabs(self, request: HttpRequest, hub: Hub, current: str) -> list[Tab]:
        """Return the tabs that this person may open."""
        relationships = GdapRelationship.objects.filter(partner=hub.partner, missing_since__isnull=True).count()
        named: Sequence[tuple[str, str, int | None, str]] = (
            ("change", "Overview", None, ""),
            ("connection", "Connection", len(hub.facts.living), "consent.view_partnerconsent"),
            ("customers", "Customers", hub.facts.customers.listed, "tenants.view_customertenant"),
            ("gdap", "GDAP", relationships, "tenants.view_customertenant"),
            ("activity", "Activity", None, "runs.view_run"),
            ("audit", "Audit", None, "audit.view_auditevent"),
            ("details", "Details", None, ""),
        )
        return [
            Tab(
                title=title,
                address=reverse(f"admin:tenants_partnertenant_{name}", args=[hub.partner.pk]),
                active=name == current,
                count=count,
            )
            for name, title, count, permission in named
            if not permission or request.user.has_perm(permission)
        ]

    def hub(self, request: HttpRequest, partner_id: int | str, permission: str = "") -> Hub:
        """Return what the tabs show. Raises Http404 and PermissionDenied."""
        return self._hub_of(request, self.get_object(request, str(partner_id)), permission)

    def _hub_of(self, request: HttpRequest, partner: PartnerTenant | None, permission: str = "") -> Hub:
        if partner is None:
            raise Http404
        if not self.has_view_permission(request, partner) or (permission and not request.user.has_perm(permission)):
            raise PermissionDenied
        return Hub(self, request, partner)

    def around(self, request: HttpRequest, hub: Hub, current: str, title: str) -> dict[str, Any]:
        """Return the context of the frame around a tab, without that of each page."""
        return {
            "title": f"{hub.partner.name}, {title}",
            "opts": self.opts,
            "hub": hub,
            "tabs": self.tabs(request, hub, current),
            **hub.context,
        }

    def page(self, request: HttpRequest, hub: Hub, current: str, title: str, **more: Any) -> HttpResponse:
        template = f"admin/tenants/partnertenant/{'overview' if current == 'change' else current}.html"
        context = self.admin_site.each_context(request) | self.around(request, hub, current, title) | more
        return TemplateResponse(request, template, context)

    # --- tabs ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the overview; a form that is sent, and a window for choosing, are the details'."""
        is_form = request.method == "POST" or IS_POPUP_VAR in request.GET
        if is_form or (partner := self.get_object(request, object_id)) is None:
            return super().change_view(request, object_id, form_url, extra_context)
        hub = self._hub_of(request, partner)
        return self.page(request, hub, "change", "overview", **self._overview(request, hub))

    def _overview(self, request: HttpRequest, hub: Hub) -> dict[str, Any]:
        may = request.user.has_perm
        return {
            "live": self._live(request, hub),
            "customer_figures": customer_figures(hub) if may("tenants.view_customertenant") else None,
            "readiness": readiness_figures(hub) if may("tenants.view_customertenant") else None,
            "activity": activity_rows(hub.partner)[:SHOWN] if may("runs.view_run") else None,
            "incidents": incident_rows(hub.partner) if may("incidents.view_incident") else None,
        }

    def _live(self, request: HttpRequest, hub: Hub) -> dict[str, Any]:
        """Return the part that renews itself: the connections."""
        address = reverse("admin:tenants_partnertenant_live", args=[hub.partner.pk])
        sees = request.user.has_perm("consent.view_partnerconsent")
        return {
            "cards": hub.cards if sees else [],
            "address": f"{address}?shown={hub.shown}",
            "seconds": _LIVE_SECONDS,
            "is_live": sees and hub.is_live,
        }

    def live_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Return the connections alone; the page asks for them while an answer is under way."""
        hub = self.hub(request, partner_id, "consent.view_partnerconsent")
        if request.GET.get("shown", hub.shown) != hub.shown:
            return HttpResponse(status=205)  # state and next step are others than the page around says
        context = {"live": self._live(request, hub), "partner": hub.partner}
        return TemplateResponse(request, "admin/consent/connections.html", context)

    def connection_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Show each application: what was proven, granted, forecast and tried."""
        hub = self.hub(request, partner_id, "consent.view_partnerconsent")
        known = {one.registration_id for one in hub.facts.consents}
        new = [one for one in hub.facts.invitable if one.pk not in known]
        button = link_button(request, hub.facts, new, None, label="Connect another application", is_open=False)
        return self.page(request, hub, "connection", "connection", another=button)

    def customers_view(self, request: HttpRequest, partner_id: int) -> HttpResponseBase:
        """Show the list of customers, with its filters and actions, for this partner."""
        hub = self.hub(request, partner_id, "tenants.view_customertenant")
        return self._list(request, hub, "customers", CustomerTenant, partner__id__exact=str(hub.partner.pk))

    def audit_view(self, request: HttpRequest, partner_id: int) -> HttpResponseBase:
        """Show the audit trail's events about this partner."""
        hub = self.hub(request, partner_id, "audit.view_auditevent")
        return self._list(request, hub, "audit", AuditEvent, about=f"partner:{hub.partner.pk}")

    def _list(self, request: HttpRequest, hub: Hub, current: str, model: Any, **narrowed: str) -> HttpResponseBase:
        chosen = request.GET.copy()
        for name, value in narrowed.items():
            chosen[name] = value
        request.GET = chosen  # type: ignore[assignment]  # a copy can be changed, and serves as well
        request.is_tab = True  # type: ignore[attr-defined]  # the list offers no other partner
        answer: HttpResponseBase = self.admin_site.get_model_admin(model).changelist_view(request)
        if isinstance(answer, TemplateResponse) and "cl" in (answer.context_data or {}):
            own = self.around(request, hub, current, current)
            _hide(answer.context_data["cl"], request, set(narrowed))  # type: ignore[index]
            answer.template_name = f"admin/tenants/partnertenant/{current}.html"
            answer.context_data = {**(answer.context_data or {}), **own, "opts": answer.context_data["cl"].opts}  # type: ignore[index]
        return answer

    def gdap_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Show relationships, and where the way to the service account is broken."""
        hub = self.hub(request, partner_id, "tenants.view_customertenant")
        return self.page(request, hub, "gdap", "GDAP", **gdap_cards(hub))

    def activity_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Show runs, plans and campaigns that touched this partner."""
        hub = self.hub(request, partner_id, "runs.view_run")
        found = activity_of(hub.partner)
        return self.page(
            request,
            hub,
            "activity",
            "activity",
            units=activity_rows(hub.partner, found),
            plans=plan_rows(found) if request.user.has_perm("consent.view_consentplan") else None,
            campaigns=campaign_rows(found) if request.user.has_perm("consent.view_campaign") else None,
        )

    def details_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Show the form: name, domain, kind, contact, tags, notes."""
        hub = self.hub(request, partner_id)
        extra = {"hub": hub, "tabs": self.tabs(request, hub, "details"), **hub.context}
        return super().change_view(request, str(partner_id), "", extra)

    def response_post_save_add(self, request: HttpRequest, obj: PartnerTenant) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:tenants_partnertenant_change", args=[obj.pk]))

    def response_post_save_change(self, request: HttpRequest, obj: PartnerTenant) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:tenants_partnertenant_change", args=[obj.pk]))

    # --- what is done at once ---

    def ask_view(self, request: HttpRequest, partner_id: int, word: str) -> HttpResponse:
        """Have something done for this partner by the workers, or make its plan; nothing changes at Microsoft."""
        if not can_be_asked(word):
            raise Http404
        action = Action(word)
        partner = self.hub(request, partner_id, PERMISSIONS[action]).partner
        key = number_in(request.POST.get("registration")) or 0
        registration = ApplicationRegistration.objects.filter(pk=key).first()
        address = ""
        try:
            asked = ask(action, partner, registration, actor=actor_of(request))
        except (on_request.NothingToDo, plans.PlanRefused) as refused:
            self.message_user(request, str(refused), messages.ERROR)
        else:
            address = asked.address
            if asked.said:
                self.message_user(request, asked.said)
        return HttpResponseRedirect(address or reverse("admin:tenants_partnertenant_change", args=[partner.pk]))


def _hide(changes: ChangeList, request: HttpRequest, fixed: set[str]) -> None:
    """Leave out the filter that the tab itself is, and the trail's filter by partner, which says the same."""
    fixed = {*fixed, "partner"}
    own = [one for one in changes.filter_specs if fixed.isdisjoint(one.expected_parameters())]
    changes.filter_specs = own
    chosen = {name for one in own for name in one.expected_parameters()}
    changes.has_active_filters = not chosen.isdisjoint(request.GET)
