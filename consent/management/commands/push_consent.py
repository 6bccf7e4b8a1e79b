from argparse import ArgumentParser
from collections.abc import Collection
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.access_tokens import consent_of
from consent.customers.plans import PlanRefused
from consent.management.base import EXIT_SOME_FAILED, BulkCommand
from consent.management.selection import one_tenant_id
from consent.models import ConsentPlan, CustomerConsent
from consent.naming import registration_named
from consent.runs.apply_plan import APPLY_PLAN, start_direct
from consent.selection import Selection
from portal.runs.arguments import EXIT_CODES, add_run_arguments
from portal.runs.console import begin_with, dry_run
from portal.runs.kinds import Outcome, Unit
from portal.runs.models import RunItem
from tenants.models import CustomerTenant, PartnerTenant


class Command(BulkCommand):
    name = "push_consent"
    kind = APPLY_PLAN.name
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
        add_run_arguments(parser, concurrency=1, skips=False)

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
        clients.vault()  # before the run exists: another vault than the database's stops the command
        customers = tuple(sorted(known.values()))
        if options["dry_run"]:
            return dry_run(partial(_units, customers), self.stdout, as_json=options["json"])
        chosen = Selection(customers=customers, registration=consent.registration_id)
        start = partial(start_direct, ConsentPlan.Purpose.PUSH, chosen, wait=options["wait"])
        try:
            run = begin_with(start, options=options, actor=self.actor)
        except PlanRefused as refused:
            raise CommandError(f"Nothing was sent: {refused}", returncode=EXIT_SOME_FAILED) from None
        return self.follow(run, options)

    def words(self, item: RunItem, outcome: Outcome) -> str:
        read = outcome.fields
        if not read.get("state"):
            return super().words(item, outcome)
        lines = [f"{item.label}: {CustomerConsent.State(read['state']).label.lower()}"]
        if read["reason"]:
            lines.append(f"  {read['reason']} Who must act: {read['owner'] or 'nobody'}.")
        lines += [f"  {resource}: {', '.join(scopes)}" for resource, scopes in read["grants"].items()]
        return "\n".join(lines)


def _units(customers: Collection[int], after: int, limit: int) -> list[Unit]:
    rows = CustomerTenant.objects.filter(pk__in=customers, pk__gt=after).order_by("pk")[:limit]
    return [Unit(key=row.pk, group=row.partner_id, label=row.company_name or row.tenant_id) for row in rows]
