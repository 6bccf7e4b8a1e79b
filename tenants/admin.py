from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, path, reverse

from portal.audit.trail import record
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin, ReadOnlyInline, actor_of
from portal.site.display import EMPTY, Tone, badge, described, guid, links, moment, words
from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship, PartnerTag, PartnerTenant
from tenants.panels import STATE_TONES
from tenants.readiness import CONSENT_ROLES

# Shown on the empty form only, whose address the link is relative to.
_DESCRIPTION = (
    "A consent link is bound to this tenant id. If you know no more than a domain, "
    '<a href="../find/">find the tenant</a> first.'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerPage:
    """A page that an app on a higher floor adds to the partners' admin, in its ``AppConfig.ready()``."""

    route: str
    name: str
    view: Callable[..., HttpResponseBase]


partner_pages: list[PartnerPage] = []
partner_actions: list[Callable[..., HttpResponseBase | None]] = []  # added in the same way
customer_actions: list[Callable[..., HttpResponseBase | None]] = []
# How many of a partner's customers are in each state of something: words, number, address of their list.
customer_counts: list[Callable[[PartnerTenant], Sequence[tuple[str, int, str]]]] = []
_READINESS_TONES = {
    CustomerTenant.Readiness.READY: Tone.GOOD,
    CustomerTenant.Readiness.UNVERIFIED: Tone.WARN,
    CustomerTenant.Readiness.NOT_READY: Tone.BAD,
    CustomerTenant.Readiness.UNKNOWN: Tone.QUIET,
}


@admin.register(PartnerTag)
class PartnerTagAdmin(PortalModelAdmin[PartnerTag]):
    list_display = ["name"]
    search_fields = ["name"]


@admin.register(PartnerTenant)
class PartnerTenantAdmin(PortalModelAdmin[PartnerTenant]):
    """Partners. Tenant and cloud are typed once, by staff, before a link exists (S-04)."""

    icon = "domain"
    export_fields = ["name", "tenant_id", "cloud", "domain", "kind", "state", "customers_synced_at"]
    list_display = ["name", "shown_state", "shown_tenant", "cloud", "customer_count", "synced"]
    list_filter = ["state", "cloud", "kind", "tags"]
    search_fields = ["name__istartswith", "=tenant_id", "domain__startswith"]
    actions = partner_actions
    filter_horizontal = ["tags"]
    readonly_fields = ["shown_state", "created_at", "customers_synced_at", "customers_by_state"]
    fieldsets = [
        (None, {"fields": ["name", "tenant_id", "cloud", "domain", "kind"]}),
        ("Contact", {"fields": ["contact_name", "contact_email", "tags", "notes"]}),
        ("State", {"fields": ["shown_state", "created_at", "customers_synced_at", "customers_by_state"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: PartnerTenant | None = None) -> Any:
        first, *others = self.fieldsets
        return [(first[0], {**first[1], "description": _DESCRIPTION}) if obj is None else first, *others]

    def get_urls(self) -> list[URLPattern]:
        own = [path(page.route, self.admin_site.admin_view(page.view), name=page.name) for page in partner_pages]
        return [*own, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PartnerTenant]:
        counts = (
            CustomerTenant.objects.listed()
            .filter(partner=OuterRef("pk"))
            .order_by()
            .values("partner")
            .annotate(number=Count("pk"))
            .values("number")
        )
        partners: QuerySet[PartnerTenant] = super().get_queryset(request)
        return partners.annotate(customer_count=Coalesce(Subquery(counts), 0))

    def get_readonly_fields(self, request: HttpRequest, obj: PartnerTenant | None = None) -> list[str]:
        # Whoever could change the tenant of an invited partner could bind another tenant to this record.
        return [*self.readonly_fields, *(["tenant_id", "cloud"] if obj is not None else [])]

    @admin.display(ordering="customer_count", description="Customers")
    def customer_count(self, partner: Any) -> int:
        return int(partner.customer_count)

    @admin.display(ordering="state", description="State")
    def shown_state(self, partner: PartnerTenant) -> str:
        if partner.offboarding_since is not None and partner.is_active:
            return badge("Being offboarded", Tone.BUSY)
        return badge(partner.get_state_display(), STATE_TONES[PartnerTenant.State(partner.state)])

    @admin.display(ordering="tenant_id", description="Tenant id")
    def shown_tenant(self, partner: PartnerTenant) -> str:
        return guid(partner.tenant_id, label="tenant id")

    @admin.display(ordering="customers_synced_at", description="Customers synchronised")
    def synced(self, partner: PartnerTenant) -> str:
        return moment(partner.customers_synced_at, empty="never")

    @admin.display(description="Customers by state")
    def customers_by_state(self, partner: PartnerTenant) -> str:
        if partner._state.adding:
            return EMPTY
        found = [one for counts in customer_counts for one in counts(partner) if one[1]]
        return links([(f"{words}: {number:,}", address) for words, number, address in found]) or EMPTY

    def save_model(self, request: HttpRequest, obj: PartnerTenant, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        record(
            "partner.changed" if change else "partner.created",
            actor=actor_of(request),
            subject={"partner": obj.pk, "tenant_id": obj.tenant_id},
            details={"fields": sorted(form.changed_data)},
        )


@admin.register(CustomerTenant)
class CustomerTenantAdmin(ReadOnlyAdmin[CustomerTenant]):
    """Customers as Partner Center lists them, and whether consent may be pushed; written by sync only."""

    icon = "groups"
    export_fields = [
        "partner__name",
        "company_name",
        "tenant_id",
        "domain",
        "relationship",
        "last_seen_at",
        "missing_since",
        "readiness",
        "readiness_reason",
        "readiness_owner",
        "judged_at",
        "gdap_ends_at",
    ]
    list_display = [
        "company_name",
        "partner",
        "shown_readiness",
        "shown_tenant",
        "domain",
        "relationship",
        "seen",
        "gone",
    ]
    list_filter = ["readiness", "readiness_owner", ("missing_since", admin.EmptyFieldListFilter), "partner"]
    fieldsets = [
        (None, {"fields": ["company_name", "partner", "shown_tenant", "domain", "relationship", "seen", "gone"]}),
        ("GDAP", {"fields": ["shown_readiness", "judged", "gdap_ends", "relationships"]}),
    ]
    list_select_related = ["partner"]
    actions = customer_actions
    search_fields = ["company_name__istartswith", "=tenant_id", "domain__startswith"]

    @admin.display(ordering="tenant_id", description="Tenant id")
    def shown_tenant(self, customer: CustomerTenant) -> str:
        return guid(customer.tenant_id, label="tenant id")

    @admin.display(ordering="readiness", description="Readiness")
    def shown_readiness(self, customer: CustomerTenant) -> str:
        word = CustomerTenant.Readiness(customer.readiness)
        return described(badge(str(word.label), _READINESS_TONES[word]), customer.readiness_reason)

    @admin.display(ordering="judged_at", description="Judged")
    def judged(self, customer: CustomerTenant) -> str:
        return moment(customer.judged_at, empty="never; run sync_customers")

    @admin.display(ordering="gdap_ends_at", description="GDAP ends")
    def gdap_ends(self, customer: CustomerTenant) -> str:
        return moment(customer.gdap_ends_at)

    @admin.display(description="Relationships")
    def relationships(self, customer: CustomerTenant) -> str:
        rows = GdapRelationship.objects.filter(partner=customer.partner_id, customer_tenant_id=customer.tenant_id)
        found = [
            (f"{row} ({row.status})", reverse("admin:tenants_gdaprelationship_change", args=[row.pk])) for row in rows
        ]
        return links(found) if found else EMPTY

    @admin.display(ordering="last_seen_at", description="Last listed")
    def seen(self, customer: CustomerTenant) -> str:
        return moment(customer.last_seen_at)

    @admin.display(ordering="missing_since", description="Missing since")
    def gone(self, customer: CustomerTenant) -> str:
        return moment(customer.missing_since)


class GdapAccessAssignmentInline(ReadOnlyInline[GdapAccessAssignment, GdapRelationship]):
    model = GdapAccessAssignment
    verbose_name_plural = "access assignments"
    fields = ["status", "shown_group", "shown_roles", "created", "gone"]
    show_change_link = False

    @admin.display(description="Group")
    def shown_group(self, assignment: GdapAccessAssignment) -> str:
        return guid(assignment.group_id, label="group id")

    @admin.display(description="Roles")
    def shown_roles(self, assignment: GdapAccessAssignment) -> str:
        return words([CONSENT_ROLES.get(role, role) for role in assignment.roles])

    @admin.display(description="Created")
    def created(self, assignment: GdapAccessAssignment) -> str:
        return moment(assignment.created_at)

    @admin.display(description="Missing since")
    def gone(self, assignment: GdapAccessAssignment) -> str:
        return moment(assignment.missing_since)


@admin.register(GdapRelationship)
class GdapRelationshipAdmin(ReadOnlyAdmin[GdapRelationship]):
    """GDAP relationships as Microsoft Graph lists them; written by sync only."""

    icon = "handshake"
    export_fields = [
        "partner__name",
        "customer_tenant_id",
        "relationship_id",
        "display_name",
        "status",
        "auto_extend",
        "activated_at",
        "ends_at",
        "last_seen_at",
        "missing_since",
    ]
    list_display = ["display_name", "partner", "shown_customer", "status", "ends", "auto_extend", "read", "gone"]
    list_filter = ["status", ("missing_since", admin.EmptyFieldListFilter), "partner"]
    list_select_related = ["partner"]
    search_fields = ["=customer_tenant_id", "=relationship_id", "display_name__istartswith"]
    inlines = [GdapAccessAssignmentInline]
    fieldsets = [
        (None, {"fields": ["display_name", "partner", "shown_customer", "relationship_id", "status", "shown_roles"]}),
        ("Time", {"fields": ["activated", "ends", "auto_extend", "seen", "read", "gone"]}),
    ]

    @admin.display(ordering="customer_tenant_id", description="Customer")
    def shown_customer(self, relationship: GdapRelationship) -> str:
        return guid(relationship.customer_tenant_id, label="tenant id") if relationship.customer_tenant_id else EMPTY

    @admin.display(description="Roles")
    def shown_roles(self, relationship: GdapRelationship) -> str:
        return words([CONSENT_ROLES.get(role, role) for role in relationship.roles])

    @admin.display(ordering="activated_at", description="Activated")
    def activated(self, relationship: GdapRelationship) -> str:
        return moment(relationship.activated_at)

    @admin.display(ordering="ends_at", description="Ends")
    def ends(self, relationship: GdapRelationship) -> str:
        return moment(relationship.ends_at)

    @admin.display(ordering="last_seen_at", description="Last listed")
    def seen(self, relationship: GdapRelationship) -> str:
        return moment(relationship.last_seen_at)

    @admin.display(ordering="assignments_read_at", description="Assignments read")
    def read(self, relationship: GdapRelationship) -> str:
        return moment(relationship.assignments_read_at, empty="never")

    @admin.display(ordering="missing_since", description="Missing since")
    def gone(self, relationship: GdapRelationship) -> str:
        return moment(relationship.missing_since)


def _by_readiness(partner: PartnerTenant) -> list[tuple[str, int, str]]:
    numbers = dict(
        CustomerTenant.objects.for_partner(partner).listed().order_by().values_list("readiness").annotate(Count("pk"))
    )
    theirs = f"{reverse('admin:tenants_customertenant_changelist')}?partner__id__exact={partner.pk}"
    return [
        (str(word.label), numbers.get(word.value, 0), f"{theirs}&readiness__exact={word.value}")
        for word in CustomerTenant.Readiness
    ]


customer_counts.append(_by_readiness)
