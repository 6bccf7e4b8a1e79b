"""A command that works a run, or a worker, in a process of its own.

``python -m tests.support.processes RUN BOOK SECONDS NUMBER CONCURRENCY [PROCESSES]``, with ``worker`` for the
concurrency to start a worker. RUN_FAULT in the environment makes every unit fail for a cause on our side; RUN_JOB gives
the worker a job that takes 100 seconds, in pieces or stuck, or is short.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path


def main(run: str, book: str, seconds: str, number: str, concurrency: str, processes: str = "1") -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.core.management.base import OutputWrapper

    from portal.runs import lease as leases
    from portal.runs.console import foreground, words_of
    from portal.runs.models import Run
    from tests.support.work import Filed

    if lease := float(os.environ.get("RUN_LEASE", "0")):
        vars(leases).update(LEASE=timedelta(seconds=lease), HEARTBEAT_SECONDS=lease / 3)
    Filed(int(number), Path(book), float(seconds), fault="RUN_FAULT" in os.environ).kind()
    if concurrency == "worker":
        from django.core.management import call_command

        if job := os.environ.get("RUN_JOB"):
            register_job(job, book)
        call_command("worker", "--no-schedule")
        return 0
    found = Run.objects.get(pk=int(run))
    return foreground(
        found,
        out=OutputWrapper(sys.stdout),
        err=sys.stderr,
        as_json=False,
        words=words_of,
        concurrency=int(concurrency),
        processes=int(processes),
    )


def register_job(how: str, book: str) -> None:
    from portal.runs import schedule
    from portal.runs.management.commands import worker
    from portal.runs.registry import Job, jobs

    def work(times: Sequence[datetime]) -> str:
        with Path(book).open("a") as out:
            out.write(f"0 {os.getpid()}\n")
        until = time.monotonic() + (0 if how == "short" else 100)
        while time.monotonic() < until:
            time.sleep(0.05)
            if how == "pieces":
                schedule.stop_point()
        return "done"

    vars(worker).update(END_SECONDS=3.0)
    job = Job(name="long_job", label="Long job", every=timedelta(days=1), work=work)
    jobs()[job.name] = job


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
