from typing import Any

from consent import clients
from consent.commands import ConsentCommand
from consent.upkeep import clean_up


class Command(ConsentCommand):
    name = "clean_up"
    help = (
        "Remove consent flows that nobody finished, attempts older than 90 days and old reads of customer tenants, and "
        "switch off the tokens of changed accounts that nobody approved within seven days. Run it at least daily."
    )
    examples = ("clean_up  # daily",)

    def work(self, options: dict[str, Any]) -> int:
        report = clean_up(vault=clients.vault(), actor=self.actor)
        self.say(
            f"{report.expired_flows} unfinished flows, {report.old_attempts} old attempts and "
            f"{report.old_reads} old reads removed, {report.expired_accounts} unapproved accounts switched off."
        )
        return 0
