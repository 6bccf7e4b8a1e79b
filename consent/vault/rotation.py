"""Changing the key of the embedded vault without ever being able to lose a token (S-44).

The key file is the only state: two keys in it mean that a rotation has begun, so one that was killed is resumed by
running it again. A new key goes on top first; from then on every process writes with it and reads with both. Then each
version is encrypted anew under the lock that its writers take, and proven before and after. The old key leaves the file
only by a call of its own, which looks at every version first.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from consent.vault.base import VaultConfigurationError, VaultDamaged
from consent.vault.keys import KeyRing
from consent.vault.local import LocalVault
from portal.microsoft.errors import NotFound

_PROGRESS_EVERY = 100


class RetireRefused(Exception):
    """An older key is still needed; the text says by how many versions."""


@dataclass(slots=True, kw_only=True)
class RotationReport:
    """What is where now. Keys are named by their ids, which tell nothing about them."""

    key: str
    """The key that writes."""
    older_keys: list[str]
    items: int = 0
    encrypted: int = 0
    """Versions that this run encrypted anew."""
    needing_older: int = 0
    """Versions that still need an older key."""
    damaged: list[str] = field(default_factory=list)
    """``name/version: why``, one for each version that cannot be read."""


def rotate(directory: Path, key_file: Path, *, progress: Callable[[int, int], None]) -> RotationReport:
    """Begin a rotation or go on with one, and encrypt every version with the new key.

    Args:
        progress: called now and then with how many versions are done, and of how many.

    Raises:
        VaultConfigurationError: the vault cannot be opened, the key file cannot be written, or another one is running.
        RemoteError: the disk failed; run it again.
    """
    with _alone(directory):
        vault = LocalVault.open(directory, key_file, create=False)
        keys = KeyRing.open(key_file)
        if len(keys.ids) == 1:
            keys = keys.save(key_file, with_new_key=True)
        items = vault.items()
        encrypted = 0
        for number, (name, version) in enumerate(items, 1):
            with suppress(NotFound, VaultDamaged):  # the second look, below, says what is damaged
                if vault.key_id(name, version) != keys.primary:
                    vault.reseal(name, version)
                    encrypted += 1
            if number % _PROGRESS_EVERY == 0:
                progress(number, len(items))
        report = _look(vault, keys)
        report.encrypted = encrypted
        return report


def retire(directory: Path, key_file: Path, *, only_look: bool = False) -> RotationReport:
    """Take the older keys out of the key file, if nothing needs them.

    Args:
        only_look: change nothing; tell whether it could be done.

    Raises:
        RetireRefused: versions need an older key, or are damaged so that it cannot be known.
        VaultConfigurationError: as :func:`rotate`.
    """
    with _alone(directory):
        vault = LocalVault.open(directory, key_file, create=False)
        keys = KeyRing.open(key_file)
        report = _look(vault, keys)
        if report.needing_older:
            raise RetireRefused(
                f"{report.needing_older} of {report.items} stored versions still need an older key; nothing was "
                "changed. Run rotate_vault_key first, and look at the damaged ones that it names"
            )
        if len(keys.ids) > 1 and not only_look:
            keys.save(key_file, primary_only=True)
        return report


def _look(vault: LocalVault, keys: KeyRing) -> RotationReport:
    """Decrypt every version and count which key it needs."""
    report = RotationReport(key=keys.primary.hex(), older_keys=[key_id.hex() for key_id in keys.ids[1:]])
    for name, version in vault.items():
        try:
            seen = vault.inspect(name, version)
            needs = vault.key_id(name, version)
        except NotFound:
            continue
        report.items += 1
        if seen.damage:
            report.damaged.append(f"{name}/{version}: {seen.damage}")
        if needs in keys.ids[1:]:
            report.needing_older += 1
    return report


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one rotation run at a time, and only as the vault's own user: others could not read what it writes."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise VaultConfigurationError(f"The vault's directory, {directory}, cannot be used: {error.strerror}") from None
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise VaultConfigurationError(
                f"The vault in {directory} belongs to another user; run this as the user that the portal runs as"
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VaultConfigurationError("Another rotation of this vault's key is running; wait for it") from None
        yield
    finally:
        os.close(descriptor)
