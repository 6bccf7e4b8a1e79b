"""What the consent commands share: selection of partners, plain errors, exit codes (R-33)."""

from __future__ import annotations

import json
import logging
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import CommandError
from django.db import Error
from django.urls import reverse

from consent import clients
from consent.management.selection import add_partner_selection, partner_selection
from consent.naming import SeveralRegistrations, UnknownRegistration
from consent.selection import Selection
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Contained
from consent.tokens.versions import IdentityMismatch
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.databases import trouble
from portal.decisions.doing import take
from portal.decisions.kinds import Approval, CannotBeDone, Parameters
from portal.decisions.kinds import Kind as Decided
from portal.decisions.records import DecisionRefused
from portal.decisions.service import ask, in_emergency
from portal.incidents.watch import watch_certificates
from portal.microsoft.errors import RemoteError
from portal.runs import tasks
from portal.runs.console import add_run_arguments, begin, dry_run, foreground, words_of
from portal.runs.kinds import Kind, Outcome
from portal.runs.models import Run, RunItem

log = logging.getLogger(__name__)

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_SYSTEMIC = 3
EXIT_CONTAINED = 4


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
        try:
            code = self.work(options)
        except RemoteError as error:
            raise CommandError(explain(error), returncode=EXIT_SOME_FAILED) from None
        except Contained as stop:
            raise CommandError(str(stop), returncode=EXIT_CONTAINED) from None
        except (TokenUnavailable, IdentityMismatch) as error:
            raise CommandError(str(error), returncode=EXIT_SOME_FAILED) from None
        except (UnknownRegistration, SeveralRegistrations) as error:
            raise CommandError(str(error), returncode=EXIT_USAGE) from None
        except VaultConfigurationError as error:
            raise CommandError(str(error), returncode=EXIT_SYSTEMIC) from None
        except Error as error:
            sentence = trouble(error)
            if sentence is None:
                log.exception("a command failed at the database")
                sentence = f"The database refused what the portal asked ({type(error).__name__}); the log says where."
            raise CommandError(sentence, returncode=EXIT_SYSTEMIC) from None
        finally:
            watch_certificates()
        if code:
            sys.exit(code)

    def work(self, options: dict[str, Any]) -> int:
        """Do the command's work and return its exit code."""
        raise NotImplementedError

    def second_person(self, kind: Decided, parameters: Parameters, options: Mapping[str, Any]) -> Approval:
        """Return the approval of a second person, which works once.

        Raises:
            CommandError: it was asked for now, or waits, and the command ends with 1; without a reason, or when it
                makes no sense, with 2.
        """
        try:
            approval = take(kind, parameters)
            if approval is not None:
                return approval
            if options["emergency"]:
                return in_emergency(kind, parameters, why=options["why"], actor=self.actor)
            if not options["why"]:
                raise CommandError(
                    "Two persons decide about this. Say why with --why TEXT: then a second person decides in the "
                    "admin. Nothing was done.",
                    returncode=EXIT_USAGE,
                )
            decision, new = ask(kind, parameters, why=options["why"], actor=self.actor)
        except (CannotBeDone, DecisionRefused) as reason:
            raise CommandError(str(reason), returncode=EXIT_USAGE) from None
        address = f"{settings.PUBLIC_BASE_URL}{reverse('admin:decisions_decision_change', args=[decision.pk])}"
        said = "Asked for" if new else f"Asked for already by {decision.requested_by}"
        then = "Then run this again." if kind.execute is None else "Then the workers do it."
        raise CommandError(
            f"{said}; nothing was done yet. A second person decides until {decision.expires_at:%Y-%m-%d %H:%M} UTC at "
            f"{address} . {then}",
            returncode=EXIT_SOME_FAILED,
        )

    def say(self, text: str) -> None:
        """Print one line for a person."""
        self.stdout.write(text)

    def say_json(self, record: dict[str, Any]) -> None:
        """Print one JSON line for a program."""
        self.stdout.write(json.dumps(record, ensure_ascii=False, sort_keys=True))


class BulkCommand(ConsentCommand):
    """A command that works a run: one line for each unit, one summary, the exit codes of R-33."""

    kind: ClassVar[Kind]
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
        scope = chosen.to_json()
        clients.vault()  # before the run exists: another vault than the database's stops the command
        if options["dry_run"]:
            return dry_run(partial(self.kind.units, scope), self.stdout, as_json=options["json"])
        nothing = not self.kind.units(scope, 0, 1)
        run = begin(self.kind, scope=scope, options=options, kind_options=kind_options or {}, actor=self.actor)
        return self.follow(run, options, nothing=nothing)

    def follow(self, run: Run, options: Mapping[str, Any], *, nothing: bool = False) -> int:
        """Work a run here or leave it to the workers; return the exit code. ``nothing``: its selection fits nothing."""
        if options["background"]:
            tasks.enqueue(run)
            self.say(f"Run {run.pk} is left to the workers; watch it with run_status {run.pk}.")
            code = 0
        else:
            code = foreground(
                run,
                out=self.stdout,
                err=self.stderr,
                as_json=options["json"],
                words=self.words,
                concurrency=options["concurrency"],
                processes=options["processes"],
            )
        if nothing and not run.total and not options["json"]:
            self.say(self.nothing)
        return code

    def words(self, item: RunItem, outcome: Outcome) -> str:
        """Return the line of one unit for people."""
        return words_of(item, outcome)


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
