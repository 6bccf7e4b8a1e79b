from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.applications.deactivation import deactivate
from consent.containment.service import Scope, contain
from consent.management.base import ConsentCommand
from consent.management.selection import one_tenant_id
from consent.naming import registration_named
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "contain"
    help = (
        "Emergency stop: from this second on no process hands out, renews or uses a token of everything, of one "
        "registration or of one partner. Runs are held, links are closed, and all staff see it. Then the registration "
        "is deactivated at Microsoft, where an identity may. One person is enough; resume needs two. "
        "docs/runbook-breach.md says what comes next. Exit codes: 0 contained, 2 usage, 3 the database cannot be "
        "written."
    )
    examples = (
        'contain --all --reason "A stranger used our credential"',
        'contain --registration $APPLICATION_ID --reason "Its credential leaked"',
        'contain --partner $PARTNER --reason "The partner asked for it"',
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        scope = parser.add_mutually_exclusive_group(required=True)
        scope.add_argument("--all", action="store_true", help="everything")
        scope.add_argument("--registration", metavar="REGISTRATION", help="one: its application id, or its number")
        scope.add_argument("--partner", metavar="TENANT", help="one partner: its tenant id")
        parser.add_argument(
            "--keep-registration",
            action="store_true",
            help="do not deactivate the registration at Microsoft; without this it is, where an identity may",
        )
        parser.add_argument("--reason", required=True, help="why, for those who read it in a hurry")

    def work(self, options: dict[str, Any]) -> int:
        scope = Scope()
        if options["registration"]:
            scope = Scope(registration=registration_named(options["registration"]))
        elif options["partner"]:
            partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
            if partner is None:
                raise CommandError("No partner with this tenant id.", returncode=2)
            scope = Scope(partner=partner)
        try:
            one = contain(scope, reason=options["reason"], actor=self.actor)
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from None
        self.say(
            f"{one}, number {one.pk}, is on since {one.began_at:%Y-%m-%d %H:%M:%S} UTC: within a second no process "
            "uses a token of it. Access tokens that were issued before live on at Microsoft until they expire, within "
            f"90 minutes. When it is safe again: resume {one.pk}."
        )
        if not options["keep_registration"]:
            for switched in deactivate(
                one,
                may_switch=clients.reads_registration,
                switch=clients.switch_registration,
                clouds=clients.cloud,
                actor=self.actor,
            ):
                self.say(switched.words)
        return 0
