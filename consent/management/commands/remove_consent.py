from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent.commands import BulkCommand
from consent.customer_selection import add_customer_selection, consents_in, customer_scope_of
from consent.removal import CONSENT_REMOVE
from portal.runs.console import EXIT_CODES, add_run_arguments


class Command(BulkCommand):
    name = "remove_consent"
    kind = CONSENT_REMOVE
    help = (
        "Remove our application with all its grants from the chosen customer tenants, and read each back. Customers "
        f"must be chosen, and --yes must say that it is meant. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_customer_selection(parser)
        parser.add_argument("--yes", action="store_true", help="remove, not only say what would be removed")
        parser.add_argument(
            "--wait", type=float, default=60.0, metavar="SECONDS", help="how long to wait for the proof"
        )
        add_run_arguments(parser, concurrency=16)

    def work(self, options: dict[str, Any]) -> int:
        scope = customer_scope_of(options)
        if not scope:
            raise CommandError("Choose customers: --partner, --customer, --tag, --cloud, --state.", returncode=2)
        if not options["yes"] and not options["dry_run"]:
            raise CommandError(
                f"{consents_in(scope).count()} customer tenants would lose our application and all its grants. Nothing "
                "was sent; --dry-run lists them, --yes removes them.",
                returncode=2,
            )
        return self.run_it(scope, options, {"wait": options["wait"]})
