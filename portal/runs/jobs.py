"""The jobs of the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from portal.decisions.service import tidy
from portal.incidents.anchoring import anchor_now
from portal.incidents.telling import digest, tell_due
from portal.runs import results, schedule, service
from portal.runs.registry import Job

_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)


def _remove_old(times: Sequence[datetime] = ()) -> str:
    removed = service.remove_old()
    return f"{removed} removed; {results.forget_well(between=schedule.stop_point):,} units that were well forgotten"


JOBS = (
    Job(name="sweep", label="Search for abandoned runs", every=_MINUTE, work=lambda times: schedule.sweep()),
    Job(
        name="audit_anchor",
        label="Anchor of the audit trail",
        every=15 * _MINUTE,
        work=lambda times: anchor_now(),
    ),
    Job(name="alerts", label="Mails about incidents", every=10 * _MINUTE, work=lambda times: tell_due()),
    Job(name="incident_digest", label="Daily digest of incidents", every=_DAY, work=lambda times: digest()),
    Job(
        name="decisions",
        label="End of requests that nobody decided",
        every=10 * _MINUTE,
        work=lambda times: tidy(),
    ),
    Job(
        name="old_runs",
        label="Removal of old runs",
        every=_DAY,
        work=_remove_old,
    ),
)
