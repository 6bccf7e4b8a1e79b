"""What happens by itself, and when: a registry of jobs, and a row for each that says when it is due.

Apps register their jobs in ``AppConfig.ready()``. A scheduler looks every few seconds, takes what is due by one
conditional UPDATE and hands it to the workers, so two schedulers are harmless (R-27). A job runs at least once: it may
be repeated, also at the same time, and must not mind (R-32).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db.models.functions import Now
from django.tasks import task

from portal.incidents.desk import report, settle
from portal.incidents.watch import watch_certificates
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run, ScheduledJob
from portal.runs.tasks import enqueue

log = logging.getLogger(__name__)

FAILED = "job_failed"  # cause of the incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that is done again and again.

    Attributes:
        name: a word; kept in the row.
        label: for people.
        every: time from one start to the next.
        work: does it, or starts a run that does, and returns what was done in a few words.
    """

    name: str
    label: str
    every: timedelta
    work: Callable[[], str]


_jobs: dict[str, Job] = {}


def register(job: Job) -> None:
    """Put a job on the schedule; call it in ``AppConfig.ready()``."""
    _jobs[job.name] = job


def jobs() -> Mapping[str, Job]:
    """Return the registered jobs by name."""
    return _jobs


def tick() -> Sequence[str]:
    """Hand what is due to the workers and return the names; find runs that nobody works any more."""
    known = set(ScheduledJob.objects.values_list("name", flat=True))
    new = [ScheduledJob(name=name, due_at=Now()) for name in _jobs if name not in known]
    if new:
        ScheduledJob.objects.bulk_create(new, ignore_conflicts=True)
    started = []
    due = ScheduledJob.objects.filter(due_at__lte=Now())
    for name in due.filter(name__in=_jobs).values_list("name", flat=True):
        # The condition stands in the UPDATE: whoever comes second finds that it is not due any more.
        if due.filter(name=name).update(due_at=Now() + _jobs[name].every, last_started_at=Now()):
            run_job.enqueue(name)
            started.append(name)
    return started


@task
def run_job(name: str) -> str:
    """Do one job of the schedule. A failure is told once, and the job comes again when it is due."""
    job = _jobs.get(name)
    if job is None:
        return "unknown"
    try:
        result = job.work()
    except Exception as error:
        log.exception("the job %s failed", name)
        result = f"failed: {type(error).__name__}"
        report(
            FAILED,
            about=name,
            name=job.label,
            owner=Owner.US,
            words=f"{job.label} failed ({type(error).__name__}); the log says where. It is tried again when it is due.",
        )
    else:
        settle(FAILED, about=name)
    watch_certificates()
    ScheduledJob.objects.filter(name=name).update(last_result=result[:200])
    return result


def sweep() -> str:
    """Hand runs to the workers that nobody works: whose message was lost, or whose worker died (R-32)."""
    number = 0
    for run in Run.objects.abandoned():
        enqueue(run)
        number += 1
    return f"{number} runs handed to the workers"
