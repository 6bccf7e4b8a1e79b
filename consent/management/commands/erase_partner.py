from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, ConsentCommand, write_new
from consent.management.selection import one_tenant_id
from consent.models import Erasure
from consent.offboarding.partner_erasure import ErasureRefused, ErasureUnfinished, advance, reach, start, to_file
from portal.text import number_of
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "erase_partner"
    help = (
        "Erase one partner that was offboarded or disabled: purge its entries of the vault with the identity of "
        "VAULT_ERASE_IDENTITY, remove its links, attempts and contacts, take names out of what is kept, and seal "
        "a report of what remains. Nothing brings it back. Run it again to go on after a failure. Exit codes: "
        "0 erased, 1 the vault did not let everything go, 2 usage, 3 the vault cannot be opened."
    )
    examples = (
        "erase_partner $PARTNER  # only says what it would erase",
        "erase_partner $PARTNER --yes --report erased.json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("--yes", action="store_true", help="do it, not only say what it would erase")
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the sealed report to a new file")

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        if not options["yes"]:
            raise CommandError(self._what(partner), returncode=2)
        try:
            erasure = advance(start(partner, actor=self.actor), actor=self.actor)
        except ErasureRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        except ErasureUnfinished as unfinished:
            raise CommandError(f"{unfinished} Then run this again.", returncode=EXIT_SOME_FAILED) from None
        return self._tell(erasure, options)

    def _what(self, partner: PartnerTenant) -> str:
        found = reach(partner)
        return (
            f"{partner.name}: {number_of(found.tokens, 'token')} would be purged from the vault; "
            f"{number_of(found.links, 'link')} and {number_of(found.contacts, 'contact')} removed; all names taken out "
            f"of what is kept, also of {number_of(found.customers, 'customer')}. Nothing brings it back. Nothing was "
            "done; --yes does it."
        )

    def _tell(self, erasure: Erasure, options: dict[str, Any]) -> int:
        results = [entry["result"] for entry in erasure.vault_entries]
        self.say(f"Erased: {erasure.partner.name}. The report says what remains.")
        if left := results.count("recoverable"):
            self.say(
                f"Of the vault's entries {left} can be recovered by its administrator until its retention ends; run "
                "this again with the right Purge."
            )
        if options["report"]:
            write_new(options["report"], to_file(erasure))
            self.say(f"Report written to {options['report']}.")
        return 0
