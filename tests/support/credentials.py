"""Credentials of the application, known to the sandbox or not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from consent import clients
from consent.applications import rotation
from consent.models import ApplicationCredential
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.sandbox.managed_identity import trust
from tests.sandbox.world import Application
from tests.support import builders
from tests.support.certificates import pem
from tests.support.portal import Portal

KEY_RIGHTS = {"get", "set", "keys/get", "keys/create", "keys/update", "keys/sign"}
State = ApplicationCredential.State
IDENTITY = "1b0a7c70-5f5c-4f5e-8a63-5a3b1b1f0a11"


def application(portal: Portal) -> Application:
    return portal.sandbox.world.applications[portal.registration.application_id]


def add_secret(portal: Portal, value: str, *, known: bool = True) -> ApplicationCredential:
    """Add a candidate, which Microsoft knows or not."""
    if known:
        application(portal).secrets[value] = portal.sandbox.world.now() + 86_400
    return rotation.add_secret(
        portal.registration, Secret(value), expires_at=None, vault=clients.vault(), actor=builders.ACTOR
    )


def add_certificate(portal: Portal, *, known: bool = True, sends_chain: bool = False) -> ApplicationCredential:
    text = pem()
    if known:
        certificate = x509.load_pem_x509_certificate(text.encode())
        application(portal).certificates.append(certificate.public_bytes(serialization.Encoding.DER))
    return rotation.add_certificate(
        portal.registration, Secret(text), sends_chain=sends_chain, vault=clients.vault(), actor=builders.ACTOR
    )


def add_identity(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> ApplicationCredential:
    """Put the portal on a host that has a managed identity, which the application trusts."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{portal.sandbox.browser_port}")
    trust(portal.sandbox.world, portal.sandbox.clouds["global"], application(portal), IDENTITY)
    return rotation.add_managed_identity(portal.registration, IDENTITY, actor=builders.ACTOR)


def know(portal: Portal, credential: ApplicationCredential) -> None:
    """Upload the public certificate at Microsoft, as its owner does with what the portal shows."""
    certificate = x509.load_pem_x509_certificate(credential.public_certificate.encode())
    application(portal).certificates.append(certificate.public_bytes(serialization.Encoding.DER))


def signed(request: str, *, days: int = 365, with_issuer: bool = False) -> str:
    """Sign a request as a certificate authority would."""
    asked = x509.load_pem_x509_csr(request.encode())
    assert asked.is_signature_valid
    key, now = rsa.generate_private_key(65537, 2048), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Vendor CA")])

    def certificate(subject: x509.Name, public: Any) -> str:
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=abs(days) + 1))
            .not_valid_after(now + timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM).decode()

    own = certificate(asked.subject, asked.public_key())
    return certificate(name, key.public_key()) + own if with_issuer else own


def promote(credential: ApplicationCredential, **choices: bool | PartnerTenant) -> PartnerTenant | None:
    return rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, **choices)  # type: ignore[arg-type]


def current(portal: Portal) -> ApplicationCredential:
    return ApplicationCredential.objects.get(current_for=portal.registration.pk)


def states(portal: Portal) -> dict[int, str]:
    rows: Any = ApplicationCredential.objects.filter(registration=portal.registration).with_state()
    return {row.pk: row.state for row in rows}
