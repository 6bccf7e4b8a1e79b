"""Reading files that hold key material: owned, private, of a sane size, or a clear sentence (S-36, S-43)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from consent.vault.base import VaultConfigurationError

_MAX_BYTES = 100_000  # a key file has lines of 44 characters, a certificate with chain and key some 10 KB


def read_private_file(path: Path, what: str) -> bytes:
    """Return the content of a file that only its owner may read.

    Args:
        what: how an operator knows it, for example ``the vault's key file``.

    Raises:
        VaultConfigurationError: missing, unreadable, not a file, open to others, empty or far too large.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise VaultConfigurationError(f"{what}, {path}, is not a file")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise VaultConfigurationError(
                    f"{what}, {path}, can be used by others than its owner; run: chmod 600 {path}"
                )
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise VaultConfigurationError(f"{what}, {path}, does not exist") from None
    except OSError as error:
        raise VaultConfigurationError(f"{what}, {path}, cannot be read: {error.strerror}") from None
    if not 0 < len(content) <= _MAX_BYTES:
        raise VaultConfigurationError(f"{what}, {path}, is empty or too large to be one")
    return content
