"""Remove from the embedded vault what was switched off long ago: old refresh tokens, and secrets that were replaced.

Azure Key Vault removes no single version; there ``consent.tokens.reconcile`` warns before an entry has too many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.apps import apps
from django.conf import settings

from consent.vault.base import Pruner, SecretVersion
from portal.microsoft.errors import RemoteError

log = logging.getLogger(__name__)

_COLUMNS = frozenset({"secret_version", "replaced_version", "credential_version"})


def remove_old_versions(vault: Pruner | None, now: datetime, between: Callable[[], None] = lambda: None) -> int:
    """Remove versions that were switched off ``VAULT_OLD_KEPT_DAYS`` ago and that no row names; return how many.

    A vault that does not answer is no reason to fail: what is left is removed the next day.

    Args:
        vault: None for one that removes no versions.
        between: called after each entry; what it raises ends the work there.
    """
    if vault is None:
        return 0
    try:
        return vault.prune(now - timedelta(days=settings.VAULT_OLD_KEPT_DAYS), _named_versions(), between)
    except RemoteError as error:
        log.warning("old versions are left in the vault: %s", error)
        return 0


def _named_versions() -> set[SecretVersion]:
    """Return the versions that any row names, in use or replaced; found by the columns' names."""
    found: set[SecretVersion] = set()
    for model in apps.get_app_config("consent").get_models():
        for column in model._meta.concrete_fields:
            if column.name in _COLUMNS:
                found.update(model._default_manager.values_list(column.name, flat=True))
    return found
