"""The one shape that every vault has.

A vault keeps named secrets in versions. Writing makes a new version and returns its id; reading always names a
version, never "the latest", because a late writer's older token would be the latest (R-02). Everything else about a
token (which version is current, who owns it) is in the database; the vault's tags carry the record id and the
generation so that the two can be reconciled.

Failures are the ``RemoteError`` family with ``service="vault"``: ``Unreachable``, ``Throttled`` and ``ServerFault``
may be retried; ``AuthenticationFailed`` and ``AccessDenied`` are for the operator; ``NotFound`` means no such version;
:class:`NameBlocked`, :class:`SecretDisabled`, :class:`SecretTooLarge` and :class:`VaultDamaged` are below.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from portal.microsoft.errors import AccessDenied, Conflict, InvalidRequest, RemoteError, WrongSetup
from portal.microsoft.secret import Secret

SecretName = NewType("SecretName", str)
"""Name of a secret: ``^[0-9a-z-]{1,127}$``; random, so that a vendor's log shows no partner (S-41)."""
SecretVersion = NewType("SecretVersion", str)
"""Version id that a write returned: 32 hex characters."""

MAX_SECRET_BYTES = 25_000  # Key Vault's limit; the embedded vault keeps the same, so that one can move to the other
SECRET_NAME = re.compile(r"[0-9a-z-]{1,127}")
OUR_NAME = re.compile(r"rt-[0-9a-f]{32}")  # what new_secret_name() makes; other entries of a vault are somebody else's
TOMBSTONE_NAME = re.compile(r"er-[0-9a-f]{32}")  # says that a partner was erased; ``consent.tokens.tombstones``
OUR_KEY_NAME = re.compile(r"ck-[0-9a-f]{32}")  # what new_key_name() makes
SECRET_VERSION = re.compile(r"[0-9a-f]{32}")
PROBE_NAME = SecretName("portal-write-probe")
DOCTOR_NAME = SecretName("portal-doctor-probe")  # written and read back by the doctor; no secret
ID_NAME = SecretName("portal-vault-id")  # which vault this is; ``consent.tokens.pairing``

SERVICE = "vault"
RECORD_TAG = "record"
GENERATION_TAG = "generation"
_TAGS = frozenset({RECORD_TAG, GENERATION_TAG})
_TAG_VALUE = re.compile(r"[0-9A-Za-z-]{1,64}")  # a number or an id; a token does not fit


class VaultConfigurationError(WrongSetup):
    """The vault is set up wrongly; the text is one sentence: what, where, what to do."""


class NameBlocked(Conflict):
    """The name belongs to a deleted secret that can still be recovered; take a new random name (R-10)."""

    summary = "The secret's name is blocked by a deleted secret"


class SecretDisabled(AccessDenied):
    """This version was switched off."""

    summary = "This version of the secret is disabled"


class SecretTooLarge(InvalidRequest):
    """More than 25,000 bytes; nothing was written and the older version is untouched (R-43)."""

    summary = f"A secret holds at most {MAX_SECRET_BYTES} bytes"


class VaultDamaged(RemoteError):
    """The stored form cannot be decrypted or read: wrong key, changed, swapped or cut file. Never "no secret"."""

    summary = "The stored secret is damaged or was encrypted with another key"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """One version as the vault returned it."""

    name: SecretName
    version: SecretVersion
    value: Secret
    tags: Mapping[str, str]
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """One version as a list shows it: everything but the value.

    ``damage`` is empty, or one sentence about why this version cannot be read; the attributes are then not known.
    """

    name: SecretName
    version: SecretVersion
    enabled: bool
    tags: Mapping[str, str]
    created_at: datetime
    damage: str = ""

    @property
    def record(self) -> str:
        """Return whose token it is, as the tag says: ``consent-41``; empty without tag."""
        return self.tags.get(RECORD_TAG, "")

    @property
    def generation(self) -> int:
        """Return the generation of the tag; 0 without one."""
        text = self.tags.get(GENERATION_TAG, "")
        return int(text) if text.isdecimal() else 0


class Inventory(Protocol):
    """What the reconcile command's identity may do: exactly List (S-40). Never returns a value.

    Attributes:
        most_versions: of an entry that can still be backed up; 0 where their number does not matter.
    """

    most_versions: int

    def names(self) -> Iterator[SecretName]:
        """Yield the names of all entries that the portal can have made. Raises AccessDenied without the right."""

    def versions(self, name: SecretName) -> list[VersionInfo]:
        """Return all versions of this entry, oldest first; none when there is no such entry."""

    def deleted_names(self) -> Iterator[SecretName]:
        """Yield the names of our entries that somebody deleted and that can still be recovered."""


class Eraser(Protocol):
    """What the erasure's identity may do: Delete and Purge (S-40)."""

    def erase(self, name: SecretName) -> bool:
        """Delete the entry with all its versions for good; doing it twice is harmless.

        Returns:
            False when it is deleted but the vault keeps it recoverable for its retention time (no right to purge, or
            purge protection).

        Raises:
            AccessDenied: the identity may not even delete; nothing happened.
        """


class Pruner(Protocol):
    """A vault that can remove single versions; Azure Key Vault cannot."""

    def prune(
        self, before: datetime, keep: Collection[SecretVersion], between: Callable[[], None] = lambda: None
    ) -> int:
        """Remove versions that were switched off before then; never the newest of an entry, nor one that is damaged.

        Each is removed whole or not at all, so it may be cut off at any moment and begun again.

        Args:
            keep: versions that stay whatever they are.
            between: called after each entry; what it raises ends the work there.

        Returns:
            How many were removed.
        """


class Vault(Protocol):
    """What the web process and the worker may do: exactly Get and Set (S-40)."""

    def write(
        self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: datetime | None
    ) -> SecretVersion:
        """Store a new version and return its id. Older versions stay as they are.

        Args:
            tags: ``record`` and ``generation`` only (S-41).
            expires_at: kept to the second; information for the owner, reading works after it.

        Raises:
            SecretTooLarge: nothing was written.
            InvalidRequest: a rule of :func:`check_new_version` is broken; nothing was written.
            NameBlocked: take another name.
            Unreachable: the outcome is unknown; read back before repeating (R-09).
        """

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        """Return this version.

        Raises:
            NotFound: no such secret or version.
            SecretDisabled: it was switched off.
            VaultDamaged: it is there and cannot be trusted.
        """

    def read_newest(self, name: SecretName) -> StoredSecret:
        """Return the newest version, for rolling forward after a crash only (R-02). Raises as :meth:`read`."""

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """Switch this version off; doing it twice is harmless. Raises NotFound."""

    def check_writable(self) -> None:
        """Prove that the vault can be written now, making no new version each time (R-07).

        Raises:
            RemoteError: it cannot; nothing was lost.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultKey:
    """One version of a key, as the vault describes it: the public half, and whose it is."""

    name: SecretName
    version: SecretVersion
    public: RSAPublicKey
    tags: Mapping[str, str]


class VaultKeys(Protocol):
    """Keys that stay in the vault, which signs itself: Get, Create, Sign and Update on keys.

    Names and versions of keys have the shapes of those of secrets.
    """

    def create(self, *, tags: Mapping[str, str]) -> VaultKey:
        """Make an RSA key of 2,048 bits under a random name. It cannot be exported.

        Raises:
            AccessDenied: the identity has no rights on keys.
        """

    def get(self, name: SecretName, version: SecretVersion) -> VaultKey:
        """Return what the vault says of this key.

        Raises:
            NotFound: no such key.
            UnexpectedResponse: it is no RSA key.
        """

    def signer(self, name: SecretName, version: SecretVersion, public: RSAPublicKey) -> RSAPrivateKey:
        """Return the key for signing; nothing is called yet. Each ``sign`` is one call and raises RemoteError."""

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """Switch this version off; doing it twice is harmless. Raises NotFound."""


class KeyInventory(Protocol):
    """What the reconcile command's identity may do with keys: exactly List."""

    def names(self) -> Iterator[SecretName]:
        """Yield the names of all keys that the portal can have made. Raises AccessDenied without the right."""

    def versions(self, name: SecretName) -> list[VersionInfo]:
        """Return all versions of this key, oldest first; none when there is no such key."""


class WholeVault(Vault, Inventory, Eraser, Protocol):
    """All of it; an identity without a right meets AccessDenied there."""


def check_name(name: SecretName, operation: str) -> None:
    """Refuse what is not a secret name before it becomes part of a path or an address. Raises InvalidRequest."""
    if not SECRET_NAME.fullmatch(name):
        raise InvalidRequest(SERVICE, operation, detail="the name of a secret is 1 to 127 of 0-9, a-z and -")


def check_version(version: SecretVersion, operation: str) -> None:
    """Refuse what is not a version id. Raises InvalidRequest."""
    if not SECRET_VERSION.fullmatch(version):
        raise InvalidRequest(SERVICE, operation, detail="a version is 32 of 0-9 and a-f")


def check_new_version(
    name: SecretName, value: Secret, tags: Mapping[str, str], expires_at: datetime | None, operation: str
) -> None:
    """Hold the rules of a write that every vault shares, before anything is written (S-41, R-43).

    Raises:
        SecretTooLarge: more than 25,000 bytes in UTF-8.
        InvalidRequest: name, tags or expiry are not ours to write, or the value is empty or no Unicode text.
    """
    check_name(name, operation)
    if not set(tags) <= _TAGS or not all(_TAG_VALUE.fullmatch(text) for text in tags.values()):
        raise InvalidRequest(SERVICE, operation, detail="tags carry the generation and the record id only")
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidRequest(SERVICE, operation, detail="the expiry needs a time zone")
    if not value.is_unicode():
        raise InvalidRequest(SERVICE, operation, detail="the value is not Unicode text")
    size = value.byte_length()
    if not size:
        raise InvalidRequest(SERVICE, operation, detail="the value is empty")
    if size > MAX_SECRET_BYTES:
        raise SecretTooLarge(SERVICE, operation)


def new_key_name() -> SecretName:
    """Return a random name of a key that was never used and tells nothing."""
    return SecretName(f"ck-{secrets.token_hex(16)}")


def new_secret_name() -> SecretName:
    """Return a random name that was never used and tells nothing (S-41)."""
    return SecretName(f"rt-{secrets.token_hex(16)}")
