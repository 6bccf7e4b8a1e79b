import os
import stat
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.access_tokens import UnknownTenant, get_access_token
from consent.management.base import ConsentCommand
from consent.management.selection import one_tenant_id
from consent.tokens.service import Audience
from portal.microsoft.secret import Secret


class Command(ConsentCommand):
    name = "get_access_token"
    help = (
        "Get an access token for one partner and audience. It goes to a new file with mode 0600, or into a pipe; never "
        "to a terminal unless --show is given, nor into a file that others can read. Each use is audited."
    )
    examples = (
        "get_access_token $PARTNER graph --output /run/panel/token",
        "get_access_token $PARTNER graph --customer $CUSTOMER --registration $APPLICATION_ID | panel-import",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument(
            "audience", choices=[audience.value for audience in Audience], help="the service that the token is for"
        )
        parser.add_argument(
            "--registration",
            default="",
            metavar="REGISTRATION",
            help="which of our applications acts: its application id, or its number; needed when the partner consented "
            "to several",
        )
        parser.add_argument("--customer", metavar="TENANT", help="a customer's tenant id: ask at its authority")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file, which must not exist yet")
        parser.add_argument("--show", action="store_true", help="print to a terminal all the same")

    def work(self, options: dict[str, Any]) -> int:
        output: Path | None = options["output"]
        if output is None and sys.stdout.isatty() and not options["show"]:
            raise CommandError("This is a terminal. Use --output FILE, a pipe, or --show if you mean it.", returncode=2)
        if output is None and (mode := _mode_for_others(sys.stdout)):
            raise CommandError(
                f"Standard output is a file that others can read (mode {mode:04o}). Use --output FILE, or set "
                "umask 077 before you redirect.",
                returncode=2,
            )
        if output is not None and output.exists():
            raise CommandError(f"{output} exists already; name a new file.", returncode=2)
        try:
            token = get_access_token(
                one_tenant_id(options["partner"]),
                options["audience"],
                registration=options["registration"],
                customer=one_tenant_id(options["customer"]) if options["customer"] is not None else "",
                actor=self.actor,
                to="file" if output else "standard output",
            )
        except (UnknownTenant, ValueError) as error:
            raise CommandError(str(error), returncode=2) from None
        if output is None:
            self.say(token.reveal())
        else:
            try:
                _write_private(output, token)
            except OSError as error:
                raise CommandError(f"{output} cannot be written: {error.strerror}", returncode=2) from None
            self.stderr.write(f"Written to {output} (0600). It ends within the hour; delete the file after use.")
        return 0


def _mode_for_others(stream: Any) -> int:
    """Return the mode of a file or named pipe that group or others may read; 0 for what only we and root can read."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # no descriptor under it
        return 0
    readable = (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)) and mode & (stat.S_IRGRP | stat.S_IROTH)
    return stat.S_IMODE(mode) if readable else 0


def _write_private(path: Path, token: Secret) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
        file.write(token.reveal())
