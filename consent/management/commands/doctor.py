import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from consent.doctor.examining import examine
from consent.doctor.sample import NoSample, env_lines, why_not
from consent.doctor.steps import Looked, as_json, first_failure, summary
from portal.audit.trail import Actor
from portal.commands import PortalCommand


class Command(PortalCommand):
    help = (
        "Try every setting and every dependency in order, and name the first that fails and what to do. Nothing is "
        "changed but one entry of the vault that is the doctor's own; no secret is shown. Exit codes: 0 nothing fails, "
        "1 something fails, 2 usage."
    )
    examples = (
        "doctor",
        "doctor --json  # for a monitor",
        "doctor --from-sample web.config  # the configuration of Microsoft's sample as lines for .env",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--json", action="store_true", help="print one JSON object for a program")
        how.add_argument(
            "--from-sample",
            type=Path,
            metavar="FILE",
            help="read a web.config, app.config or appsettings.json of Microsoft's sample; look at nothing else",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["from_sample"] is not None:
            self._map(options["from_sample"])
            return
        report = []
        for looked in examine(actor=Actor.command("doctor")):
            report.append(looked)
            if not options["json"]:
                self._tell(looked)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(report, timezone.now()), ensure_ascii=False))
        else:
            self.stdout.write(f"\n{summary(report)}")
        if first_failure(report) is not None:
            sys.exit(1)

    def _tell(self, looked: Looked) -> None:
        self.stdout.write(f"{looked.title}: {looked.result.label.lower()}")
        for finding in looked.findings:
            self.stdout.write(f"    {finding.words}")
            if finding.remedy:
                self.stdout.write(f"    -> {finding.remedy}")

    def _map(self, path: Path) -> None:
        try:
            lines = list(env_lines(path))
        except (NoSample, OSError) as error:
            raise CommandError(why_not(path, error), returncode=2) from None
        self.stdout.write("\n".join(lines))
