"""Run what was typed behind ``manage.py``, and leave an entry in the audit trail of who ran what (S-55)."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from portal.commands import PortalCommand

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
            # By name: its rows can be imported only now that Django is set up.
            import_string("portal.management.noting.note")(subcommand, self.argv[2:])
        return command


def run(argv: Sequence[str]) -> None:
    """Run a command as Django's ``execute_from_command_line`` does."""
    Utility(list(argv)).execute()
