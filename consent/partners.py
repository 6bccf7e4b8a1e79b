"""Stop and resume everything that is done for a partner (S-53).

Disabling takes effect before the next outgoing call of any process: each use of a token reads the partner's state
again.
"""

from __future__ import annotations

from django.db import transaction

from consent.states import state_of
from portal.audit.trail import Actor, record
from portal.rights import require
from portal.site.sight import require_sight
from tenants.models import PartnerTenant

Switch = PartnerTenant.Switch


def disable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Stop all work for this partner at once; links are dead, flows are refused. Returns False if it was stopped."""
    require(actor, "tenants.disable_partnertenant")
    require_sight(actor, partner)
    with transaction.atomic():
        before = state_of(partner)
        changed = PartnerTenant.objects.active().filter(pk=partner.pk).update(switch=Switch.DISABLED)
        if changed:
            record("partner.disabled", actor=actor, subject={"partner": partner.pk}, details={"before": before.value})
    return bool(changed)


def enable(partner: PartnerTenant, *, actor: Actor) -> bool:
    """Let work go on. Returns False if it was not disabled."""
    require(actor, "tenants.disable_partnertenant")
    require_sight(actor, partner)
    with transaction.atomic():
        changed = PartnerTenant.objects.filter(pk=partner.pk, switch=Switch.DISABLED).update(switch=Switch.ON)
        if changed:
            after = state_of(partner)
            record("partner.enabled", actor=actor, subject={"partner": partner.pk}, details={"after": after.value})
    return bool(changed)
