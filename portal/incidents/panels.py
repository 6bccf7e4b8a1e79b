from __future__ import annotations

from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse

from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.site.dashboard import Figure, Panel, Row
from portal.site.display import Tone

_SHOWN = 6


def incidents_panel(request: HttpRequest) -> Panel | None:
    """Open incidents that are not put off, the latest first, and how many wait for whom; two queries."""
    if not request.user.has_perm("incidents.view_incident"):
        return None
    address = reverse("admin:incidents_incident_changelist")
    owners = Incident.objects.open().awake().order_by().values_list("owner").annotate(Count("pk"))
    return Panel(
        title="Incidents",
        order=5,
        link=address,
        empty="Nothing needs to be looked into.",
        figures=[
            Figure(
                label=Owner(owner).label,
                value=number,
                tone=Tone.BAD if owner == Owner.US else Tone.WARN,
                link=f"{address}?owner__exact={owner}",
            )
            for owner, number in sorted(owners)
        ],
        rows=[
            Row(
                label=str(incident),
                detail=f"{incident.words} {incident.get_owner_display()}, seen {incident.seen_words}.",
                link=reverse("admin:incidents_incident_change", args=[incident.pk]),
                tone=Tone.WARN if incident.seen_at else Tone.BAD,
            )
            for incident in Incident.objects.open().awake()[:_SHOWN]
        ],
    )


def ours(request: HttpRequest) -> Figure | None:
    """Count the open incidents that are ours to act on; one query."""
    if not request.user.has_perm("incidents.view_incident"):
        return None
    number = Incident.objects.open().awake().filter(owner=Owner.US).count()
    return Figure(
        label="open incident is ours to act on" if number == 1 else "open incidents are ours to act on",
        value=number,
        link=f"{reverse('admin:incidents_incident_changelist')}?owner__exact={Owner.US}",
        tone=Tone.BAD if number else Tone.QUIET,
    )
