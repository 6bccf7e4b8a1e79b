"""What requests for a decision add to the admin."""

from portal.decisions.models import Decision
from portal.decisions.records import CHANGED, OVERRIDDEN, WAITS
from portal.site.causes import CauseWords, Remedy
from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.limit_kinds import Sight
from portal.site.named import Named
from portal.site.navigation import Section

_MODEL = "decisions.Decision"

EXTENSION = AdminExtension(
    sights={"decisions.decision": Sight(subject="preview__subject", person="requester__username")},
    lists=(ListEntry(section=Section.INCIDENTS, title="Requests", model="decisions.decision"),),
    subjects={"decision": Named(Decision)},
    causes={
        WAITS: CauseWords(
            title="Waits for a second person",
            remedy=Remedy(label="See what waits", model=_MODEL, query="state__exact=waiting"),
        ),
        OVERRIDDEN: CauseWords(
            title="Done by one person alone",
            remedy=Remedy(label="See what was done alone", model=_MODEL, query="way__exact=emergency"),
        ),
        CHANGED: CauseWords(
            title="Request changed in the database",
            remedy=Remedy(label="See what waits", model=_MODEL, query="state__exact=waiting"),
        ),
    },
    audit_words={
        "decision.approved": "What another person asked for was approved",
        "decision.approved:refused": "An attempt to approve a request was refused",
        "decision.asked": "A decision of a second person was asked for",
        "decision.done": "What was approved was done",
        "decision.done:failed": "What was approved failed",
        "decision.expired": "A request expired: nobody decided or did it in time",
        "decision.refused": "What another person asked for was refused",
        "decision.refused:refused": "An attempt to refuse a request was refused",
        "decision.withdrawn": "A request was withdrawn",
        "decision.withdrawn:refused": "An attempt to withdraw a request was refused",
    },
)
