from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.commands import (
    EXIT_SOME_FAILED,
    ConsentCommand,
    add_partner_selection,
    consent_of,
    explain,
    selected_partners,
)
from consent.custody import IdentityMismatch, TokenUnavailable
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import new_correlation_id
from tenants.sync import sync_customers


class Command(ConsentCommand):
    name = "sync_customers"
    help = "Mirror the customers of the chosen partners. Only a list that was read to its end marks customers missing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_partner_selection(parser)
        parser.add_argument("--json", action="store_true", help="one JSON line per partner")

    def work(self, options: dict[str, Any]) -> int:
        failed = 0
        for partner in selected_partners(options):
            line: dict[str, Any] = {"partner": partner.name, "tenant_id": partner.tenant_id}
            try:
                client = clients.partner_center_of(consent_of(partner), new_correlation_id())
                report = sync_customers(partner, client, actor=self.actor)
            except RemoteError as error:
                line |= {"ok": False, "error": explain(error)}
            except (TokenUnavailable, IdentityMismatch, CommandError) as error:
                line |= {"ok": False, "error": str(error)}
            else:
                line |= {"ok": True, "listed": report.listed, "new": report.created, "missing": report.missing}
            failed += not line["ok"]
            if options["json"]:
                self.say_json(line)
            elif line["ok"]:
                self.say(f"ok      {partner}: {report.listed} listed, {report.created} new, {report.missing} missing")
            else:
                self.say(f"failed  {partner}: {line['error']}")
        return EXIT_SOME_FAILED if failed else 0
