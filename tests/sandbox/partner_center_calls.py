"""What all Partner Center operations share: who may call, headers, error forms, limits, idempotency, the ledger.

Every call needs an app+user token of the partner's own tenant, of an application that is registered as a control
panel vendor's, and a user in AdminAgents.

Source: Partner Center REST, "Partner Center REST headers", "error codes", "API throttling guidance", "Mandating
multifactor authentication".
"""

from __future__ import annotations

import base64
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.notes import CLOUD
from tests.sandbox.tokens import bearer
from tests.sandbox.world import PARTNER_CENTER, SWITCHES, Tenant, User, World

SWITCHES.update(
    {
        "customer_foreign_status": 403,  # who asks for another's customer: 403 with 20002, or 404
        "numeric_codes": False,  # error codes as JSON numbers
        "idempotent": True,  # a repeated MS-RequestId gets the first answer and has no effect
        "rejected_calls_count": True,  # whether refused calls use up the limit, too
    }
)

type Operation = Callable[[Call], Awaitable[tuple[int, Any]]]


class PartnerCenterError(Exception):
    """Becomes an error answer of the documented shape; without a code the body stays empty."""

    def __init__(self, status: int, code: str, description: str = "", *, reason: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.description, self.reason = status, code, description, reason
        self.headers: dict[str, str] = {}

    def response(self, world: World) -> web.Response:
        if not self.code:
            return web.Response(status=self.status, reason=self.reason, headers=self.headers)
        body: dict[str, Any] = {
            "code": int(self.code) if world.switches["numeric_codes"] else self.code,
            "description": self.description[:1024],
            "data": [],
            "source": "PartnerApiServiceCore",
        }
        return web.json_response(body, status=self.status, headers=self.headers)


class Throttled(PartnerCenterError):
    """The gateway in front answers, in a form of its own."""

    def __init__(self, world: World, seconds: int) -> None:
        super().__init__(429, "")
        self.seconds = seconds
        how = world.switches["retry_after"]
        if how == "date":
            moment = datetime.fromtimestamp(time.time() + seconds, UTC)
            self.headers["Retry-After"] = format_datetime(moment, usegmt=True)
        elif how:
            self.headers["Retry-After"] = str(seconds)

    def response(self, world: World) -> web.Response:
        message = f"Rate limit is exceeded. Try again in {self.seconds} seconds."
        return web.json_response({"statusCode": 429, "message": message}, status=429, headers=self.headers)


@dataclass(slots=True, kw_only=True)
class Call:
    """One authenticated call."""

    world: World
    request: web.Request
    partner: Tenant
    user: User
    app_id: str
    operation: str
    facts: dict[str, Any] = field(default_factory=dict)

    def customer(self) -> Tenant:
        """Return the customer that the path names, of this partner only."""
        text = self.request.match_info["customer"].lower()
        try:
            customer_id = str(uuid.UUID(text))
        except ValueError:
            raise PartnerCenterError(400, "900118", "The customer ID is not valid.") from None
        self.facts["customer"] = customer_id
        found = self.world.tenants.get(customer_id)
        if found is not None and customer_id in self.world.customers.get(self.partner.tenant_id, {}):
            return found
        if any(customer_id in theirs for theirs in self.world.customers.values()):
            self.world.crossings.append(
                {"home": self.partner.tenant_id, "asked": customer_id, "operation": self.operation}
            )
        if self.world.switches["customer_foreign_status"] == 404:
            raise PartnerCenterError(404, "60003", "The tenant was not found.")
        raise PartnerCenterError(403, "20002", "The partner has no commerce relationship with this customer.")

    def limit(self, name: str, limit: int, seconds: int, wait: int) -> None:
        """Count this call against a limit; ``wait`` is what a refused caller is told."""
        key = f"partner center {name}"
        if not self.world.over_limit(key, limit, seconds):
            return
        if self.world.switches["rejected_calls_count"]:
            self.world.windows[key].append(time.monotonic())
        raise Throttled(self.world, wait)


# --- who asks -----------------------------------------------------------------------------------------------------


def _identify(world: World, request: web.Request, operation: str, facts: dict[str, Any]) -> tuple[Call, bool]:
    """Return the call and whether its token proves MFA."""
    cloud: NationalCloud = request[CLOUD]
    denied = PartnerCenterError(401, "400", "Access is denied.")
    claims = bearer(world, request, cloud, cloud.partner_center, PARTNER_CENTER)
    if claims is None or "user_impersonation" not in claims.get("scp", "").split():
        raise denied
    tenant_id, oid = claims["home"].split("/")
    facts |= {"tenant": claims.get("tid", ""), "user": oid, "home": tenant_id, "client": claims.get("appid", "")}
    partner, user = world.tenants.get(facts["tenant"]), world.user(tenant_id, oid)
    application = world.applications.get(facts["client"])
    if partner is None or partner.kind != "partner" or tenant_id != partner.tenant_id or user is None:
        raise denied
    if application is None or not (application.cpv or application.home_tenant == claims["tid"]):
        raise denied
    return (
        Call(
            world=world,
            request=request,
            partner=partner,
            user=user,
            app_id=application.app_id,
            operation=operation,
            facts=facts,
        ),
        "mfa" in claims.get("amr", []),
    )


def _require_mfa(world: World) -> PartnerCenterError:
    if world.switches["mfa_refusal"] != "old":
        return PartnerCenterError(401, world.switches["mfa_refusal"], "Multifactor authentication is required.")
    error = PartnerCenterError(401, "", reason="Unauthorized - MFA required")
    error.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return error


def _authorize(call: Call) -> None:
    if not call.partner.enabled:
        raise PartnerCenterError(403, "900149", "The partner's program status is not active.")
    if not call.world.in_admin_agents(call.partner, call.user):
        raise PartnerCenterError(403, "900150", "The supplied role has no rights for this operation.")


# --- wire ---------------------------------------------------------------------------------------------------------


def _headers(request: web.Request) -> dict[str, str]:
    def echoed(name: str) -> str:
        return request.headers.get(name) or str(uuid.uuid4())

    return {
        "MS-RequestId": echoed("MS-RequestId"),
        "MS-CorrelationId": echoed("MS-CorrelationId"),
        "MS-CV": f"{base64.b64encode(secrets.token_bytes(12)).decode()}.0",
        "MS-ServerId": "00000L",
        "X-Locale": request.headers.get("X-Locale", "en-US"),
        "Request-Context": f"appId=cid-v1:{uuid.UUID(int=0)}",
    }


async def _perform(world: World, request: web.Request, name: str, operation: Operation, facts: dict[str, Any]) -> Any:
    call, mfa = _identify(world, request, name, facts)
    switches = world.switches
    verdict = {}
    if switches["mfa_header"] and request.headers.get("ValidateMfa", "").lower() == "true":
        verdict["isMfaCompliant"] = str(mfa).lower()
    try:
        if "applicationconsents" in request.path:
            call.limit(f"consents {call.app_id}", int(switches["consent_limit"]), 1, 1)
        elif "/customers" in request.path:
            call.limit(f"customers {call.partner.tenant_id}", int(switches["customer_limit"]), 60, 30)
        elif "/profiles/" in request.path:
            call.limit(f"profiles of {call.partner.tenant_id}", int(switches["profile_partner_limit"]), 10, 10)
            call.limit(f"profiles {call.app_id}", int(switches["profile_limit"]), 1, 1)
        if switches["mfa_enforced"] and not mfa:
            raise _require_mfa(world)
        _authorize(call)
        sent = request.headers.get("MS-RequestId", "").lower()
        key = f"{call.app_id} {call.partner.tenant_id} {sent} {request.method} {request.path}"
        remembers = switches["idempotent"] and bool(sent) and request.method != "GET"
        if remembers and key in world.answers:
            status, body = world.answers[key]
            facts["repeated"] = True
        else:
            status, body = await operation(call)
            if remembers:
                world.answers[key] = (status, body)
    except PartnerCenterError as error:
        error.headers |= verdict
        raise
    if body is None:
        return web.Response(status=status, headers=verdict)
    return web.json_response(body, status=status, headers=verdict)


async def _answer(world: World, request: web.Request, name: str, operation: Operation) -> web.Response:
    """Identify the caller, perform the operation, and write the ledger."""
    headers = _headers(request)
    facts: dict[str, Any] = {"cloud": request[CLOUD].key, "correlation": headers["MS-CorrelationId"]}
    try:
        response: web.Response = await _perform(world, request, name, operation, facts)
    except PartnerCenterError as error:
        response = error.response(world)
        facts["code"] = error.code
    response.headers.update(headers)
    world.book("partner_center", name, response.status, **facts)
    return response


def route(world: World, method: str, path: str, name: str, operation: Operation) -> web.RouteDef:
    """Return the route of one operation; ``name`` is what the ledger calls it."""

    async def handler(request: web.Request) -> web.Response:
        return await _answer(world, request, name, operation)

    return web.route(method, path, handler)
