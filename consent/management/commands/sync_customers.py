from argparse import ArgumentParser
from typing import Any

from consent.management.base import BulkCommand
from consent.management.selection import partner_selection
from portal.runs.arguments import EXIT_CODES
from portal.runs.kinds import Outcome
from portal.runs.models import RunItem


class Command(BulkCommand):
    name = "sync_customers"
    kind = "customer_sync"
    concurrency = 16
    help = (
        "Mirror the customers of the chosen partners, then their GDAP relationships and access assignments. Only a "
        "list that was read to its end marks rows missing. A partner that consented to several applications is read "
        "with a token that works, that of the oldest consent first, unless --registration says which. "
        f"{EXIT_CODES}"
    )
    examples = (
        "sync_customers",
        "sync_customers --partner $PARTNER --force  # believe a list that lacks unusually many",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--force", action="store_true", help="believe lists that lack unusually many rows")

    def work(self, options: dict[str, Any]) -> int:
        return self.run_it(partner_selection(options), options, {"force": True} if options["force"] else {})

    def words(self, item: RunItem, outcome: Outcome) -> str:
        if not outcome.ok:
            return super().words(item, outcome)
        counts = outcome.fields
        gdap = (
            counts["unverified"]
            if counts["relationships"] is None
            else f"{counts['relationships']} relationships, {counts['assignments']} assignments, "
            f"{counts['gdap_missing']} missing"
        )
        return (
            f"ok      {item.label}: {counts['listed']} listed, {counts['new']} new, {counts['missing']} missing; "
            f"{gdap}; read with the token of {counts['registration_name']}"
        )
