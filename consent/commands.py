"""What the consent commands share: selection of partners, plain errors, exit codes (R-33)."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from consent import clients
from consent.custody import TokenUnavailable
from consent.selection import add_partner_selection, scope_of
from consent.token_versions import IdentityMismatch
from consent.vault.base import VaultConfigurationError
from portal.audit.trail import Actor
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import RemoteError, Unreachable
from portal.runs import tasks
from portal.runs.console import add_run_arguments, begin, dry_run, foreground, words_of
from portal.runs.kinds import Kind, Outcome
from portal.runs.models import RunItem

EXIT_SOME_FAILED = 1
EXIT_SYSTEMIC = 3


def explain(error: RemoteError) -> str:
    """Return the failure in plain words: what happened, who must act, what to do, and the ids to find it by."""
    diagnosis = diagnose(error)
    if isinstance(error, Unreachable) and settings.TEST_ENDPOINTS:
        return (
            f"The sandbox does not answer on port {settings.TEST_ENDPOINTS} (TEST_ENDPOINTS): start it with "
            f"manage.py sandbox, or unset TEST_ENDPOINTS to talk to Microsoft. [{error}]"
        )
    who = {"us": "you", "nobody": "nobody, try again later"}.get(diagnosis.owner.value, diagnosis.owner.value)
    where = f" ({error.service} is at fault)" if error.retryable else ""
    return f"{diagnosis.cause} Who must act: {who}. {diagnosis.remedy}{where} [{error}]"


class ConsentCommand(BaseCommand):
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
        except (TokenUnavailable, IdentityMismatch) as error:
            raise CommandError(str(error), returncode=EXIT_SOME_FAILED) from None
        except VaultConfigurationError as error:
            raise CommandError(str(error), returncode=EXIT_SYSTEMIC) from None
        except DatabaseError as error:
            raise CommandError(
                f"The database does not answer ({type(error).__name__}). Check DATABASE_URL and run migrate.",
                returncode=EXIT_SYSTEMIC,
            ) from None
        if code:
            sys.exit(code)

    def work(self, options: dict[str, Any]) -> int:
        """Do the command's work and return its exit code."""
        raise NotImplementedError

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

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_partner_selection(parser)
        add_run_arguments(parser, concurrency=self.concurrency)

    def work(self, options: dict[str, Any]) -> int:
        return self.run_it(scope_of(options), options)

    def run_it(
        self, scope: Mapping[str, Any], options: Mapping[str, Any], kind_options: Mapping[str, Any] | None = None
    ) -> int:
        """Start or continue the run of this scope and work it, here or in the background; return the exit code."""
        clients.vault()  # before the run exists: another vault than the database's stops the command
        if options["dry_run"]:
            return dry_run(self.kind, scope, self.stdout, as_json=options["json"])
        run = begin(self.kind, scope=scope, options=options, kind_options=kind_options or {}, actor=self.actor)
        if options["background"]:
            tasks.enqueue(run)
            self.say(f"Run {run.pk} is left to the workers; watch it with run_status {run.pk}.")
            return 0
        return foreground(
            run,
            out=self.stdout,
            err=self.stderr,
            as_json=options["json"],
            words=self.words,
            concurrency=options["concurrency"],
            processes=options["processes"],
        )

    def words(self, item: RunItem, outcome: Outcome) -> str:
        """Return the line of one unit for people."""
        return words_of(item, outcome)
