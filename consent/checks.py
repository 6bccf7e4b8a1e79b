"""What must be true of a deployment and only the database can say: ``check --deploy --database default``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from consent.models import ApplicationCredential
from portal.databases import unapplied
from tenants.models import PartnerTenant

_CONSOLE = "django.core.mail.backends.console.EmailBackend"


@checks.register(checks.Tags.database, deploy=True)
def credentials(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Name the registrations that prove themselves by a client secret (S-39)."""
    if not databases or unapplied("default"):
        return []
    found = ApplicationCredential.objects.current().filter(kind=ApplicationCredential.Kind.SECRET)
    return [
        checks.Warning(
            f"{credential.registration} proves itself by a client secret, which anyone who reads it can use anywhere.",
            hint="Rotate to a managed identity or a certificate; see docs/operations.md#application-credentials.",
            id="consent.W001",
        )
        for credential in found.select_related("registration")
    ]


@checks.register(checks.Tags.database, deploy=True)
def printed_mails(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Refuse to print invitations, with the links in them, while there are partners who wait for them (S-71)."""
    if not databases or settings.MAILERS.get("default", {}).get("BACKEND") != _CONSOLE or unapplied("default"):
        return []
    partners = PartnerTenant.objects.count()
    if not partners:
        return []
    waiting = "1 partner is" if partners == 1 else f"{partners:,} partners are"
    return [
        checks.Error(
            f"Mails are printed and not sent, and {waiting} in the database.",
            hint="Set EMAIL_HOST and EMAIL_FROM, or unset TEST_ENDPOINTS. See docs/operations.md#deploy-checks.",
            id="consent.E001",
        )
    ]
