from django.apps import AppConfig


class RunsConfig(AppConfig):
    """Bulk work: runs, their items, executors, limits and the schedule."""

    name = "portal.runs"
    label = "runs"
    verbose_name = "Activity"
    navigation_order = 30
