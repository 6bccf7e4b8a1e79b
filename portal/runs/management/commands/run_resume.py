import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.runs import service, tasks
from portal.runs.arguments import EXIT_CODES, add_processes
from portal.runs.console import foreground, words_of
from portal.runs.models import Run
from portal.runs.registry import UnknownKind, kind_named


class Command(PortalCommand):
    help = (
        "Go on with a run that was cut off, paused or stopped, or help those who work it: several processes share "
        f"one run. What failed for a cause on our side is tried again. {EXIT_CODES}"
    )
    examples = (
        "run_resume 44",
        "run_resume 44 --processes 4  # helps those who work it",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, metavar="RUN", help="number of the run")
        parser.add_argument("--concurrency", type=int, metavar="N", help="units at once, instead of the run's own")
        add_processes(parser)
        parser.add_argument(
            "--deadline", type=float, metavar="MINUTES", help="begin nothing new after this many minutes"
        )
        parser.add_argument("--background", action="store_true", help="leave the work to the workers and return")
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        run = Run.objects.filter(pk=options["run"]).first()
        if run is None:
            raise CommandError(f"There is no run {options['run']}.", returncode=2)
        try:
            kind_named(run.kind)
        except UnknownKind as error:
            raise CommandError(str(error), returncode=2) from None
        if why := service.why_not_resumed(run):
            raise CommandError(f"Nothing was changed. {why}", returncode=2)
        if run.state in {Run.State.PAUSED, Run.State.STOPPED}:
            minutes = options["deadline"]
            deadline = None if minutes is None else timezone.now() + timedelta(minutes=minutes)
            service.resume(run, actor=Actor.command("run_resume"), deadline=deadline)
        if run.state != Run.State.OPEN:
            raise CommandError(f"Run {run.pk} is {run.get_state_display().lower()}; start a new one.", returncode=2)
        if options["background"]:
            tasks.enqueue(run)
            self.stdout.write(f"Run {run.pk} is left to the workers.")
            return
        code = foreground(
            run,
            out=self.stdout,
            err=self.stderr,
            as_json=options["json"],
            words=words_of,
            concurrency=options["concurrency"],
            processes=options["processes"],
        )
        if code:
            sys.exit(code)
