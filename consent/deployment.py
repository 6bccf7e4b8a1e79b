"""Deploy check of what the database says; runs with ``check --deploy --database default`` only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks

from consent.credential_models import ApplicationCredential


@checks.register(checks.Tags.database, deploy=True)
def credentials(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Name the registrations that prove themselves by a client secret (S-39)."""
    if not databases:
        return []
    found = ApplicationCredential.objects.current().filter(kind=ApplicationCredential.Kind.SECRET)
    return [
        checks.Warning(
            f"{credential.registration} proves itself by a client secret, which whoever reads it can use anywhere.",
            hint="Rotate to a managed identity or a certificate; see docs/operations.md, Application credentials.",
            id="consent.W001",
        )
        for credential in found.select_related("registration")
    ]
