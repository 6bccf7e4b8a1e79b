"""The page of a customer tenant, and what a partner's page says of its customers: consent beside readiness."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Case, Count, F, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from consent.admin.customers import EvidenceFilter
from consent.customer_sync import CUSTOMER_SYNC
from consent.models import ConsentObservation, CustomerConsent
from consent.panels import CUSTOMER_TONES
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.runs import service, tasks
from portal.site.admin import PortalModelAdmin, ReadOnlyInline, actor_of
from portal.site.dashboard import Figure
from portal.site.display import EMPTY, Tone, badge, described, guid, json_text, moment, who
from tenants.admin import CustomerTenantAdmin, customer_actions, customer_figures, partner_actions
from tenants.models import CustomerTenant, PartnerTenant

State = CustomerConsent.State
_NONE = "none"
_CONCURRENCY = 16


def with_consent(customers: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
    """Add the consent of the newest registration, and who must act: as the consent says, else as readiness says."""
    newest = CustomerConsent.objects.filter(customer=OuterRef("pk")).order_by("-registration")
    said = newest.annotate(
        why=Case(When(unread_since__isnull=False, then=F("unread_reason")), default=F("reason")),
        who=Case(When(unread_since__isnull=False, then=F("unread_owner")), default=F("owner")),
    )
    return customers.annotate(
        consent_state=Subquery(newest.values("state")[:1]),
        consent_read_at=Subquery(newest.values("verified_at")[:1]),
        why=Coalesce(Subquery(said.values("why")[:1]), "readiness_reason"),
        who_acts=Coalesce(Subquery(said.values("who")[:1]), "readiness_owner"),
    )


class _ChoiceFilter(admin.SimpleListFilter):
    column = ""
    choices_shown: list[tuple[str, str]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return self.choices_shown

    def queryset(self, request: HttpRequest, queryset: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
        value = self.value()
        if value not in dict(self.choices_shown):
            return queryset
        return queryset.filter(**{self.column: None if value == _NONE else value})


class ConsentStateFilter(_ChoiceFilter):
    title = "consent"
    parameter_name = "consent"
    column = "consent_state"
    choices_shown = [*((one.value, str(one.label)) for one in State), (_NONE, "Never looked at")]


class WhoActsFilter(_ChoiceFilter):
    title = "who must act"
    parameter_name = "who"
    column = "who_acts"
    choices_shown = OWNER_CHOICES


class CustomerEvidenceFilter(EvidenceFilter):
    column = "consent_read_at"


class CustomerConsentInline(ReadOnlyInline[CustomerConsent, CustomerTenant]):
    """What was read in the customer's tenant, with the evidence of it."""

    model = CustomerConsent
    verbose_name_plural = "our consent in this tenant"
    fields = ["registration", "shown_state", "why", "verified", "principal", "evidence"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[CustomerConsent]:
        reads = ConsentObservation.objects.filter(consent=OuterRef("pk")).order_by("-observed_at", "-pk")
        rows: QuerySet[CustomerConsent] = super().get_queryset(request)
        return rows.select_related("registration").annotate(last_grants=Subquery(reads.values("grants")[:1]))

    @admin.display(description="State")
    def shown_state(self, consent: CustomerConsent) -> str:
        return badge(consent.get_state_display(), CUSTOMER_TONES[State(consent.state)])

    @admin.display(description="Reason")
    def why(self, consent: CustomerConsent) -> str:
        return described(consent.reason or EMPTY, who(consent.owner) if consent.owner else "")

    @admin.display(description="Last read")
    def verified(self, consent: CustomerConsent) -> str:
        return moment(consent.verified_at, empty="never")

    @admin.display(description="Service principal")
    def principal(self, consent: CustomerConsent) -> str:
        return guid(consent.service_principal_id, label="service principal id")

    @admin.display(description="Grants as read")
    def evidence(self, consent: Any) -> str:
        return json_text(consent.last_grants) if consent.last_grants else EMPTY


class CustomerPages(CustomerTenantAdmin):
    """Customers with what is granted there, who must act, and how old the evidence is."""

    export_fields = [
        *CustomerTenantAdmin.export_fields,
        "consent_state",
        "why",
        "who_acts",
        "consent_read_at",
    ]
    list_display = ["company_name", "partner", "shown_consent", "reason", "owner", "read", "ready", "seen"]
    list_filter = [
        ConsentStateFilter,
        "readiness",
        WhoActsFilter,
        CustomerEvidenceFilter,
        ("missing_since", admin.EmptyFieldListFilter),
        "partner",
    ]
    link_lookups = ["partner__id__exact"]
    inlines = [CustomerConsentInline, *CustomerTenantAdmin.inlines]

    def get_queryset(self, request: HttpRequest) -> QuerySet[CustomerTenant]:
        return with_consent(super().get_queryset(request))

    @admin.display(ordering="consent_state", description="Consent")
    def shown_consent(self, customer: Any) -> str:
        if customer.consent_state is None:
            return badge("Never looked at", Tone.QUIET)
        state = State(customer.consent_state)
        return badge(str(state.label), CUSTOMER_TONES[state])

    @admin.display(description="Reason")
    def reason(self, customer: Any) -> str:
        return customer.why or EMPTY

    @admin.display(ordering="who_acts", description="Who must act")
    def owner(self, customer: Any) -> str:
        return who(customer.who_acts)

    @admin.display(ordering="consent_read_at", description="Last read")
    def read(self, customer: Any) -> str:
        return moment(customer.consent_read_at, empty="never")


def figures_of(partner: PartnerTenant) -> list[Figure]:
    """Count the partner's listed customers by the state of our consent, each with the list it counts; one query."""
    listed: QuerySet[Any] = with_consent(CustomerTenant.objects.for_partner(partner).listed())
    counts = dict(listed.order_by().values_list("consent_state").annotate(Count("pk")))
    address = reverse("admin:tenants_customertenant_changelist")
    address += f"?partner__id__exact={partner.pk}&missing_since__isempty=1&consent="
    shown = [(state.value, str(state.label), tone) for state, tone in CUSTOMER_TONES.items()]
    return [
        Figure(label=label, value=f"{counts[key]:,}", tone=tone, link=f"{address}{key or _NONE}")
        for key, label, tone in [*shown, (None, "Never looked at", Tone.QUIET)]
        if counts.get(key)
    ]


@admin.action(description="Synchronise their customers now", permissions=["view"])
def sync_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Read customers and relationships of chosen partners again."""
    return _to_run(page, request, queryset)


@admin.action(description="Synchronise the partners of these customers", permissions=["view"])
def sync_partners_of(
    page: PortalModelAdmin[CustomerTenant], request: HttpRequest, queryset: QuerySet[CustomerTenant]
) -> HttpResponseBase | None:
    """Read them again, which means all customers of their partners."""
    return _to_run(page, request, PartnerTenant.objects.filter(pk__in=queryset.values("partner")))


def _to_run(page: Any, request: HttpRequest, partners: QuerySet[PartnerTenant]) -> HttpResponseBase | None:
    chosen = sorted(set(PartnerTenant.objects.active().filter(pk__in=partners).values_list("tenant_id", flat=True)))
    if not chosen:
        page.message_user(request, "These partners are disabled or offboarded: no token may be used.", messages.ERROR)
        return None
    run, new = service.start(
        CUSTOMER_SYNC, scope={"partner": chosen}, actor=actor_of(request), concurrency=_CONCURRENCY
    )
    tasks.enqueue(run)
    page.message_user(
        request, f"{len(chosen)} partners are left to the workers." if new else "This is under way already."
    )
    return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))


partner_actions.append(sync_partners)
customer_actions.append(sync_partners_of)
customer_figures.append(figures_of)
admin.site.register(CustomerTenant, CustomerPages)
