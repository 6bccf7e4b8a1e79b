"""A command that works a run, or a worker, in a process of its own.

``python -m tests.runs.process RUN BOOK SECONDS NUMBER CONCURRENCY [PROCESSES]``, with ``worker`` for the concurrency to
start a worker. RUN_FAULT in the environment makes every unit fail for a cause on our side.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path


def main(run: str, book: str, seconds: str, number: str, concurrency: str, processes: str = "1") -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.core.management.base import OutputWrapper

    from portal.runs import executor
    from portal.runs.console import foreground, words_of
    from portal.runs.models import Run
    from tests.runs.work import Filed

    if lease := float(os.environ.get("RUN_LEASE", "0")):
        vars(executor).update(LEASE=timedelta(seconds=lease), HEARTBEAT_SECONDS=lease / 3)
    Filed(int(number), Path(book), float(seconds), fault="RUN_FAULT" in os.environ).kind()
    if concurrency == "worker":
        from django.core.management import call_command

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


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
