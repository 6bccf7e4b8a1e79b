"""What incidents add to the admin."""

from portal.incidents.models import Incident
from portal.incidents.panels import incidents_panel
from portal.site.extension_points import AdminExtension
from portal.site.named import Named
from portal.site.searchable import Searchable, by_number

EXTENSION = AdminExtension(
    panels=(incidents_panel,),
    subjects={"incident": Named(Incident)},
    searchable=(
        Searchable(
            title="Incidents",
            rank=50,
            model=Incident,
            find=by_number(Incident, "incident", "name", "words"),
            icon="notifications_active",
            detail=lambda incident: "settled" if incident.settled_at else "open",
        ),
    ),
)
