"""Each command leaves an entry in the audit trail of who ran it, before it runs (S-55)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError
from django.dispatch import receiver

from portal.audit.trail import Actor, record
from portal.commands import PortalCommand, command_runs

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


@receiver(command_runs)
def note(*, command: BaseCommand, name: str, arguments: Sequence[str], **signal: Any) -> None:
    """Write the entry; only names of options, as values may be secret. A database that is away stops no command."""
    options = sorted({one.partition("=")[0] for one in arguments if one.startswith("--")})
    if not (isinstance(command, PortalCommand) or name in _NOTED) or {"--help", "-h"} & {*options, *arguments}:
        return
    try:
        record("command.run", actor=Actor.command(name), subject={}, details={"options": options} if options else {})
    except (DatabaseError, InterfaceError) as error:
        log.debug("the run of %s is not in the audit trail: %s", name, type(error).__name__)  # it is not migrated yet
