"""What the consent commands do once their arguments are parsed; ``consent.management.base`` imports it then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from django.conf import settings
from django.core.management.base import CommandError
from django.db import Error
from django.urls import reverse

from consent import clients
from consent.management.exit_codes import EXIT_CONTAINED, EXIT_SOME_FAILED, EXIT_SYSTEMIC, EXIT_USAGE
from consent.naming import SeveralRegistrations, UnknownRegistration
from consent.selection import Selection
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Contained
from consent.tokens.versions import IdentityMismatch
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.audit.trail import Actor
from portal.databases import trouble
from portal.decisions.doing import take
from portal.decisions.kinds import Approval, CannotBeDone, Kind, Parameters
from portal.decisions.records import DecisionRefused
from portal.decisions.service import ask, in_emergency
from portal.incidents.certificates import watch_certificates
from portal.microsoft.errors import RemoteError
from portal.runs import tasks
from portal.runs.console import Output, begin, dry_run, foreground
from portal.runs.console import words_of as words_of
from portal.runs.kinds import Outcome
from portal.runs.models import Run, RunItem
from portal.runs.registry import kind_named

log = logging.getLogger(__name__)


class Bulk(Protocol):
    """What is needed of a command that works a run; ``consent.management.base.BulkCommand`` says what each part is."""

    kind: str
    nothing: str
    stdout: Output
    stderr: Output

    @property
    def actor(self) -> Actor: ...

    def words(self, item: RunItem, outcome: Outcome) -> str: ...


def carried_out(work: Callable[[], int]) -> int:
    """Do a command's work and return its exit code.

    Raises:
        CommandError: it failed; the text is one line for the operator, and the exit code is in it.
    """
    try:
        return work()
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


def second_person(kind: Kind, parameters: Parameters, options: Mapping[str, Any], *, actor: Actor) -> Approval:
    """Return the approval of a second person. Raises as ``ConsentCommand.second_person``."""
    try:
        approval = take(kind, parameters)
        if approval is not None:
            return approval
        if options["emergency"]:
            return in_emergency(kind, parameters, why=options["why"], actor=actor)
        if not options["why"]:
            raise CommandError(
                "Two persons decide about this. Say why with --why TEXT: then a second person decides in the "
                "admin. Nothing was done.",
                returncode=EXIT_USAGE,
            )
        decision, new = ask(kind, parameters, why=options["why"], actor=actor)
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


def run_it(command: Bulk, chosen: Selection, options: Mapping[str, Any], kind_options: Mapping[str, Any]) -> int:
    """Start or continue the run of this selection and work it, here or in the background; return the exit code."""
    scope, kind = chosen.to_json(), kind_named(command.kind)
    clients.vault()  # before the run exists: another vault than the database's stops the command
    if options["dry_run"]:
        return dry_run(partial(kind.units, scope), command.stdout, as_json=options["json"])
    nothing = not kind.units(scope, 0, 1)
    run = begin(kind, scope=scope, options=options, kind_options=kind_options, actor=command.actor)
    return follow(command, run, options, nothing=nothing)


def follow(command: Bulk, run: Run, options: Mapping[str, Any], *, nothing: bool) -> int:
    """Work a run here or leave it to the workers; return the exit code. ``nothing``: its selection fits nothing."""
    if options["background"]:
        tasks.enqueue(run)
        command.stdout.write(f"Run {run.pk} is left to the workers; watch it with run_status {run.pk}.")
        code = 0
    else:
        code = foreground(
            run,
            out=command.stdout,
            err=command.stderr,
            as_json=options["json"],
            words=command.words,
            concurrency=options["concurrency"],
            processes=options["processes"],
        )
    if nothing and not run.total and not options["json"]:
        command.stdout.write(command.nothing)
    return code
