from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Q

from consent import clients
from consent.applications import registrations, rotation, setup
from consent.management.base import ConsentCommand
from consent.management.selection import one_tenant_id
from consent.models import ApplicationCredential, ApplicationRegistration
from consent.naming import registration_named
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "promote_credential"
    help = (
        "Prove a credential by redeeming a connected partner's token with it, then make it the current one. Every "
        "process uses it from its next redemption on; the older one stays stored for --roll-back. Exit codes: 0 "
        "promoted, 1 not promoted and nothing changed, 2 usage, 3 the cause is on our side."
    )
    examples = (
        "promote_credential $APPLICATION_ID  # the newest candidate",
        "promote_credential $APPLICATION_ID --roll-back",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "registration", metavar="REGISTRATION", help="the registration's application id, or its number"
        )
        parser.add_argument("credential", type=int, nargs="?", help="id of the credential; else the newest candidate")
        parser.add_argument("--partner", metavar="TENANT", help="tenant id of the partner whose token proves it")
        parser.add_argument("--roll-back", action="store_true", help="go back to the credential that was used before")
        parser.add_argument("--unproven", action="store_true", help="promote it even when no partner can prove it")
        parser.add_argument("--activate", action="store_true", help="make the registration active afterwards")

    def work(self, options: dict[str, Any]) -> int:
        registration = registration_named(options["registration"])
        try:
            if options["roll_back"]:
                credential = rotation.roll_back(registration, door=clients.tokens_with, actor=self.actor)
                self.say(f"{registration.name} is back at {credential}.")
            else:
                self._promote(registration, _chosen(registration, options["credential"]), options)
        except rotation.NoCanary as refused:
            raise CommandError(f"{refused} Add --unproven to promote it all the same.", returncode=1) from None
        except rotation.RotationRefused as refused:
            raise CommandError(f"Not promoted. {refused}", returncode=1) from None
        if options["activate"]:
            self._activate(registration)
        return 0

    def _activate(self, registration: ApplicationRegistration) -> None:
        registration.refresh_from_db()
        active = ApplicationRegistration.State.ACTIVE
        if registration.state != active:
            try:
                setup.activate(
                    registration,
                    ask=clients.ask_for_application_token,
                    promote=partial(rotation.promote, door=clients.tokens_with, actor=self.actor, allow_unproven=True),
                    actor=self.actor,
                )
            except registrations.ChangeRefused as refused:
                raise CommandError(f"Promoted, but not activated. {refused}", returncode=1) from None
        self.say(f"{registration.name} is active.")

    def _promote(
        self, registration: ApplicationRegistration, credential: ApplicationCredential, options: dict[str, Any]
    ) -> None:
        self.say(f"Proving {credential} ...")
        partner = rotation.promote(
            credential,
            door=clients.tokens_with,
            actor=self.actor,
            canary=_partner(options["partner"]),
            allow_unproven=options["unproven"],
        )
        how = "unproven: no partner to prove with" if partner is None else f"proven with the token of {partner}"
        self.say(f"{credential} of {registration.name} promoted {how}.")


def _chosen(registration: ApplicationRegistration, key: int | None) -> ApplicationCredential:
    own = ApplicationCredential.objects.with_state().filter(registration=registration)
    if key is not None:
        found = own.filter(pk=key).first()
    else:
        untried = [ApplicationCredential.State.CANDIDATE, ApplicationCredential.State.REFUSED]
        found = own.filter(Q(state__in=untried)).order_by("-created_at", "-pk").first()
    if found is None:
        raise CommandError("There is no such credential to promote; add one first (add_credential).", returncode=2)
    return found


def _partner(text: str | None) -> PartnerTenant | None:
    if not text:
        return None
    partner = PartnerTenant.objects.active().filter(tenant_id=one_tenant_id(text)).first()
    if partner is None:
        raise CommandError("No active partner has this tenant id; see the partner list in the admin.", returncode=2)
    return partner
