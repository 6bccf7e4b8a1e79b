"""Credentials whose key is made here or in the vault, certificates that others sign, and uploaded ones (S-39).

A private key is written to the vault, or is made there and never leaves it (``Kind.VAULT_KEY``). The database holds
its public half only: the certificate, or the request for one. Each function adds a candidate;
``consent.applications.rotation`` proves it and puts it to use.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.db import transaction
from django.utils import timezone

from consent.applications.rotation import (
    Kind,
    RotationRefused,
    add_certificate,
    add_row,
    check_new,
    check_open,
    owner,
    store,
    usable_certificate,
)
from consent.microsoft.certificates import (
    key_pair,
    new_key,
    pem_of,
    public_key_of,
    read_certificates,
    read_key,
    request_for,
    self_signed,
    unlocked,
)
from consent.microsoft.credentials import thumbprint
from consent.models import ApplicationCredential, ApplicationRegistration
from consent.vault.base import RECORD_TAG, SecretName, SecretVersion, Vault, VaultKey, VaultKeys
from consent.vault.leftovers import none_left
from portal.audit.trail import Actor, record
from portal.microsoft.secret import Secret
from portal.rights import require

DAYS = (180, 365, 730)  # lives of a certificate that we make


def make_pair(registration: ApplicationRegistration, *, days: int, vault: Vault, actor: Actor) -> ApplicationCredential:
    """Make a key and its certificate; the key lies in the vault, from which each process reads it.

    Raises:
        RemoteError: the vault did not take it; nothing was added.
    """
    require(actor, "consent.add_applicationcredential")
    key = new_key()
    value = key_pair(key, [self_signed(key, registration.name, days=days)])
    return add_certificate(registration, value, vault=vault, actor=actor, how="made here")


def make_vault_key(
    registration: ApplicationRegistration, *, days: int, keys: VaultKeys, actor: Actor
) -> ApplicationCredential:
    """Make a key in the vault, and a certificate that it signs there.

    Raises:
        RemoteError: the vault did not; nothing was added.
    """
    require(actor, "consent.add_applicationcredential")
    made = _create(registration, keys)
    with none_left(keys, made.name, made.version):
        certificate = self_signed(keys.signer(made.name, made.version, made.public), registration.name, days=days)
        return _add_vault_key(registration, [certificate], made.name, made.version, False, actor, "made in the vault")


def add_vault_key(
    registration: ApplicationRegistration,
    name: str,
    version: str,
    certificate: bytes,
    *,
    sends_chain: bool = False,
    keys: VaultKeys,
    actor: Actor,
) -> ApplicationCredential:
    """Use a key that somebody else keeps in the vault, and that signs there. It is never switched off by us.

    Args:
        certificate: file with the key's public certificate, and its issuers' where ``sends_chain``.

    Raises:
        ValueError: the certificate is not the key's.
        RemoteError: the vault has no such key, or does not let us read it.
    """
    require(actor, "consent.add_applicationcredential")
    found = keys.get(SecretName(name), SecretVersion(version))
    certificates = _usable(certificate, found.public)
    return _add_vault_key(registration, certificates, found.name, found.version, sends_chain, actor, "key in the vault")


def add_upload(
    registration: ApplicationRegistration,
    content: bytes,
    password: Secret,
    *,
    sends_chain: bool = False,
    vault: Vault,
    actor: Actor,
) -> ApplicationCredential:
    """Store the key and certificate of a file that a person uploaded: the last resort, as others hold that key.

    Raises as ``rotation.add_certificate``.
    """
    require(actor, "consent.add_applicationcredential")
    value = unlocked(content, password)
    return add_certificate(registration, value, sends_chain=sends_chain, vault=vault, actor=actor, how="uploaded")


# --- signed by others -------------------------------------------------------------------------------------------------


def request_certificate(registration: ApplicationRegistration, *, vault: Vault, actor: Actor) -> ApplicationCredential:
    """Make a key, which lies in the vault, and a request for its certificate.

    Raises:
        RemoteError: the vault did not take it; nothing was added.
    """
    require(actor, "consent.add_applicationcredential")
    key = new_key()
    name, version = store(registration, key_pair(key), None, vault)
    with none_left(vault, name, version):
        return _add_request(registration, Kind.CERTIFICATE, request_for(key, registration.name), name, version, actor)


def request_for_vault_key(
    registration: ApplicationRegistration, *, keys: VaultKeys, actor: Actor
) -> ApplicationCredential:
    """Make a key in the vault, and a request for its certificate that it signs there. Raises RemoteError."""
    require(actor, "consent.add_applicationcredential")
    made = _create(registration, keys)
    with none_left(keys, made.name, made.version):
        request = request_for(keys.signer(made.name, made.version, made.public), registration.name)
        return _add_request(registration, Kind.VAULT_KEY, request, made.name, made.version, actor)


def _create(registration: ApplicationRegistration, keys: VaultKeys) -> VaultKey:
    check_open(registration.pk)
    return keys.create(tags={RECORD_TAG: owner(registration.pk)})


def answer(
    credential: ApplicationCredential, content: bytes, *, sends_chain: bool = False, vault: Vault, actor: Actor
) -> None:
    """Take the signed certificate of a request.

    Args:
        content: file with the certificate, and its issuers' where ``sends_chain``.

    Raises:
        ValueError: it is no certificate of this key, or not usable.
        RotationRefused: the request was answered or given up meanwhile, or the registration is retired.
        RemoteError: the vault does not hand out or take the key; or it took it, and did not switch the version without
            the certificate off.
    """
    require(actor, "consent.add_applicationcredential")
    check_open(credential.registration_id)
    waiting = ApplicationCredential.objects.filter(
        pk=credential.pk, secret_version=credential.secret_version, public_certificate="", retired_at__isnull=True
    ).exclude(certificate_request="")
    if not waiting.exists():
        raise RotationRefused(f"{credential} does not wait for a certificate any more.")
    certificates = _usable(content, public_key_of(credential.certificate_request))
    name, old = SecretName(credential.secret_name), SecretVersion(credential.secret_version)
    version, public = old, pem_of(certificates)
    if credential.kind == Kind.CERTIFICATE:
        value = key_pair(read_key(vault.read(name, old).value), certificates)
        usable_certificate(value)
        public = pem_of(certificates[:1])
        version = vault.write(
            name,
            value,
            tags={RECORD_TAG: owner(credential.registration_id)},
            expires_at=certificates[0].not_valid_after_utc,
        )
    with ExitStack() as stack:
        if version != old:
            stack.enter_context(none_left(vault, name, version))
        stack.enter_context(transaction.atomic())
        if not waiting.update(
            secret_version=version,
            public_certificate=public,
            key_id=thumbprint(certificates[0]),
            sends_chain=sends_chain,
            starts_at=certificates[0].not_valid_before_utc,
            expires_at=certificates[0].not_valid_after_utc,
        ):
            raise RotationRefused(f"{credential} does not wait for a certificate any more.")
        record(
            "credential.signed",
            actor=actor,
            subject={"registration": credential.registration_id, "credential": credential.pk},
            details={"key_id": thumbprint(certificates[0])},
        )
    if version != old:
        vault.disable(name, old)


def _usable(content: bytes, public: RSAPublicKey) -> list[x509.Certificate]:
    certificates = read_certificates(content, public)
    if certificates[0].not_valid_after_utc <= timezone.now():
        raise ValueError("The certificate has expired already")
    if public.key_size < 2048:
        raise ValueError("The key must be RSA with at least 2048 bits")
    return certificates


def _add_vault_key(
    registration: ApplicationRegistration,
    certificates: Sequence[x509.Certificate],
    name: SecretName,
    version: SecretVersion,
    sends_chain: bool,
    actor: Actor,
    how: str,
) -> ApplicationCredential:
    check_new(registration, "This key", name, version)
    return add_row(
        registration,
        actor,
        how=how,
        kind=Kind.VAULT_KEY,
        secret_name=name,
        secret_version=version,
        key_id=thumbprint(certificates[0]),
        public_certificate=pem_of(certificates),
        sends_chain=sends_chain,
        starts_at=certificates[0].not_valid_before_utc,
        expires_at=certificates[0].not_valid_after_utc,
    )


def _add_request(
    registration: ApplicationRegistration,
    kind: ApplicationCredential.Kind,
    request: str,
    name: SecretName,
    version: SecretVersion,
    actor: Actor,
) -> ApplicationCredential:
    return add_row(
        registration,
        actor,
        how="requested",
        kind=kind,
        secret_name=name,
        secret_version=version,
        certificate_request=request,
        starts_at=timezone.now(),
    )
