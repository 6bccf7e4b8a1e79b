"""What the portal watches about itself."""

from __future__ import annotations

from portal.audit.trail import first_broken_sequence
from portal.incidents.desk import report, settle
from portal.microsoft.diagnosis import Owner

TRAIL_BROKEN = "audit_trail_broken"


def watch_audit_trail() -> int | None:
    """Walk the whole audit trail; report where it breaks (S-57, S-60), or settle the report once it fits together.

    Returns the sequence of the first entry that does not fit, or None. One query in pieces of 2,000 rows.
    """
    broken = first_broken_sequence()
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
