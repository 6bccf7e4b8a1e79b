"""Keys of a Key Vault as the imitation serves them: created, read, switched off, and signed with. None is handed out.

The rights are those on keys, apart from those on secrets: ``keys/get``, ``keys/create``, ``keys/update``, ``keys/sign``
and ``keys/list``. No identity has them until a test grants them.

Source: Key Vault REST, "Keys": create, get, update, sign, get keys, get key versions.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from tests.sandbox import key_vault
from tests.sandbox.key_vault import Call, VaultError, page
from tests.sandbox.tokens import b64, unb64
from tests.sandbox.world import World

_SIZES = {2048, 3072, 4096}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


@dataclass(slots=True, kw_only=True)
class KeyVersion:
    name: str
    version: str
    key: rsa.RSAPrivateKey = field(repr=False)
    operations: list[str]
    tags: dict[str, str]
    made: float
    enabled: bool = True


async def _create_key(call: Call) -> dict[str, Any]:
    content = await call.content()
    size = content.get("key_size", 2048)
    if content.get("kty") != "RSA" or size not in _SIZES:
        raise VaultError(400, "BadParameter", "Only RSA keys of 2048, 3072 or 4096 bits are made here.")
    if (content.get("attributes") or {}).get("exportable") and not content.get("release_policy"):
        raise VaultError(400, "BadParameter", "An exportable key needs a release policy.")
    made = KeyVersion(
        name=call.name,
        version=secrets.token_hex(16),
        key=rsa.generate_private_key(65537, size),
        operations=list(content.get("key_ops") or ["sign", "verify"]),
        tags=dict(content.get("tags") or {}),
        made=call.world.now(),
    )
    call.vault.keys.setdefault(call.key, []).append(made)
    return _bundle(call, made)


async def _get_key(call: Call) -> dict[str, Any]:
    return _bundle(call, _version(call))


async def _update_key(call: Call) -> dict[str, Any]:
    content, one = await call.content(), _version(call)
    enabled = (content.get("attributes") or {}).get("enabled")
    if isinstance(enabled, bool):
        one.enabled = enabled
    return _bundle(call, one)


async def _sign_key(call: Call) -> dict[str, Any]:
    content, one = await call.content(), _version(call)
    if not one.enabled:
        raise VaultError(403, "Forbidden", "This operation is not allowed on a disabled key.", "KeyDisabled")
    if "sign" not in one.operations:
        raise VaultError(403, "Forbidden", "Operation sign is not permitted on this key.")
    algorithm = str(content.get("alg", ""))
    digest = _HASHES.get(algorithm[2:])
    try:
        value = unb64(str(content.get("value", "")))
    except (ValueError, binascii.Error):
        value = b""
    if digest is None or algorithm[:2] not in {"RS", "PS"} or len(value) != digest.digest_size:
        raise VaultError(400, "BadParameter", "alg or value is not valid for this key.")
    padded: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        padded = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
    signature = one.key.sign(value, padded, Prehashed(digest))
    return {"kid": _address(call, one), "value": base64.urlsafe_b64encode(signature).rstrip(b"=").decode()}


async def _list_keys(call: Call) -> dict[str, Any]:
    newest = [versions[-1] for _, versions in sorted(call.vault.keys.items())]
    return page(call.request, [_item(call, one, with_version=False) for one in newest])


async def _list_versions(call: Call) -> dict[str, Any]:
    return page(call.request, [_item(call, one) for one in call.vault.keys.get(call.key, [])])


def _version(call: Call) -> KeyVersion:
    wanted = call.request.match_info.get("version", "")
    found: list[KeyVersion] = call.vault.keys.get(call.key, [])
    for one in reversed(found):
        if wanted in {"", one.version}:
            return one
    raise VaultError(404, "KeyNotFound", f"A key with (name/id) {call.name} was not found in this key vault.")


def _address(call: Call, one: KeyVersion) -> str:
    return f"https://{call.request.host}/keys/{one.name}/{one.version}"


def _bundle(call: Call, one: KeyVersion) -> dict[str, Any]:
    numbers = one.key.public_key().public_numbers()
    return {
        "key": {
            "kid": _address(call, one),
            "kty": "RSA",
            "key_ops": one.operations,
            "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": b64(numbers.e.to_bytes(3, "big")),
        },
        "attributes": _attributes(one),
        "tags": one.tags,
    }


def _attributes(one: KeyVersion) -> dict[str, Any]:
    return {
        "enabled": one.enabled,
        "exportable": False,
        "created": int(one.made),
        "updated": int(one.made),
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": 90,
    }


def _item(call: Call, one: KeyVersion, *, with_version: bool = True) -> dict[str, Any]:
    address = _address(call, one)
    kid = address if with_version else address.rpartition("/")[0]
    return {"kid": kid, "attributes": _attributes(one), "tags": one.tags}


def routes(world: World) -> list[web.RouteDef]:
    """Return the operations on keys, and behind them all others of a vault."""
    at = partial(key_vault.route, world)
    return [
        at("GET", "/keys{slash:/?}", "keys/list", _list_keys),
        at("GET", "/keys/{name}/versions{slash:/?}", "keys/list", _list_versions),
        at("POST", "/keys/{name}/create{slash:/?}", "keys/create", _create_key),
        at("GET", "/keys/{name}{slash:/?}", "keys/get", _get_key),
        at("GET", "/keys/{name}/{version}{slash:/?}", "keys/get", _get_key),
        at("PATCH", "/keys/{name}/{version}{slash:/?}", "keys/update", _update_key),
        at("POST", "/keys/{name}/{version}/sign{slash:/?}", "keys/sign", _sign_key),
        *key_vault.routes(world),
    ]
