"""The pages of partners, with how they stand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from consent.admin.customer_tenants import may_sync
from consent.admin.panels import state_badge
from consent.states import State, with_state
from tenants.admin import PartnerTenantAdmin
from tenants.models import PartnerTenant


class PartnerStateFilter(admin.SimpleListFilter):
    """How a partner stands."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(one.value, str(one.label)) for one in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(PartnerTenant)
class PartnerPages(PartnerTenantAdmin):
    """Partners, each with its one state."""

    export_fields = [*PartnerTenantAdmin.export_fields, "state"]
    list_display = ["name", "shown_state", *PartnerTenantAdmin.list_display[1:]]
    list_filter = [PartnerStateFilter, *PartnerTenantAdmin.list_filter]
    readonly_fields = ["shown_state", *PartnerTenantAdmin.readonly_fields]

    # Methods, not permissions by name in the decorators: for those a system check reads the database.
    def has_sync_permission(self, request: HttpRequest) -> bool:
        return may_sync(request)

    def has_plan_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.add_consentplan")

    def has_invite_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.add_campaign")

    def has_offboard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.offboard_partner")

    def get_fieldsets(self, request: HttpRequest, obj: PartnerTenant | None = None) -> Any:
        first, contact, *others = super().get_fieldsets(request, obj)
        if obj is None:
            return [first, contact, *others]
        return [first, contact, ("State", {"fields": ["shown_state", "created_at"]}), *others]

    def get_queryset(self, request: HttpRequest) -> QuerySet[PartnerTenant]:
        return with_state(super().get_queryset(request))

    @admin.display(ordering="state", description="State")
    def shown_state(self, partner: Any) -> str:
        return state_badge(partner.state)
