"""One OpenID Connect provider: Entra with the vendor's own tenant, or another one.

Every check of an ID token is ours and has its own word (S-14). Nothing that the provider sends is followed: its
addresses must lie on the issuer's own host, and no redirect is taken.

Sources: OpenID Connect Core 1.0 sections 3.1 and 9, RFC 7636, RFC 9207, RFC 9700; for Entra, "OpenID Connect on the
Microsoft identity platform" and "Developer guide to Conditional Access authentication context".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import jwt
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from portal.microsoft.api import parse_json
from portal.microsoft.errors import AuthenticationFailed, ServerFault, UnexpectedResponse
from portal.microsoft.http import no_answer
from portal.microsoft.identifiers import canonical_guid
from portal.microsoft.secret import Secret

SERVICE = "sign_in_service"
LEEWAY_SECONDS = 300
MAX_TOKEN_BYTES = 16_384
_KEPT_SECONDS = 24 * 3600
_REFETCH_SECONDS = 60  # an unknown kid causes at most one fetch a minute
_ASSERTION_SECONDS = 600
_HEADER_WITH_KEYS = ("jku", "jwk", "x5u", "x5c", "crit", "b64")
_MOST_CLAIMS = 500


class Flaw(StrEnum):
    """Why nobody was signed in. The words go to the audit trail; nothing of the answer does."""

    DENIED = "denied"
    STATE = "state"
    ISSUER = "issuer"
    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    KEY = "key"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    TENANT = "tenant"
    TIME = "time"
    NONCE = "nonce"
    SUBJECT = "subject"
    MFA = "mfa"
    FRESH = "fresh"
    ROLE = "role"
    TOO_MANY_GROUPS = "too_many_groups"
    SWITCHED_OFF = "switched_off"
    OTHER_PERSON = "other_person"


class DirectoryRefused(Exception):
    """The answer proves nobody who may sign in."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(f"the sign-in was refused: {flaw}")
        self.flaw = flaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What the settings say of the provider.

    Attributes:
        issuer: exactly as its tokens write it.
        credential: a client secret, or a private key with its certificate in PEM.
        mfa: claim and value that prove a second factor, such as ``("acrs", "c1")``; None demands none.
    """

    issuer: str
    client_id: str
    credential: Secret
    mfa: tuple[str, str] | None

    @property
    def host(self) -> str:
        return urlsplit(self.issuer).netloc

    @property
    def tenant(self) -> str:
        """Return the tenant that an issuer of Entra names, otherwise an empty text."""
        parts = urlsplit(self.issuer).path.split("/")
        return canonical_guid(parts[1]) or "" if len(parts) == 3 and parts[2] == "v2.0" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who signed in, proven.

    Attributes:
        subject: ``oid`` at Entra, ``sub`` elsewhere; with the issuer the only key of a person.
        name: what the provider calls the person; shown, never decided by.
        roles: values of the claims ``roles`` and ``groups``.
        groups_left_out: there were too many groups for the token.
    """

    subject: str
    name: str
    roles: frozenset[str]
    groups_left_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metadata:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    posts_secret: bool
    signs: str
    read: float


class OidcClient:
    """The provider, asked over one guarded session; keeps its metadata and keys for a day.

    Args:
        session: allows the issuer's host and no other.
    """

    def __init__(self, session: requests.Session, provider: Provider) -> None:
        self.provider = provider
        self._session = session
        self._metadata: _Metadata | None = None
        self._keys: dict[str, Any] = {}
        self._keys_read = float("-inf")
        self._lock = threading.Lock()

    def authorize_address(
        self, *, redirect_uri: str, state: str, nonce: Secret, verifier: Secret, again: bool = False
    ) -> str:
        """Return where the browser is sent.

        Args:
            again: the person has to sign in anew, also with a session at the provider.

        Raises:
            RemoteError: the provider's metadata cannot be read.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.reveal().encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": self.provider.client_id,
            "response_type": "code",
            "response_mode": "query",
            "redirect_uri": redirect_uri,
            "scope": "openid profile",
            "state": state,
            "nonce": nonce.reveal(),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if self.provider.mfa and self.provider.mfa[0] in {"acrs", "acr"}:
            claim, value = self.provider.mfa
            asked["claims"] = json.dumps({"id_token": {claim: {"essential": True, "value": value}}})
        if again:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{self._read_metadata().authorization_endpoint}?{urlencode(asked)}"

    def redeem(
        self, code: Secret, *, redirect_uri: str, nonce: Secret, verifier: Secret, not_before: float | None = None
    ) -> Person:
        """Redeem a code, and return whom the ID token proves.

        Args:
            not_before: the person must have signed in after this moment, where the token says when.

        Raises:
            DirectoryRefused: it proves nobody.
            RemoteError: the provider did not answer, or refused our credential.
        """
        token = self._id_token(code, redirect_uri, verifier)
        return self.validate(token, nonce=nonce, not_before=not_before)

    # --- calls ---

    def _read_metadata(self) -> _Metadata:
        with self._lock:
            known = self._metadata
            if known is not None and time.monotonic() - known.read < _KEPT_SECONDS:
                return known
            operation = "read the metadata"
            found = self._get(f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration", operation)
            if found.get("issuer") != self.provider.issuer:
                raise UnexpectedResponse(SERVICE, operation, status=200, detail="it names another issuer")
            addresses = [found.get(f"{name}_endpoint") for name in ("authorization", "token")] + [found.get("jwks_uri")]
            for one in addresses:
                parts = urlsplit(one) if isinstance(one, str) else urlsplit("")
                if parts.scheme != "https" or parts.netloc != self.provider.host:
                    raise UnexpectedResponse(SERVICE, operation, status=200, detail="an address is on another host")
            methods = found.get("token_endpoint_auth_methods_supported")
            signs = found.get("token_endpoint_auth_signing_alg_values_supported")
            self._metadata = _Metadata(
                authorization_endpoint=str(addresses[0]),
                token_endpoint=str(addresses[1]),
                jwks_uri=str(addresses[2]),
                posts_secret=not isinstance(methods, list) or "client_secret_post" in methods,
                signs="RS256" if isinstance(signs, list) and "PS256" not in signs else "PS256",
                read=time.monotonic(),
            )
            return self._metadata

    def _get(self, address: str, operation: str) -> Mapping[str, Any]:
        response = self._call("GET", address, operation)
        body = _body(response)
        if response.status_code != 200 or body is None:
            status = response.status_code
            kind = UnexpectedResponse if status == 200 else ServerFault
            raise kind(SERVICE, operation, status=status, code=f"HTTP{status}", detail="it gave no JSON document")
        return body

    def _call(self, method: str, address: str, operation: str, **arguments: Any) -> requests.Response:
        try:
            headers = {"Accept": "application/json", **arguments.pop("headers", {})}
            return self._session.request(method, address, headers=headers, **arguments)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
            raise no_answer(SERVICE, operation) from None

    def _id_token(self, code: Secret, redirect_uri: str, verifier: Secret) -> Secret:
        metadata, operation = self._read_metadata(), "redeem the code"
        form = {
            "grant_type": "authorization_code",
            "client_id": self.provider.client_id,
            "code": code.reveal(),
            "redirect_uri": redirect_uri,
            "code_verifier": verifier.reveal(),
            "scope": "openid profile",
        }
        headers: dict[str, str] = {}
        credential = self.provider.credential.reveal()
        if _is_pem(credential):
            form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form["client_assertion"] = _assertion(credential, self.provider.client_id, metadata)
        elif metadata.posts_secret:
            form["client_secret"] = credential
        else:
            pair = f"{quote_plus(self.provider.client_id)}:{quote_plus(credential)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        response = self._call("POST", metadata.token_endpoint, operation, data=form, headers=headers)
        body, status = _body(response), response.status_code
        if status == 200 and body is not None:
            found = body.get("id_token")
            if not isinstance(found, str) or not found:
                raise DirectoryRefused(Flaw.MISSING)
            return Secret(found)
        error = str((body or {}).get("error", ""))
        if error == "invalid_grant":
            raise DirectoryRefused(Flaw.DENIED)
        if status in {400, 401, 403}:
            raise AuthenticationFailed(
                SERVICE, operation, status=status, code=error, detail="it does not accept our client id or credential"
            )
        raise ServerFault(SERVICE, operation, status=status, code=error or f"HTTP{status}")

    def _key(self, kid: str) -> Any | None:
        now = time.monotonic()
        with self._lock:
            fresh = now - self._keys_read < _KEPT_SECONDS
            if (kid in self._keys and fresh) or now - self._keys_read < _REFETCH_SECONDS:
                return self._keys.get(kid)
        found = self._read_keys()
        with self._lock:
            self._keys, self._keys_read = found, now
        return found.get(kid)

    def _read_keys(self) -> dict[str, Any]:
        address = self._read_metadata().jwks_uri
        entries = self._get(address, "read the signing keys").get("keys")
        return dict(filter(None, (self._rsa_key(entry) for entry in (entries if isinstance(entries, list) else []))))

    def look(self) -> None:
        """Read metadata and signing keys, as a sign-in does. A client that is new reads both from the provider.

        Raises:
            RemoteError: they cannot be read, name another issuer or host, or hold no key that could be used.
        """
        if not self._read_keys():
            raise UnexpectedResponse(SERVICE, "read the signing keys", status=200, detail="there is no RSA key")

    def _rsa_key(self, entry: object) -> tuple[str, Any] | None:
        """Read one JWK; anything but a named RSA signature key of this issuer is passed over."""
        if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
            return None
        kid, issuer = entry.get("kid"), entry.get("issuer", self.provider.issuer)
        if not isinstance(kid, str) or not kid or not isinstance(issuer, str):
            return None
        if issuer.replace("{tenantid}", self.provider.tenant) != self.provider.issuer:
            return None  # Entra's key sets hold keys of other issuers as well
        try:
            return kid, jwt.PyJWK({**entry, "alg": "RS256"}).key
        except (jwt.PyJWTError, ValueError, KeyError, TypeError):
            return None

    # --- the ID token ---

    def validate(self, token: Secret, *, nonce: Secret, not_before: float | None = None) -> Person:
        """Return whom an ID token proves. Raises as ``redeem``."""
        claims = self._verified_claims(token.reveal())
        if claims.get("iss") != self.provider.issuer:
            raise DirectoryRefused(Flaw.ISSUER)
        if self.provider.tenant and str(claims.get("tid")).lower() != self.provider.tenant:
            raise DirectoryRefused(Flaw.TENANT)
        audience = claims.get("aud")
        if audience not in (self.provider.client_id, [self.provider.client_id]):
            raise DirectoryRefused(Flaw.AUDIENCE)
        if claims.get("azp", self.provider.client_id) != self.provider.client_id:
            raise DirectoryRefused(Flaw.AUDIENCE)
        _check_times(claims)
        said = claims.get("nonce")
        if not isinstance(said, str) or not said.isascii() or not hmac.compare_digest(said, nonce.reveal()):
            raise DirectoryRefused(Flaw.NONCE)
        if self.provider.mfa and self.provider.mfa[1] not in _texts(claims, self.provider.mfa[0]):
            raise DirectoryRefused(Flaw.MFA)
        signed_in = claims.get("auth_time")
        if not_before is not None and isinstance(signed_in, int) and signed_in < not_before - LEEWAY_SECONDS:
            raise DirectoryRefused(Flaw.FRESH)
        return self._person(claims)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject = claims.get("oid" if self.provider.tenant else "sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise DirectoryRefused(Flaw.SUBJECT)
        if self.provider.tenant and canonical_guid(subject) != subject.lower():
            raise DirectoryRefused(Flaw.SUBJECT)
        left_out = claims.get("_claim_names")
        return Person(
            subject=subject,
            name=str(claims.get("preferred_username") or claims.get("name") or ""),
            roles=frozenset([*_texts(claims, "roles"), *_texts(claims, "groups")]),
            groups_left_out=isinstance(left_out, dict) and "groups" in left_out,
        )

    def _verified_claims(self, text: str) -> Mapping[str, Any]:
        if len(text) > MAX_TOKEN_BYTES or text.count(".") != 2 or not text.isascii():
            raise DirectoryRefused(Flaw.MALFORMED)
        try:
            first = text.split(".")[0]
            header = parse_json(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise DirectoryRefused(Flaw.MALFORMED)
        if header.get("alg") != "RS256":
            raise DirectoryRefused(Flaw.ALGORITHM)
        if any(name in header for name in _HEADER_WITH_KEYS):
            raise DirectoryRefused(Flaw.MALFORMED)
        kid = header.get("kid")
        key = self._key(kid) if isinstance(kid, str) and kid else None
        if key is None:
            raise DirectoryRefused(Flaw.KEY)
        try:
            # Signature only: every claim is checked above by us, one by one, with its own word.
            claims = parse_json(jwt.PyJWS().decode(text, key, algorithms=["RS256"]))
        except jwt.InvalidSignatureError:
            raise DirectoryRefused(Flaw.SIGNATURE) from None
        except (jwt.PyJWTError, ValueError):
            raise DirectoryRefused(Flaw.MALFORMED) from None
        if not isinstance(claims, dict):
            raise DirectoryRefused(Flaw.MALFORMED)
        return claims


def _check_times(claims: Mapping[str, Any]) -> None:
    now = time.time()
    expires, issued = claims.get("exp"), claims.get("iat")
    not_before = claims.get("nbf", issued)
    times = (expires, issued, not_before)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in times):
        raise DirectoryRefused(Flaw.MALFORMED)
    if int(expires or 0) <= now - LEEWAY_SECONDS or max(int(issued or 0), int(not_before or 0)) > now + LEEWAY_SECONDS:
        raise DirectoryRefused(Flaw.TIME)


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    value = claims.get(name)
    found = value if isinstance(value, list) else [value]
    return [one for one in found[:_MOST_CLAIMS] if isinstance(one, str)]


def _body(response: requests.Response) -> Mapping[str, Any] | None:
    try:
        found = parse_json(response.content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def certificate_of(credential: Secret) -> x509.Certificate | None:
    """Return the certificate of a credential; None for a client secret.

    Raises:
        AuthenticationFailed: it is PEM, and no private key with its certificate.
    """
    text = credential.reveal()
    return _pair(text)[1] if _is_pem(text) else None


def _is_pem(credential: str) -> bool:
    return "-----BEGIN" in credential


def _pair(pem: str) -> tuple[Any, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        return key, x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, TypeError):
        raise AuthenticationFailed(
            SERVICE, "sign an assertion", detail="the credential file holds no private key with its certificate"
        ) from None


def _assertion(pem: str, client_id: str, metadata: _Metadata) -> str:
    """Return what proves us to the token endpoint (RFC 7523); at Entra it names the certificate."""
    key, certificate = _pair(pem)
    digest = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
    now = int(time.time())
    claims = {
        "aud": metadata.token_endpoint,
        "iss": client_id,
        "sub": client_id,
        "jti": str(uuid.uuid4()),
        "nbf": now - LEEWAY_SECONDS,
        "iat": now,
        "exp": now + _ASSERTION_SECONDS,
    }
    return jwt.encode(claims, key, algorithm=metadata.signs, headers={"x5t#S256": digest})
