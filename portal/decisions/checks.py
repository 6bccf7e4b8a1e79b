"""The deploy check of two persons; docs/operations.md has a line for its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks


@checks.register(deploy=True)
def two_persons(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Say that one person alone may do what cannot be undone."""
    if not settings.STAFF_SINGLE_PERSON:
        return []
    return [
        checks.Warning(
            "STAFF_SINGLE_PERSON is on: one account, or who took it over, can erase a partner or remove our consent "
            "from all customers.",
            hint="Give a second person an account and unset it. See docs/operations.md#deploy-checks.",
            id="decisions.W001",
        )
    ]
