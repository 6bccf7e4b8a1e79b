"""ID tokens signed here: good ones, and the raw material of bent ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from portal.microsoft.clouds import GLOBAL
from portal.microsoft.identifiers import ApplicationId, TenantId

TENANT = TenantId("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
OTHER = TenantId("00ff2504-aaaa-41d3-9a0c-0305e82c3302")
APPLICATION = ApplicationId("7c9e6679-7425-40de-944b-e07fc1f90ae7")
ACCOUNT = "16fd2706-8baf-433b-82eb-8c7fada847da"
NONCE = "n-0S6_WzA2Mj_n-0S6_WzA2Mj_n-0S6_WzA2Mj_n-0S"
NOW = 1_790_000_000
ISSUER = f"{GLOBAL.authority}/{TENANT}/v2.0"
KEYS_URL = f"{GLOBAL.authority}/{TENANT}/discovery/v2.0/keys"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGERS_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KID = "key-of-today"
# Deep enough for the recursion limit, short enough for the size limit.
DEEP = b"[" * 11_500


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: rsa.RSAPrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "kid": kid,
        "n": b64(numbers.n.to_bytes(256, "big")),
        "e": b64(numbers.e.to_bytes(3, "big")),
        "issuer": f"{GLOBAL.authority}/{{tenantid}}/v2.0",
        **more,
    }


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with these changed; ``...`` removes one."""
    good = {
        "iss": ISSUER,
        "tid": TENANT,
        "aud": APPLICATION,
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 3600,
        "oid": ACCOUNT,
        "sub": "pairwise",
        "nonce": NONCE,
        "ver": "2.0",
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def signed(
    head: bytes, body: bytes, key: rsa.RSAPrivateKey = KEY, algorithm: hashes.HashAlgorithm | None = None
) -> str:
    text = f"{b64(head)}.{b64(body)}"
    return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), algorithm or hashes.SHA256()))}"


def token(body: dict[str, Any] | None = None, key: rsa.RSAPrivateKey = KEY, **header: Any) -> str:
    """Sign claims as Entra does; header members of ``...`` are left out."""
    head = {"typ": "JWT", "alg": "RS256", "kid": KID} | header
    written = {name: value for name, value in head.items() if value is not ...}
    return signed(json.dumps(written).encode(), json.dumps(claims() if body is None else body).encode(), key)


def hs256(body: dict[str, Any], secret: bytes) -> str:
    """The classic: the public key, which everybody has, used as a shared secret."""
    text = f"{b64(json.dumps({'typ': 'JWT', 'alg': 'HS256', 'kid': KID}).encode())}.{b64(json.dumps(body).encode())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def public_pem() -> bytes:
    return KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_der() -> bytes:
    return KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def unsigned(algorithm: str) -> str:
    head = {"typ": "JWT", "alg": algorithm, "kid": KID}
    return f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims()).encode())}."


def pss() -> str:
    text = f"{b64(json.dumps({'alg': 'PS256', 'kid': KID}).encode())}.{b64(json.dumps(claims()).encode())}"
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    return f"{text}.{b64(KEY.sign(text.encode(), salted, hashes.SHA256()))}"


def swapped_body() -> str:
    """Head and signature of one good token, body of another."""
    one, two = token().split("."), token(claims(oid=str(uuid.uuid4()))).split(".")
    return f"{one[0]}.{two[1]}.{one[2]}"


HEAD = json.dumps({"typ": "JWT", "alg": "RS256", "kid": KID}).encode()
