"""What the consent commands share: selection of partners, plain errors, exit codes (R-33).

Arguments are parsed here. What a command does begins in ``consent.management.working``, which is imported only then.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.base import CommandError

from consent.management.exit_codes import EXIT_CONTAINED as EXIT_CONTAINED
from consent.management.exit_codes import EXIT_SOME_FAILED as EXIT_SOME_FAILED
from consent.management.exit_codes import EXIT_SYSTEMIC as EXIT_SYSTEMIC
from consent.management.exit_codes import EXIT_USAGE as EXIT_USAGE
from consent.management.selection import add_partner_selection, partner_selection
from consent.selection import Selection
from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.decisions.kinds import Approval, Kind, Parameters
from portal.runs.arguments import add_run_arguments
from portal.runs.kinds import Outcome
from portal.runs.models import Run, RunItem


def _working() -> Any:
    # By name: the services and Microsoft's libraries take longer than Django itself, and a help text needs none.
    return import_module("consent.management.working")


def add_second_person_arguments(parser: ArgumentParser) -> None:
    """Add what a command takes whose deed two persons decide about (S-50)."""
    parser.add_argument(
        "--why", default="", metavar="TEXT", help="the reason, for the second person, who decides in the admin"
    )
    parser.add_argument(
        "--emergency", action="store_true", help="go on without a second person; opens an incident that names you"
    )


class ConsentCommand(PortalCommand):
    """A command that fails with one clear line and a documented exit code."""

    name: ClassVar[str]

    @property
    def actor(self) -> Actor:
        """The command and the OS user who runs it, for the audit trail."""
        return Actor.command(self.name)

    def handle(self, *args: Any, **options: Any) -> None:
        if code := _working().carried_out(partial(self.work, options)):
            sys.exit(code)

    def work(self, options: dict[str, Any]) -> int:
        """Do the command's work and return its exit code."""
        raise NotImplementedError

    def second_person(self, kind: Kind, parameters: Parameters, options: Mapping[str, Any]) -> Approval:
        """Return the approval of a second person, which works once.

        Raises:
            CommandError: it was asked for now, or waits, and the command ends with 1; without a reason, or when it
                makes no sense, with 2.
        """
        approval: Approval = _working().second_person(kind, parameters, options, actor=self.actor)
        return approval

    def say(self, text: str) -> None:
        """Print one line for a person."""
        self.stdout.write(text)

    def say_json(self, record: dict[str, Any]) -> None:
        """Print one JSON line for a program."""
        self.stdout.write(json.dumps(record, ensure_ascii=False, sort_keys=True))


class BulkCommand(ConsentCommand):
    """A command that works a run: one line for each unit, one summary, the exit codes of R-33.

    Attributes:
        kind: the name of what it works (``portal.runs.registry``).
    """

    kind: ClassVar[str]
    concurrency: ClassVar[int] = 64
    nothing: ClassVar[str] = "Nothing fits this selection today. Partners without a usable token are passed over."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_partner_selection(parser)
        add_run_arguments(parser, concurrency=self.concurrency)

    def work(self, options: dict[str, Any]) -> int:
        return self.run_it(partner_selection(options), options)

    def run_it(
        self, chosen: Selection, options: Mapping[str, Any], kind_options: Mapping[str, Any] | None = None
    ) -> int:
        """Start or continue the run of this selection and work it, here or in the background; return the exit code."""
        code: int = _working().run_it(self, chosen, options, kind_options or {})
        return code

    def follow(self, run: Run, options: Mapping[str, Any], *, nothing: bool = False) -> int:
        """Work a run here or leave it to the workers; return the exit code. ``nothing``: its selection fits nothing."""
        code: int = _working().follow(self, run, options, nothing=nothing)
        return code

    def words(self, item: RunItem, outcome: Outcome) -> str:
        """Return the line of one unit for people."""
        line: str = _working().words_of(item, outcome)
        return line


def write_new(path: Path, content: str) -> None:
    """Write a file that only its owner may read; one that is there is not written over.

    Raises:
        CommandError: it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)
            file.write(content)
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}); name a new file.", returncode=2) from None
