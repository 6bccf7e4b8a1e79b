from datetime import timedelta

from django.apps import AppConfig


class RunsConfig(AppConfig):
    """Bulk work: runs, their items, executors, limits and the schedule."""

    name = "portal.runs"
    label = "runs"
    verbose_name = "Activity"
    navigation_order = 30

    def ready(self) -> None:
        from portal.incidents.desk import mail_due
        from portal.runs import schedule, service
        from portal.runs.models import Run
        from portal.runs.schedule import Job
        from portal.site.subjects import Named, name_subjects

        name_subjects(run=Named(Run))
        minute, day = timedelta(minutes=1), timedelta(days=1)
        for job in (
            Job(name="sweep", label="Search for abandoned runs", every=minute, work=lambda times: schedule.sweep()),
            Job(
                name="alerts",
                label="Mails about incidents",
                every=10 * minute,
                work=lambda times: f"{mail_due()} sent",
            ),
            Job(
                name="old_runs",
                label="Removal of old runs",
                every=day,
                work=lambda times: f"{service.remove_old()} removed",
            ),
        ):
            schedule.register(job)
