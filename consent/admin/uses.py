"""The ledger of uses: which tokens were given out, for whom, for what and by whom; filtered, exported, read only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from consent.models import TokenUse
from consent.uses.touched import service_named
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.declared import column, moment_column
from portal.site.display import EMPTY, described, links
from tenants.admin import search_by
from tenants.models import PartnerTenant

_SPANS = {
    "hour": ("Last hour", timedelta(hours=1)),
    "day": ("Last 24 hours", timedelta(days=1)),
    "week": ("Last 7 days", timedelta(days=7)),
    "month": ("Last 30 days", timedelta(days=30)),
}


class WhenFilter(admin.SimpleListFilter):
    """When a token was last given out."""

    title = "when"
    parameter_name = "when"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, label) for word, (label, _) in _SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenUse]) -> QuerySet[TokenUse]:
        if self.value() not in _SPANS:
            return queryset
        return queryset.filter(last_at__gte=timezone.now() - _SPANS[str(self.value())][1])


class ServiceFilter(admin.SimpleListFilter):
    """What the token was for."""

    title = "service"
    parameter_name = "audience"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(word, service_named(word)) for word in ("partner_center", "graph", "partner_api", "azure_management")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenUse]) -> QuerySet[TokenUse]:
        return queryset.filter(audience=self.value()) if self.value() else queryset


@admin.action(description="See what its tokens were used for", permissions=["uses"])
def see_uses(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Lead to the ledger of one partner."""
    keys = list(queryset.values_list("pk", flat=True)[:2])
    if len(keys) != 1:
        page.message_user(request, "Choose one partner: each has its own ledger.", messages.ERROR)
        return None
    return HttpResponseRedirect(f"{reverse('admin:consent_tokenuse_changelist')}?partner__id__exact={keys[0]}")


@admin.register(TokenUse)
class TokenUseAdmin(ReadOnlyAdmin[TokenUse]):
    """Each access token that was given out; of a run one row for each partner and service."""

    empty_text = "Each access token that the portal gets or gives out stands here: for whom, for what, by whom."
    export_fields = [
        "at",
        "last_at",
        "partner__name",
        "partner__tenant_id",
        "registration__name",
        "audience",
        "customer__company_name",
        "customer__tenant_id",
        "purpose",
        "actor_kind",
        "actor",
        "address",
        "issued",
        "cached",
        "of_customers",
        "run",
        "correlation_id",
    ]
    list_display = ["last_used", "partner", "what_for", "shown_purpose", "who", "number"]
    list_filter = [WhenFilter, "partner", "registration", ServiceFilter, "purpose", "actor_kind"]
    list_select_related = ["partner", "registration", "customer"]
    link_lookups = ["at__lte", "last_at__gte"]
    search_fields = [*search_by("partner"), "=actor"]
    sortable_by = ["last_used"]
    fields = [
        "partner",
        "registration",
        "what_for",
        "shown_purpose",
        "who",
        "address",
        "began",
        "last_used",
        "number",
        "of_customers",
        "shown_run",
        "correlation_id",
    ]

    began = moment_column("at", "First")
    last_used = moment_column("last_at", "Last given out")
    shown_purpose = column("Purpose", lambda use: use.get_purpose_display())
    who = column("By whom", lambda use: described(use.actor, use.get_actor_kind_display()))

    @admin.display(description="For")
    def what_for(self, use: TokenUse) -> str:
        where = "" if use.customer is None else f"in the tenant of {use.customer}"
        return described(service_named(use.audience), where or use.registration.name)

    @admin.display(description="Tokens")
    def number(self, use: TokenUse) -> str:
        return described(f"{use.issued:,} issued", f"{use.cached:,} from memory")

    @admin.display(description="Run")
    def shown_run(self, use: TokenUse) -> str:
        if use.run is None:
            return EMPTY
        return links([(f"Run {use.run}", reverse("admin:runs_run_change", args=[use.run]))])
