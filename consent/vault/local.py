"""The embedded vault: encrypted files in one directory, for installations without Azure Key Vault (S-43, R-39).

::

    <directory>/                      0700
        <secret name>/                0700, locked (flock) while somebody writes in it
            <version>                 0600, one envelope; never changes but for being switched off

A version id is 8 hex digits that count up within the secret and 24 random ones, so the newest version is the last
name in the directory, whatever the clock says. An envelope is::

    format (6) | key id (8) | length of the attributes (2) | attributes (JSON) | nonce (12) | ciphertext and tag

AES-256-GCM authenticates everything before the nonce together with the secret's name and version (the record id is
one of the attributes), so a changed byte, a file under another name and a switched-off version switched on again by
hand are all :class:`~consent.vault.base.VaultDamaged`. What this cannot see is an older copy of the same file put
back by somebody who may write here: the database's pointer and generation are for that (R-02).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag

from consent.vault.base import (
    DOCTOR_NAME,
    ID_NAME,
    MAX_SECRET_BYTES,
    PROBE_NAME,
    SECRET_NAME,
    SECRET_VERSION,
    SERVICE,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    VaultConfigurationError,
    VaultDamaged,
    VersionInfo,
    check_name,
    check_new_version,
    check_version,
)
from consent.vault.keys import KEY_ID_BYTES, KeyRing, fsync_directory
from portal.microsoft.errors import AccessDenied, NotFound, RemoteError, ServerFault
from portal.microsoft.secret import Secret

log = logging.getLogger(__name__)

_FORMAT = b"CPV-S\x01"  # the last byte is the format's number
_HEAD = struct.Struct(f">{len(_FORMAT)}s{KEY_ID_BYTES}sH")
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MAX_ATTRIBUTES_BYTES = 1_000  # two short tags, two times and a flag are about 150
_MAX_ENVELOPE_BYTES = _HEAD.size + _MAX_ATTRIBUTES_BYTES + _NONCE_BYTES + MAX_SECRET_BYTES + _TAG_BYTES
_TEMPORARY = ".tmp"
_RESERVED = frozenset({PROBE_NAME, ID_NAME, DOCTOR_NAME})

_GONE = "The vault's directory is gone, or its disk is not mounted"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """The content of one envelope; times are whole Unix seconds, as Key Vault keeps them."""

    value: Secret
    tags: Mapping[str, str]
    created: int
    expires: int | None
    enabled: bool


class LocalVault:
    """A :class:`~consent.vault.base.Vault` in a directory. Safe for many threads and processes on one machine.

    Raises:
        VaultConfigurationError: the directory cannot be used, or its data needs a key that ``keys`` does not hold.
    """

    most_versions = 0  # old ones are pruned, and a backup copies files

    def __init__(self, directory: Path, keys: KeyRing, *, key_file: Path | None = None) -> None:
        self._directory = directory
        self._keys = keys
        self._key_file = key_file
        self._key_file_seen: tuple[int, int, int] | None = None
        self._has_id = False  # seen here once; an empty folder in its place has none
        with _configuration_errors(directory):
            _make_private(directory)
            self._check_key()
            self._remove_leftovers()

    @classmethod
    def open(cls, directory: Path, key_file: Path, *, create: bool = True) -> Self:
        """Open the vault; at the very first start, when there is no data, make directory and key file.

        Args:
            create: false when something is known to be stored, so that a missing directory or key file is a fault.

        Raises:
            VaultConfigurationError: as the constructor and :meth:`KeyRing.open`; also when there is data and no key,
                because a new key would turn every stored token into noise (S-43). Nothing was made.
        """
        with _configuration_errors(directory):
            if not create and not directory.is_dir():
                raise VaultConfigurationError(
                    f"The vault's directory, {directory}, is missing, although tokens were stored in it; mount its "
                    "disk, restore it from its backup, or correct VAULT_URL"
                )
            if not key_file.exists() and (not create or _first_envelope(directory) is not None):
                raise VaultConfigurationError(
                    f"The vault in {directory} holds secrets, but its key file, {key_file}, is missing; "
                    "restore the key file from its backup, or correct VAULT_KEY_FILE"
                )
        return cls(directory, KeyRing.open(key_file, create=create), key_file=key_file)

    # --- the protocol ---------------------------------------------------------------------------------------------

    def write(
        self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: datetime | None
    ) -> SecretVersion:
        """See :meth:`consent.vault.base.Vault.write`. ServerFault: no space or a fault of the disk."""
        operation = f"write {name}"
        check_new_version(name, value, tags, expires_at, operation)
        opened = _Opened(
            value=value,
            tags=dict(tags),
            created=int(time.time()),
            expires=None if expires_at is None else int(expires_at.timestamp()),
            enabled=True,
        )
        with _os_errors_mapped(operation), self._locked(name, operation, create=True) as folder:
            newest = max(_versions(folder), default=None)
            sequence = 1 if newest is None else int(newest[:8], 16) + 1
            version = SecretVersion(f"{sequence:08x}{secrets.token_hex(12)}")
            _replace(folder / version, self._seal(name, version, opened))
        self._has_id |= name == ID_NAME
        return version

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        """See :meth:`consent.vault.base.Vault.read`."""
        operation = f"read {name}"
        check_name(name, operation)
        check_version(version, operation)
        with _os_errors_mapped(operation):
            opened = self._load(name, version, operation)
        if not opened.enabled:
            raise SecretDisabled(SERVICE, operation)
        return StoredSecret(
            name=name,
            version=version,
            value=opened.value,
            tags=opened.tags,
            created_at=datetime.fromtimestamp(opened.created, UTC),
            expires_at=None if opened.expires is None else datetime.fromtimestamp(opened.expires, UTC),
        )

    def read_newest(self, name: SecretName) -> StoredSecret:
        """See :meth:`consent.vault.base.Vault.read_newest`."""
        operation = f"read {name}"
        check_name(name, operation)
        with _os_errors_mapped(operation):
            newest = max(_versions(self._directory / name), default=None)
        if newest is None:
            raise self._not_found(operation)
        self._has_id |= name == ID_NAME
        return self.read(name, newest)

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """See :meth:`consent.vault.base.Vault.disable`."""
        operation = f"disable {name}"
        check_name(name, operation)
        check_version(version, operation)
        with _os_errors_mapped(operation), self._locked(name, operation) as folder:
            opened = self._load(name, version, operation)
            if opened.enabled:
                _replace(folder / version, self._seal(name, version, replace(opened, enabled=False)))

    def check_writable(self) -> None:
        """Write as much as the largest secret needs, the way a secret is written (R-07). Makes no version."""
        operation = "check that it can be written"
        with _os_errors_mapped(operation), self._locked(PROBE_NAME, operation, create=True) as folder:
            _replace(folder / "probe", bytes(_MAX_ENVELOPE_BYTES))

    # --- what is there, and with which key ------------------------------------------------------------------------

    def names(self) -> Iterator[SecretName]:
        """See :meth:`consent.vault.base.Inventory.names`."""
        with _os_errors_mapped("list"):
            found = sorted(path.name for path in self._directory.iterdir() if path.is_dir())
        yield from (SecretName(name) for name in found if SECRET_NAME.fullmatch(name) and name not in _RESERVED)

    def versions(self, name: SecretName) -> list[VersionInfo]:
        """See :meth:`consent.vault.base.Inventory.versions`; each version is decrypted to see whether it is whole."""
        operation = f"list {name}"
        check_name(name, operation)
        found = []
        with _os_errors_mapped(operation):
            for version in sorted(_versions(self._directory / name)):
                with suppress(NotFound):  # erased since it was listed
                    found.append(self.inspect(name, version))
        return found

    def deleted_names(self) -> Iterator[SecretName]:
        """See :meth:`consent.vault.base.Inventory.deleted_names`: what is deleted here is gone."""
        yield from ()

    def items(self) -> list[tuple[SecretName, SecretVersion]]:
        """Return all versions of all secrets, without opening any."""
        names = [*self.names(), ID_NAME]
        return [(name, version) for name in names for version in sorted(_versions(self._directory / name))]

    def erase(self, name: SecretName) -> bool:
        """See :meth:`consent.vault.base.Eraser.erase`."""
        operation = f"erase {name}"
        check_name(name, operation)
        with _os_errors_mapped(operation):
            try:
                with self._locked(name, operation) as folder:
                    shutil.rmtree(folder)
                    fsync_directory(self._directory)
            except NotFound:
                return True
        return True

    def prune(
        self, before: datetime, keep: Collection[SecretVersion], between: Callable[[], None] = lambda: None
    ) -> int:
        """See :meth:`consent.vault.base.Pruner.prune`. When a version was switched off its file says: nothing else
        writes it later, but a change of the key and a copy, after which it is kept for longer.
        """
        removed = 0
        for name in self.names():
            operation = f"remove old versions of {name}"
            with _os_errors_mapped(operation), suppress(NotFound):  # erased since it was listed
                if found := self._old_versions(name, before, keep):
                    removed += self._remove_disabled(name, found, before, operation)
            between()
        return removed

    def _old_versions(self, name: SecretName, before: datetime, keep: Collection[SecretVersion]) -> list[SecretVersion]:
        """Return what was last written before then; the newest version, from which the next one counts, stays."""
        folder, found = self._directory / name, []
        for version in sorted(_versions(folder))[:-1]:
            with suppress(FileNotFoundError):
                if version not in keep and (folder / version).stat().st_mtime < before.timestamp():
                    found.append(version)
        return found

    def _remove_disabled(
        self, name: SecretName, found: Collection[SecretVersion], before: datetime, operation: str
    ) -> int:
        removed = 0
        with self._locked(name, operation) as folder:
            for version in found:
                with suppress(VaultDamaged, NotFound):  # what is damaged stays for a person to look at
                    opened = self._load(name, version, operation)
                    if not opened.enabled and opened.created < before.timestamp():
                        (folder / version).unlink()
                        removed += 1
            if removed:
                fsync_directory(folder)
        return removed

    def key_id(self, name: SecretName, version: SecretVersion) -> bytes:
        """Return the id of the key that this version needs; empty when its head cannot be read. Raises NotFound."""
        operation = f"look at {name}"
        with _os_errors_mapped(operation):
            try:
                with (self._directory / name / version).open("rb") as file:
                    head = file.read(_HEAD.size)
            except FileNotFoundError:
                raise self._not_found(operation) from None
        return _key_id(head)

    def reseal(self, name: SecretName, version: SecretVersion) -> None:
        """Encrypt this version with the writing key, and prove that it reads before and after it is in place.

        Name, version and attributes stay. Raises as :meth:`read`; what was stored before is then untouched.
        """
        operation = f"encrypt {name} anew"
        with _os_errors_mapped(operation), self._locked(name, operation) as folder:
            opened = self._load(name, version, operation)
            envelope = self._seal(name, version, opened)
            if not _same(self._unseal(envelope, name, version, operation), opened):
                raise VaultDamaged(SERVICE, operation, detail="The new form does not decrypt to the old value")
            _replace(folder / version, envelope)
            if not _same(self._load(name, version, operation), opened):
                raise VaultDamaged(SERVICE, operation, detail="The disk returned something else than was written")

    def inspect(self, name: SecretName, version: SecretVersion) -> VersionInfo:
        """Decrypt this version and say what it is, or why it cannot be read. Raises NotFound."""
        operation = f"look at {name}"
        try:
            opened = self._load(name, version, operation)
        except VaultDamaged as error:
            place = self._true_place(name, version)
            damage = f"The file is the one of {place}: it was moved or swapped" if place else error.detail
            return VersionInfo(
                name=name,
                version=version,
                enabled=False,
                tags={},
                created_at=datetime.fromtimestamp(0, UTC),
                damage=damage or VaultDamaged.summary,
            )
        return VersionInfo(
            name=name,
            version=version,
            enabled=opened.enabled,
            tags=opened.tags,
            created_at=datetime.fromtimestamp(opened.created, UTC),
        )

    def _true_place(self, name: SecretName, version: SecretVersion) -> str:
        """Return the name and version under which this file decrypts; empty when nowhere, so it is not whole."""
        envelope = (self._directory / name / version).read_bytes()
        for other in self.names():
            for place in _versions(self._directory / other):
                with suppress(VaultDamaged):
                    self._unseal(envelope, other, place, "")
                    return f"{other}/{place}"
        return ""

    # --- envelopes ------------------------------------------------------------------------------------------------

    def _seal(self, name: SecretName, version: SecretVersion, opened: _Opened) -> bytes:
        attributes = json.dumps(
            {
                "created": opened.created,
                "enabled": opened.enabled,
                "expires": opened.expires,
                "tags": dict(opened.tags),
            },
            separators=(",", ":"),
        ).encode()
        keys = self._current_keys()
        head = _HEAD.pack(_FORMAT, keys.primary, len(attributes)) + attributes
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = keys.cipher(keys.primary)
        sealed = cipher.encrypt(nonce, opened.value.reveal().encode(), _associated(head, name, version))
        return head + nonce + sealed

    def _load(self, name: SecretName, version: SecretVersion, operation: str) -> _Opened:
        try:
            with (self._directory / name / version).open("rb") as file:
                envelope = file.read(_MAX_ENVELOPE_BYTES + 1)
        except FileNotFoundError:
            raise self._not_found(operation) from None
        return self._unseal(envelope, name, version, operation)

    def _unseal(self, envelope: bytes, name: SecretName, version: SecretVersion, operation: str) -> _Opened:
        # Nothing in the envelope is believed before the tag is right; until then it is lengths and a key's id.
        if not _HEAD.size <= len(envelope) <= _MAX_ENVELOPE_BYTES:
            raise VaultDamaged(SERVICE, operation, detail="The stored secret is cut or too large")
        form, key_id, length = _HEAD.unpack_from(envelope)
        end = _HEAD.size + length
        if form != _FORMAT or len(envelope) <= end + _NONCE_BYTES + _TAG_BYTES:
            raise VaultDamaged(SERVICE, operation, detail="The stored secret is damaged")
        keys = self._keys if key_id in self._keys else self._current_keys()
        if key_id not in keys:
            needed = f"The stored secret needs the key {key_id.hex()}, which is not in the key file"
            raise VaultDamaged(SERVICE, operation, detail=needed)
        nonce, sealed = envelope[end : end + _NONCE_BYTES], envelope[end + _NONCE_BYTES :]
        try:
            value = keys.cipher(key_id).decrypt(nonce, sealed, _associated(envelope[:end], name, version))
        except InvalidTag:
            raise VaultDamaged(SERVICE, operation) from None
        attributes = json.loads(envelope[_HEAD.size : end])
        return _Opened(value=Secret(value.decode()), **attributes)

    def _current_keys(self) -> KeyRing:
        """Return the keys, read again when the file changed: a rotation needs no restart of any process (S-44)."""
        if self._key_file is None:
            return self._keys
        seen = _seen(self._key_file)
        if seen is None or seen == self._key_file_seen:
            return self._keys
        try:
            found = KeyRing.open(self._key_file)
        except VaultConfigurationError as error:
            log.warning("the key file changed and is not used: %s", error)
        else:
            # A process that slept through a whole rotation shares no key with the file; the data then tells.
            if found.primary in self._keys or self._keys.primary in found or self._needed_key() in found:
                self._keys = found
            else:
                log.error("the key file holds other keys than the vault needs; the ones in memory are used on")
        self._key_file_seen = seen
        return self._keys

    def _not_found(self, operation: str) -> RemoteError:
        if self._is_gone():
            # An unmounted disk must not look like partners who never consented.
            return ServerFault(SERVICE, operation, detail=_GONE)
        return NotFound(SERVICE, operation)

    def _is_gone(self) -> bool:
        """Whether the directory vanished, or another one, such as the empty one below a mount, is in its place."""
        return not self._directory.is_dir() or (self._has_id and not (self._directory / ID_NAME).is_dir())

    # --- files ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, name: SecretName, operation: str, *, create: bool = False) -> Iterator[Path]:
        """Keep every other writer of this secret out, in this process and in others; a killed holder lets go."""
        folder = self._directory / name
        if create and not folder.is_dir():
            if self._is_gone():
                raise ServerFault(SERVICE, operation, detail=_GONE)
            folder.mkdir(mode=0o700, exist_ok=True)
            fsync_directory(self._directory)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise self._not_found(operation) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for leftover in folder.glob(f"*{_TEMPORARY}"):  # a temporary file that lies here while we hold the lock
                leftover.unlink()  # belongs to a writer that was killed
            yield folder
        finally:
            os.close(descriptor)

    def _check_key(self) -> None:
        key_id = self._needed_key()
        if key_id and key_id not in self._keys:
            raise VaultConfigurationError(
                f"The vault in {self._directory} was encrypted with the key {key_id.hex()}, which is not in its key "
                "file; restore the right key file from its backup"
            )

    def _needed_key(self) -> bytes:
        """Return the id of the key that some stored version needs; empty without data, or if that one is damaged."""
        first = _first_envelope(self._directory)
        if first is None:
            return b""
        with first.open("rb") as file:
            return _key_id(file.read(_HEAD.size))

    def _remove_leftovers(self) -> None:
        for path in list(self._directory.glob(f"*/*{_TEMPORARY}")):
            # On a disk that cannot be written reading goes on; the next writer of this secret cleans up.
            with suppress(OSError, NotFound), self._locked(SecretName(path.parent.name), "clean up"):
                pass


def _key_id(head: bytes) -> bytes:
    """Return the id of the key that this envelope needs; empty when its head is not one of ours."""
    if len(head) < _HEAD.size or not head.startswith(_FORMAT):
        return b""
    key_id: bytes = _HEAD.unpack(head)[1]
    return key_id


def _same(one: _Opened, other: _Opened) -> bool:
    return one.value.same_as(other.value) and replace(one, value=other.value) == other


def _seen(key_file: Path) -> tuple[int, int, int] | None:
    """Tell one state of the key file from the next; None when it cannot be seen."""
    try:
        status = key_file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _associated(head: bytes, name: SecretName, version: SecretVersion) -> bytes:
    return b"\n".join((head, name.encode(), version.encode()))


def _versions(folder: Path) -> list[SecretVersion]:
    try:
        return [SecretVersion(entry) for entry in os.listdir(folder) if SECRET_VERSION.fullmatch(entry)]
    except FileNotFoundError:
        return []


def _first_envelope(directory: Path) -> Path | None:
    """Return some stored version, to see whether there is data and which key it needs."""
    if not directory.is_dir():
        return None
    for folder in directory.iterdir():
        if folder.is_dir():
            for version in _versions(folder):
                return folder / version
    return None


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(directory.stat().st_mode) & 0o077:
        raise VaultConfigurationError(
            f"The vault's directory, {directory}, is open to others than its owner; run: chmod 700 {directory}"
        )


@contextmanager
def _configuration_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VaultConfigurationError(f"The vault's directory, {directory}, cannot be used: {error.strerror}") from None


def _replace(path: Path, content: bytes) -> None:
    """Write the file so that at every moment, power loss included, it is absent, old or new, never part."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def _os_errors_mapped(operation: str) -> Iterator[None]:
    """Turn a fault of the disk into the family; whatever was stored before is untouched (R-38)."""
    try:
        yield
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "")
        if error.errno in _NO_SPACE:
            raise ServerFault(SERVICE, operation, code=code, detail="The vault's disk is full") from None
        if error.errno in _NO_RIGHT:
            raise AccessDenied(
                SERVICE, operation, code=code, detail="The system does not let us use the vault's files"
            ) from None
        raise ServerFault(SERVICE, operation, code=code, detail="The vault's disk has a fault") from None
