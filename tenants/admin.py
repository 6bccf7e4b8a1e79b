from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, StringAgg, Subquery, TextField, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.urls import URLPattern, path

from portal.audit.trail import record
from portal.rights import limits_of
from portal.site.admin import PortalInline, PortalModelAdmin, ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.declared import badge_column, guid_column, moment_column, path_column
from portal.site.display import described, moment, with_link
from portal.site.extension_points import AdminAction, extensions
from tenants.models import CustomerTenant, PartnerContact, PartnerTag, PartnerTenant
from tenants.panels import READINESS_TONES

# Shown on the empty form only, whose address the link is relative to.
_DESCRIPTION = with_link(
    "A consent link is bound to this tenant id. If you know no more than a domain,",
    "../find/",
    "find the tenant",
    "first.",
)


SEARCH = ["search_text", "=tenant_id"]


def search_by(relation: str) -> list[str]:
    """Return search fields that find rows by the partner or customer that they belong to."""
    return [f"{relation}__search_text", f"={relation}__tenant_id"]


@admin.register(PartnerTag)
class PartnerTagAdmin(PortalModelAdmin[PartnerTag]):
    empty_text = "A tag groups partners, for filters and campaigns."
    export_fields = ["name"]
    list_display = ["name"]
    search_fields = ["name"]
    audit_word = "tag"


class PartnerContactInline(PortalInline[PartnerContact, PartnerTenant]):
    """A partner's people, and who of them gets invitations."""

    model = PartnerContact
    fields = ["name", "email", "role", "gets_invitations"]
    extra = 1  # also without a script somebody can be added
    parent = "tenants.{}_partnertenant"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return any(request.user.has_perm(self.parent.format(right)) for right in ("view", "change"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(self.parent.format("change"))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(self.parent.format("change" if obj is not None else "add"))

    has_delete_permission = has_change_permission


class PartnerTenantAdmin(PortalModelAdmin[PartnerTenant]):
    """Partners. Tenant and cloud are typed once, by staff, before a link exists (S-04).

    ``consent`` registers it with how a partner stands, which follows from links and consents.
    """

    empty_text = "Add a partner, then send it a consent link from its page."
    export_fields = [
        "name",
        "tenant_id",
        "cloud",
        "domain",
        "kind",
        "contact_addresses",
        "tag_names",
        "customers_synced_at",
    ]
    list_display = ["name", "shown_tenant", "cloud", "customer_count", "synced"]
    list_filter = ["cloud", "kind", "tags"]
    search_fields = SEARCH
    ticked = ["tags"]
    audit_word = "partner"
    audit_without_values = ["name", "domain", "notes"]
    inlines = [PartnerContactInline]
    readonly_fields = ["created_at"]
    fieldsets = [
        (None, {"fields": ["name", "tenant_id", "cloud", "domain", "kind"]}),
        ("For staff", {"fields": ["tags", "notes"]}),
    ]

    @property
    def actions(self) -> list[AdminAction]:  # type: ignore[override]  # asked when all apps are there
        return [action for extension in extensions() for action in extension.partner_actions]

    def get_fieldsets(self, request: HttpRequest, obj: PartnerTenant | None = None) -> Any:
        first, *others = self.fieldsets
        if obj is None:
            return [(first[0], {**first[1], "description": _DESCRIPTION}), *others]
        return [(first[0], {"fields": [*first[1]["fields"], "created_at"]}), *others]

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(page.route, self.admin_site.admin_view(page.view), name=page.name)
            for extension in extensions()
            for page in extension.partner_pages
        ]
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

    def for_export(self, queryset: QuerySet[PartnerTenant]) -> QuerySet[PartnerTenant]:
        people = PartnerContact.objects.filter(partner=OuterRef("pk")).exclude(email="").order_by()
        addresses = (
            people.values("partner")
            .annotate(all=StringAgg("email", Value(", "), output_field=TextField()))
            .values("all")
        )
        tags = PartnerTag.objects.filter(partnertenant=OuterRef("pk")).order_by().values("partnertenant")
        names = tags.annotate(all=StringAgg("name", Value(", "), output_field=TextField())).values("all")
        return queryset.annotate(
            contact_addresses=Coalesce(Subquery(addresses), Value(""), output_field=TextField()),
            tag_names=Coalesce(Subquery(names), Value(""), output_field=TextField()),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: PartnerTenant | None = None) -> list[str]:
        # A person who could change the tenant of an invited partner could bind another tenant to this record.
        # A member of a team sees its own tags only; the form would take away the others.
        hidden = ["tags"] if obj is not None and limits_of(request.user) is not None else []
        return [*self.readonly_fields, *(["tenant_id", "cloud"] if obj is not None else []), *hidden]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Who sees partners by their tags adds one with such a tag; by an application it is seen once it is invited."""
        limits = limits_of(request.user)
        return super().has_add_permission(request) and (
            limits is None or any(set(team) == {"tag"} for team in limits.teams)
        )

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field is not None and db_field.name == "tags" and limits_of(request.user) is not None:
            field.required = True  # or nobody of the team would see the partner
        return field

    customer_count = path_column("customer_count", "Customers", sorts=False)  # or all customers were counted first
    shown_tenant = guid_column("tenant_id", "Tenant id", label="tenant id")
    synced = moment_column("customers_synced_at", "Customers synchronised", empty="never")

    def audit_subject(self, obj: PartnerTenant) -> dict[str, str | int]:
        return {"partner": obj.pk, "tenant_id": obj.tenant_id}

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        if isinstance(formset.instance, PartnerTenant) and formset.has_changed():
            # Only that they changed: names and addresses would stay in the trail for ever (S-70).
            record(
                "partner.contacts_changed",
                actor=actor_of(request),
                subject=self.audit_subject(formset.instance),
                details={
                    "added": len(formset.new_objects),
                    "changed": len(formset.changed_objects),
                    "removed": len(formset.deleted_objects),
                },
            )


class CustomerTenantAdmin(ReadOnlyAdmin[CustomerTenant]):
    """Customers as Partner Center lists them; written by sync only. ``consent`` registers it with what it adds."""

    empty_text = "Customers stand here once a connected partner was synchronised."
    export_fields = [
        "partner__name",
        "company_name",
        "tenant_id",
        "domain",
        "relationship",
        "last_listed",
        "missing_since",
        "readiness",
        "readiness_reason",
        "readiness_owner",
        "last_judged",
        "gdap_ends_at",
    ]
    list_select_related = ["partner"]
    search_fields = SEARCH
    fieldsets = [
        (None, {"fields": ["company_name", "partner", "shown_tenant", "domain", "relationship", "seen", "gone"]}),
        ("May consent be pushed?", {"fields": ["ready", "readiness_reason", "readiness_owner", "judged", "gdap_end"]}),
    ]

    @property
    def actions(self) -> list[AdminAction]:  # type: ignore[override]  # asked when all apps are there
        return [action for extension in extensions() for action in extension.customer_actions]

    shown_tenant = guid_column("tenant_id", "Tenant id", label="tenant id")

    def for_export(self, queryset: QuerySet[CustomerTenant]) -> QuerySet[CustomerTenant]:
        """Return the rows with when they were listed and judged."""
        customers: Any = super().for_export(queryset)
        with_times: QuerySet[CustomerTenant] = customers.with_times()
        return with_times

    @admin.display(description="Last listed")
    def seen(self, customer: CustomerTenant) -> str:
        if customer.missing_since is not None:
            return described(moment(customer.listed_at), "not listed any more")
        return moment(customer.listed_at)

    gone = moment_column("missing_since", "Missing since")
    ready = badge_column("readiness", "Readiness", READINESS_TONES)

    @admin.display(description="As read")
    def judged(self, customer: CustomerTenant) -> str:
        return moment(customer.read_at, empty="never; synchronise the partner")

    gdap_end = moment_column("gdap_ends_at", "GDAP ends", empty="no end known")
