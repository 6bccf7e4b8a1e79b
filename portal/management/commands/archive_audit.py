from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError

from portal.audit import archive
from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.incidents.anchoring import anchor_now
from portal.incidents.watch import watch_audit_trail


class Command(PortalCommand):
    help = (
        "Write the entries of the audit trail before a day into sealed files, and check them. With --remove they are "
        "then removed from the database, which only the owner of its tables may do: name that role in DATABASE_URL for "
        "this command. Entries of the last 90 days stay. It may be stopped and run again. "
        "Exit codes: 0 done, 1 the trail or a file does not fit, or nothing could be removed, 2 usage."
    )
    examples = (
        "archive_audit /srv/audit --until 2026-01-01  # writes and checks",
        "archive_audit /srv/audit --until 2026-01-01 --remove  # and removes what was checked",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="where the files are written")
        parser.add_argument("--until", required=True, metavar="DATE", help="the first day that stays, as 2026-01-31")
        parser.add_argument("--remove", action="store_true", help="remove what was written and checked")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            until = datetime.strptime(options["until"], "%Y-%m-%d").replace(tzinfo=UTC)
            parts = archive.parts_until(until)
        except ValueError as error:
            why = str(error) if "stay" in str(error) else "--until takes a day, as 2026-01-31."
            raise CommandError(why, returncode=2) from None
        actor = Actor.command("archive_audit")
        if watch_audit_trail(whole=True, actor=actor):
            raise CommandError("The audit trail is damaged; nothing was written. See the incident.", returncode=1)
        if not parts:
            self.stdout.write("No entry is that old.")
            return
        try:
            for first, last in parts:
                part = archive.write(options["folder"], first, last)
                self.stdout.write(f"{part.file}: entries {first} to {last}, written and checked.")
                if options["remove"]:
                    archive.remove(part, actor=actor)
                    self.stdout.write(f"Entries {first} to {last} were removed from the database.")
        except (OSError, archive.NotAPart, archive.NotRemoved) as error:
            raise CommandError(str(error), returncode=1) from None
        except DatabaseError as error:
            words = f"The database role may not remove entries ({type(error).__name__}), as that of the portal should "
            raise CommandError(
                f"{words}not. Run this with the role that owns the tables. Nothing was removed.", returncode=1
            ) from None
        if options["remove"]:
            anchor_now()
