"""What the dashboard shows of tenants."""

from __future__ import annotations

from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse

from portal.site.dashboard import Figure, Panel
from portal.site.display import Tone
from tenants.models import CustomerTenant, PartnerTenant

STATE_TONES = {
    PartnerTenant.State.CONNECTED: Tone.GOOD,
    PartnerTenant.State.ATTENTION: Tone.WARN,
    PartnerTenant.State.INVITED: Tone.BUSY,
    PartnerTenant.State.DISABLED: Tone.QUIET,
    PartnerTenant.State.OFFBOARDED: Tone.QUIET,
}

READINESS_TONES = {
    CustomerTenant.Readiness.READY: Tone.GOOD,
    CustomerTenant.Readiness.UNVERIFIED: Tone.GOOD,
    CustomerTenant.Readiness.NOT_READY: Tone.WARN,
    CustomerTenant.Readiness.UNKNOWN: Tone.QUIET,
}


def readiness_figures(partner: PartnerTenant) -> list[Figure]:
    """Count the partner's listed customers by readiness, each with the list it counts; one query."""
    listed = CustomerTenant.objects.for_partner(partner).listed().order_by()
    counts = dict(listed.values_list("readiness").annotate(Count("pk")))
    address = reverse("admin:tenants_customertenant_changelist")
    return [
        Figure(
            label=str(readiness.label),
            value=f"{counts[readiness]:,}",
            tone=tone,
            link=f"{address}?partner__id__exact={partner.pk}&missing_since__isempty=1&readiness__exact={readiness.value}",
        )
        for readiness, tone in READINESS_TONES.items()
        if counts.get(readiness)
    ]


def partners_panel(request: HttpRequest) -> Panel | None:
    """Partners by state; one query."""
    if not request.user.has_perm("tenants.view_partnertenant"):
        return None
    counts = dict(PartnerTenant.objects.order_by().values_list("state").annotate(Count("pk")))
    address = reverse("admin:tenants_partnertenant_changelist")
    return Panel(
        title="Partners",
        link=address,
        order=10,
        figures=[
            Figure(
                label=state.label, value=counts.get(state, 0), tone=tone, link=f"{address}?state__exact={state.value}"
            )
            for state, tone in STATE_TONES.items()
            if counts.get(state, 0) or state is not PartnerTenant.State.OFFBOARDED
        ],
    )
