"""Tokens with the claims that Microsoft documents, and the check of a bearer token by the services.

ID tokens are RS256 by the keys that the cloud publishes. Access tokens are opaque to whoever asks for them, so they are
sealed with a key that nobody else has: a client that checks their signature fails here as it does at Microsoft, and
making one costs this machine next to nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.world import (
    AZURE_MANAGEMENT,
    GRAPH,
    ORDINARY_MEMBER,
    PARTNER_API,
    PARTNER_CENTER,
    Application,
    Tamper,
    Tenant,
    User,
    World,
)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    key: rsa.RSAPrivateKey

    def jwk(self) -> dict[str, str]:
        numbers = self.key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": b64(numbers.e.to_bytes(3, "big")),
        }


@cache
def signing_key(cloud: str) -> SigningKey:
    """Return the cloud's key, made once per process."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return SigningKey(b64(hashlib.sha1(cloud.encode() + secrets.token_bytes(8)).digest()), key)  # noqa: S324


def sign(cloud: str, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    key = signing_key(cloud)
    full_header = {"typ": "JWT", "alg": "RS256", "kid": key.kid, "x5t": key.kid, **(header or {})}
    text = f"{b64(json.dumps(full_header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(key.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@cache
def _seal_key(cloud: str) -> bytes:
    return secrets.token_bytes(32)


def _hs256(key: bytes, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    full_header = {"typ": "JWT", "alg": "HS256", **header}
    text = f"{b64(json.dumps(full_header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(hmac.digest(key, text.encode(), 'sha256'))}"


def access_token(
    world: World,
    cloud: NationalCloud,
    *,
    tenant: Tenant,
    audience: str,
    application: Application,
    credential: str,
    user: User | None,
    home: Tenant | None,
    scopes: set[str],
    amr: list[str],
    bent: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return a version 1.0 access token, as Partner Center, Graph and Key Vault get it; ``bent`` as a tamper says."""
    now = int(world.now())
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": f"{cloud.v1_issuer}{tenant.tenant_id}/",
        "iat": now,
        "nbf": now,
        "exp": now + int(world.switches["access_token_seconds"]),
        "appid": application.app_id,
        "app_displayname": application.name,
        "appidacr": credential,
        "tid": tenant.tenant_id,
        "uti": secrets.token_urlsafe(12),
        "ver": "1.0",
    }
    if user is None or home is None:
        claims |= {"oid": str(uuid.uuid5(uuid.NAMESPACE_OID, application.app_id)), "idtyp": "app"}
        if application.roles and audience == cloud.graph:
            claims["roles"] = sorted(application.roles)
        return _hs256(_seal_key(cloud.key), claims, {})
    foreign = home.tenant_id != tenant.tenant_id
    roles = world.gdap_roles(home.tenant_id, user, tenant.tenant_id) if foreign else user.roles
    claims |= {
        "oid": str(uuid.uuid5(uuid.UUID(tenant.tenant_id), user.oid)) if foreign else user.oid,
        "sub": b64(hashlib.sha256((user.oid + audience).encode()).digest()),
        "upn": user.upn,
        "unique_name": user.upn,
        "name": user.name,
        "scp": " ".join(sorted(scopes)),
        "amr": amr,
        "acr": "1",
        "wids": sorted(roles | {ORDINARY_MEMBER}),
        "home": f"{home.tenant_id}/{user.oid}",  # the imitation's own: whose token it is, for the ledger
    }
    if foreign:
        claims["idp"] = f"{cloud.v1_issuer}{home.tenant_id}/"
    return _hs256(_seal_key(cloud.key), _with(claims, bent), {})


def services(world: World, cloud: NationalCloud) -> dict[str, str]:
    """Return what a token can be for: application ids of resources by what stands before a permission in a scope."""
    known = {cloud.graph: GRAPH, cloud.partner_center: PARTNER_CENTER, cloud.azure_management: AZURE_MANAGEMENT}
    if cloud.partner_api:
        known[cloud.partner_api] = PARTNER_API
    return known | {app_id: app_id for app_id in world.applications if world.application(app_id, cloud.key)}


def _with(claims: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims with these set, and those of None removed."""
    return {name: value for name, value in (claims | dict(changes)).items() if value is not None}


def id_token(
    world: World,
    cloud: NationalCloud,
    *,
    tenant: Tenant,
    application: Application,
    user: User,
    home: Tenant,
    nonce: str,
    acrs: Collection[str] = (),
    tamper: Tamper | None,
) -> str | None:
    """Return a version 2.0 ID token (which has no ``amr``), bent as a tamper says."""
    now = int(world.now())
    foreign = home.tenant_id != tenant.tenant_id
    claims: dict[str, Any] = {
        "aud": application.app_id,
        "iss": f"{cloud.authority}/{tenant.tenant_id}/v2.0",
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "name": user.name,
        "oid": str(uuid.uuid5(uuid.UUID(tenant.tenant_id), user.oid)) if foreign else user.oid,
        "preferred_username": user.upn,
        "rh": "1.A" + secrets.token_urlsafe(12),
        "sub": b64(hashlib.sha256((user.oid + application.app_id).encode()).digest()),
        "tid": tenant.tenant_id,
        "uti": secrets.token_urlsafe(12),
        "ver": "2.0",
    }
    if nonce:
        claims["nonce"] = nonce
    if roles := user.app_roles.get(application.app_id):
        claims["roles"] = sorted(roles)
    if acrs:
        claims["acrs"] = list(acrs)
    if foreign or user.user_type == "Guest":
        claims["idp"] = f"{cloud.v1_issuer}{home.tenant_id if foreign else '9188040d-6c67-4c5b-b112-36a304b66dad'}/"
    if tamper is None:
        return sign(cloud.key, claims)
    if tamper.id_token == "missing":
        return None
    return _bent(cloud.key, _with(claims, tamper.claims), tamper)


def _bent(cloud: str, claims: dict[str, Any], tamper: Tamper) -> str:
    how, header = tamper.id_token, dict(tamper.header)
    if how == "none_alg":
        return f"{b64(json.dumps({'typ': 'JWT', 'alg': 'none'}).encode())}.{b64(json.dumps(claims).encode())}."
    if how == "hs256":
        public = signing_key(cloud).key.public_key()
        secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return _hs256(secret, claims, {"kid": signing_key(cloud).kid})
    if how == "unknown_kid":
        header["kid"] = "unknown"
    if how == "huge":
        claims["filler"] = "x" * 900_000
    made = sign(cloud, claims, header)
    if how == "bad_signature":
        return made[:-8] + ("AAAAAAAA" if not made.endswith("AAAAAAAA") else "BBBBBBBB")
    if how == "two_segments":
        return made.rpartition(".")[0]
    return made


def bearer(world: World, request: web.Request, cloud: NationalCloud, *audiences: str) -> dict[str, Any] | None:
    """Return the claims of a good bearer token for one of these audiences, else None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    text, _, seal = token.rpartition(".")
    expected = b64(hmac.digest(_seal_key(cloud.key), text.encode(), "sha256"))
    if scheme != "Bearer" or not hmac.compare_digest(seal.encode(), expected.encode()):
        return None
    claims: dict[str, Any] = json.loads(unb64(text.partition(".")[2]))
    if claims.get("aud") not in audiences or not claims["nbf"] - 300 <= world.now() < claims["exp"]:
        return None
    return claims


def verified_claims(cloud: str, token: str) -> dict[str, Any] | None:
    """Return the claims of a token that this cloud signed, else None; looks at nothing but the signature."""
    head, _, rest = token.partition(".")
    body, _, signature = rest.partition(".")
    try:
        signing_key(cloud).key.public_key().verify(
            unb64(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims = json.loads(unb64(body))
    except (InvalidSignature, ValueError):
        return None
    return claims if isinstance(claims, dict) else None
