"""What must not be true of the staff's sign-in where real keys are held (S-46)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

_PAGE = "See docs/operations.md#deploy-checks."


@checks.register(deploy=True)
def sign_in(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Name what lets somebody in by less than two factors."""
    found: list[checks.CheckMessage] = []
    if settings.STAFF_PASSWORD_ALONE:
        found.append(
            checks.Error(
                "Staff may sign in with a password alone.",
                hint=f"Unset STAFF_PASSWORD_ALONE; at the next sign-in each person sets a second factor. {_PAGE}",
                id="staff.E001",
            )
        )
    if settings.STAFF_OIDC_ISSUER and settings.STAFF_OIDC_DEMAND_MFA == "none":
        found.append(
            checks.Warning(
                "The organisation's sign-in service is not asked for a second factor.",
                hint=f"Set STAFF_OIDC_DEMAND_MFA to the claim that proves it. {_PAGE}",
                id="staff.W001",
            )
        )
    return found
