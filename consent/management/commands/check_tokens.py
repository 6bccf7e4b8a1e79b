from argparse import ArgumentParser
from typing import Any

from consent.management.base import BulkCommand
from consent.management.selection import partner_selection
from portal.runs.arguments import EXIT_CODES


class Command(BulkCommand):
    name = "check_tokens"
    kind = "token_check"
    help = (
        "Check the token of each chosen partner by a real redemption and a real Partner Center answer. "
        f"A run that was cut off goes on where it was. {EXIT_CODES}"
    )
    examples = (
        "check_tokens",
        "check_tokens --tag gold --age 24 --registration $APPLICATION_ID",
        "check_tokens --state attention --json | head",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--force", action="store_true", help="believe a failure that nearly all partners share")

    def work(self, options: dict[str, Any]) -> int:
        return self.run_it(partner_selection(options), options, {"force": True} if options["force"] else {})
