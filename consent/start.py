"""What must be true of the vault before a web process or a worker takes work."""

from __future__ import annotations

import logging

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from consent import clients
from consent.vault.base import VaultConfigurationError
from portal.starting import Start, StartRefused

log = logging.getLogger(__name__)


def own_vault() -> None:
    """Refuse the start with another vault than this database's; what does not answer now is met again by the work.

    Raises:
        StartRefused: the vault is missing, wrongly set up, or another.
    """
    try:
        clients.vault()
    except (VaultConfigurationError, ImproperlyConfigured) as error:
        raise StartRefused(str(error)) from None
    except DatabaseError as error:
        log.warning("not seen whether the vault is this database's (%s)", type(error).__name__)


START = Start(checks=(own_vault,))
