from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from consent.invitations import links
from consent.management.base import ConsentCommand
from consent.management.selection import one_tenant_id
from consent.models import ConsentLink
from consent.naming import active_registration
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "issue_consent_link"
    help = "Make a consent link for one partner and print it once. The link is a locator: send it to that partner only."
    examples = (
        "issue_consent_link $PARTNER --registration $APPLICATION_ID --days 7",
        "issue_consent_link $PARTNER --whole-tenant",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument(
            "--registration",
            metavar="REGISTRATION",
            help="to which of our applications: its application id, or its number; needed when several are active",
        )
        parser.add_argument("--days", type=int, help="life of the link, at most 90 (default: LINK_LIFETIME_DAYS)")

        parser.add_argument(
            "--whole-tenant", action="store_true", help="a first step without a token: consent for the whole tenant"
        )

    def work(self, options: dict[str, Any]) -> int:
        tenant_id = one_tenant_id(options["partner"])
        partner = PartnerTenant.objects.filter(tenant_id=tenant_id).first()
        if partner is None:
            raise CommandError(f"No partner with tenant id {tenant_id}; create it in the admin first.", returncode=2)
        registration = active_registration(options["registration"], cloud=partner.cloud)
        days = options["days"]
        try:
            link, address = links.issue(
                partner,
                registration,
                actor=self.actor,
                lifetime=None if days is None else timedelta(days=days),
                kind=ConsentLink.Kind.ADMIN_CONSENT if options["whole_tenant"] else ConsentLink.Kind.SIGN_IN,
            )
        except links.LinkRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        self.stderr.write(
            f"For {partner.name} to consent to {registration.name}, until {link.expires_at:%Y-%m-%d %H:%M} UTC. It is "
            "not shown again:"
        )
        self.say(address.reveal())
        return 0
