"""A partner's page: its next step, and tabs with addresses of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zlib import crc32

from django.conf import settings
from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from consent.admin.buttons import (
    PERMISSIONS,
    Button,
    ask_button,
    buttons_of_partner,
    link_button,
    list_action,
    list_actions,
)
from consent.admin.panels import (
    CUSTOMER_TONES,
    OWNER_TONES,
    STANDING_TONES,
    STATE_TONES,
)
from consent.admin.plans import PAGE_LIMIT
from consent.customers import plans
from consent.hub.activity import activity_of
from consent.hub.connection import Connection, connections
from consent.hub.facts import PartnerFacts
from consent.hub.steps import Action, NextStep, next_step_of
from consent.models import ApplicationRegistration, CampaignPartner, PartnerConsent
from consent.naming import registration_names
from consent.runs import on_request
from consent.selection import Selection
from consent.states import standing
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.runs import service
from portal.runs.kinds import OK
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from portal.site.dashboard import Figure, Row
from portal.site.display import Tone, distance
from portal.text import number_in, number_of
from tenants.admin import PartnerTenantAdmin
from tenants.gdap_path import Edge, broken, path_of, with_relationships
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant
from tenants.panels import READINESS_TONES
from tenants.readiness import role_name

_SHOWN = 6  # rows of a card
_PATHS = 20
_RELATIONSHIPS = 100
_LIVE_SECONDS = 2
NEVER_LOOKED_AT = "none"
"""What the list of customers calls those without a row (``ConsentStateFilter``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One tab of the page, with the number of what it lists."""

    title: str
    address: str
    active: bool
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCard:
    """A connection with its buttons, and the words of its newest check while that is news."""

    connection: Connection
    standing: str
    tone: Tone
    buttons: Sequence[Button]
    answer: str
    answer_tone: Tone

    @property
    def consent(self) -> Any:
        return self.connection.consent


class Hub:
    """What all tabs of one partner show; each part is read when a template asks for it."""

    def __init__(self, page: PortalModelAdmin[PartnerTenant], request: HttpRequest, partner: PartnerTenant) -> None:
        self._page, self._request = page, request
        self.facts, self.partner = PartnerFacts(partner), partner
        self.now = timezone.now()

    @cached_property
    def step(self) -> NextStep:
        return next_step_of(self.facts, self.now)

    @property
    def context(self) -> dict[str, Any]:
        """Return the context of the head and the next step."""
        return {
            "partner": self.partner,
            "state": self.facts.state,
            "state_tone": STATE_TONES[self.facts.state],
            "more": list_actions(
                self._request, self.partner, without=[f"{'enable' if self.partner.is_active else 'disable'}_partners"]
            ),
            **step_context(self.step, self.now),
            "step_buttons": buttons_of_partner(self._request, self.facts, self.step),
        }

    @property
    def shown(self) -> str:
        """What the page says of state and next step, in a few characters."""
        return f"{crc32(f'{self.facts.state} {self.step.what} {self.step.remedy}'.encode()):x}"

    @cached_property
    def cards(self) -> list[ConnectionCard]:
        return [self._card(one) for one in connections(self.facts, self.now)]

    def _card(self, connection: Connection) -> ConnectionCard:
        consent = connection.consent
        stands = standing(consent.standing)
        tone = Tone.WARN if connection.stale else STANDING_TONES[stands]
        answer, answer_tone = _answer(connection, self.now)
        return ConnectionCard(
            connection=connection,
            standing=str(stands.label),
            tone=tone,
            buttons=self._buttons(consent),
            answer=answer,
            answer_tone=answer_tone,
        )

    def _buttons(self, consent: PartnerConsent) -> list[Button]:
        found: list[Button | None] = []
        if consent in self.facts.usable:
            found += [
                ask_button(self.partner, action, consent.registration_id)
                for action in (Action.CHECK, Action.RENEW)
                if self._request.user.has_perm(PERMISSIONS[action])
            ]
        if consent.registration in self.facts.invitable:
            label = Action.INVITE_AGAIN.label
            found.append(
                link_button(
                    self._request, self.facts, self.facts.invitable, consent.registration, label=label, is_open=False
                )
            )
        held = consent.generation and consent.state not in PartnerConsent.LEFT_STATES
        if held and self._request.user.has_perm("consent.disconnect_partnerconsent"):
            found.append(list_action(PartnerConsent, "disconnect_partners", [consent.pk], "Disconnect", dangerous=True))
        return [one for one in found if one is not None]

    @property
    def is_live(self) -> bool:
        """Whether an answer is under way, so that the page asks again."""
        return any(one.connection.check is not None and one.connection.check.under_way for one in self.cards)


_NEWS_SECONDS = 600


def _answer(connection: Connection, now: Any) -> tuple[str, Tone]:
    """Return what the newest check says, as long as it is news."""
    check = connection.check
    if check is None:
        return "", Tone.QUIET
    if check.under_way:
        waits = ": no worker took it yet" if check.worked_by_nobody else ""
        return f"The check that {check.actor} asked for is under way{waits}.", Tone.BUSY
    if (now - check.at).total_seconds() > _NEWS_SECONDS:
        return "", Tone.QUIET
    when = distance(check.at - now)
    if check.good is None:
        return f"The check did not come to its turn. {check.message}", Tone.WARN
    if check.good:
        return f"Checked {when}: the token works.", Tone.GOOD
    return f"Checked {when}: {check.message}", Tone.BAD


def step_context(step: NextStep, now: Any) -> dict[str, Any]:
    """Return how a next step is shown."""
    since = "" if step.since is None else f"{step.since:%Y-%m-%d %H:%M} UTC ({distance(step.since - now)})"
    return {"step": step, "step_tone": _tone(step), "step_since": since}


def _tone(step: NextStep) -> Tone:
    if step.owner is None:
        return Tone.GOOD
    return OWNER_TONES[step.owner.value] if step.is_wrong else Tone.BUSY


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
            "activity": _activity_rows(hub.partner)[:_SHOWN] if may("runs.view_run") else None,
            "incidents": _incidents(hub.partner) if may("incidents.view_incident") else None,
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
        return self.page(request, hub, "gdap", "GDAP", **_gdap(hub))

    def activity_view(self, request: HttpRequest, partner_id: int) -> HttpResponse:
        """Show runs, plans and campaigns that touched this partner."""
        hub = self.hub(request, partner_id, "runs.view_run")
        found = activity_of(hub.partner)
        return self.page(
            request,
            hub,
            "activity",
            "activity",
            units=_activity_rows(hub.partner, found),
            plans=_plan_rows(found) if request.user.has_perm("consent.view_consentplan") else None,
            campaigns=_campaign_rows(found) if request.user.has_perm("consent.view_campaign") else None,
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
        if word not in _ASKED:
            raise Http404
        action = Action(word)
        partner = self.hub(request, partner_id, PERMISSIONS[action]).partner
        key = number_in(request.POST.get("registration")) or 0
        registration = ApplicationRegistration.objects.filter(pk=key).first()
        try:
            address = _ASKED[action](self, request, partner, registration)
        except (on_request.NothingToDo, plans.PlanRefused) as refused:
            self.message_user(request, str(refused), messages.ERROR)
            address = ""
        return HttpResponseRedirect(address or reverse("admin:tenants_partnertenant_change", args=[partner.pk]))


type _Asked = Callable[[PartnerHub, HttpRequest, PartnerTenant, ApplicationRegistration | None], str]


def _tokens(partner: PartnerTenant, registration: ApplicationRegistration | None) -> Any:
    consents = PartnerConsent.objects.for_partner(partner)
    return consents if registration is None else consents.filter(registration=registration)


def _check(
    page: PartnerHub, request: HttpRequest, partner: PartnerTenant, registration: ApplicationRegistration | None
) -> str:
    started = on_request.check_tokens(_tokens(partner, registration), actor=actor_of(request))
    page.message_user(request, _said(started, "The check"))
    return ""


def _renew(
    page: PartnerHub, request: HttpRequest, partner: PartnerTenant, registration: ApplicationRegistration | None
) -> str:
    started = on_request.check_tokens(_tokens(partner, registration), actor=actor_of(request), renew=True)
    page.message_user(request, _said(started, "The renewal"))
    return ""


def _synchronise(
    page: PartnerHub, request: HttpRequest, partner: PartnerTenant, registration: ApplicationRegistration | None
) -> str:
    started = on_request.synchronise(PartnerTenant.objects.filter(pk=partner.pk), actor=actor_of(request))
    return reverse("admin:runs_run_change", args=[started.run.pk])


def _plan(
    page: PartnerHub, request: HttpRequest, partner: PartnerTenant, registration: ApplicationRegistration | None
) -> str:
    if CustomerTenant.objects.for_partner(partner).listed().count() > PAGE_LIMIT:
        raise plans.PlanRefused(f"More than {PAGE_LIMIT:,} customers take longer than a page may wait: plan in parts.")
    chosen = plans.one_to_plan(partner, registration.pk if registration else None)
    plan = plans.make_plan(chosen, Selection(partner=(partner.tenant_id,)), actor=actor_of(request))
    return reverse("admin:consent_consentplan_change", args=[plan.pk])


def _said(started: on_request.Started, what: str) -> str:
    return f"{what} was left to the workers." if started.new else f"{what} is under way already."


_ASKED: Mapping[str, _Asked] = {
    Action.CHECK: _check,
    Action.RENEW: _renew,
    Action.SYNCHRONISE: _synchronise,
    Action.PLAN: _plan,
}


def _hide(changes: ChangeList, request: HttpRequest, fixed: set[str]) -> None:
    """Leave out the filter that the tab itself is, and the trail's filter by partner, which says the same."""
    fixed = {*fixed, "partner"}
    own = [one for one in changes.filter_specs if fixed.isdisjoint(one.expected_parameters())]
    changes.filter_specs = own
    chosen = {name for one in own for name in one.expected_parameters()}
    changes.has_active_filters = not chosen.isdisjoint(request.GET)


# --- cards --------------------------------------------------------------------------------------------------------


def customer_figures(hub: Hub) -> list[tuple[str, list[Figure]]]:
    """Return the customers by state for each application, each figure with the list that it counts; one query.

    Applications are those that the partner consented to, and those whose consent stands in a customer.
    """
    counts, names = hub.facts.customers, registration_names()
    consented = {one.registration_id for one in hub.facts.living}
    known = sorted({*counts.by_state} | consented, key=lambda key: names[key])
    address = reverse("admin:tenants_partnertenant_customers", args=[hub.partner.pk]) + "?missing_since__isempty=1"
    groups = []
    for key in known:
        by_state = counts.by_state.get(key, {})
        numbers = [(one.value, str(one.label), tone, by_state.get(one, 0)) for one, tone in CUSTOMER_TONES.items()]
        if key in consented or len(known) == 1:
            numbers.append((NEVER_LOOKED_AT, "Never looked at", Tone.QUIET, counts.never_looked_at(key)))
        which = f"&registration={key}" if len(known) > 1 else ""
        figures = [
            Figure(label=label, value=f"{number:,}", tone=tone, link=f"{address}&consent={word}{which}")
            for word, label, tone, number in numbers
            if number
        ]
        groups.append((names[key], figures))
    return [one for one in groups if one[1]]


def readiness_figures(hub: Hub) -> list[Figure]:
    """Return the customers by readiness, each figure with the list that it counts; no query."""
    address = reverse("admin:tenants_partnertenant_customers", args=[hub.partner.pk])
    numbers = hub.facts.customers.by_readiness
    return [
        Figure(
            label=str(one.label),
            value=f"{numbers[one]:,}",
            tone=tone,
            link=f"{address}?missing_since__isempty=1&readiness__exact={one.value}",
        )
        for one, tone in READINESS_TONES.items()
        if numbers.get(one)
    ]


def _incidents(partner: PartnerTenant) -> list[Row]:
    """Return open incidents that name the partner; one query over what is open."""
    return [
        Row(
            label=str(one),
            detail=f"{one.words} Seen {one.seen_words}.",
            link=reverse("admin:incidents_incident_change", args=[one.pk]),
            tone=OWNER_TONES[one.owner],
        )
        for one in Incident.objects.open().filter(subject__partner=partner.pk)[:_SHOWN]
    ]


def _activity_rows(partner: PartnerTenant, found: Any = None) -> list[tuple[Row, Any]]:
    """Return checks and syncs, each with its time."""
    rows = []
    for item in (found or activity_of(partner)).units:
        good = item.failure_class == OK
        done = item.finished_at is not None
        words = ("OK" if good else item.message or item.failure_class) if done else item.get_state_display()
        rows.append(
            (
                Row(
                    label=f"{service.label_of(item.run)}: {words}",
                    detail=f"Run {item.run_id}, by {item.run.actor}",
                    link=reverse("admin:runs_run_change", args=[item.run_id]),
                    tone=Tone.BUSY if not done else Tone.GOOD if good else Tone.BAD,
                ),
                item.finished_at or item.run.created_at,
            )
        )
    return rows


def _plan_rows(found: Any) -> list[tuple[Row, Any]]:
    return [
        (
            Row(
                label=f"Plan {one.plan.pk}: {one.plan.get_purpose_display()}, {one.plan.get_state_display().lower()}",
                detail=f"{number_of(one.number, 'customer')} of this partner"
                + (f", {one.failed:,} failed" if one.failed else "")
                + f"; {one.plan.registration.name}; by {one.plan.applied_by or one.plan.created_by}",
                link=reverse("admin:consent_consentplan_change", args=[one.plan.pk]),
                tone=Tone.BAD if one.failed else Tone.QUIET,
            ),
            one.plan.applied_at or one.plan.created_at,
        )
        for one in found.plans
    ]


def _campaign_rows(found: Any) -> list[tuple[Row, Any]]:
    return [
        (
            Row(
                label=f"{one.campaign.name}: {CampaignPartner.Progress(one.progress).label}",
                link=reverse("admin:consent_campaign_change", args=[one.campaign_id]),
            ),
            one.sent_at or one.campaign.created_at,
        )
        for one in found.campaigns
    ]


def _gdap(hub: Hub) -> dict[str, Any]:
    """Return relationships and the broken paths; six queries, whatever their number."""
    listed = CustomerTenant.objects.for_partner(hub.partner).listed()
    not_ready = listed.filter(readiness=CustomerTenant.Readiness.NOT_READY)
    causes = (
        not_ready.order_by()
        .values_list("readiness_reason", "readiness_owner")
        .annotate(number=Count("pk"))
        .order_by("-number")[:_SHOWN]
    )
    accepted = settings.GDAP_ACCEPTED_ROLES
    paths: list[tuple[CustomerTenant, list[Edge], Edge | None]] = []
    for customer in with_relationships(not_ready.order_by("company_name", "pk"))[:_PATHS]:
        edges = path_of(customer, accepted=accepted, now=hub.now)
        paths.append((customer, edges, broken(edges)))
    relationships = (
        GdapRelationship.objects.filter(partner=hub.partner, missing_since__isnull=True)
        .select_related("customer")
        .prefetch_related("assignments")
        .order_by("ends_at", "pk")[:_RELATIONSHIPS]
    )
    return {
        "readiness": readiness_figures(hub),
        "causes": [
            Row(
                label=f"{number:,} × {reason}",
                detail=f"Who must act: {Owner(owner).label}" if owner else "",
                tone=OWNER_TONES.get(owner, Tone.WARN),
            )
            for reason, owner, number in causes
        ],
        "paths": paths,
        "more_paths": max(hub.facts.customers.by_readiness.get("not_ready", 0) - len(paths), 0),
        "relationships": [(one, [role_name(role) for role in one.roles]) for one in relationships],
        "relationships_shown": _RELATIONSHIPS,
    }
