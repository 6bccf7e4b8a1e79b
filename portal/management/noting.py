"""Leave an entry in the audit trail of who ran which command (S-55)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import DatabaseError, InterfaceError

from portal.audit.trail import Actor, record

log = logging.getLogger(__name__)


def note(name: str, arguments: Sequence[str]) -> None:
    """Write the entry; only names of options, as values may be secret. A database that is away stops no command."""
    options = sorted({one.partition("=")[0] for one in arguments if one.startswith("--")})
    if {"--help", "-h"} & {*options, *arguments}:
        return
    try:
        record("command.run", actor=Actor.command(name), subject={}, details={"options": options} if options else {})
    except (DatabaseError, InterfaceError) as error:
        log.debug("the run of %s is not in the audit trail: %s", name, type(error).__name__)  # it is not migrated yet
