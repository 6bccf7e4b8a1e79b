from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.staff import accounts


class Command(PortalCommand):
    help = (
        "Make an account for a member of staff, and print once the address where its password and factor are set. It "
        "works once and for an hour. Without a role the person administers the security of the portal, and so gives "
        "roles to the others."
    )
    examples = ("create_staff anna", "create_staff ben --role Operator", "create_staff emergency --superuser")

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="the name to sign in with")
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--role", action="append", default=[], metavar="ROLE", help="a group; may be repeated")
        kind.add_argument("--superuser", action="store_true", help="for emergencies: it may do everything")

    def handle(self, *args: Any, **options: Any) -> None:
        name, roles = options["name"], options["role"]
        superuser = options["superuser"] or (not roles and not accounts.has_first_role())
        actor = Actor.command("create_staff")
        try:
            address = accounts.create(
                name, roles=roles if roles or superuser else [accounts.FIRST_ROLE], superuser=superuser, actor=actor
            )
        except accounts.AccountRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        self.stderr.write(f"For {name}, once and within an hour. It is not shown again:")
        self.stdout.write(address.reveal())
