"""Stop and resume everything that is done for a partner (S-53).

Disabling takes effect before the next outgoing call of any process: each use of a token reads the partner's state
again.
"""

from __future__ import annotations

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase

from consent.models import PartnerConsent
from portal.audit.trail import Actor, record
from portal.site.admin import PortalModelAdmin, actor_of
from tenants.models import PartnerTenant

State = PartnerTenant.State


def disable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Stop all work for this partner at once; links are dead, flows are refused. Returns False if it was stopped."""
    with transaction.atomic():
        changed = PartnerTenant.objects.active().filter(pk=partner.pk).update(state=State.DISABLED)
        if changed:
            record("partner.disabled", actor=actor, subject={"partner": partner.pk}, details={"before": partner.state})
    return bool(changed)


def enable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Let work go on, in the state that the partner's consents say. Returns False if it was not disabled."""
    states = set(
        PartnerConsent.objects.for_partner(partner)
        .filter(generation__gt=0)
        .exclude(state="revoked")
        .values_list("state", flat=True)
    )
    state = State.INVITED
    if states:
        state = State.CONNECTED if states == {PartnerConsent.State.CONNECTED} else State.ATTENTION
    with transaction.atomic():
        changed = PartnerTenant.objects.filter(pk=partner.pk, state=State.DISABLED).update(state=state)
        if changed:
            record("partner.enabled", actor=actor, subject={"partner": partner.pk}, details={"after": state.value})
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
