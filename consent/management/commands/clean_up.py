from typing import Any

from consent import clients
from consent.management.base import ConsentCommand
from consent.upkeep import clean_up


class Command(ConsentCommand):
    name = "clean_up"
    help = (
        "Remove what was kept long enough: consent flows that were not finished, old attempts, reads of customer "
        "tenants, links, plans, incidents, sessions, and what the embedded vault switched off long ago "
        "(docs/operations.md says when), and switch off the tokens of changed accounts that were not approved within "
        "seven days. Retire credentials that were made 90 days ago and never used. Then check what is new in the audit "
        "trail. Run it at least daily."
    )
    examples = ("clean_up  # daily",)

    def work(self, options: dict[str, Any]) -> int:
        report = clean_up(vault=clients.vault(), keys=clients.vault_keys, actor=self.actor, pruner=clients.pruner())
        self.say(f"{report.words.capitalize()}.")
        return 0
