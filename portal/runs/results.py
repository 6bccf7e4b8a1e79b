"""The results of a run as one digest, which its sealed entry in the audit trail keeps (S-57).

What a run's units did one by one is routine and stands in their rows. The entry of the run says how many there were,
how they ended, and the digest of these rows, so that a result that is changed or taken out later is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from portal.audit import table
from portal.audit.findings import Damage, Finding
from portal.audit.models import AuditEvent
from portal.audit.seals import canonical
from portal.audit.trail import is_genuine
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run, RunItem

FINISHED = "run.finished"  # the action of the entry
RESULTS_CHANGED = "run_results_changed"  # cause of the incident
KEPT_FOR = timedelta(days=90)  # a run and its units, after its end
_DAILY = timedelta(days=2)
_PIECE = 5000
# Without the label and the message: they may name people, and an erasure takes them out.
_COLUMNS = ("key", "state", "failure_class", "systemic", "owner", "code", "correlation_id", "finished_at")


def digest_of(run_id: int) -> str:
    """Return the SHA-256 of the results of a run in the order of its list; a query for each 5,000 units."""
    digest, after = hashlib.sha256(), 0
    while rows := list(
        RunItem.objects.filter(run_id=run_id, pk__gt=after).order_by("pk").values_list("pk", *_COLUMNS)[:_PIECE]
    ):
        for _, *values, finished_at in rows:
            digest.update(canonical({"row": [*values, finished_at.isoformat() if finished_at else ""]}).encode())
        after = rows[-1][0]
    return digest.hexdigest()


def changed(*, whole: bool = False, between: Callable[[], None] = lambda: None) -> list[Finding]:
    """Return the finished runs whose results are others than when they ended, or are gone before their time.

    Args:
        whole: look at all runs that are kept, instead of those of the last two days.
        between: called after each run; what it raises ends the look.
    """
    if table.unreadable():
        return []
    since = timezone.now() - (KEPT_FOR if whole else _DAILY)
    entries = AuditEvent.objects.filter(action=FINISHED, at__gt=since).order_by("sequence")
    found = []
    for entry in entries:
        between()
        sealed = entry.details.get("digest")
        if not sealed or not is_genuine(entry):  # of an older version; or found by the walk of the chain
            continue
        run_id = entry.subject["run"]
        if not Run.objects.filter(pk=run_id).exists():
            what = f"Run {run_id} is gone, although runs are kept for {KEPT_FOR.days} days"
        elif digest_of(run_id) != sealed:
            what = f"The results of run {run_id} are others than when it ended"
        else:
            continue
        words = f"{what}: rows were changed or removed past the portal."
        found.append(Finding(damage=Damage.RESULTS, words=words, sequence=entry.sequence))
    return found


def watch(*, whole: bool = False, between: Callable[[], None] = lambda: None) -> list[Finding]:
    """Look for changed results, and keep one incident while there are any; ``whole`` alone settles it."""
    found = changed(whole=whole, between=between)
    if found:
        more = f" (and {len(found) - 1} more runs)" if len(found) > 1 else ""
        words = f"{found[0].words}{more} Keep a copy of the database, and find out who had access."
        report(RESULTS_CHANGED, owner=Owner.US, words=words, subject={"sequence": found[0].sequence or 0})
    elif whole:
        settle(RESULTS_CHANGED)
    return found
