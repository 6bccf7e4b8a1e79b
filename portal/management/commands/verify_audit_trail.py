import getpass
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from portal.audit import anchors, archive
from portal.audit.findings import Finding
from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.incidents.anchoring import anchor_file, anchor_now
from portal.incidents.watch import CannotPass, take_note, watch_audit_trail
from portal.runs import results


class Command(PortalCommand):
    help = (
        "Check the whole audit trail: its table and triggers, each entry against the one before under INTEGRITY_KEY, "
        "its end against the anchors outside the database, and the results of finished runs against their entries. "
        "The daily clean-up checks only what is new since the last check. Exit codes: 0 all fits, 1 it does not: a "
        "line for each damage says what and where, and an incident is opened, 2 usage."
    )
    examples = (
        "verify_audit_trail",
        "verify_audit_trail --archives /srv/audit  # and the parts that archive_audit wrote",
        'verify_audit_trail --take-note "restored from the backup of 28 November"  # later checks begin behind it',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--take-note",
            metavar="WHY",
            help="when you know why it does not fit, as after a restore: an entry of the trail says so, and later "
            "checks pass over what is wrong now. It removes and repairs nothing",
        )

        parser.add_argument(
            "--archives",
            type=Path,
            metavar="FOLDER",
            help="check the files of archive_audit in this folder as well, and that they join the trail",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        actor, why = Actor.command("verify_audit_trail"), options["take_note"]
        if why is not None and len(why.strip()) < 10:
            raise CommandError("Say in at least ten characters why it does not fit.", returncode=2)
        found = watch_audit_trail(whole=True, actor=actor)
        changed = [*results.watch(whole=True), *self._archives(options["archives"])]
        for one in [*found, *changed]:
            self.stderr.write(one.words)
        if found and why is not None:
            try:
                event = take_note(found, why.strip(), actor=actor)
            except CannotPass as reason:
                raise CommandError(str(reason), returncode=1) from None
            anchor_now()
            self.stdout.write(f"Noted by {getpass.getuser()} as entry {event.sequence}.")
            found = watch_audit_trail(whole=True, actor=actor)
        if found or changed:
            raise CommandError("The audit trail is damaged; see the incident in the admin.", returncode=1)
        self.stdout.write("The audit trail fits together.")

    def _archives(self, folder: Path | None) -> Sequence[Finding]:
        if folder is None:
            return []
        file = anchor_file()
        try:
            parts, found = archive.verify(folder, anchors.read(file).anchors if file else ())
        except OSError as error:
            raise CommandError(f"{folder} cannot be read ({type(error).__name__}).", returncode=2) from None
        for part in parts:
            self.stdout.write(f"{part.file.name}: entries {part.first} to {part.last} fit together.")
        return found
