"""What happens by itself, and when: jobs, and a row for each that says when it is due.

Apps declare their jobs (``portal.runs.registry``). A scheduler looks every few seconds, takes what is due by one
conditional UPDATE and hands it to the workers, so two schedulers are harmless (R-27). A job runs at least once: what is
handed out stands in its row until it is done. The process that does it puts off its repetition every few seconds; when
that stops, because the process was killed, a scheduler hands it out again (R-32). So a job may be repeated, also at
the same time, and must not mind.

A job that takes long calls ``stop_point`` between its pieces: a worker that is asked to end leaves it there, and
another begins it again (R-28).
"""

from __future__ import annotations

import logging
import math
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.tasks import task
from django.utils import timezone

from portal.audit.trail import Actor, record
from portal.incidents.certificates import watch_certificates
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.rights import require, require_unlimited
from portal.runs import service, tasks
from portal.runs.ending import is_ending
from portal.runs.models import Run, ScheduledJob
from portal.runs.registry import Job, jobs

log = logging.getLogger(__name__)

FAILED = "job_failed"  # cause of the incident
LEASE = timedelta(seconds=60)  # without a sign of life a job is repeated
BEAT_SECONDS = 15.0
_LOST_AFTER = timedelta(minutes=10)  # a message that no worker took, and that may be lost
_MOST_CUTS = 5  # then it is the job that kills its process
_MOST_TIMES = 24  # that are made up for when nothing ran: a day of hours
_TOLERANCE = timedelta(minutes=1)


class StopAsked(Exception):
    """This process was asked to end: the job stops between two pieces, and is handed out again."""


def stop_point() -> None:
    """Stop here when this process was asked to end. Raises StopAsked."""
    if is_ending():
        raise StopAsked


# --- handing out --------------------------------------------------------------------------------------------------


def tick() -> Sequence[str]:
    """Hand what is due to the workers, and again what was cut off; return the names."""
    known = set(ScheduledJob.objects.values_list("name", flat=True))
    new = [ScheduledJob(name=name, due_at=Now()) for name in jobs() if name not in known]
    if new:
        ScheduledJob.objects.bulk_create(new, ignore_conflicts=True)
    started = []
    for row in ScheduledJob.objects.filter(name__in=jobs()).annotate(now=Now()):
        if is_ending():
            break
        job, now = jobs()[row.name], row.now
        if _hand_out(row, job, now) if row.repeat_at is None else _repeat(row, job):
            run_job.enqueue(row.name)
            started.append(row.name)
    return started


def _has_come(name: str, longest: timedelta) -> Q:
    """Rows whose moment has come; one further ahead than it can be was written while the clock was (R-42).

    The condition stands in the UPDATE: the second one finds that it does not hold any more.
    """
    return Q(**{f"{name}__lte": Now()}) | Q(**{f"{name}__gt": Now() + longest + _TOLERANCE})


def _hand_out(row: ScheduledJob, job: Job, now: datetime) -> bool:
    """Take a job that is due. Its times lie on a grid, however late it is taken, so none is passed over or doubled."""
    first = min(row.due_at, now)
    due_at = first + job.every * (math.floor((now - first) / job.every) + 1)
    mine = ScheduledJob.objects.filter(_has_come("due_at", job.every), name=row.name, repeat_at__isnull=True)
    return bool(
        mine.update(
            due_at=due_at,
            first_due_at=max(first, due_at - job.every * _MOST_TIMES),
            last_started_at=Now(),
            repeat_at=Now() + _LOST_AFTER,
            owner="",
            cut_off=0,
        )
    )


def run_now(name: str, *, actor: Actor) -> bool:
    """Hand out a job before its time; it comes at its usual time as well. False when it is handed out already.

    Raises:
        KeyError: no app declares such a job.
    """
    require(actor, "runs.start_scheduledjob")
    require_unlimited(actor)
    job = jobs()[name]
    with transaction.atomic():
        started = ScheduledJob.objects.filter(name=name, repeat_at__isnull=True).update(
            first_due_at=F("due_at") - job.every,
            last_started_at=Now(),
            repeat_at=Now() + _LOST_AFTER,
            owner="",
            cut_off=0,
        )
        if started:
            record("job.started", actor=actor, subject={"job": name})
            transaction.on_commit(lambda: run_job.enqueue(name))
    return bool(started)


def _repeat(row: ScheduledJob, job: Job) -> bool:
    """Hand out again what was never ended: its message was lost, or its process died."""
    mine = ScheduledJob.objects.filter(_has_come("repeat_at", _LOST_AFTER), name=row.name, owner=row.owner)
    if not row.owner:
        return bool(mine.update(repeat_at=Now() + _LOST_AFTER))
    if row.cut_off + 1 >= _MOST_CUTS:
        said = f"cut off {_MOST_CUTS} times, because its process ended in the middle; given up until it is due again"
        if mine.update(repeat_at=None, owner="", cut_off=F("cut_off") + 1, last_result=said, last_failed=True):
            words = f"{job.label} was {said}. Look at the worker's log and its memory."
            log.error("job %s: %s", job.name, said)
            report(FAILED, about=job.name, name=job.label, owner=Owner.US, words=words)
        return False
    said = f"cut off, because its process ended in the middle; repeated at {timezone.now():%Y-%m-%d %H:%M} UTC"
    repeated = mine.update(
        repeat_at=Now() + _LOST_AFTER, owner="", cut_off=F("cut_off") + 1, last_started_at=Now(), last_result=said
    )
    if repeated:
        log.warning("job %s: %s", job.name, said)
    return bool(repeated)


# --- doing --------------------------------------------------------------------------------------------------------


@task
def run_job(name: str) -> str:
    """Do one job of the schedule. A failure is reported once, and the job comes again when it is due."""
    job = jobs().get(name)
    if job is None:
        return "unknown"
    owner = str(uuid.uuid4())
    waiting = ScheduledJob.objects.filter(name=name, repeat_at__isnull=False, owner="")
    if is_ending() or not waiting.update(owner=owner, repeat_at=Now() + LEASE):
        return "not handed out, or somebody does it"
    row = ScheduledJob.objects.get(name=name)
    mine = ScheduledJob.objects.filter(name=name, owner=owner)
    log.info("job %s begins", name, extra={"job": name})
    failed = False
    try:
        with _signs_of_life(name, owner):
            result = job.work(_times(row, job))
    except StopAsked:
        mine.update(owner="", repeat_at=Now(), last_result="stopped with its process; it is repeated")
        log.info("job %s stops with its process; another repeats it", name, extra={"job": name})
        return "stopped"
    except Exception as error:
        log.exception("job %s failed", name, extra={"job": name})
        result, failed = f"failed: {type(error).__name__}", True
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
    if row.cut_off:
        times = "once" if row.cut_off == 1 else f"{row.cut_off} times"
        result = f"{result} (begun again {times}, because its process ended in the middle)"
    mine.update(owner="", repeat_at=None, last_result=result[:200], last_finished_at=Now(), last_failed=failed)
    log.info("job %s ends: %s", name, result, extra={"job": name})
    return result


def _times(row: ScheduledJob, job: Job) -> list[datetime]:
    """Return the times that came due and are not done."""
    first = row.first_due_at or row.due_at - job.every
    number = round((row.due_at - first) / job.every)
    return [first + job.every * index for index in range(max(number, 1))]


@contextmanager
def _signs_of_life(name: str, owner: str) -> Iterator[None]:
    """Put the repetition of a job off while it is done, by a thread with a connection of its own."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            try:
                ScheduledJob.objects.filter(name=name, owner=owner).update(repeat_at=Now() + LEASE)
            except DatabaseError as error:
                log.warning("job %s: no sign of life (%s)", name, type(error).__name__)
            finally:
                connection.close()

    threading.Thread(target=beat, name=f"job-{name}", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def sweep() -> str:
    """Hand runs without an executor to the workers, and resume stopped ones whose time has come (R-32)."""
    resumed = sum(service.resume_by_itself(run) for run in Run.objects.to_resume())
    number = 0
    for run in Run.objects.abandoned():
        tasks.enqueue(run)
        number += 1
    said = f"{number} {'run' if number == 1 else 'runs'} handed to the workers"
    return f"{said}, {resumed} of them resumed" if resumed else said
