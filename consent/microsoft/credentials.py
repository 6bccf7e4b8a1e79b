"""The application's own credential: certificate or client secret; parsed once, in memory only."""

from __future__ import annotations

import base64
import binascii
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import pkcs12

from portal.microsoft.errors import Unreachable
from portal.microsoft.http import turn_of
from portal.microsoft.identifiers import ApplicationId
from portal.microsoft.secret import Secret

ASSERTION_SECONDS = 600  # Entra recommends five to ten minutes
# Our clock may be wrong by as much, either way: an assertion is valid so long before it was made, and is made
# anew so long before its end, and a minute for the way.
_CLOCK_SECONDS = 300
_RENEW_SECONDS = _CLOCK_SECONDS + 60
_MOST_ENDPOINTS = 5000  # one for each tenant; of far more, most are old ones


class ClientCredential(Protocol):
    """Something by which our application proves itself at a token endpoint."""

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        """Return what MSAL takes as ``client_credential``.

        Raises:
            AuthenticationFailed: we could not even make it; nothing was sent to Entra.
        """


@dataclass(frozen=True, slots=True)
class ClientSecret:
    value: Secret

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        return self.value.reveal()


class Certificate:
    """A private key with its certificate. Signs PS256 assertions named by ``x5t#S256``.

    Args:
        key: in this process's memory, or one that the vault signs with.
        chain: further certificates, the issuer first; sent only with ``sends_chain``.
        sends_chain: put the chain into ``x5c``, for applications that trust a subject and issuer.

    Source: Microsoft identity platform, "Certificate credentials".
    """

    def __init__(
        self,
        key: RSAPrivateKey,
        certificate: x509.Certificate,
        chain: Sequence[x509.Certificate] = (),
        *,
        sends_chain: bool = False,
    ) -> None:
        self._key = key
        self.thumbprint = thumbprint(certificate)
        self.not_before = certificate.not_valid_before_utc
        self.not_after = certificate.not_valid_after_utc
        self.public_pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self._header: dict[str, object] = {"x5t#S256": self.thumbprint}
        if sends_chain:
            self._header["x5c"] = [
                base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode() for one in (certificate, *chain)
            ]
        self._cache: dict[tuple[str, str], tuple[float, Secret]] = {}
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, str], threading.Lock] = {}

    def for_msal(self, application_id: ApplicationId, token_endpoint: str) -> str | dict[str, object]:
        assertion = self.assertion(application_id, token_endpoint)
        return {"client_assertion": assertion.reveal}

    def assertion(self, application_id: ApplicationId, token_endpoint: str) -> Secret:
        """Return a signed assertion for this endpoint, signed again shortly before it ends.

        Of many threads that want the same one, one signs: it may cost a call of the vault.

        Raises:
            RemoteError: the vault did not sign.
        """
        place = (application_id, token_endpoint)
        if (known := self._known(place)) is not None:
            return known
        try:
            with turn_of(self._turns.setdefault(place, threading.Lock())):
                return self._known(place) or self._signed(place)
        except TimeoutError:
            raise Unreachable("vault", "sign an assertion") from None

    def _known(self, place: tuple[str, str]) -> Secret | None:
        with self._lock:
            made, assertion = self._cache.get(place, (float("-inf"), Secret("")))
        return assertion if time.monotonic() - made < ASSERTION_SECONDS - _RENEW_SECONDS else None

    def _signed(self, place: tuple[str, str]) -> Secret:
        application_id, token_endpoint = place
        now = int(time.time())
        assertion = Secret(
            jwt.encode(
                {
                    "aud": token_endpoint,
                    "iss": application_id,
                    "sub": application_id,
                    "jti": str(uuid.uuid4()),
                    "nbf": now - _CLOCK_SECONDS,
                    "iat": now,
                    "exp": now + ASSERTION_SECONDS,
                },
                self._key,
                algorithm="PS256",
                headers=self._header,
            )
        )
        with self._lock:
            if len(self._cache) > _MOST_ENDPOINTS:
                self._cache.clear()
                self._turns.clear()
            self._cache[place] = (time.monotonic(), assertion)
        return assertion


def thumbprint(certificate: x509.Certificate) -> str:
    """Return what names the certificate in an assertion: base64url of the SHA-256 of its DER."""
    return base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


def own_certificate(public_pem: str) -> str:
    """Return the first certificate, which is the key's, without those of its issuers."""
    return x509.load_pem_x509_certificate(public_pem.encode()).public_bytes(serialization.Encoding.PEM).decode()


def sha1_thumbprint(public_pem: str) -> str:
    """Return the thumbprint as the Entra admin center shows it, for people to compare; it identifies nothing here."""
    certificate = x509.load_pem_x509_certificate(public_pem.encode())
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  # theirs, not our choice


def read_credential(kind: str, value: Secret, *, sends_chain: bool = False) -> ClientSecret | Certificate:
    """Turn the vault's text into a credential.

    Args:
        kind: ``secret`` or ``certificate``: PEM with one RSA private key, its certificate and optionally its chain,
            or PKCS12 in base64, as Key Vault hands certificates out; neither with a passphrase.

    Raises:
        ValueError: not a credential of this kind. The message repeats nothing of it.
    """
    if kind == "secret":
        if not value or any(c.isspace() for c in value.reveal()):
            raise ValueError("A client secret is one word; Microsoft shows it once, in the column Value")
        return ClientSecret(value)
    if kind != "certificate":
        raise ValueError("What the vault keeps is a secret or a certificate")
    try:
        key, certificates = _parse(value)
    except (ValueError, TypeError, binascii.Error):
        raise ValueError(
            "The file must hold an RSA private key and its certificate, as PEM or PKCS12 without passphrase"
        ) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < 2048:
        raise ValueError("The key must be RSA with at least 2048 bits")
    certificate = next((one for one in certificates if one.public_key() == key.public_key()), None)
    if certificate is None:
        raise ValueError("The certificate does not belong to the private key")
    chain = [one for one in certificates if one is not certificate]
    return Certificate(key, certificate, chain, sends_chain=sends_chain)


def signed_in_the_vault(
    public_pem: str, opened: Callable[[RSAPublicKey], RSAPrivateKey], *, sends_chain: bool
) -> Certificate:
    """Return the credential of a key that stays in the vault: one call there for each assertion, and none now.

    Args:
        public_pem: its certificate, and behind it those of its issuers.
        opened: gives the key of this public half for signing.
    """
    own, *chain = x509.load_pem_x509_certificates(public_pem.encode())
    public = own.public_key()
    assert isinstance(public, RSAPublicKey)  # noqa: S101  # it was checked when it came in
    return Certificate(opened(public), own, chain, sends_chain=sends_chain)


def _parse(value: Secret) -> tuple[object, Sequence[x509.Certificate]]:
    text = value.reveal()
    if "-----BEGIN" in text:
        content = text.encode()
        return serialization.load_pem_private_key(content, password=None), x509.load_pem_x509_certificates(content)
    key, certificate, others = pkcs12.load_key_and_certificates(base64.b64decode(text, validate=True), None)
    return key, [one for one in (certificate, *others) if one is not None]
