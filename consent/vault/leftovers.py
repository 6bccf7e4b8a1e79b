"""What was just written into a vault, and is needed by nothing: it is switched off, not left enabled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from consent.vault.base import SecretName, SecretVersion
from portal.microsoft.errors import RemoteError

log = logging.getLogger(__name__)


class Holder(Protocol):
    """A vault, or its keys."""

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """Switch this version off. Raises RemoteError."""


@contextmanager
def none_left(holder: Holder, name: SecretName, version: SecretVersion) -> Iterator[None]:
    """Switch this version off when what it was written for fails; that failure passes through."""
    try:
        yield
    except Exception:
        try:
            holder.disable(name, version)
        except RemoteError as error:
            log.warning("a version that nothing needs stays enabled, disable it in the vault: %s", error)
        raise
