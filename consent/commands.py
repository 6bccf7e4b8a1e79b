"""What the consent commands share: selection of partners, plain errors, exit codes (R-33)."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from consent.custody import IdentityMismatch, TokenUnavailable
from consent.models import PartnerConsent
from consent.vault.base import VaultConfigurationError
from portal.audit.trail import Actor
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import RemoteError, Unreachable
from portal.microsoft.identifiers import InvalidIdentifier, parse_tenant_id
from tenants.models import PartnerTenant
from tenants.querysets import PartnerTenantQuerySet

EXIT_SOME_FAILED = 1
EXIT_SYSTEMIC = 3


def explain(error: RemoteError) -> str:
    """Return the failure in plain words: what happened, who must act, what to do, and the ids to find it by."""
    diagnosis = diagnose(error)
    if isinstance(error, Unreachable) and settings.TEST_ENDPOINTS:
        return (
            f"The sandbox does not answer on port {settings.TEST_ENDPOINTS} (TEST_ENDPOINTS): start it with "
            f"manage.py sandbox, or unset TEST_ENDPOINTS to talk to Microsoft. [{error}]"
        )
    who = {"us": "you", "nobody": "nobody, try again later"}.get(diagnosis.owner.value, diagnosis.owner.value)
    where = f" ({error.service} is at fault)" if error.retryable else ""
    return f"{diagnosis.cause} Who must act: {who}. {diagnosis.remedy}{where} [{error}]"


class ConsentCommand(BaseCommand):
    """A command that fails with one clear line and a documented exit code."""

    name: ClassVar[str]

    @property
    def actor(self) -> Actor:
        """The command and the OS user who runs it, for the audit trail."""
        return Actor.command(self.name)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = self.work(options)
        except RemoteError as error:
            raise CommandError(explain(error), returncode=EXIT_SOME_FAILED) from None
        except (TokenUnavailable, IdentityMismatch) as error:
            raise CommandError(str(error), returncode=EXIT_SOME_FAILED) from None
        except VaultConfigurationError as error:
            raise CommandError(str(error), returncode=EXIT_SYSTEMIC) from None
        except DatabaseError as error:
            raise CommandError(
                f"The database does not answer ({type(error).__name__}). Check DATABASE_URL and run migrate.",
                returncode=EXIT_SYSTEMIC,
            ) from None
        if code:
            sys.exit(code)

    def work(self, options: dict[str, Any]) -> int:
        """Do the command's work and return its exit code."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Print one line for a person."""
        self.stdout.write(text)

    def say_json(self, record: dict[str, Any]) -> None:
        """Print one JSON line for a program."""
        self.stdout.write(json.dumps(record, ensure_ascii=False, sort_keys=True))


def add_partner_selection(parser: ArgumentParser) -> None:
    """Add the arguments that choose partners."""
    parser.add_argument("--partner", action="append", default=[], metavar="TENANT", help="a partner's tenant id")
    parser.add_argument("--tag", action="append", default=[], help="partners with this tag")
    parser.add_argument("--cloud", choices=sorted(["global", "usgov", "china"]), help="partners of this cloud")


def selected_partners(options: dict[str, Any]) -> PartnerTenantQuerySet:
    """Return the active partners that the arguments choose; all of them without arguments.

    Raises:
        CommandError: a tenant id is unknown, with the id and what to do.
    """
    partners = PartnerTenant.objects.active()
    if options["partner"]:
        wanted = {one_tenant_id(text) for text in options["partner"]}
        partners = partners.filter(tenant_id__in=wanted)
        if missing := wanted - set(partners.values_list("tenant_id", flat=True)):
            raise CommandError(
                f"No active partner with tenant id {', '.join(sorted(missing))}; see the partner list in the admin.",
                returncode=2,
            )
    if options["tag"]:
        partners = partners.tagged(*options["tag"])
    if options["cloud"]:
        partners = partners.in_cloud(options["cloud"])
    return partners


def one_tenant_id(text: str) -> str:
    """Return the canonical tenant id of an argument. Raises CommandError (usage)."""
    try:
        return parse_tenant_id(text)
    except InvalidIdentifier as error:
        raise CommandError(str(error), returncode=2) from None


def consent_of(partner: PartnerTenant) -> PartnerConsent:
    """Return the partner's consent that has a token; the newest when there are several.

    Raises:
        CommandError: the partner has not consented, or is disabled.
    """
    if not partner.is_active:
        raise CommandError(f"{partner.name} is {partner.get_state_display().lower()}; nothing is done for it.")
    consent = (
        PartnerConsent.objects.usable()
        .for_partner(partner)
        .select_related("partner", "registration")
        .order_by("-consented_at")
        .first()
    )
    if consent is None:
        raise CommandError(
            f"{partner.name} has not consented yet; send it a link (manage.py issue_consent_link).", returncode=1
        )
    return consent
