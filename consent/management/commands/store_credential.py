import stat
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from consent import clients
from consent.commands import ConsentCommand
from consent.credentials import Certificate, read_credential
from consent.models import ApplicationRegistration
from consent.registrations import store_credential
from portal.audit.trail import record
from portal.microsoft.secret import Secret


class Command(ConsentCommand):
    name = "store_credential"
    help = (
        "Put the application's client secret or certificate (PEM with key and certificate) into the vault. It is read "
        "from standard input or from a file with mode 0600, never from an argument."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("registration", type=int, help="id of the application registration")
        parser.add_argument("kind", choices=["secret", "certificate"], help="what the application proves itself by")
        parser.add_argument("--file", type=Path, help="read from this file instead of standard input")
        parser.add_argument("--expires", metavar="DATE", help="end of a client secret, as 2027-05-31")
        parser.add_argument("--activate", action="store_true", help="make the registration active afterwards")

    def work(self, options: dict[str, Any]) -> int:
        registration = ApplicationRegistration.objects.filter(pk=options["registration"]).first()
        if registration is None:
            raise CommandError("No such registration; create it in the admin first.", returncode=2)
        try:
            value = _read(options["file"])
            credential = read_credential(options["kind"], value)
            expires = options["expires"]
            expires_at = datetime.fromisoformat(expires).replace(tzinfo=UTC) if expires else None
            if isinstance(credential, Certificate):
                expires_at = credential.not_after
            store_credential(
                registration,
                value,
                kind=options["kind"],
                expires_at=expires_at,
                vault=clients.vault(),
                actor=self.actor,
            )
        except UnicodeDecodeError:
            raise CommandError("The credential must be text; a certificate is a PEM file.", returncode=2) from None
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from None
        if options["activate"]:
            with transaction.atomic():
                registration.state = ApplicationRegistration.State.ACTIVE
                registration.save(update_fields=["state"])
                record("registration.activated", actor=self.actor, subject={"registration": registration.pk})
        self.say(f"Stored for {registration.name}.")
        return 0


def _read(path: Path | None) -> Secret:
    if path is None:
        if sys.stdin.isatty():
            raise CommandError("Pipe the credential into this command, or use --file.", returncode=2)
        return Secret(sys.stdin.read().strip())
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CommandError(f"{path} is readable by others; run chmod 600 on it first.", returncode=2)
        return Secret(path.read_text().strip())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from None
