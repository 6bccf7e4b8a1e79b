from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.access_tokens import consent_of
from consent.commands import EXIT_SOME_FAILED, ConsentCommand
from consent.customers import PushRefused, push
from consent.selection import one_tenant_id
from portal.microsoft.identifiers import new_correlation_id
from tenants.models import CustomerTenant, PartnerTenant


class Command(ConsentCommand):
    name = "push_consent"
    help = (
        "Bring the application's consent into one customer tenant and read it back. "
        "The state printed is what was read in that tenant, never what was asked for."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("customer", metavar="CUSTOMER_TENANT", help="the customer's tenant id")
        parser.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="how long to wait for grants")
        parser.add_argument("--json", action="store_true", help="one JSON line")

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        customer = (
            CustomerTenant.objects.for_partner(partner)
            .filter(tenant_id=one_tenant_id(options["customer"]))
            .select_related("partner")
            .first()
        )
        if customer is None:
            raise CommandError(f"{partner.name} has no such customer; run sync_customers first.", returncode=2)
        consent = consent_of(partner)
        tools = clients.customer_clients(consent, customer, new_correlation_id())
        try:
            result = push(customer, consent.registration, tools, actor=self.actor, wait_seconds=options["wait"])
        except PushRefused as refused:
            raise CommandError(f"Nothing was sent: {refused}", returncode=EXIT_SOME_FAILED) from None
        if options["json"]:
            self.say_json(
                {
                    "customer": customer.tenant_id,
                    "state": result.state,
                    "reason": result.reason,
                    "owner": result.owner,
                    "service_principal_id": result.service_principal_id,
                    "grants": result.actual_grants,
                    "correlation_id": tools.correlation_id,
                }
            )
        else:
            self.say(f"{customer}: {result.get_state_display().lower()}")
            if result.reason:
                self.say(f"  {result.reason} Who must act: {result.owner or 'nobody'}.")
            for resource, scopes in result.actual_grants.items():
                self.say(f"  {resource}: {', '.join(scopes)}")
        return 0 if result.state == result.State.GRANTED else EXIT_SOME_FAILED
