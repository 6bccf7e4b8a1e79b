from argparse import ArgumentParser
from typing import Any

from consent.management.base import BulkCommand
from consent.management.selection import add_customer_selection, customer_selection
from consent.selection import open_rows
from portal.runs.arguments import EXIT_CODES, add_run_arguments


class Command(BulkCommand):
    name = "verify_consents"
    kind = "consent_verify"
    help = (
        "Read again what customer tenants hold of our application, and say what changed since the read before, and "
        f"whether we did it. Nothing is sent that changes a tenant. {EXIT_CODES}"
    )
    examples = (
        "verify_consents",
        "verify_consents --partner $PARTNER --registration $APPLICATION_ID --new",
        "verify_consents --state differs --age 24 --json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_customer_selection(parser)
        parser.add_argument("--new", action="store_true", help="also customers that were never looked at")
        add_run_arguments(parser, concurrency=16)

    def work(self, options: dict[str, Any]) -> int:
        chosen = customer_selection(options)
        if not options["dry_run"] and (options["new"] or options["customer"]):
            open_rows(chosen)
        return self.run_it(chosen, options)
