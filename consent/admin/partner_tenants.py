"""The pages of partners, with how they stand, and the switch that stops all work for them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase

from consent.admin.panels import state_badge
from consent.admin.partner_hub import PartnerHub
from consent.admin.tokens import to_check
from consent.models import PartnerConsent
from consent.partners import disable, enable
from consent.states import State, with_state, with_trouble
from portal.microsoft.diagnosis import OWNER_CHOICES
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from portal.site.declared import needs, path_column
from portal.site.proof import fresh
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


class PartnerWhoActsFilter(admin.SimpleListFilter):
    """Partners of whose tokens one wants somebody to act, by who that is."""

    title = "who must act"
    parameter_name = "who"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return OWNER_CHOICES

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        troubled = with_trouble(PartnerConsent.objects.wanting_action()).filter(Q(who=self.value()))
        return queryset.filter(pk__in=troubled.values("partner"))


@admin.register(PartnerTenant)
class PartnerPages(PartnerHub, PartnerTenantAdmin):
    """Partners, each with its one state."""

    export_fields = [*PartnerTenantAdmin.export_fields, "state"]
    list_display = ["name", "shown_state", *PartnerTenantAdmin.list_display[1:]]
    list_filter = [PartnerStateFilter, PartnerWhoActsFilter, *PartnerTenantAdmin.list_filter]

    has_disable_permission = needs("tenants.disable_partnertenant")
    has_check_permission = needs("consent.check_partnerconsent")
    has_sync_permission = needs("tenants.sync_partnertenant")
    has_plan_permission = needs("consent.add_consentplan")
    has_invite_permission = needs("consent.add_campaign")
    has_offboard_permission = needs("consent.offboard_partner")
    has_begin_permission = needs("consent.begin_containment")
    has_uses_permission = needs("consent.view_tokenuse")
    has_erase_permission = needs("consent.erase_partner")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PartnerTenant]:
        return with_state(super().get_queryset(request))

    shown_state = path_column("state", "State", state_badge)


@admin.action(description="Check their tokens now", permissions=["check"])
def check_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm, then check every token of these partners."""
    consents = PartnerConsent.objects.filter(partner__in=queryset.order_by().values("pk"))
    return to_check(page, request, queryset, consents, "check_partners")


@fresh
@admin.action(description="Disable the selected partners", permissions=["disable"])
def disable_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm, then disable."""
    if answer := page.confirm(
        request,
        queryset,
        action="disable_partners",
        title="Disable partners",
        explanation=(
            "Nothing more is done for these partners, in any process: no token is used, links are dead, a partner who "
            "is at Microsoft right now is refused. Tokens stay in the vault."
        ),
        button="Disable",
        dangerous=True,
    ):
        return answer
    done = sum(disable(partner, actor=actor_of(request)) for partner in queryset)
    page.message_user(request, f"{done} disabled.")
    return None


@fresh
@admin.action(description="Enable the selected partners", permissions=["disable"])
def enable_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm, then enable."""
    if answer := page.confirm(
        request,
        queryset,
        action="enable_partners",
        title="Enable partners",
        explanation="The portal works for these partners again. Check their tokens afterwards.",
        button="Enable",
    ):
        return answer
    done = sum(enable(partner, actor=actor_of(request)) for partner in queryset)
    page.message_user(request, f"{done} enabled.")
    return None
