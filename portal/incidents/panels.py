"""How many open incidents wait for whom, for the top of every page and for the first one."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse

from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.rights import limits_of
from portal.site.dashboard import Figure
from portal.site.display import Tone
from portal.site.sight import visible
from portal.text import number_of


def _open(request: HttpRequest) -> Mapping[str, int]:
    if not request.user.has_perm("incidents.view_incident"):
        return {}
    if (known := getattr(request, "open_incidents", None)) is None:
        seen = visible(Incident.objects.open().awake(), limits_of(request.user))
        owners = seen.order_by().values_list("owner").annotate(Count("pk"))
        request.open_incidents = known = dict(owners)  # type: ignore[attr-defined]
    return dict(known)


def _list_of(owner: Owner) -> str:
    return f"{reverse('admin:incidents_incident_changelist')}?state=awake&owner__exact={owner}"


def open_for(request: HttpRequest, owner: Owner) -> Figure | None:
    """Count the open incidents that wait for somebody; one query for all that a page asks."""
    if not (number := _open(request).get(owner, 0)):
        return None
    tone = Tone.BAD if owner is Owner.US else Tone.WARN
    return Figure(label=number_of(number, "incident").split(" ")[1], value=number, link=_list_of(owner), tone=tone)


def ours(request: HttpRequest) -> Figure | None:
    """Count the open incidents that are ours to act on; one query."""
    if not request.user.has_perm("incidents.view_incident"):
        return None
    number = _open(request).get(Owner.US, 0)
    return Figure(
        label="open incident is ours to act on" if number == 1 else "open incidents are ours to act on",
        value=number,
        link=_list_of(Owner.US),
        tone=Tone.BAD if number else Tone.QUIET,
    )
