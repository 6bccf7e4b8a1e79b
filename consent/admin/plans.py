"""Plans in the admin: made from the lists of partners and customers, read, exported, undone."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from consent.admin.applying import apply_page
from consent.admin.cells import grants_cell
from consent.admin.wanted import ACTION_TONES, CHANGING, RESET_LABEL, figures_of, items_address
from consent.customers import plans
from consent.customers.export import change_of, csv_document, json_document
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem
from consent.selection import Selection
from portal.audit.trail import record
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.dashboard import Figure, Panel, Row
from portal.site.declared import badge_column, moment_column, needs, path_column
from portal.site.display import EMPTY, Tone, badge, described, json_text, words
from portal.site.export import download
from portal.site.page_actions import page_action
from portal.text import number_of
from tenants.admin import search_by
from tenants.models import CustomerTenant, PartnerTenant

PAGE_LIMIT = 20_000  # customers; more takes longer than a page may wait
Action, Result, State = ConsentPlanItem.Action, ConsentPlanItem.Result, ConsentPlan.State
STATE_TONES = {State.SHOWN: Tone.QUIET, State.APPLYING: Tone.BUSY, State.STOPPED: Tone.BAD, State.DONE: Tone.GOOD}
RESULT_TONES = {
    Result.OPEN: Tone.QUIET,
    Result.DONE: Tone.GOOD,
    Result.WAITING: Tone.BUSY,
    Result.HELD: Tone.WARN,
    Result.FAILED: Tone.BAD,
    Result.RESTORED: Tone.WARN,
    Result.BROKEN: Tone.BAD,
}
_UNDO = (
    "Makes another plan, which brings each of these customers that was changed back to what was read immediately "
    "before. Nothing is sent until that plan is applied."
)
_REASONS = 8  # rows of a panel


class PlanForm(forms.Form):
    """Whose wanted grants a plan is about."""

    registration = forms.ModelChoiceField(
        ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE),
        label="Application registration",
        empty_label=None,
    )


def _plan_for(
    page: PortalModelAdmin[Any],
    request: HttpRequest,
    queryset: QuerySet[Any],
    customers: QuerySet[CustomerTenant],
    chosen: Selection,
    name: str,
) -> HttpResponseBase | None:
    """Ask whose grants, make the plan, and show it."""
    if customers.count() > PAGE_LIMIT:
        page.message_user(
            request,
            f"These are more than {PAGE_LIMIT:,} customers, too many for one page. Plan for fewer partners at a time.",
            messages.ERROR,
        )
        return None
    answer = ask(
        page,
        request,
        queryset,
        PlanForm,
        None,
        action=name,
        title="Plan consent",
        explanation=(
            "Compares what we want with what was last read in each customer tenant, and keeps the result. Nothing is "
            "sent: the plan's page says what would change, and has the button that applies it."
        ),
        button="Make the plan",
    )
    if not isinstance(answer, PlanForm):
        return answer
    try:
        plan = plans.make_plan(answer.cleaned_data["registration"], chosen, actor=actor_of(request))
    except plans.PlanRefused as refused:
        page.message_user(request, str(refused), messages.ERROR)
        return None
    return HttpResponseRedirect(reverse("admin:consent_consentplan_change", args=[plan.pk]))


@admin.action(description="Plan consent for all customers", permissions=["plan"])
def plan_consent_of_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Plan for the customers of chosen partners."""
    partners = list(queryset.order_by("tenant_id").values_list("tenant_id", flat=True))
    customers = CustomerTenant.objects.listed().filter(partner__tenant_id__in=partners)
    if not customers.exists():
        page.message_user(request, "These partners have no customers. Synchronise them first.", messages.WARNING)
        return None
    return _plan_for(page, request, queryset, customers, Selection(partner=tuple(partners)), "plan_consent_of_partners")


@admin.action(description="Plan consent", permissions=["plan"])
def plan_consent_of_customers(
    page: PortalModelAdmin[CustomerTenant], request: HttpRequest, queryset: QuerySet[CustomerTenant]
) -> HttpResponseBase | None:
    """Plan for chosen customers."""
    chosen = Selection(customers=tuple(queryset.order_by("pk").values_list("pk", flat=True)[: PAGE_LIMIT + 1]))
    return _plan_for(page, request, queryset, queryset, chosen, "plan_consent_of_customers")


def _panels(plan: ConsentPlan) -> list[Panel]:
    """What it shows, and what came of it; eight queries at most, whatever its size."""
    address = items_address(plan)
    blocked = plan.items.filter(action=Action.BLOCKED).values_list("reason", "owner")
    shown = Panel(
        title=f"{plan.get_purpose_display()}: {number_of(plan.items.count(), 'customer')}",
        figures=figures_of(plans.counts(plan), address),
        rows=[Row(label=text, tone=Tone.WARN) for text in (plans.moved(plan) if plan.state == State.SHOWN else [])]
        + _causes(blocked, f"{address}&action__exact=blocked"),
        link=address,
    )
    if plan.state == State.SHOWN:
        return [shown]
    came = plans.results(plan)
    failed = plan.items.unsuccessful().values_list("message", "owner")
    return [
        Panel(
            title=f"{plan.get_state_display()}",
            figures=[
                Figure(
                    label=str(result.label),
                    value=f"{came[result or 'open']:,}",
                    tone=RESULT_TONES[result],
                    link=f"{address}&result__exact={result.value}&action__in={','.join(CHANGING)}",
                )
                for result in Result
                if came.get(result or "open")
            ],
            rows=_causes(failed, f"{address}&result__in=failed,restored,broken"),
        ),
        shown,
    ]


def _causes(rows: QuerySet[ConsentPlanItem, Any], link: str) -> list[Row]:
    """Return the most frequent texts, each with who must act."""
    causes = rows.order_by().annotate(number=Count("pk")).order_by("-number")[:_REASONS]
    return [
        Row(
            label=f"{number:,} × {text or 'no reason was noted'}",
            detail=f"Who must act: {owner}" if owner else "",
            link=f"{link}&owner={owner}" if owner else link,
            tone=Tone.BAD,
        )
        for text, owner, number in causes
    ]


@admin.register(ConsentPlan)
class ConsentPlanAdmin(ReadOnlyAdmin[ConsentPlan]):
    """What would change in customer tenants, the latest plan first; written by services only."""

    empty_text = "Tick partners or customers in their lists and press Plan consent."
    export_fields = [
        "id",
        "registration__name",
        "purpose",
        "wanted__number",
        "state",
        "created_at",
        "created_by",
        "applied_at",
        "applied_by",
    ]
    list_display = [
        "number",
        "purpose",
        "shown_state",
        "changes",
        "blocked",
        "registration",
        "made",
        "created_by",
    ]
    list_filter = ["state", "purpose", "registration", "created_at"]
    list_select_related = ["registration"]
    search_fields = ["=id", "created_by", "registration__name"]
    fieldsets = [
        (
            None,
            {"fields": ["number", "purpose", "shown_state", "registration", "wanted", "chosen", "made", "created_by"]},
        ),
    ]
    _applying = ("Applying", {"fields": ["applied", "applied_by", "reset", "run"]})
    actions_detail = ["apply_plan", "undo_plan", "download_json", "download_csv"]
    change_form_outer_before_template = "admin/consent/panels.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConsentPlan]:
        return super().get_queryset(request).select_related("registration", "wanted", "run")

    def get_fieldsets(self, request: HttpRequest, obj: ConsentPlan | None = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        return sets if obj is None or obj.state == State.SHOWN else [*sets, self._applying]

    has_apply_permission = needs("consent.apply_consentplan")
    has_plan_permission = needs("consent.add_consentplan")
    number = path_column("pk", "Plan", str)
    shown_state = badge_column("state", "State", STATE_TONES)

    @admin.display(description="Changes")
    def changes(self, plan: ConsentPlan) -> str:
        numbers = [(one, plan.planned.get(one)) for one in CHANGING]
        return ", ".join(f"{number:,} {one.label.lower()}" for one, number in numbers if number) or EMPTY

    @admin.display(description="Blocked")
    def blocked(self, plan: ConsentPlan) -> str:
        return f"{plan.planned['blocked']:,}" if plan.planned.get("blocked") else EMPTY

    @admin.display(description="Chosen")
    def chosen(self, plan: ConsentPlan) -> str:
        return words(Selection.from_json(plan.scope).words() or ["all customers"])

    made = moment_column("created_at", "Made")
    applied = moment_column("applied_at", "Applied", sorts=False)

    # --- one plan ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        plan = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if plan is None else {"panels": _panels(plan)}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def _plan(self, request: HttpRequest, object_id: str) -> ConsentPlan:
        plan = self.get_object(request, object_id)
        if plan is None:
            raise Http404
        return plan

    @page_action(description="Apply", url_path="apply", permissions=["view", "apply"])
    def apply_plan(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return apply_page(self, request, self._plan(request, object_id))

    @page_action(description="Plan to undo it", url_path="undo", permissions=["view", "plan"])
    def undo_plan(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        plan = self._plan(request, object_id)
        if answer := self.confirm(
            request,
            ConsentPlan.objects.filter(pk=plan.pk),
            action="undo_plan",
            title="Plan to undo it",
            explanation=_UNDO,
            button="Make the plan",
        ):
            return answer
        return _undone(self, request, plan) or HttpResponseRedirect(
            reverse("admin:consent_consentplan_change", args=[plan.pk])
        )

    @page_action(description="Export JSON", url_path="json", permissions=["view", "export"])
    def download_json(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        plan = self._plan(request, object_id)
        return self._download(request, plan, "json", json_document)

    @page_action(description="Export CSV", url_path="csv", permissions=["view", "export"])
    def download_csv(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        plan = self._plan(request, object_id)
        return self._download(request, plan, "csv", csv_document)

    def _download(self, request: HttpRequest, plan: ConsentPlan, kind: str, document: Any) -> HttpResponseBase:
        record(
            "list.exported",
            actor=actor_of(request),
            subject={"list": self.opts.label_lower, "plan": plan.pk},
            details={"rows": plan.items.count(), "format": kind},
        )
        return download(f"consent-plan-{plan.pk}.{kind}", document(plan))


def _undone(
    page: PortalModelAdmin[Any], request: HttpRequest, plan: ConsentPlan, customers: list[int] | None = None
) -> HttpResponseBase | None:
    """Make the plan that undoes and show it; None, with a message, when there is nothing to undo."""
    try:
        undo = plans.make_undo(plan, actor=actor_of(request), customers=customers)
    except plans.PlanRefused as refused:
        page.message_user(request, str(refused), messages.WARNING)
        return None
    return HttpResponseRedirect(reverse("admin:consent_consentplan_change", args=[undo.pk]))


class OwnerFilter(admin.SimpleListFilter):
    title = "who must act"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return OWNER_CHOICES

    def queryset(self, request: HttpRequest, queryset: QuerySet[ConsentPlanItem]) -> QuerySet[ConsentPlanItem]:
        return queryset.filter(owner=self.value()) if self.value() else queryset


@admin.register(ConsentPlanItem)
class ConsentPlanItemAdmin(ReadOnlyAdmin[ConsentPlanItem]):
    """The customers of plans: what would change, and what came of it."""

    export_fields = [
        "plan_id",
        "plan__registration__name",
        "plan__registration__application_id",
        "customer__partner__name",
        "customer__partner__tenant_id",
        "customer__company_name",
        "customer__tenant_id",
        "action",
        "needs_reset",
        "reason",
        "owner",
        "read_at",
        "result",
        "message",
        "finished_at",
    ]
    list_display = ["customer", "partner", "shown_action", "reason", "shown_result", "owner", "read", "plan"]
    list_filter = ["action", "result", OwnerFilter, "needs_reset", "customer__partner", "plan__registration"]
    list_select_related = ["customer__partner", "plan__registration"]
    link_lookups = ["plan__id__exact"]
    actions = ["undo_items"]
    sortable_by = ["plan"]  # the others have filters, and no index to sort a million lines by
    search_fields = search_by("customer")
    fieldsets = [
        (None, {"fields": ["plan", "customer", "partner", "shown_action", "adds", "takes_away", "reason", "owner"]}),
        ("Compared with", {"fields": ["read", "held"]}),
        ("What came of it", {"fields": ["shown_result", "finished", "phase", "shown_snapshot"]}),
    ]

    has_plan_permission = needs("consent.add_consentplan")

    @admin.action(description="Plan to undo it for the selected customers", permissions=["plan"])
    def undo_items(self, request: HttpRequest, queryset: QuerySet[ConsentPlanItem]) -> HttpResponseBase | None:
        chosen = ConsentPlan.objects.filter(pk__in=queryset.order_by().values("plan")).select_related("registration")
        if chosen.count() != 1:
            self.message_user(request, "Choose customers of one plan.", messages.WARNING)
            return None
        if answer := self.confirm(
            request,
            queryset.select_related("customer"),
            action="undo_items",
            title=f"Plan to undo {chosen[0]} for some customers",
            explanation=_UNDO,
            button="Make the plan",
        ):
            return answer
        return _undone(self, request, chosen[0], list(queryset.values_list("customer", flat=True)))

    partner = path_column("customer__partner__name", "Partner")

    @admin.display(ordering="action", description="Action")
    def shown_action(self, item: ConsentPlanItem) -> str:
        shown = badge(item.get_action_display(), ACTION_TONES[Action(item.action)])
        return described(shown, RESET_LABEL) if item.needs_reset else shown

    @admin.display(description="Adds")
    def adds(self, item: ConsentPlanItem) -> str:
        return grants_cell(change_of(item)[0])

    @admin.display(description="Takes away")
    def takes_away(self, item: ConsentPlanItem) -> str:
        return grants_cell(change_of(item)[1])

    held = path_column("before", "Held then", grants_cell, sorts=False)

    @admin.display(ordering="result", description="Result")
    def shown_result(self, item: ConsentPlanItem) -> str:
        if not item.result:
            return EMPTY
        shown = badge(item.get_result_display(), RESULT_TONES[Result(item.result)])
        return described(shown, item.message) if item.message else shown

    read = moment_column("read_at", "Tenant read", empty="never")
    finished = moment_column("finished_at", "Finished", sorts=False)

    @admin.display(description="Read immediately before the first change")
    def shown_snapshot(self, item: ConsentPlanItem) -> str:
        return EMPTY if item.snapshot is None else json_text(item.snapshot)
