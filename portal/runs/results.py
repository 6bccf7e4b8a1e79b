"""The results of a run as one digest, which its sealed entry in the audit trail keeps (S-57).

What a run's units did one by one is routine and stands in their rows. The entry of the run says how many there were,
how they ended, and the digest of these rows, so that a result that is changed or taken out later is found.

Nearly all units that the schedule comes back to are well each time. After some days the rows of those that were well,
and well the next time too, are forgotten; an entry keeps how many, and the digest of what is left. So the newest row of
each unit stays, each failure, and the last good result before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit import table
from portal.audit.findings import Damage, Finding
from portal.audit.models import AuditEvent
from portal.audit.seals import canonical
from portal.audit.trail import SYSTEM, is_genuine, record
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.runs.kinds import OK
from portal.runs.models import Run, RunItem
from portal.runs.registry import kinds

FINISHED = "run.finished"  # the action of the entry
FORGOTTEN = "run.units_forgotten"  # of a later one, whose digest takes the place of the first
RESULTS_CHANGED = "run_results_changed"  # cause of the incident
KEPT_FOR = timedelta(days=90)  # a run and its units, after its end
WELL_KEPT_FOR = timedelta(days=8)
"""Rows of units that were well, and well the next time: the next check of a week has come by then."""
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
    found = []
    for run_id, entry in _sealed(AuditEvent.objects.filter(at__gt=since)).items():
        between()
        sealed = entry.details.get("digest")
        if not sealed or not is_genuine(entry):  # of an older version; or found by the walk of the chain
            continue
        if not Run.objects.filter(pk=run_id).exists():
            what = f"Run {run_id} is gone, although runs are kept for {KEPT_FOR.days} days"
        elif digest_of(run_id) != sealed:
            what = f"The results of run {run_id} are others than when it ended"
        else:
            continue
        words = f"{what}: rows were changed or removed past the portal."
        found.append(Finding(damage=Damage.RESULTS, words=words, sequence=entry.sequence))
    return found


def _sealed(entries: QuerySet[AuditEvent]) -> dict[int, AuditEvent]:
    """Return the last entry that keeps a digest of a run, by run."""
    return {each.subject["run"]: each for each in entries.filter(action__in=[FINISHED, FORGOTTEN]).order_by("sequence")}


def forget_well(*, between: Callable[[], None] = lambda: None) -> int:
    """Forget the rows of units that were well and well the next time, in runs of the schedule that ended long ago.

    A run whose results were changed keeps its rows. Each run is one transaction, and is looked at once.

    Args:
        between: called before each run; what it raises ends the work there, and the next one goes on.

    Returns:
        How many rows were removed.
    """
    repeated = [kind.name for kind in kinds().values() if kind.repeats]
    old = Run.objects.filter(kind__in=repeated, state=Run.State.DONE, forgotten__isnull=True)
    runs = list(old.filter(finished_at__lt=Now() - WELL_KEPT_FOR).order_by("finished_at", "pk"))
    if not runs:
        return 0
    since = (runs[0].finished_at or timezone.now()) - _DAILY
    entries, removed = _sealed(AuditEvent.objects.filter(at__gte=since)), 0
    for run in runs:
        between()
        removed += _forget_well(run, entries.get(run.pk))
    return removed


def _forget_well(run: Run, entry: AuditEvent | None) -> int:
    if entry is None:  # of a clock that was set since
        entry = AuditEvent.objects.filter(action=FINISHED, subject__run=run.pk).order_by("-sequence").first()
    sealed = entry.details.get("digest") if entry is not None and is_genuine(entry) else ""
    later = RunItem.objects.filter(run__kind=run.kind, key=OuterRef("key"), pk__gt=OuterRef("pk"))
    following = later.filter(state=RunItem.State.DONE).order_by("pk").values("failure_class")[:1]
    well = RunItem.objects.alias(following=Subquery(following)).filter(run=run, failure_class=OK, following=OK)
    with transaction.atomic():
        if not Run.objects.filter(pk=run.pk, forgotten__isnull=True).update(forgotten=0):
            return 0
        if sealed and digest_of(run.pk) != sealed:
            return 0
        removed = well.delete()[0]
        Run.objects.filter(pk=run.pk).update(forgotten=removed)
        if removed and sealed:
            details = {"kind": run.kind, "forgotten": removed, "digest": digest_of(run.pk)}
            record(FORGOTTEN, actor=SYSTEM, subject={"run": run.pk}, details=details)
    return removed


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
