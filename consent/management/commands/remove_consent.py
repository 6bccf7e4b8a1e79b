from argparse import ArgumentParser
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.management.base import BulkCommand
from consent.management.selection import add_customer_selection, customer_selection
from consent.models import ApplicationRegistration, ConsentPlan
from consent.naming import SeveralRegistrations, listed
from consent.runs.apply_plan import APPLY_PLAN, start_direct
from consent.runs.verify import units
from consent.selection import EVERYTHING, counted
from portal.runs.console import EXIT_CODES, add_run_arguments, begin_with, dry_run
from portal.text import number_of


class Command(BulkCommand):
    name = "remove_consent"
    kind = APPLY_PLAN
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
        add_run_arguments(parser, concurrency=16, skips=False)

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
        clients.vault()  # before the run exists: another vault than the database's stops the command
        if options["dry_run"]:
            return dry_run(partial(units, selection.to_json()), self.stdout, as_json=options["json"])
        start = partial(start_direct, ConsentPlan.Purpose.REMOVE, selection, wait=options["wait"])
        return self.follow(begin_with(start, options=options, actor=self.actor), options, nothing=not chosen)
