"""Key Vault secrets as the imitation serves them: challenge, rights per identity, versions, soft delete, throttling.

A vault belongs to one tenant; one that nobody opened appears in the tenant of kind ``cpv`` of its cloud at the first
call. Values never leave the process but in answers: they are in no ``repr``, ledger or error text.

Source: Key Vault REST, "Secrets", "Authentication, requests and responses", "Azure Key Vault REST API error codes".
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.notes import CLOUD, VAULT
from tests.sandbox.tokens import bearer
from tests.sandbox.world import KEY_VAULT, SWITCHES, World

SWITCHES.update(
    {
        "vault_challenge_resource": "",  # another resource than the vault's own, to see clients refuse it
        "vault_claims_challenge": False,  # continuous access: tokens issued without claims are challenged
        "vault_disabled_inner": "SecretDisabled",  # inner code of the 403 for a disabled version; "" for none
        "vault_deleting_inner": "ObjectIsBeingDeleted",  # of the 409 while a deletion is running
        "vault_recover_seconds": 0.0,  # the name answers 404, and 409 to writes, until this has passed
        "vault_replication_seconds": 0.0,  # reads without a version see a write so much later
        "vault_case_sensitive": False,  # whether names that differ in case are two secrets
        "vault_sees_address": "",  # another address of the caller than that of this machine
        "vault_retry_after": False,  # a 429 names a time; the real one was seen without
    }
)

NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
VERSION = re.compile(r"[0-9a-f]{32}")
MAX_VALUE_BYTES = 25_000
PAGE = 25
RECOVERABLE_DAYS = 90
DEFAULT_RIGHTS = frozenset({"get", "set"})

type Operation = Callable[[Call], Awaitable[dict[str, Any] | None]]


@dataclass(slots=True, kw_only=True)
class SecretVersion:
    version: str
    value: str = field(repr=False)
    written: float
    updated: float
    content_type: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None


@dataclass(slots=True, kw_only=True)
class StoredSecret:
    name: str
    versions: list[SecretVersion] = field(default_factory=list)
    """Oldest first."""
    deleted: float | None = None
    recovered: float = 0.0

    def version(self, wanted: str, visible_before: float) -> SecretVersion | None:
        """Return this version; with "" the newest that replication has brought so far."""
        if wanted:
            return next((one for one in self.versions if one.version == wanted), None)
        return next((one for one in reversed(self.versions) if one.written <= visible_before), None)


@dataclass(slots=True, kw_only=True)
class VaultState:
    tenant_id: str
    secrets: dict[str, StoredSecret] = field(default_factory=dict)
    keys: dict[str, list[Any]] = field(default_factory=dict)
    """Versions by name, oldest first (``key_vault_keys.KeyVersion``)."""
    challenged: str | None = None
    """Which token, by ``uti``, continuous access refused; any other passes."""


class VaultError(Exception):
    """Becomes an error answer of the documented shape."""

    def __init__(
        self, status: int, code: str, message: str, inner: str = "", *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.headers = headers or {}
        error: dict[str, Any] = {"code": code, "message": message}
        if inner:
            error["innererror"] = {"code": inner}
        self.body = {"error": error}


def vault_of(world: World, cloud: str, name: str) -> VaultState | None:
    """Return the state of this vault; None when its cloud has no tenant that could own it."""
    found: VaultState | None = world.vaults.get((cloud, name))
    if found is None:
        owner = next((one for one in world.tenants.values() if (one.cloud, one.kind) == (cloud, "cpv")), None)
        if owner is not None:
            found = world.vaults[cloud, name] = VaultState(tenant_id=owner.tenant_id)
    return found


# --- who may do what ----------------------------------------------------------------------------------------------


def _identify(world: World, request: web.Request, vault: VaultState) -> dict[str, Any]:
    """Return the claims of a token for this vault, or raise the challenge that says where to get one."""
    cloud: NationalCloud = request[CLOUD]
    resource = f"https://{cloud.vault_suffix.removeprefix('.')}"
    challenge = (
        f'Bearer {world.switches["vault_challenge"]}="{cloud.authority}/{vault.tenant_id}", '
        f'resource="{world.switches["vault_challenge_resource"] or resource}"'
    )

    def refused(message: str, header: str = challenge) -> VaultError:
        return VaultError(401, "Unauthorized", message, headers={"WWW-Authenticate": header})

    if not request.headers.get("Authorization"):
        raise refused("AKV10000: the request carries neither a Bearer nor a PoP token.")
    claims = bearer(world, request, cloud, resource, resource.rpartition(":")[0], KEY_VAULT)
    if claims is None:
        raise refused("AKV10022: the token has expired, or was not issued for this vault.")
    if claims.get("tid") != vault.tenant_id:
        raise refused("AKV10032: the token was issued by another tenant than the vault's.")
    if not world.switches["vault_claims_challenge"]:
        vault.challenged = None
    elif vault.challenged in {None, claims["uti"]}:
        vault.challenged = claims["uti"]
        wanted = {"access_token": {"nbf": {"essential": True, "value": str(int(world.now()))}}}
        encoded = base64.b64encode(json.dumps(wanted).encode()).decode()
        raise refused(
            "AKV10091: continuous access evaluation wants a new token.",
            f'Bearer authorization="{cloud.authority}/{vault.tenant_id}", error="insufficient_claims", '
            f'claims="{encoded}"',
        )
    return claims


def _authorize(world: World, request: web.Request, claims: dict[str, Any], right: str) -> None:
    rights = world.vault_rights.get(claims["appid"], DEFAULT_RIGHTS)
    if right in rights or "all" in rights:
        return
    inner = world.switches["vault_denied"]
    area, _, verb = right.rpartition("/")
    area = area or "secrets"
    who = f"appid={claims['appid']};oid={claims['oid']};tid={claims['tid']}"
    if inner == "ForbiddenByRbac":
        message = (
            f"The caller is not allowed to do this on the resource.\r\nCaller: {who}\r\n"
            f"Action: 'Microsoft.KeyVault/vaults/{area}/{verb}/action'\r\nResource: '{request.path}'\r\n"
            "DecisionReason: 'DeniedWithNoValidRBAC'"
        )
    else:
        message = f"The application '{who}' has no {area} {verb} permission on key vault '{request[VAULT]}'."
    raise VaultError(403, "Forbidden", message, inner)


# --- what is answered ---------------------------------------------------------------------------------------------


def _attributes(world: World, one: SecretVersion) -> dict[str, Any]:
    protected = world.switches["vault_purge_protection"]
    attributes = {
        "enabled": one.enabled,
        "nbf": one.not_before,
        "exp": one.expires,
        "created": int(one.written),
        "updated": int(one.updated),
        "recoveryLevel": "Recoverable" if protected else "Recoverable+Purgeable",
        "recoverableDays": RECOVERABLE_DAYS,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _bundle(
    world: World,
    request: web.Request,
    secret: StoredSecret,
    one: SecretVersion,
    *,
    with_value: bool = False,
    with_version: bool = True,
) -> dict[str, Any]:
    address = f"https://{request.host}/secrets/{secret.name}" + (f"/{one.version}" if with_version else "")
    bundle: dict[str, Any] = {"value": one.value} if with_value else {}
    bundle |= {"id": address, "attributes": _attributes(world, one)}
    if one.content_type is not None:
        bundle["contentType"] = one.content_type
    if one.tags:
        bundle["tags"] = dict(one.tags)
    return bundle


def _deleted_bundle(
    world: World, request: web.Request, secret: StoredSecret, *, with_version: bool = True
) -> dict[str, Any]:
    deleted = secret.deleted or 0.0
    return _bundle(world, request, secret, secret.versions[-1], with_version=with_version) | {
        "recoveryId": f"https://{request.host}/deletedsecrets/{secret.name}",
        "deletedDate": int(deleted),
        "scheduledPurgeDate": int(deleted) + RECOVERABLE_DAYS * 86400,
    }


def page(request: web.Request, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one page of at most 25 items with a link to the next."""
    size, start = request.query.get("maxresults", str(PAGE)), request.query.get("$skiptoken", "MA==")
    try:
        count, offset = int(size), int(base64.urlsafe_b64decode(start))
    except ValueError:
        raise VaultError(400, "BadParameter", "maxresults or $skiptoken is not valid.") from None
    if not 1 <= count <= PAGE or offset < 0:
        raise VaultError(400, "BadParameter", f"maxresults must be between 1 and {PAGE}.")
    following = None
    if offset + count < len(items):
        token = base64.urlsafe_b64encode(str(offset + count).encode()).decode()
        query = {"api-version": request.query["api-version"], "$skiptoken": token, "maxresults": str(count)}
        following = str(request.url.with_scheme("https").with_query(query))
    return {"value": items[offset : offset + count], "nextLink": following}


# --- operations ---------------------------------------------------------------------------------------------------


class Call:
    """One authorized call about a vault."""

    def __init__(self, world: World, request: web.Request, vault: VaultState) -> None:
        self.world = world
        self.request = request
        self.vault = vault
        self.name = request.match_info.get("name", "")
        if self.name and not NAME.fullmatch(self.name):
            raise VaultError(400, "BadParameter", "A secret's name consists of 1 to 127 letters, digits and hyphens.")
        self.key = self.name if world.switches["vault_case_sensitive"] else self.name.lower()
        for key in [self.key] if self.name else list(vault.secrets):
            secret = vault.secrets.get(key)
            deleted = None if secret is None else secret.deleted
            if deleted is not None and deleted + RECOVERABLE_DAYS * 86400 <= world.now():
                del vault.secrets[key]

    async def content(self) -> dict[str, Any]:
        try:
            content = await self.request.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise VaultError(400, "BadParameter", "The body is not a JSON object.")
        return content

    def not_found(self, what: str = "secret") -> VaultError:
        return VaultError(
            404, "SecretNotFound", f"A {what} with (name/id) {self.name} was not found in this key vault."
        )

    def live(self) -> StoredSecret:
        secret = self.vault.secrets.get(self.key)
        if secret is None or secret.deleted is not None or secret.recovered > self.world.now():
            raise self.not_found()
        return secret

    def gone(self) -> StoredSecret:
        """Return the soft-deleted secret of this name, once its deletion is complete."""
        secret = self.vault.secrets.get(self.key)
        window = self.world.switches["vault_delete_seconds"]
        if secret is None or secret.deleted is None or secret.deleted + window > self.world.now():
            raise self.not_found("deleted secret")
        return secret

    def version(self, secret: StoredSecret) -> SecretVersion:
        wanted = self.request.match_info.get("version", "")
        if wanted and not VERSION.fullmatch(wanted):
            raise VaultError(400, "BadParameter", "A secret's version consists of 32 hexadecimal digits.")
        visible_before = self.world.now() - self.world.switches["vault_replication_seconds"]
        found = secret.version(wanted, visible_before)
        if found is None:
            raise self.not_found()
        return found


def _apply(one: SecretVersion, content: dict[str, Any]) -> None:
    """Write contentType, tags and attributes as far as the request names them."""
    attributes, tags, content_type = content.get("attributes"), content.get("tags"), content.get("contentType")
    attributes, tags = {} if attributes is None else attributes, {} if tags is None else tags
    if not isinstance(attributes, dict) or not isinstance(tags, dict):
        raise VaultError(400, "BadParameter", "attributes and tags must be objects.")
    texts = [text for pair in tags.items() for text in pair]
    if len(tags) > 15 or any(not isinstance(text, str) or len(text) > 256 for text in texts):
        raise VaultError(400, "BadParameter", "There are at most 15 tags of up to 256 characters.")
    if content_type is not None and (not isinstance(content_type, str) or len(content_type) > 255):
        raise VaultError(400, "BadParameter", "contentType has at most 255 characters.")
    enabled, moments = attributes.get("enabled"), [attributes.get("nbf"), attributes.get("exp")]
    if enabled not in {None, True, False} or any(type(one) not in {int, type(None)} for one in moments):
        raise VaultError(400, "BadParameter", "enabled is a Boolean; nbf and exp are whole seconds.")
    if enabled is not None:
        one.enabled = enabled
    if "nbf" in attributes:
        one.not_before = attributes["nbf"]
    if "exp" in attributes:
        one.expires = attributes["exp"]
    if "tags" in content:
        one.tags = dict(tags)
    if content_type is not None:
        one.content_type = content_type


async def _set(call: Call) -> dict[str, Any]:
    content = await call.content()
    value = content.get("value")
    if not isinstance(value, str):
        raise VaultError(400, "BadParameter", "The property value is required.")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise VaultError(400, "BadParameter", f"A secret's value has at most {MAX_VALUE_BYTES} bytes.")
    now, switches = call.world.now(), call.world.switches
    made = SecretVersion(version=secrets.token_hex(16), value=value, written=now, updated=now)
    _apply(made, content)
    secret = call.vault.secrets.get(call.key)
    if secret is None:
        secret = StoredSecret(name=call.name)
    elif secret.deleted is not None:
        running = secret.deleted + switches["vault_delete_seconds"] > now
        inner = switches["vault_deleting_inner"] if running else "ObjectIsDeletedButRecoverable"
        raise VaultError(409, "Conflict", f"Secret {call.name} is deleted; its name cannot be reused now.", inner)
    elif secret.recovered > now:
        raise VaultError(409, "Conflict", f"Secret {call.name} is being recovered.", "ObjectIsBeingRecovered")
    secret.versions.append(made)
    call.vault.secrets[call.key] = secret
    return _bundle(call.world, call.request, secret, made, with_value=True)


async def _get(call: Call) -> dict[str, Any]:
    secret = call.live()
    one = call.version(secret)
    if not one.enabled:
        inner = call.world.switches["vault_disabled_inner"]
        raise VaultError(403, "Forbidden", "This operation is not allowed on a disabled secret.", inner)
    return _bundle(call.world, call.request, secret, one, with_value=True)


async def _update(call: Call) -> dict[str, Any]:
    content = await call.content()
    secret = call.live()
    one = call.version(secret)
    _apply(one, content)
    one.updated = call.world.now()
    return _bundle(call.world, call.request, secret, one)


async def _list(call: Call) -> dict[str, Any]:
    items = [
        _bundle(call.world, call.request, secret, secret.versions[-1], with_version=False)
        for _, secret in sorted(call.vault.secrets.items())
        if secret.deleted is None and secret.recovered <= call.world.now()
    ]
    return page(call.request, items)


async def _list_versions(call: Call) -> dict[str, Any]:
    secret = call.vault.secrets.get(call.key)
    found = secret.versions if secret is not None and secret.deleted is None else []
    return page(call.request, [_bundle(call.world, call.request, call.live(), one) for one in found])


async def _delete(call: Call) -> dict[str, Any]:
    secret = call.live()
    secret.deleted = call.world.now()
    return _deleted_bundle(call.world, call.request, secret)


async def _get_deleted(call: Call) -> dict[str, Any]:
    return _deleted_bundle(call.world, call.request, call.gone())


async def _list_deleted(call: Call) -> dict[str, Any]:
    ready = call.world.now() - call.world.switches["vault_delete_seconds"]
    items = [
        _deleted_bundle(call.world, call.request, secret, with_version=False)
        for _, secret in sorted(call.vault.secrets.items())
        if secret.deleted is not None and secret.deleted <= ready
    ]
    return page(call.request, items)


async def _recover(call: Call) -> dict[str, Any]:
    secret = call.gone()
    secret.deleted = None
    secret.recovered = call.world.now() + call.world.switches["vault_recover_seconds"]
    return _bundle(call.world, call.request, secret, secret.versions[-1])


async def _purge(call: Call) -> None:
    secret = call.gone()
    if call.world.switches["vault_purge_protection"]:
        message = f"Secret {secret.name} cannot be purged: purge protection is enabled for this vault."
        raise VaultError(403, "Forbidden", message, "ForbiddenByPolicy")
    del call.vault.secrets[call.key]


async def _unknown(call: Call) -> None:
    raise VaultError(405, "MethodNotAllowed", f"{call.request.method} is not allowed here.")


# --- wire ---------------------------------------------------------------------------------------------------------


def _headers(world: World, request: web.Request) -> dict[str, str]:
    address = world.switches["vault_sees_address"] or request.remote
    headers = {
        "Cache-Control": "no-cache",
        "Strict-Transport-Security": "max-age=31536000;includeSubDomains",
        "x-ms-keyvault-network-info": f"conn_type=Ipv4;addr={address};act_addr_fam=InterNetwork;",
        "x-ms-keyvault-region": "local",
        "x-ms-keyvault-service-version": "1.9.0.0",
        "x-ms-request-id": str(uuid.uuid4()),
    }
    if sent := request.headers.get("x-ms-client-request-id"):
        headers["x-ms-client-request-id"] = sent
    return headers


async def _perform(
    world: World, request: web.Request, facts: dict[str, Any], operation: Operation, right: str
) -> dict[str, Any] | None:
    cloud: NationalCloud = request[CLOUD]
    vault = vault_of(world, cloud.key, request[VAULT])
    if vault is None:
        raise VaultError(404, "VaultNotFound", "There is no such vault.")
    claims = _identify(world, request, vault)
    facts |= {"tenant": vault.tenant_id, "client": claims["appid"], "user": claims["oid"]}
    if world.over_limit(f"vault {cloud.key} {request[VAULT]}", world.switches["vault_limit"], 10):
        headers = {"Retry-After": "10"} if world.switches["vault_retry_after"] else {}
        raise VaultError(429, "Throttled", "Too many requests: VaultRequestTypeLimitReached", headers=headers)
    _authorize(world, request, claims, right)
    if not request.query.get("api-version"):
        raise VaultError(400, "BadParameter", "The query has no api-version.")
    return await operation(Call(world, request, vault))


async def _answer(world: World, request: web.Request, operation: Operation, right: str) -> web.Response:
    facts: dict[str, Any] = {"cloud": request[CLOUD].key, "vault": request[VAULT]}
    headers = _headers(world, request)
    try:
        body = await _perform(world, request, facts, operation, right)
        response = web.Response(status=204) if body is None else web.json_response(body)
    except VaultError as error:
        response = web.json_response(error.body, status=error.status, headers=error.headers)
    response.headers.update(headers)
    correlation = headers.get("x-ms-client-request-id", "")
    world.book("vault", operation.__name__.strip("_"), response.status, correlation=correlation, **facts)
    return response


def route(world: World, method: str, path: str, right: str, operation: Operation) -> web.RouteDef:
    """Return one operation of a vault host; ``request[VAULT]`` names the vault."""

    async def handler(request: web.Request) -> web.Response:
        return await _answer(world, request, operation, right)

    return web.route(method, path, handler)


def routes(world: World) -> list[web.RouteDef]:
    """Return the operations on secrets, and what answers all other paths."""
    at = partial(route, world)
    return [
        at("PUT", "/secrets/{name}{slash:/?}", "set", _set),
        at("GET", "/secrets{slash:/?}", "list", _list),
        at("GET", "/secrets/{name}{slash:/?}", "get", _get),
        at("GET", "/secrets/{name}/versions{slash:/?}", "list", _list_versions),
        at("GET", "/secrets/{name}/{version}{slash:/?}", "get", _get),
        at("PATCH", "/secrets/{name}{slash:/?}", "set", _update),
        at("PATCH", "/secrets/{name}/{version}{slash:/?}", "set", _update),
        at("DELETE", "/secrets/{name}{slash:/?}", "delete", _delete),
        at("GET", "/deletedsecrets{slash:/?}", "list", _list_deleted),
        at("GET", "/deletedsecrets/{name}{slash:/?}", "get", _get_deleted),
        at("DELETE", "/deletedsecrets/{name}{slash:/?}", "purge", _purge),
        at("POST", "/deletedsecrets/{name}/recover{slash:/?}", "recover", _recover),
        at("*", "/{rest:.*}", "get", _unknown),
    ]
