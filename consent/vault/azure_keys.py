"""Keys of Azure Key Vault that sign for our application and never leave the vault.

The SDK's ``CryptographyClient`` offers such a key as an ``RSAPrivateKey``, so all that signs with a key of ours (PyJWT,
the builders of certificates and requests) signs with it as well. Pipeline, pace and errors are those of
``consent.vault.azure``.

Source: Key Vault REST ``createKey``, ``getKey``, ``updateKey``, ``sign``, ``getKeys``,
``getKeyVersions``, api-version 7.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from azure.core.credentials import TokenCredential
from azure.keyvault.keys import KeyClient, KeyOperation, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, KeyVaultRSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, RSAPublicNumbers

from consent.vault.azure import call, items, pipeline, versions_of
from consent.vault.base import (
    OUR_KEY_NAME,
    SECRET_VERSION,
    SERVICE,
    SecretName,
    SecretVersion,
    VaultKey,
    VersionInfo,
    check_name,
    check_version,
    new_key_name,
)
from consent.vault.pace import Pace
from portal.microsoft.errors import AccessDenied, NotFound

KEY_DENIED = "key_denied"  # our own code, beside the vault's in the table of sentences
_RIGHTS = frozenset({"", "Forbidden", "AccessDenied", "ForbiddenByRbac"})
_BITS = 2048


class AzureKeys:
    """The :class:`~consent.vault.base.VaultKeys` of a Key Vault, and their list. Thread-safe.

    Args:
        options: as ``consent.vault.azure.pipeline`` makes them.
        pace: shared with all other calls of this process.
    """

    def __init__(self, vault_url: str, options: Mapping[str, Any], pace: Pace) -> None:
        self._url = vault_url.rstrip("/")
        self._options = options
        self._client = KeyClient(vault_url=vault_url, **options)
        self._pace = pace

    def create(self, *, tags: Mapping[str, str]) -> VaultKey:
        """See :meth:`consent.vault.base.VaultKeys.create`."""
        name, operation = new_key_name(), "create a key"
        return self._call(
            operation,
            lambda: _described(
                self._client.create_rsa_key(
                    name, size=_BITS, key_operations=[KeyOperation.sign], tags=dict(tags), enabled=True
                )
            ),
        )

    def get(self, name: SecretName, version: SecretVersion) -> VaultKey:
        """See :meth:`consent.vault.base.VaultKeys.get`."""
        operation = f"read the key {name}"
        check_name(name, operation)
        check_version(version, operation)
        return self._call(operation, lambda: _described(self._client.get_key(name, version)))

    def signer(self, name: SecretName, version: SecretVersion, public: RSAPublicKey) -> RSAPrivateKey:
        """See :meth:`consent.vault.base.VaultKeys.signer`."""
        operation = f"sign with the key {name}"
        check_name(name, operation)
        check_version(version, operation)
        numbers = public.public_numbers()
        # With its public half the SDK does not ask the vault for the key before it signs.
        known = KeyVaultKey(
            f"{self._url}/keys/{name}/{version}",
            jwk={"kty": "RSA", "n": _bytes(numbers.n), "e": _bytes(numbers.e)},
        )
        return _Signer(CryptographyClient(known, **self._options), known, self._call, operation)

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """See :meth:`consent.vault.base.VaultKeys.disable`."""
        operation = f"disable the key {name}"
        check_name(name, operation)
        check_version(version, operation)
        self._call(operation, lambda: self._client.update_key_properties(name, version, enabled=False))

    # --- what needs List on keys ----------------------------------------------------------------------------------

    def names(self) -> Iterator[SecretName]:
        """See :meth:`consent.vault.base.KeyInventory.names`; keys of other shapes are somebody else's."""
        for item in items(self._pace, "list the keys", self._client.list_properties_of_keys().by_page()):
            if item.name is not None and OUR_KEY_NAME.fullmatch(item.name):
                yield SecretName(item.name)

    def versions(self, name: SecretName) -> list[VersionInfo]:
        """See :meth:`consent.vault.base.KeyInventory.versions`."""
        operation = f"list the key {name}"
        check_name(name, operation)
        pages = self._client.list_properties_of_key_versions(name).by_page()
        try:
            return versions_of(name, items(self._pace, operation, pages), operation)
        except NotFound:
            return []

    def _call[T](self, operation: str, function: Callable[[], T]) -> T:
        try:
            return call(self._pace, operation, function)
        except AccessDenied as error:
            if error.code not in _RIGHTS:
                raise
            denied = AccessDenied(
                SERVICE,
                operation,
                status=error.status,
                code=KEY_DENIED,
                correlation_id=error.correlation_id,
                request_id=error.request_id,
            )
        raise denied


class _Signer(KeyVaultRSAPrivateKey):
    """The SDK's key, whose calls go through ours."""

    def __init__(
        self, client: CryptographyClient, key: KeyVaultKey, calls: Callable[..., bytes], operation: str
    ) -> None:
        super().__init__(client, key.key)
        self._calls = calls
        self._operation = operation

    def sign(self, data: bytes, padding: AsymmetricPadding, algorithm: Any) -> bytes:
        sign = super().sign
        return self._calls(self._operation, lambda: sign(data, padding, algorithm))


def open_azure_keys(
    vault_url: str, credential: Callable[[], TokenCredential], *, session: requests.Session, pace: Pace
) -> AzureKeys:
    """Return the keys of this vault; nothing is called yet. Arguments and errors as ``open_azure_vault``."""
    return AzureKeys(vault_url, pipeline(vault_url, credential, session=session), pace)


def _described(key: KeyVaultKey) -> VaultKey:
    """Read the SDK's description. Raises what ``call`` knows when it is not that of an RSA key with a version."""
    version = key.properties.version
    if key.key_type not in {"RSA", "RSA-HSM"} or not version or not SECRET_VERSION.fullmatch(version):
        raise ValueError("no RSA key")
    material: Any = key.key
    numbers = RSAPublicNumbers(int.from_bytes(material.e, "big"), int.from_bytes(material.n, "big"))
    return VaultKey(
        name=SecretName(str(key.name)),
        version=SecretVersion(version),
        public=numbers.public_key(),
        tags=key.properties.tags or {},
    )


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
