"""The keys of the embedded vault.

A key file is text: one AES-256 key per line, 32 bytes in base64; blank lines and lines that begin with ``#`` do not
count. The first key writes, all of them read, so a rotation puts a new line on top and takes the old one away when
nothing needs it any more (S-44). A key's id is derived from the key, so a damaged or exchanged key is noticed by its
id and never by guessing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self, final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from consent.vault.base import VaultConfigurationError
from consent.vault.private_files import read_private_file
from portal.microsoft.secret import Secret

KEY_BYTES = 32
KEY_ID_BYTES = 8
_WHAT = "The vault's key file"
_HEADER = """\
# Keys of the portal's embedded vault: the first one writes, all of them read.
# Keep a copy away from the vault's data: without its key a stored token cannot be read by anybody.
"""


@final
class KeyRing:
    """AES-256 keys by id, the writing one first. Never prints a key.

    Args:
        keys: 32 bytes each, at least one.

    Raises:
        VaultConfigurationError: no key, a key of another length, or the same key twice.
    """

    def __init__(self, keys: Sequence[bytes], *, source: str = "The vault's key ring") -> None:
        if not keys:
            raise VaultConfigurationError(f"{source} holds no key")
        self._keys: dict[bytes, Secret] = {}
        for key in keys:
            if len(key) != KEY_BYTES:
                raise VaultConfigurationError(f"{source} holds a key of {len(key)} bytes; a key has {KEY_BYTES}")
            self._keys[_key_id(key)] = Secret(base64.b64encode(key).decode())
        if len(self._keys) != len(keys):
            raise VaultConfigurationError(f"{source} holds the same key twice")
        self.primary = _key_id(keys[0])

    @classmethod
    def parse(cls, text: str, *, source: str = _WHAT) -> Self:
        """Read the form that the module's docstring describes. Raises VaultConfigurationError."""
        lines = [line.strip() for line in text.splitlines()]
        try:
            keys = [base64.b64decode(line, validate=True) for line in lines if line and not line.startswith("#")]
        except (binascii.Error, ValueError):
            raise VaultConfigurationError(f"{source} holds a line that is not a key in base64") from None
        return cls(keys, source=source)

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Self:
        """Read the key file; with ``create`` make it first, 0600 and with one random key, if there is none.

        Pass ``create=True`` only when no data exists (:meth:`consent.vault.local.LocalVault.open` decides, S-43).

        Raises:
            VaultConfigurationError: missing, open to others than its owner, unreadable, or not a key file.
        """
        if create and not path.exists():
            _create(path)
        try:
            text = read_private_file(path, _WHAT).decode("ascii")
        except UnicodeDecodeError:
            raise VaultConfigurationError(f"{_WHAT}, {path}, is not a key file") from None
        return cls.parse(text, source=f"{_WHAT}, {path},")

    @property
    def ids(self) -> list[bytes]:
        """Return the ids of all keys, the writing one first."""
        return list(self._keys)

    def save(self, path: Path, *, with_new_key: bool = False, primary_only: bool = False) -> KeyRing:
        """Put the key file's next state in place of the present one, whole or not at all, and return it.

        Args:
            with_new_key: put a new random key on top, which writes from now on.
            primary_only: leave out all keys but the writing one.

        Raises:
            VaultConfigurationError: the file cannot be written; it is unchanged.
        """
        lines = [key.reveal() for key in self._keys.values()]
        if primary_only:
            lines = lines[:1]
        if with_new_key:
            lines.insert(0, base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
        try:
            for leftover in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 16}"):
                leftover.unlink()  # of a process that was killed here; it holds keys
            temporary = _write_temporary(path, lines)
            temporary.replace(path)
            fsync_directory(path.parent)
        except OSError as error:
            raise VaultConfigurationError(
                f"{_WHAT}, {path}, cannot be replaced: {error.strerror}; it is unchanged. Run this where the file can "
                "be written, as the user who owns it"
            ) from None
        return KeyRing.open(path)

    def cipher(self, key_id: bytes) -> AESGCM:
        """Return the cipher of this key. Raises KeyError when the ring does not hold it."""
        return AESGCM(base64.b64decode(self._keys[key_id].reveal()))

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._keys

    def holds(self, text: str) -> bool:
        """Tell whether ``text`` is one of the keys in any usual spelling: SECRET_KEY must be another (S-43)."""
        given = text.strip().rstrip("=").encode()
        return any(
            hmac.compare_digest(given, spelling.rstrip(b"="))
            for key in (base64.b64decode(known.reveal()) for known in self._keys.values())
            for spelling in (
                base64.b64encode(key),
                base64.urlsafe_b64encode(key),
                key.hex().encode(),
                key.hex().upper().encode(),
                key,
            )
        )

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(key_id.hex() for key_id in self._keys)})"


def _key_id(key: bytes) -> bytes:
    """Derive an id that tells nothing about the key."""
    return hmac.new(key, b"portal vault key id", hashlib.sha256).digest()[:KEY_ID_BYTES]


def _create(path: Path) -> None:
    """Make a key file that is complete from its first moment; of several processes at first start one wins."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _write_temporary(path, [base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()])
        try:
            os.link(temporary, path)  # fails when the file exists: somebody else was first, theirs is the key
        except FileExistsError:
            return
        finally:
            temporary.unlink(missing_ok=True)
        fsync_directory(path.parent)
    except OSError as error:
        raise VaultConfigurationError(f"{_WHAT}, {path}, cannot be made: {error.strerror}") from None


def _write_temporary(path: Path, keys: Sequence[str]) -> Path:
    """Write a whole key file beside the real one and return where. Raises OSError, leaving nothing behind."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(_HEADER + "".join(f"{key}\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def fsync_directory(directory: Path) -> None:
    """Make a rename or a link survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
