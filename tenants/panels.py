"""What a partner's page counts of its customers."""

from __future__ import annotations

from django.db.models import Count
from django.urls import reverse

from portal.site.dashboard import Figure
from portal.site.display import Tone
from tenants.models import CustomerTenant, PartnerTenant

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
