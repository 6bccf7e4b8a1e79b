"""The application's own credential: a client secret or a certificate, parsed once and kept in memory only."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Protocol

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from portal.microsoft.identifiers import ApplicationId
from portal.microsoft.secret import Secret

ASSERTION_SECONDS = 600  # Entra accepts five to ten minutes; one assertion serves its token endpoint that long
_RENEW_SECONDS = 120


class ClientCredential(Protocol):
    """Something by which our application proves itself at a token endpoint."""

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        """Return what MSAL takes as ``client_credential``."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    value: Secret

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        return self.value.reveal()


class Certificate:
    """A private key with its certificate. Signs PS256 assertions named by ``x5t#S256``.

    Source: Microsoft identity platform, "Certificate credentials".
    """

    def __init__(self, key: RSAPrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        digest = certificate.fingerprint(hashes.SHA256())
        self.thumbprint = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self.not_after = certificate.not_valid_after_utc
        self._cache: dict[tuple[str, str], tuple[float, Secret]] = {}
        self._lock = threading.Lock()

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        assertion = self.assertion(application_id, token_endpoint)
        return {"client_assertion": assertion.reveal}

    def assertion(self, application_id: ApplicationId, token_endpoint: str) -> Secret:
        """Return a signed assertion for this endpoint, signed again shortly before it ends."""
        place = (application_id, token_endpoint)
        with self._lock:
            made, assertion = self._cache.get(place, (float("-inf"), Secret("")))
            if time.monotonic() - made < ASSERTION_SECONDS - _RENEW_SECONDS:
                return assertion
            now = int(time.time())
            assertion = Secret(
                jwt.encode(
                    {
                        "aud": token_endpoint,
                        "iss": application_id,
                        "sub": application_id,
                        "jti": str(uuid.uuid4()),
                        "nbf": now - 60,
                        "iat": now,
                        "exp": now + ASSERTION_SECONDS,
                    },
                    self._key,
                    algorithm="PS256",
                    headers={"x5t#S256": self.thumbprint},
                )
            )
            if len(self._cache) > 1000:  # one entry per tenant endpoint; far more are only old ones
                self._cache.clear()
            self._cache[place] = (time.monotonic(), assertion)
            return assertion


def read_credential(kind: str, value: Secret) -> ClientCredential:
    """Turn the vault's text into a credential.

    Args:
        kind: ``secret`` or ``certificate`` (PEM with one RSA private key and its certificate).

    Raises:
        ValueError: not a credential of this kind. The message repeats nothing of it.
    """
    if kind == "secret":
        if not value or any(c.isspace() for c in value.reveal()):
            raise ValueError("A client secret is one word; Microsoft shows it once, in the column Value")
        return ClientSecret(value)
    if kind != "certificate":
        raise ValueError("A credential is a secret or a certificate")
    pem = value.reveal().encode()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError):
        raise ValueError("The file must hold a PEM private key without passphrase and its PEM certificate") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < 2048:
        raise ValueError("The key must be RSA with at least 2048 bits")
    if key.public_key() != certificate.public_key():
        raise ValueError("The certificate does not belong to the private key")
    return Certificate(key, certificate)
