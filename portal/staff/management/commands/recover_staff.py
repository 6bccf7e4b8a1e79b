from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.staff import accounts


class Command(PortalCommand):
    help = (
        "Open an account of staff again when nobody else can: the sign-in service is down, or the last administrator "
        "is lost. Prints once the address where a new password and factor are set, good for an hour. The audit trail "
        "and an incident tell it to everybody."
    )
    examples = ("recover_staff anna",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the name of the account")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            address = accounts.recover(options["name"], actor=Actor.command("recover_staff"))
        except accounts.AccountRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        self.stderr.write(f"For {options['name']}, once and within an hour. It is not shown again:")
        self.stdout.write(address.reveal())
