"""Application consents: put an application and its delegated grants into a customer tenant, or take them out.

The effect is the service principal and the ``AllPrincipals`` grants of the customer's tenant, which Graph shows and
the token endpoint obeys. No call reads a consent, as in real life; tests of another process have a path of the
imitation's own, ``/sandbox/consents/{customer}``, which wants no token.

Source: Partner Center REST, "Control panel vendor APIs", "GDAP and the secure application model".
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.sandbox.partner_center_calls import Call, PartnerCenterError, route
from tests.sandbox.world import CONSENT_ROLES, GRAPH, SWITCHES, Tenant, World

SWITCHES.update(
    {
        "consent_mismatch_status": 403,  # applicationId is not the token's application
        "consent_unlisted": "refuse",  # or "ignore": permissions that the registration does not list
        "consent_delete_status": 200,  # or 201, 204
        "consent_removes_nothing": False,
        "consent_privileged_role": False,  # whether Privileged Role Administrator still suffices
    }
)

PRIVILEGED_ROLE_ADMINISTRATOR = "e8611ab8-c189-46e8-94e1-60213ab1f814"
SIGN_IN_SCOPES = {"openid", "profile", "offline_access", "email"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    resource: str
    scopes: frozenset[str]


def _lower(value: Any) -> Any:
    """Return the JSON value with lower-case property names: the service does not look at case."""
    if isinstance(value, dict):
        return {str(name).lower(): _lower(item) for name, item in value.items()}
    return [_lower(item) for item in value] if isinstance(value, list) else value


def _passed_on(status: int, code: str, entra_code: str, message: str) -> PartnerCenterError:
    """Return an error that hands on what the directory said."""
    inner = {"odata.error": {"code": entra_code, "message": {"lang": "en", "value": message}}}
    return PartnerCenterError(status, code, json.dumps(inner))


def _guid(value: Any) -> str:
    try:
        return str(uuid.UUID(value))
    except (AttributeError, TypeError, ValueError):
        raise PartnerCenterError(400, "800002", "An application id is not valid.") from None


def _check_application(call: Call, text: Any) -> None:
    if _guid(text) != call.app_id:
        status = call.world.switches["consent_mismatch_status"]
        raise PartnerCenterError(status, "2032", "The application is not the one that the token was issued to.")


def _check_roles(call: Call, customer: Tenant) -> None:
    enough = CONSENT_ROLES | (
        {PRIVILEGED_ROLE_ADMINISTRATOR} if call.world.switches["consent_privileged_role"] else set()
    )
    if call.world.gdap_roles(call.partner.tenant_id, call.user, customer.tenant_id) & enough:
        return
    message = "Insufficient privileges to complete the operation."
    if call.world.switches["consent_denied_status"] == 400:
        raise _passed_on(400, "800002", "Authorization_RequestDenied", message)
    raise PartnerCenterError(403, "900150", message)


def _read_grants(call: Call, value: Any) -> list[_Grant]:
    """Return the asked grants: per resource, permission names separated by commas."""
    if not isinstance(value, list) or not value:
        raise PartnerCenterError(400, "800002", "applicationGrants is missing.")
    registered = call.world.applications[call.app_id].permissions
    grants = []
    for item in value:
        scope = item.get("scope") if isinstance(item, dict) else None
        if not isinstance(scope, str) or not scope.strip():
            raise PartnerCenterError(400, "800002", "scope is missing.")
        resource = _guid(item.get("enterpriseapplicationid"))
        wanted = frozenset(name.strip() for name in scope.split(","))
        listed = registered.get(resource, set()) | (SIGN_IN_SCOPES if resource == GRAPH else set())
        if call.world.switches["consent_unlisted"] == "refuse" and not wanted <= listed:
            raise PartnerCenterError(400, "800002", "The scope is invalid: a permission is not configured.")
        grants.append(_Grant(resource=resource, scopes=wanted & listed))
    return grants


def _check_resources(call: Call, customer: Tenant, grants: list[_Grant]) -> None:
    present = customer.principal_of(call.app_id)
    for grant in grants:
        resource = customer.principal_of(grant.resource)
        if resource is None:
            message = f"The organization lacks a service principal for the resource {grant.resource}."
            raise _passed_on(400, "800002", "Request_BadRequest", message)
        if present is not None and any(
            (one.client, one.resource, one.consent_type) == (present.object_id, resource.object_id, "AllPrincipals")
            for one in customer.grants.values()
        ):
            status = call.world.switches["consent_exists_status"]
            raise _passed_on(status, str(status), "Request_BadRequest", "Permission entry already exists.")


async def _create(call: Call) -> tuple[int, Any]:
    customer = call.customer()
    try:
        content = _lower(await call.request.json())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise PartnerCenterError(400, "800002", "The body is not a JSON object.")
    _check_application(call, content.get("applicationid"))
    grants = _read_grants(call, content.get("applicationgrants"))
    _check_roles(call, customer)
    _check_resources(call, customer, grants)
    world, switches = call.world, call.world.switches
    if not switches["consent_grants_nothing"]:
        visible_at = world.now() + switches["consent_visible_after"] if switches["consent_visible_after"] else 0.0
        customer.add_principal(call.app_id, world.applications[call.app_id].name, visible_at)
        for grant in (one for one in grants if one.scopes):
            customer.grant(call.app_id, grant.resource, set(grant.scopes), visible_at)
    if switches["consent_empty_body"]:
        return 201, None
    return 201, {
        "applicationId": call.app_id,
        "displayName": content.get("displayname"),
        "applicationGrants": [
            {"enterpriseApplicationId": grant.resource, "scope": ",".join(sorted(grant.scopes))} for grant in grants
        ],
    }


async def _delete(call: Call) -> tuple[int, Any]:
    customer = call.customer()
    _check_application(call, call.request.match_info["application"])
    _check_roles(call, customer)
    principal = customer.principal_of(call.app_id)
    if principal is None:
        raise PartnerCenterError(404, "1000", "There is no consent of this application.")
    if not call.world.switches["consent_removes_nothing"]:
        del customer.principals[principal.object_id]
        for grant in [one for one in customer.grants.values() if one.client == principal.object_id]:
            del customer.grants[grant.grant_id]
    return int(call.world.switches["consent_delete_status"]), None


def routes(world: World) -> list[web.RouteDef]:
    """Return the consent operations."""

    async def look(request: web.Request) -> web.Response:
        customer = world.tenants.get(request.match_info["customer"])
        if customer is None:
            raise web.HTTPNotFound
        apps = {one.object_id: one.app_id for one in customer.principals.values()}
        consents: dict[str, dict[str, list[str]]] = {}
        for grant in customer.grants.values():
            consents.setdefault(apps[grant.client], {})[apps[grant.resource]] = sorted(grant.scopes)
        return web.json_response(consents)

    path = "/v1/customers/{customer}/applicationconsents"
    return [
        route(world, "POST", path, "create consent", _create),
        route(world, "DELETE", path + "/{application}", "delete consent", _delete),
        web.get("/sandbox/consents/{customer}", look),
    ]
