from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin

from portal.addresses import client_address
from portal.audit.trail import Actor, record
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant


@admin.register(PartnerTag)
class PartnerTagAdmin(PortalModelAdmin):
    list_display = ["name"]
    search_fields = ["name"]


@admin.register(PartnerTenant)
class PartnerTenantAdmin(PortalModelAdmin):
    """Partners. Tenant and cloud are typed once, by staff, before a link exists (S-04)."""

    list_display = ["name", "state_badge", "tenant_id", "cloud", "kind", "customer_count", "customers_synced_at"]
    list_filter = ["state", "cloud", "kind", "tags"]
    search_fields = ["name__istartswith", "=tenant_id", "domain__startswith"]
    filter_horizontal = ["tags"]
    readonly_fields = ["state", "created_at", "customers_synced_at"]
    fieldsets = [
        (None, {"fields": ["name", "tenant_id", "cloud", "domain", "kind"]}),
        ("Contact", {"fields": ["contact_name", "contact_email", "tags", "notes"]}),
        ("State", {"fields": ["state", "created_at", "customers_synced_at"]}),
    ]

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
    def state_badge(self, partner: PartnerTenant) -> str:
        return partner.get_state_display()

    def save_model(self, request: HttpRequest, obj: PartnerTenant, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        record(
            "partner.changed" if change else "partner.created",
            actor=Actor.staff(request.user.get_username(), client_address(request)),
            subject={"partner": obj.pk, "tenant_id": obj.tenant_id},
            details={"fields": sorted(form.changed_data)},
        )


@admin.register(CustomerTenant)
class CustomerTenantAdmin(ReadOnlyAdmin):
    """Customers as Partner Center lists them; written by sync only."""

    list_display = ["company_name", "partner", "tenant_id", "domain", "relationship", "last_seen_at", "missing_since"]
    list_filter = [("missing_since", admin.EmptyFieldListFilter), "partner"]
    list_select_related = ["partner"]
    search_fields = ["company_name__istartswith", "=tenant_id", "domain__startswith"]
