"""The queue behind ``django.tasks``, for installations that run no other."""

from __future__ import annotations

from dj_queue.apps import DjQueueConfig
from django.contrib import admin


class QueueConfig(DjQueueConfig):
    """The queue's tables and its worker. Its own admin stays off: runs are watched on our pages, under our policy."""

    def ready(self) -> None:
        for model in self.get_models():
            if admin.site.is_registered(model):
                admin.site.unregister(model)
