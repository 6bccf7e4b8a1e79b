from typing import Any

from consent import clients
from consent.commands import ConsentCommand
from consent.upkeep import clean_up


class Command(ConsentCommand):
    name = "clean_up"
    help = (
        "Remove consent flows that nobody finished and attempts older than 90 days, and switch off the tokens of "
        "changed accounts that nobody approved within seven days. Run it at least daily."
    )

    def work(self, options: dict[str, Any]) -> int:
        report = clean_up(vault=clients.vault(), actor=self.actor)
        self.say(
            f"{report.expired_flows} unfinished flows and {report.old_attempts} old attempts removed, "
            f"{report.expired_accounts} unapproved accounts switched off."
        )
        return 0
