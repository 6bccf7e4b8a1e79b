"""Stop and resume everything that is done for a partner (S-53).

Disabling takes effect before the next outgoing call of any process: each use of a token reads the partner's state
again.
"""

from __future__ import annotations

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase

from consent.states import state_of
from portal.audit.trail import Actor, record
from portal.site.admin import PortalModelAdmin, actor_of
from tenants.models import PartnerTenant

Switch = PartnerTenant.Switch


def disable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Stop all work for this partner at once; links are dead, flows are refused. Returns False if it was stopped."""
    with transaction.atomic():
        before = state_of(partner)
        changed = PartnerTenant.objects.active().filter(pk=partner.pk).update(switch=Switch.DISABLED)
        if changed:
            record("partner.disabled", actor=actor, subject={"partner": partner.pk}, details={"before": before.value})
    return bool(changed)


def enable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Let work go on. Returns False if it was not disabled."""
    with transaction.atomic():
        changed = PartnerTenant.objects.filter(pk=partner.pk, switch=Switch.DISABLED).update(switch=Switch.ON)
        if changed:
            after = state_of(partner)
            record("partner.enabled", actor=actor, subject={"partner": partner.pk}, details={"after": after.value})
    return bool(changed)


@admin.action(description="Disable the selected partners", permissions=["change"])
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


@admin.action(description="Enable the selected partners", permissions=["change"])
def enable_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm, then enable."""
    if answer := page.confirm(
        request,
        queryset,
        action="enable_partners",
        title="Enable partners",
        explanation="The portal works for these partners again. Check their tokens afterwards (check_tokens).",
        button="Enable",
    ):
        return answer
    done = sum(enable(partner, actor=actor_of(request)) for partner in queryset)
    page.message_user(request, f"{done} enabled.")
    return None
