"""What incidents add to the admin."""

from portal.incidents.anchoring import BEGUN_ANEW, NOT_ANCHORED
from portal.incidents.certificates import CERTIFICATE_REFUSED
from portal.incidents.models import Incident
from portal.incidents.panels import ours
from portal.incidents.receivers import SUPERUSER
from portal.incidents.watch import TRAIL_BROKEN
from portal.site.causes import CauseWords, Remedy
from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.limit_kinds import Sight
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_number

EXTENSION = AdminExtension(
    lists=(
        ListEntry(
            section=Section.INCIDENTS,
            title="By cause",
            model="incidents.incident",
            page="admin:incidents_incident_groups",
        ),
        ListEntry(section=Section.INCIDENTS, title="All incidents", model="incidents.incident"),
    ),
    bells=(ours,),
    subjects={"incident": Named(Incident)},
    causes={
        BEGUN_ANEW: CauseWords(title="New file of anchors of the audit trail"),
        NOT_ANCHORED: CauseWords(title="Audit trail not anchored"),
        TRAIL_BROKEN: CauseWords(
            title="Audit trail damaged", remedy=Remedy(label="See the audit trail", model="audit.AuditEvent")
        ),
        CERTIFICATE_REFUSED: CauseWords(title="Certificate refused"),
        SUPERUSER: CauseWords(
            title="Superuser acted", remedy=Remedy(label="See the audit trail", model="audit.AuditEvent")
        ),
    },
    audit_words={
        "incident.noted": "A note was written to an incident",
        "incident.settled": "An incident was settled by a person",
        "incident.snoozed": "An incident was put off",
        "incident.taken_up": "An incident was taken up",
        "incident.woken": "An incident that was put off was woken up",
    },
    sights={"incidents.incident": Sight(subject="subject")},
    searchable=(
        Searchable(
            title="Incidents",
            rank=50,
            model=Incident,
            find=by_number(Incident, "incident", "name", "words"),
            detail=lambda incident: "settled" if incident.settled_at else "open",
        ),
    ),
)
