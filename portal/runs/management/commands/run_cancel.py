from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.runs import service
from portal.runs.models import Run


class Command(PortalCommand):
    help = (
        "Cancel a run for good, or pause it. Its executors stop after the units that were begun; what was done "
        "stays done. Exit codes: 0, 2 no such run, or it is finished."
    )
    examples = (
        "run_cancel 44 --pause",
        "run_cancel 44",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, metavar="RUN", help="number of the run")
        parser.add_argument("--pause", action="store_true", help="only pause it; run_resume goes on")

    def handle(self, *args: Any, **options: Any) -> None:
        run = Run.objects.filter(pk=options["run"]).first()
        if run is None:
            raise CommandError(f"There is no run {options['run']}.", returncode=2)
        actor = Actor.command("run_cancel")
        done = service.pause(run, actor=actor) if options["pause"] else service.cancel(run, actor=actor)
        if not done:
            raise CommandError(f"Run {run.pk} is {run.get_state_display().lower()}.", returncode=2)
        self.stdout.write(f"Run {run.pk} is {run.get_state_display().lower()}.")
