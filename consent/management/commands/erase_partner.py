from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, ConsentCommand, add_second_person_arguments, write_new
from consent.management.selection import one_tenant_id
from consent.models import Erasure
from consent.offboarding.partner_erasure import ErasureRefused, ErasureUnfinished, advance, reach, start, to_file
from consent.two_persons import ERASE_PARTNER
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result
from portal.text import number_of
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "erase_partner"
    help = (
        "Erase one partner that was offboarded or disabled: purge its entries of the vault with the identity of "
        "VAULT_ERASE_IDENTITY, remove its links, attempts and contacts, take names out of what is kept, and seal "
        "a report of what remains. Nothing brings it back. Two persons decide: the first run asks, and once a second "
        "person approved it in the admin, the workers do it within ten minutes. Run it again to go on after a failure. "
        "Exit codes: 0 erased, 1 a second person has to decide, or the vault did not let everything go, 2 usage, 3 the "
        "vault cannot be opened."
    )
    examples = (
        "erase_partner $PARTNER  # only says what it would erase",
        "erase_partner $PARTNER --yes --why 'asked for by the partner'  # asks a second person",
        "erase_partner $PARTNER --yes --report erased.json  # goes on with what was approved",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("--yes", action="store_true", help="do it, not only say what it would erase")
        add_second_person_arguments(parser)
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the sealed report to a new file")

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        if not options["yes"]:
            raise CommandError(self._what(partner), returncode=2)
        try:
            erasure = advance(self._begun(partner, options), actor=self.actor)
        except ErasureUnfinished as unfinished:
            raise CommandError(f"{unfinished} Then run this again.", returncode=EXIT_SOME_FAILED) from None
        return self._tell(erasure, options)

    def _begun(self, partner: PartnerTenant, options: dict[str, Any]) -> Erasure:
        """Return the erasure that is under way, or begin the one that a second person approved."""
        if (known := Erasure.objects.open().filter(partner=partner).first()) is not None:
            return known
        approval = self.second_person(ERASE_PARTNER, {"partner": partner.pk}, options)
        try:
            with carried_out(approval) as deed:
                erasure = start(partner, approved=approval)
                deed.result = Result(words="The erasure has begun.", subject={"erasure": erasure.pk})
        except ErasureRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        return erasure

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
