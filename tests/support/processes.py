"""Commands that work a run, and workers, each in a process of its own.

``python -m tests.support.processes`` reads one order a line and forks a process for each; forking spares each the start
of an interpreter. An order has RUN BOOK SECONDS NUMBER CONCURRENCY [PROCESSES] as its arguments, with ``worker`` for
the concurrency to start a worker. RUN_FAULT in its environment makes every unit fail for a cause on our side; RUN_JOB
gives the worker a job that takes 100 seconds, in pieces or stuck, or is short.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


def serve() -> None:
    """Fork a process for each order, and write with which code it ended into the file that the order names."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.core import management
    from django.db import connections

    from portal.runs import console  # noqa: F401  # before the forks, once for all
    from tests.support import work  # noqa: F401

    management.load_command_class("portal.runs", "worker")
    connections.close_all()
    ends: dict[int, Path] = {}

    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                path = ends.pop(ended[0])
                written = path.with_suffix(".tmp")
                written.write_text(str(os.waitstatus_to_exitcode(ended[1])))
                written.rename(path)

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            sys.exit(_follow(order))
        ends[child] = Path(order["end"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _follow(order: dict[str, Any]) -> int:
    """Be the process that was ordered, as if it had been started by itself."""
    os.setsid()
    atexit.unregister(shutil.rmtree)  # the folder of tests.settings is for the others as well
    places = ((0, os.devnull, os.O_RDONLY), (1, order["out"], os.O_WRONLY), (2, order["err"], os.O_WRONLY))
    for number, name, how in places:
        opened = os.open(name, how | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(order["environment"])
    return main(*order["arguments"])


def main(run: str, book: str, seconds: str, number: str, concurrency: str, processes: str = "1") -> int:
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
    serve()
