"""What must be true of a deployment and only database and vault can say.

The deploy checks run with ``check --deploy --database default`` only; the vault is looked at by every web
process and worker before it takes work.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from consent import clients
from consent.models import ApplicationCredential
from consent.vault.base import VaultConfigurationError
from portal import starting
from portal.databases import unapplied
from tenants.models import PartnerTenant

_CONSOLE = "django.core.mail.backends.console.EmailBackend"
log = logging.getLogger(__name__)


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
            f"{credential.registration} proves itself by a client secret, which whoever reads it can use anywhere.",
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


def own_vault() -> None:
    """Refuse the start with another vault than this database's; what does not answer now is met again by the work.

    Raises:
        StartRefused: the vault is missing, wrongly set up, or another.
    """
    try:
        clients.vault()
    except (VaultConfigurationError, ImproperlyConfigured) as error:
        raise starting.StartRefused(str(error)) from None
    except DatabaseError as error:
        log.warning("not seen whether the vault is this database's (%s)", type(error).__name__)


starting.CHECKS.append(own_vault)
