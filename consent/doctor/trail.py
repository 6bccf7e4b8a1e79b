"""The step about the audit trail: its guards, its anchors, and what the database role may do to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from consent.doctor.case import Case
from consent.doctor.steps import Finding, failed, not_seen, notice, well
from portal.audit import anchors, rights, table
from portal.incidents.anchoring import anchor_file

_PAGE = "See docs/operations.md#the-audit-trail."
_FRESH = timedelta(minutes=45)  # three anchors


def look_at_trail(case: Case) -> Iterator[Finding]:
    """Look at the catalogue of the database and the newest anchor; entries are not read."""
    if (why := table.unreadable()) is not None:
        yield failed(why.words, _PAGE)
        return
    faults = table.faults()
    for fault in faults:
        yield failed(fault.words, f"Find out who did that, then make the triggers anew. {_PAGE}")
    if not faults:
        yield well("The table of the trail and its triggers are as the portal made them.")
    yield from _anchors()
    if many := rights.too_many():
        yield notice(
            f"The portal's own database role could damage the trail: {'; '.join(many)}.",
            f"Let the portal work with a role that does not own the tables. {_PAGE}",
        )
    else:
        yield well("The portal's database role can only read the trail and add to it.")


def _anchors() -> Iterator[Finding]:
    file = anchor_file()
    if file is None:
        yield not_seen("No file of anchors is set.")
        return
    try:
        kept = anchors.read(file)
    except OSError as error:
        yield failed(
            f"The file of anchors cannot be read: {error.strerror}.", "Let the portal's user read and append it."
        )
        return
    if kept.other_key:
        yield failed("The anchors were sealed under another INTEGRITY_KEY.", "Set the former key again.")
    elif kept.fault is not None:
        yield failed(kept.fault.words, _PAGE)
    elif not kept.anchors:
        yield not_seen("The end of the trail was never anchored.", "The schedule does that every 15 minutes.")
    elif timezone.now() - datetime.fromisoformat(kept.anchors[-1].at) > _FRESH:
        yield notice(
            f"The end of the trail was last anchored on {kept.anchors[-1].when}.",
            "Look at the job of the schedule that anchors it.",
        )
    else:
        yield well("The end of the trail is anchored outside the database.")
