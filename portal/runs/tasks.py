"""Background work through ``django.tasks``: the queue delivers "advance run N", and the truth is in the rows.

A lost, late or repeated message does no harm: a run without an executor is found by the sweeper (``schedule``), and two
executors of one run share it.
"""

from __future__ import annotations

import logging
from datetime import datetime

from dj_queue.models import FailedExecution, Job
from django.db import transaction
from django.tasks import task

from portal.runs.ending import is_ending, stopped_at_the_end
from portal.runs.executor import Executor
from portal.runs.listening import Ending
from portal.runs.models import Run

log = logging.getLogger(__name__)

SLICE_SECONDS = 900.0  # then a worker gives other runs their turn


def enqueue(run: Run) -> None:
    """Let a worker advance this run, once the current transaction is committed."""
    key = run.pk
    transaction.on_commit(lambda: advance.enqueue(key))


@task
def advance(run_id: int) -> str:
    """Work a run for a while; hand it on when there is more to do. Returns why it ended."""
    if is_ending():
        return "this process ends; the sweeper hands the run to another"
    run = Run.objects.open().filter(pk=run_id).first()
    if run is None:
        return "nothing to do"
    executor = Executor(run, seconds=SLICE_SECONDS)
    try:
        with stopped_at_the_end(executor):
            ending = executor.work()
    except Exception:  # the queue keeps it in a row that is not read
        log.exception("%s, run %s: a worker failed; the sweeper hands the run to another", run.kind, run.pk)
        raise
    if ending is Ending.INTERRUPTED:
        enqueue(run)
    return ending.value


def remove_dead_messages(before: datetime) -> int:
    """Remove messages of our own queue that died with their worker; what they said stands in the rows of run or job."""
    dead = FailedExecution.objects.filter(created_at__lt=before).values_list("job_id", flat=True)
    return Job.objects.filter(pk__in=list(dead)).delete()[1].get("dj_queue.Job", 0)
