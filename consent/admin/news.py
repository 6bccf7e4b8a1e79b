"""What the newest check or read of a row says, as long as it is news."""

from __future__ import annotations

from datetime import datetime

from portal.runs.latest import Latest
from portal.site.display import Tone

_NEWS_SECONDS = 600


def without_result(newest: Latest, now: datetime, what: str) -> tuple[str, Tone] | None:
    """Return what is said of one without a result that is news; None where there is one, which the caller says.

    Args:
        what: "check" or "read".
    """
    if newest.under_way:
        waits = ": no worker took it yet" if newest.worked_by_nobody else ""
        return f"The {what} that {newest.actor} asked for is under way{waits}.", Tone.BUSY
    if (now - newest.at).total_seconds() > _NEWS_SECONDS:
        return "", Tone.QUIET
    if newest.good is None:
        return f"The {what} did not come to its turn. {newest.message}", Tone.WARN
    return None
