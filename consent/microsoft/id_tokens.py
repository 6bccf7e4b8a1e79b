"""Validate an ID token ourselves: the decisive check that the right tenant consented (S-14).

No library does this for us: MSAL for Python 1.38 and later checks neither signature, issuer, audience nor expiry.
"""

from __future__ import annotations

import base64
import hmac
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import jwt
import requests

from consent.microsoft.entra import SERVICE, MetadataCache, get_document
from portal.microsoft.api import parse_json
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.errors import ServerFault
from portal.microsoft.identifiers import (
    CONSUMERS_TENANT,
    ApplicationId,
    InvalidIdentifier,
    ObjectId,
    TenantId,
    canonical_guid,
    parse_object_id,
)
from portal.microsoft.secret import Secret

LEEWAY_SECONDS = 300
MAX_TOKEN_BYTES = 16_384
_KEYS_SECONDS = 24 * 3600
_REFETCH_SECONDS = 60  # an unknown kid causes at most one fetch a minute
_METHOD = re.compile(r"[a-zA-Z0-9]{1,20}")
_MOST_METHODS = 10
_HEADER_WITH_KEYS = ("jku", "jwk", "x5u", "x5c", "crit", "b64")


class Flaw(StrEnum):
    """Why an ID token was refused. The words go to the audit trail; nothing of the token does."""

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    KEY = "key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    TENANT = "tenant"
    TIME = "time"
    VERSION = "version"
    NONCE = "nonce"
    SUBJECT = "subject"
    FOREIGN_ACCOUNT = "foreign_account"


class IdTokenRefused(Exception):
    """The ID token does not prove what it must. Not a RemoteError: the answer came, it is not believed.

    Args:
        actual_tenant: the other tenant's id when ``flaw`` is TENANT, from a token with a good signature (S-16).
    """

    def __init__(self, flaw: Flaw, actual_tenant: TenantId | None = None) -> None:
        super().__init__(f"the ID token was refused: {flaw}")
        self.flaw = flaw
        self.actual_tenant = actual_tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity:
    """Who signed in, proven. ``tid`` with ``oid`` is the only key of an account (S-15)."""

    tenant_id: TenantId
    object_id: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    public: Any
    tenant: str
    """The tenant that this key signs for; ``{tenantid}`` stands for all."""
    fetched: float


class SigningKeys:
    """Public keys of the sign-in service, always fetched from a tenant's key set on the configured host."""

    def __init__(self, session: requests.Session) -> None:
        self._session = session
        self._keys: dict[tuple[str, str], _Key] = {}
        self._fetched: dict[str, float] = {}
        self._lock = threading.Lock()

    def find(self, cloud: NationalCloud, tenant_id: TenantId, kid: str) -> Any | None:
        """Return the RSA public key with this id that signs for this tenant, or None.

        Raises:
            RemoteError: the key set cannot be read; nothing is known about the token.
        """
        # Known keys need no lock: one slow fetch must not hold up everybody else's sign-in.
        key = self._known(cloud, kid)
        if key is None:
            with self._lock:
                key = self._known(cloud, kid) or self._fetch(cloud, tenant_id, kid)
        # A key set may hold keys of one tenant only, such as the personal accounts'; they prove nothing for others.
        return key.public if key is not None and key.tenant in {"{tenantid}", tenant_id} else None

    def prefetch(self, cloud: NationalCloud, tenant_id: TenantId) -> None:
        """Read the key set if none was read yet. Raises as ``find``."""
        with self._lock:
            if cloud.key not in self._fetched:
                self._fetch(cloud, tenant_id, "")

    def _known(self, cloud: NationalCloud, kid: str) -> _Key | None:
        key = self._keys.get((cloud.key, kid))
        return key if key is not None and time.monotonic() - key.fetched < _KEYS_SECONDS else None

    def _fetch(self, cloud: NationalCloud, tenant_id: TenantId, kid: str) -> _Key | None:
        now = time.monotonic()
        if now - self._fetched.get(cloud.key, float("-inf")) < _REFETCH_SECONDS:
            return None
        operation = "read signing keys"
        document = get_document(self._session, f"{cloud.authority}/{tenant_id}/discovery/v2.0/keys", operation)
        entries = document.get("keys")
        keys = dict(filter(None, (_rsa_key(entry, now) for entry in entries))) if isinstance(entries, list) else {}
        if not keys:  # then no token can be believed, and none disbelieved either
            raise ServerFault(SERVICE, operation, status=200, code="no_signing_keys", detail="it gave no signing key")
        self._fetched[cloud.key] = now
        for key_id, key in keys.items():
            self._keys[cloud.key, key_id] = key
        return self._known(cloud, kid)


def _rsa_key(entry: object, now: float) -> tuple[str, _Key] | None:
    """Read one JWK; anything but a named RSA signature key is passed over."""
    if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
        return None
    kid, issuer = entry.get("kid"), entry.get("issuer", "https://host/{tenantid}/v2.0")
    tenant = issuer.split("/")[3:4] if isinstance(issuer, str) else []
    if not isinstance(kid, str) or not kid or not tenant:
        return None
    try:
        return kid, _Key(public=jwt.PyJWK({**entry, "alg": "RS256"}).key, tenant=tenant[0], fetched=now)
    except (jwt.PyJWTError, ValueError, KeyError, TypeError):
        return None


class IdTokenValidator:
    """Checks ID tokens of the v2 endpoint for one application at a time."""

    def __init__(self, *, keys: SigningKeys, metadata: MetadataCache) -> None:
        self._keys = keys
        self._metadata = metadata

    def issuer(self, cloud: NationalCloud, tenant_id: TenantId) -> str:
        """Return the v2 issuer of a tenant, as the cloud's discovery document writes it. Raises RemoteError."""
        return self._metadata.of(cloud).issuer_template.replace("{tenantid}", tenant_id)

    def validate(
        self,
        id_token: Secret | None,
        *,
        cloud: NationalCloud,
        tenant_id: TenantId,
        application_id: ApplicationId,
        nonce: Secret | None,
        check_times: bool = True,
        customer_tenant: bool = False,
    ) -> VerifiedIdentity:
        """Return the identity that the token proves.

        Args:
            nonce: what the flow sent; None for a renewal, whose ID token carries none.
            check_times: False for renewals, so that a wrong host clock stops sign-ins but not renewals (R-42).
            customer_tenant: in a customer's tenant the partner's account is a foreign one by design.

        Raises:
            IdTokenRefused: one thing is wrong; nothing from the answer may be used (S-12, S-14).
            RemoteError: the keys or the metadata cannot be read; nothing is known.
        """
        if not id_token:
            raise IdTokenRefused(Flaw.MISSING)
        text = id_token.reveal()
        if len(text) > MAX_TOKEN_BYTES or text.count(".") != 2 or not text.isascii():
            raise IdTokenRefused(Flaw.MALFORMED)
        claims = self._verified_claims(text, cloud, tenant_id)
        _check_tenant(claims, self._metadata.of(cloud).issuer_template, tenant_id)
        if str(claims.get("aud")).lower() != application_id:
            raise IdTokenRefused(Flaw.AUDIENCE)
        if claims.get("ver") != "2.0":
            raise IdTokenRefused(Flaw.VERSION)
        if check_times:
            _check_times(claims)
        if nonce is not None:
            actual = claims.get("nonce")
            # Ours is ASCII; other texts, lone surrogates among them, could not even be compared.
            if not isinstance(actual, str) or not actual.isascii() or not hmac.compare_digest(actual, nonce.reveal()):
                raise IdTokenRefused(Flaw.NONCE)
        provider = str(claims.get("idp", claims["iss"]))
        if not customer_tenant and tenant_id not in provider.lower():
            raise IdTokenRefused(Flaw.FOREIGN_ACCOUNT)
        try:
            object_id = parse_object_id(str(claims.get("oid", "")))
        except InvalidIdentifier:
            raise IdTokenRefused(Flaw.SUBJECT) from None
        return VerifiedIdentity(tenant_id=tenant_id, object_id=object_id)

    def _verified_claims(self, text: str, cloud: NationalCloud, tenant_id: TenantId) -> Mapping[str, Any]:
        header = _part(text, 0)
        if not header:
            raise IdTokenRefused(Flaw.MALFORMED)
        if header.get("alg") != "RS256":
            raise IdTokenRefused(Flaw.ALGORITHM)
        if header.get("typ", "JWT") != "JWT" or any(name in header for name in _HEADER_WITH_KEYS):
            raise IdTokenRefused(Flaw.MALFORMED)
        kid = header.get("kid", "")
        if not isinstance(kid, str):
            raise IdTokenRefused(Flaw.MALFORMED)
        key = self._keys.find(cloud, tenant_id, kid) if kid else None
        if key is None:
            raise IdTokenRefused(Flaw.KEY)
        try:
            # Signature only: every claim is checked below by us, one by one, with its own word.
            claims = parse_json(jwt.PyJWS().decode(text, key, algorithms=["RS256"]))
        except jwt.InvalidSignatureError:
            raise IdTokenRefused(Flaw.SIGNATURE) from None
        except (jwt.PyJWTError, ValueError):
            raise IdTokenRefused(Flaw.MALFORMED) from None
        if not isinstance(claims, dict):
            raise IdTokenRefused(Flaw.MALFORMED)
        return claims


def _check_tenant(claims: Mapping[str, Any], issuer_template: str, tenant_id: TenantId) -> None:
    tid, issuer = claims.get("tid"), claims.get("iss")
    if not isinstance(tid, str) or canonical_guid(tid) != tid.lower():
        raise IdTokenRefused(Flaw.MALFORMED)  # it names no tenant, so it says nothing about anybody
    if tid.lower() != tenant_id:
        raise IdTokenRefused(Flaw.TENANT, None if tid.lower() == CONSUMERS_TENANT else TenantId(tid.lower()))
    if issuer not in [issuer_template.replace("{tenantid}", written) for written in (tenant_id, tid)]:
        raise IdTokenRefused(Flaw.ISSUER)


def _check_times(claims: Mapping[str, Any]) -> None:
    now = time.time()
    times = [claims.get(name) for name in ("exp", "nbf", "iat")]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in times):
        raise IdTokenRefused(Flaw.MALFORMED)  # a time that is not there is no wrong time
    expires, not_before, issued = (int(value) for value in times if value is not None)
    if expires <= now - LEEWAY_SECONDS or not_before > now + LEEWAY_SECONDS or issued > now + LEEWAY_SECONDS:
        raise IdTokenRefused(Flaw.TIME)


def unverified_claims(access_token: Secret) -> Mapping[str, Any]:
    """Return the claims of a token for another audience, unproven; empty when unreadable. Never decide by it."""
    return _part(access_token.reveal(), 1)


def _part(token: str, number: int) -> Mapping[str, Any]:
    """Return the JSON object of one part of a token, unproven; empty when unreadable."""
    try:
        part = token.split(".")[number]
        found = parse_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, LookupError):
        return {}
    return found if isinstance(found, dict) else {}


def sign_in_methods(access_token: Secret) -> tuple[str, ...]:
    """Return how the account signed in, as the token's ``amr`` says; empty when it says nothing. Only to be shown.

    Source: Microsoft identity platform, access token claims (RFC 8176 values and Entra's own). The verdict on MFA is
    Partner Center's (S-18).
    """
    named = unverified_claims(access_token).get("amr")
    methods = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    return tuple(one for one in methods if _METHOD.fullmatch(one))[:_MOST_METHODS]
