from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import BulkCommand
from consent.management.selection import add_customer_selection, customer_selection
from consent.models import ApplicationRegistration
from consent.naming import SeveralRegistrations, listed
from consent.runs.remove import CONSENT_REMOVE
from consent.selection import EVERYTHING, counted
from portal.runs.console import EXIT_CODES, add_run_arguments
from portal.text import number_of


class Command(BulkCommand):
    name = "remove_consent"
    kind = CONSENT_REMOVE
    help = (
        "Remove one of our applications with all its grants from the chosen customer tenants, and read each back. "
        "Customers must be chosen, also the registration where they hold several, and --yes must say that it is "
        f"meant. {EXIT_CODES}"
    )
    examples = (
        "remove_consent --customer $CUSTOMER --registration $APPLICATION_ID  # only says what it would remove",
        "remove_consent --customer $CUSTOMER --registration $APPLICATION_ID --yes",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_customer_selection(parser)
        parser.add_argument("--yes", action="store_true", help="remove, not only say what would be removed")
        parser.add_argument(
            "--wait", type=float, default=60.0, metavar="SECONDS", help="how long to wait for the proof"
        )
        add_run_arguments(parser, concurrency=16)

    def work(self, options: dict[str, Any]) -> int:
        selection = customer_selection(options)
        if replace(selection, registration=None) == EVERYTHING:
            raise CommandError("Choose customers: --partner, --customer, --tag, --cloud, --state.", returncode=2)
        tenants, by_registration = counted(selection.customer_consents())
        chosen = list(ApplicationRegistration.objects.filter(pk__in=by_registration))
        if len(chosen) > 1:
            raise SeveralRegistrations(
                f"These customers hold consents to {len(chosen)} of our applications; name one (--registration): "
                f"{listed(chosen)}. Nothing was sent."
            )
        if chosen and not options["yes"] and not options["dry_run"]:
            raise CommandError(
                f"{number_of(tenants, 'customer tenant')} would lose our application {listed(chosen)} "
                "and all its grants. Nothing was sent; --dry-run lists them, --yes removes it.",
                returncode=2,
            )
        # The run keeps which one was meant: a consent that comes meanwhile is none of its business.
        meant = replace(selection, registration=chosen[0].pk) if chosen else selection
        return self.run_it(meant, options, {"wait": options["wait"]})
