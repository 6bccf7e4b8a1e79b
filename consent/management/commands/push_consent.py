from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent.access_tokens import consent_of
from consent.management.base import BulkCommand
from consent.management.selection import one_tenant_id
from consent.models import CustomerConsent
from consent.naming import registration_named
from consent.runs.push import CUSTOMER_PUSH
from consent.selection import Selection
from portal.runs.console import EXIT_CODES, add_run_arguments
from portal.runs.kinds import Outcome
from portal.runs.models import RunItem
from tenants.models import CustomerTenant, PartnerTenant


class Command(BulkCommand):
    name = "push_consent"
    kind = CUSTOMER_PUSH
    help = (
        "Bring the application's consent into customer tenants of one partner and read it back. "
        f"The state printed is what was read in that tenant, never what was asked for. {EXIT_CODES}"
    )
    examples = (
        "push_consent $PARTNER $CUSTOMER  # one customer",
        "push_consent $PARTNER $CUSTOMER --registration $APPLICATION_ID --wait 120 --json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("customers", nargs="+", metavar="CUSTOMER_TENANT", help="a customer's tenant id")
        parser.add_argument(
            "--registration",
            metavar="REGISTRATION",
            help="which of our applications: its application id, or its number; needed when the partner consented to "
            "several",
        )
        parser.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="how long to wait for grants")
        add_run_arguments(parser, concurrency=1)

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        wanted = {one_tenant_id(text) for text in options["customers"]}
        known = dict(
            CustomerTenant.objects.for_partner(partner).filter(tenant_id__in=wanted).values_list("tenant_id", "pk")
        )
        if missing := wanted - set(known):
            raise CommandError(
                f"{partner.name} has no customer {', '.join(sorted(missing))}; run sync_customers first.", returncode=2
            )
        named = options["registration"]
        consent = consent_of(partner, registration_named(named, cloud=partner.cloud) if named else None)
        chosen = Selection(customers=tuple(sorted(known.values())), registration=consent.registration_id)
        return self.run_it(chosen, options, {"wait": options["wait"]})

    def words(self, item: RunItem, outcome: Outcome) -> str:
        if not isinstance(outcome.result, CustomerConsent):
            return super().words(item, outcome)
        result = outcome.result
        lines = [f"{item.label}: {result.get_state_display().lower()}"]
        if result.reason:
            lines.append(f"  {result.reason} Who must act: {result.owner or 'nobody'}.")
        lines += [f"  {resource}: {', '.join(scopes)}" for resource, scopes in result.actual_grants.items()]
        return "\n".join(lines)
