import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from portal.commands import PortalCommand
from portal.runs import stops, summaries
from portal.runs.listening import wait_words
from portal.runs.models import Executor, Run

_SHOWN = 20


class Command(PortalCommand):
    help = (
        "Show a run: how far it is, what came of its units, who works it; without a number, the latest runs. "
        "Exit codes: 0, also for a run with failures; 2 no such run."
    )
    examples = (
        "run_status  # the latest runs",
        "run_status 44 --failed --json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="?", type=int, metavar="RUN", help="number of the run")
        parser.add_argument("--failed", action="store_true", help="also each unit that did not end well")
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["run"] is None:
            runs = list(Run.objects.order_by("-pk")[:_SHOWN])
        else:
            runs = list(Run.objects.filter(pk=options["run"]))
            if not runs:
                raise CommandError(f"There is no run {options['run']}.", returncode=2)
        for run in runs:
            self._show(run, as_json=options["json"])
            if options["failed"]:
                self._show_failed(run, as_json=options["json"])

    def _show(self, run: Run, *, as_json: bool) -> None:
        numbers = summaries.summary(run)
        living = [str(each) for each in Executor.objects.living().filter(run=run)]
        waits, more = summaries.waits_of(run) if run.state == Run.State.OPEN else ([], 0)
        if as_json:
            more_of = {"executors": living, "waits": [each.as_json() for each in waits], "resume_at": run.resume_at}
            self.stdout.write(json.dumps(numbers.as_json() | more_of, sort_keys=True, default=str))
            return
        workers = f"; worked by {', '.join(living)}" if living else ""
        reason = f" {numbers.reason}" if numbers.reason else ""
        self.stdout.write(
            f"{run.pk}  {summaries.label_of(run)}: {run.get_state_display().lower()}.{reason} {numbers.words}{workers}"
        )
        if run.state == Run.State.STOPPED:
            self.stdout.write(f"    {stops.after_stop(run)}")
        if waits:
            self.stdout.write(f"    {wait_words(waits, more)}")

    def _show_failed(self, run: Run, *, as_json: bool) -> None:
        for item in run.items.unsuccessful().order_by("pk").iterator(chunk_size=2000):
            line = {
                "label": item.label,
                "class": item.failure_class,
                "message": item.message,
                "owner": item.owner,
                "code": item.code,
                "correlation_id": item.correlation_id,
            }
            if as_json:
                self.stdout.write(json.dumps(line, ensure_ascii=False, sort_keys=True))
            else:
                self.stdout.write(
                    f"    {item.failure_class}  {item.label}: {item.message} Who must act: {item.owner or 'nobody'}. "
                    f"[{' '.join(part for part in (item.code, 'correlation id', item.correlation_id) if part)}]"
                )
