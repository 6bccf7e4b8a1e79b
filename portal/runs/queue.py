"""The queue behind ``django.tasks``, for installations that run no other."""

from __future__ import annotations

from dj_queue.apps import DjQueueConfig


class QueueConfig(DjQueueConfig):
    """The queue's tables and its worker. Its own admin stays off: runs are watched on our pages, under our policy."""

    has_pages = False

    def ready(self) -> None:
        """Do not what the queue does here: it adds an index page to the admin."""
