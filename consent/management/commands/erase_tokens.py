from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.management.base import EXIT_SOME_FAILED, ConsentCommand, add_second_person_arguments
from consent.management.selection import one_tenant_id
from consent.offboarding.erasure import StillActive, erase_tokens
from consent.tokens.custody import Custody
from consent.two_persons import ERASE
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "erase_tokens"
    help = (
        "Delete and purge every token of one disabled partner from the vault, with the identity of "
        "VAULT_ERASE_IDENTITY. Nothing brings them back: the partner must consent anew. Two persons decide: the first "
        "run asks, and the same command does it once a second person approved it in the admin. Exit codes: 0 gone, or "
        "deleted and recoverable by the vault's administrator until its retention ends; 1 a second person has to "
        "decide, or only switched off, because the identity may not delete, or the vault failed; 2 usage; 3 the vault "
        "cannot be opened."
    )
    examples = ("erase_tokens $PARTNER --why 'contract ended'",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        add_second_person_arguments(parser)

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        vault, eraser = clients.vault(), clients.eraser()
        approval = self.second_person(ERASE, {"partner": partner.pk}, options)
        try:
            with carried_out(approval) as deed:
                report = erase_tokens(
                    partner,
                    custody=Custody(vault),
                    vault=vault,
                    eraser=eraser,
                    actor=self.actor,
                    allowed_by=approval,
                )
                said = f"{report.erased} erased, {report.recoverable} recoverable, {report.disabled} switched off."
                deed.result = Result(words=said, subject={"partner": partner.pk})
        except StillActive as active:
            raise CommandError(str(active), returncode=2) from None
        self.say(said)
        if report.recoverable:
            self.say("Recoverable ones are purged by running this again, or by the vault when its retention ends.")
        if report.disabled:
            self.say(
                "Not permitted: the identity lacks the right Delete. Set VAULT_ERASE_IDENTITY to one that has Delete "
                "and Purge, and run this again."
            )
        return EXIT_SOME_FAILED if report.disabled else 0
