"""The Celery application, for installations that run Celery already (``CELERY_BROKER_URL``).

Start its workers with threads, because a run works in threads of its own and a polite stop reaches it there::

    celery -A portal.runs.celery worker --pool threads --concurrency 2

A message says "advance run N" and nothing else. One that is lost, late or delivered twice does no harm; see
``portal.runs.tasks``.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, worker_shutting_down

from portal import starting
from portal.runs import ending

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.conf import settings

app = Celery("portal", broker=settings.CELERY_BROKER.reveal(), set_as_current=False)
app.conf.update(
    # Who can write to the broker must not choose what is built from a message: JSON and nothing else.
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    event_serializer="json",
    task_ignore_result=True,  # what became of a run stands in its rows
    task_acks_late=True,
    # A message may be a quarter of an hour of work: a worker takes as many as it works, and others get the rest.
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,  # our log format, with its filters, stays
    broker_connection_retry_on_startup=True,
)


@celeryd_after_setup.connect(weak=False)  # type: ignore[untyped-decorator]
def _check_the_start(**_: Any) -> None:
    starting.check_or_exit("The worker")


@worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
def _stop_politely(**_: Any) -> None:
    ending.stop_all()
