"""Run what was typed behind ``manage.py``, and leave an entry in the audit trail of who ran what (S-55)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError

from portal.audit.trail import Actor, record
from portal.commands import PortalCommand

log = logging.getLogger(__name__)

# Of Django's own commands those that read or change what the portal keeps; ours are all noted.
_NOTED = frozenset(
    {
        "changepassword",
        "clearsessions",
        "createsuperuser",
        "dbshell",
        "dumpdata",
        "flush",
        "loaddata",
        "migrate",
        "shell",
    }
)


class Utility(ManagementUtility):
    """Django's, with a note of each command before it runs."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        command = super().fetch_command(subcommand)
        if self.argv[1:2] == [subcommand] and (isinstance(command, PortalCommand) or subcommand in _NOTED):
            _note(subcommand, self.argv[2:])
        return command


def _note(name: str, arguments: Sequence[str]) -> None:
    """Write the entry; only names of options, as values may be secret. A database that is away stops no command."""
    options = sorted({one.partition("=")[0] for one in arguments if one.startswith("--")})
    if {"--help", "-h"} & {*options, *arguments}:
        return
    try:
        record("command.run", actor=Actor.command(name), subject={}, details={"options": options} if options else {})
    except (DatabaseError, InterfaceError) as error:
        log.debug("the run of %s is not in the audit trail: %s", name, type(error).__name__)  # it is not migrated yet


def run(argv: Sequence[str]) -> None:
    """Run a command as Django's ``execute_from_command_line`` does."""
    Utility(list(argv)).execute()
