"""What the portal watches about itself."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import DatabaseError

from portal.audit.trail import SYSTEM, Actor, Walked, last_walk, note_walk, walk
from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import Unreachable
from portal.microsoft.http import certificates

log = logging.getLogger(__name__)

TRAIL_BROKEN = "audit_trail_broken"
CERTIFICATE_REFUSED = "certificate_refused"


def watch_audit_trail(
    *, whole: bool = False, actor: Actor = SYSTEM, between: Callable[[], None] = lambda: None
) -> int | None:
    """Check what the audit trail got since the last time, or all of it; report where it breaks (S-57, S-60).

    How far it was checked is kept, so that a day's check is a day's entries long, and one that is cut off goes on where
    it was. While a break is reported, all of it is checked, so that the report is settled only when it fits together.

    Args:
        whole: begin at the first entry.
        between: called after each piece of 2,000 entries; what it raises ends the check there.

    Returns:
        The sequence of the first entry that does not fit, or None.
    """
    is_reported = Incident.objects.open().filter(cause=TRAIL_BROKEN).exists()
    at = start = Walked() if whole or is_reported else last_walk()
    try:
        for at in walk(start):  # noqa: B007  # the last one says how far it came
            between()
    finally:
        if at.broken is None and at != start:
            note_walk(at, actor=actor)
    broken = at.broken
    if broken is None:
        settle(TRAIL_BROKEN)
    else:
        report(
            TRAIL_BROKEN,
            owner=Owner.US,
            words=(
                f"The audit trail does not fit together from entry {broken} on: rows of the database were changed, "
                "removed or added past the portal, or INTEGRITY_KEY is another one. Keep a copy of the database, find "
                "out who had access, and compare with a backup."
            ),
            subject={"sequence": broken},
        )
    return broken


def watch_certificates() -> None:
    """Report each host whose certificate this process refused since the last call, and settle those that are well.

    Call it at the end of a piece of work, outside a transaction. It never fails: what the work itself says comes first.
    One query when no certificate was refused, none when no host was asked.
    """
    refused, accepted = certificates.take()
    try:
        for host, why in refused.items():
            diagnosis = diagnose(Unreachable("", "", code=why, host=host))
            report(
                CERTIFICATE_REFUSED,
                about=f"host:{host}"[:100],
                name=host,
                owner=Owner.US,
                words=f"{diagnosis.cause} {diagnosis.remedy} Nothing was sent there; no partner's state was changed.",
            )
        if accepted:
            for about in Incident.objects.open().filter(cause=CERTIFICATE_REFUSED).values_list("about", flat=True):
                if about.removeprefix("host:") in accepted:
                    settle(CERTIFICATE_REFUSED, about=about)
    except DatabaseError as error:
        log.warning("what was seen of certificates was not recorded: %s", type(error).__name__)
