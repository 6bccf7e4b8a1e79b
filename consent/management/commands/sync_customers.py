from consent.commands import BulkCommand
from consent.customer_sync import CUSTOMER_SYNC
from portal.runs.console import EXIT_CODES
from portal.runs.kinds import Outcome
from portal.runs.models import RunItem


class Command(BulkCommand):
    name = "sync_customers"
    kind = CUSTOMER_SYNC
    concurrency = 16
    help = (
        "Mirror the customers of the chosen partners. Only a list that was read to its end marks customers missing. "
        f"{EXIT_CODES}"
    )

    def words(self, item: RunItem, outcome: Outcome) -> str:
        if not outcome.ok:
            return super().words(item, outcome)
        counts = outcome.fields
        return f"ok      {item.label}: {counts['listed']} listed, {counts['new']} new, {counts['missing']} missing"
