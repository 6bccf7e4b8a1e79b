"""Celery in a process of its own, with a folder as its broker.

``python -m tests.support.celery_process FOLDER enqueue RUN`` or ``... FOLDER worker BOOK SECONDS NUMBER``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(folder: str, what: str, *arguments: str) -> int:
    os.environ.update(DJANGO_SETTINGS_MODULE="tests.settings", TEST_CELERY_BROKER_URL="filesystem://")
    import django

    django.setup()
    from portal.runs import tasks
    from portal.runs.celery import app
    from portal.runs.models import Run
    from tests.support.work import Filed

    app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": f"{folder}/control",
    }
    if what == "enqueue":
        tasks.enqueue(Run.objects.get(pk=int(arguments[0])))
        return 0
    book, seconds, number = arguments
    Filed(int(number), Path(book), float(seconds)).kind()
    options = ["--pool", "threads", "--concurrency", "1", "--loglevel", "ERROR"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
