from dataclasses import replace
from typing import Any

from consent.management.base import BulkCommand
from consent.management.selection import partner_selection
from consent.tokens import health
from portal.runs.arguments import EXIT_CODES
from portal.runs.registry import kind_named


class Command(BulkCommand):
    name = "keep_alive"
    kind = "token_check"
    help = (
        "Check and renew the tokens whose next try has come, those renewed longest ago first, and tell staff which "
        f"ones grow old (60, 75 and 85 days) or expired (90). Run it every hour. {EXIT_CODES}"
    )
    examples = (
        "keep_alive  # every hour",
        "keep_alive --cloud china --deadline 50",
    )

    def work(self, options: dict[str, Any]) -> int:
        chosen = replace(partner_selection(options), due=True)
        try:
            if not kind_named(self.kind).units(chosen.to_json(), 0, 1):
                self.say("Nothing is due.") if not options["json"] else self.say_json({"due": 0})
                return 0
            return self.run_it(chosen, options)
        finally:
            if not options["dry_run"]:
                health.watch()  # also when the cause of a stop is ours: tokens grow old all the same
