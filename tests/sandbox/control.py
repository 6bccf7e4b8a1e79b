"""The control address: scenarios, clock, switches, faults, people, books. JSON in and out, loopback only.

Reading: GET ``/state``, ``/counters``, ``/ledger?last=N``, ``/crossings``. Changing: POST ``/reset`` {scenario},
``/clock`` {seconds}, ``/switches`` {name: value}, ``/faults``, ``/refusals``, ``/tampers`` (the fields of the
dataclass of that name in ``world``; DELETE clears), ``/release``, ``/users/<upn>``, ``/relationships/<id>``,
``/grants`` {tenant, application, scopes: of Microsoft Graph}, ``/applications/<id>`` {enabled, disabled_by_microsoft},
``/applications/<id>/credentials``, ``/authorize`` {url, user, mfa, accept}. Adding: POST ``/partners`` {key, name,
cloud, customers}, ``/customers`` {partner, key, name, status}, ``/applications`` {key, name, cloud, multi_tenant,
scopes, known_clients}, ``/policies`` {cloud, forbids_secrets, certificate_days, forbids_multi_tenant}. What cannot be
understood is answered with 400 and changes nothing.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.sandbox import scenarios
from tests.sandbox.entra import Shown
from tests.sandbox.managed_identity import trust
from tests.sandbox.management_policies import PolicyRefused, check_audience, check_certificate, check_secret
from tests.sandbox.world import GRAPH, Fault, ManagementPolicy, Refusal, Tamper, known_id

if TYPE_CHECKING:
    from tests.sandbox.server import Sandbox


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """Return the routes of ``control.localhost``."""
    world = sandbox.world

    async def read(request: web.Request) -> dict[str, Any]:
        body = await request.json() if request.can_read_body else {}
        if not isinstance(body, dict):
            raise web.HTTPBadRequest(text="a JSON object is expected")
        return body

    async def state(request: web.Request) -> web.Response:
        return web.json_response(scenarios.describe(world))

    async def counters(request: web.Request) -> web.Response:
        return web.json_response(dict(world.counters))

    async def ledger(request: web.Request) -> web.Response:
        return web.json_response(list(world.ledger)[-int(request.query.get("last", "1000")) :])

    async def crossings(request: web.Request) -> web.Response:
        return web.json_response(world.crossings)

    async def reset(request: web.Request) -> web.Response:
        scenarios.load(world, (await read(request)).get("scenario", "minimal"), sandbox.clouds)
        return web.json_response(scenarios.describe(world))

    async def clock(request: web.Request) -> web.Response:
        """Move the world's time forward."""
        world.advance(float((await read(request))["seconds"]))
        return web.json_response({"now": world.now()})

    async def switches(request: web.Request) -> web.Response:
        changes = await read(request)
        if unknown := changes.keys() - world.switches.keys():
            raise web.HTTPBadRequest(text=f"no such switch: {', '.join(sorted(unknown))}")
        world.switches |= changes
        return web.json_response(world.switches)

    async def faults(request: web.Request) -> web.Response:
        world.faults.append(Fault(**await read(request)))
        return web.json_response({"faults": len(world.faults)})

    async def clear_faults(request: web.Request) -> web.Response:
        world.faults.clear()
        sandbox.faults.release()
        return web.json_response({"faults": 0})

    async def release(request: web.Request) -> web.Response:
        sandbox.faults.release()
        return web.json_response({"holding": sandbox.faults.holding})

    async def refusals(request: web.Request) -> web.Response:
        world.refusals.append(Refusal(**await read(request)))
        return web.json_response({"refusals": len(world.refusals)})

    async def clear_refusals(request: web.Request) -> web.Response:
        world.refusals.clear()
        return web.json_response({"refusals": 0})

    async def clear_tampers(request: web.Request) -> web.Response:
        world.tampers.clear()
        return web.json_response({"tampers": 0})

    async def tampers(request: web.Request) -> web.Response:
        world.tampers.append(Tamper(**await read(request)))
        return web.json_response({"tampers": len(world.tampers)})

    async def user(request: web.Request) -> web.Response:
        """Change an account: any of its fields, or ``{"revoke_sessions": true}``."""
        changes = await read(request)
        people = (one for tenant in world.tenants.values() for one in tenant.users.values())
        found = next((one for one in people if one.upn == request.match_info["upn"]), None)
        if found is None:
            raise web.HTTPNotFound(text="no such user")
        revoke = changes.pop("revoke_sessions", False)
        names = {each.name for each in dataclasses.fields(found)}
        if unknown := changes.keys() - names:
            raise web.HTTPBadRequest(text=f"no such field: {', '.join(sorted(unknown))}")
        if revoke:
            found.sessions_revoked_at = world.now()
        for name, value in changes.items():
            setattr(found, name, set(value) if name in {"roles", "groups"} else value)
        return web.json_response({"upn": found.upn})

    async def relationship(request: web.Request) -> web.Response:
        """Change the status of a GDAP relationship."""
        for one in world.relationships:
            if one.relationship_id == request.match_info["id"]:
                one.status = (await read(request))["status"]
                one.etag += 1
                return web.json_response({"status": one.status})
        raise web.HTTPNotFound(text="no such relationship")

    async def grants(request: web.Request) -> web.Response:
        """Change what an application holds of Microsoft Graph in a tenant, as an administrator there can."""
        body = await read(request)
        tenant = world.tenants[body["tenant"]]
        client, resource = tenant.principal_of(body["application"]), tenant.principal_of(GRAPH)
        for one in tenant.grants.values():
            if client and resource and (one.client, one.resource) == (client.object_id, resource.object_id):
                one.scopes = set(body["scopes"])
                return web.json_response({"scopes": sorted(one.scopes)})
        raise web.HTTPNotFound(text="no such grant")

    async def registration(request: web.Request) -> web.Response:
        """Disable a registration for all tenants, as its owner can (``enabled``), or Microsoft.

        What the body does not name stays.
        """
        application = world.applications.get(request.match_info["app_id"])
        if application is None:
            raise web.HTTPNotFound(text="no such application")
        changes = await read(request)
        if not changes or changes.keys() - {"enabled", "disabled_by_microsoft"}:
            raise web.HTTPBadRequest(text="enabled, disabled_by_microsoft")
        application.enabled = bool(changes.get("enabled", application.enabled))
        application.disabled_by_microsoft = bool(
            changes.get("disabled_by_microsoft", application.disabled_by_microsoft)
        )
        return web.json_response(
            {"enabled": application.enabled, "disabled_by_microsoft": application.disabled_by_microsoft}
        )

    async def add_application(request: web.Request) -> web.Response:
        """Register an application in the vendor's tenant; ``scopes``: what it offers, as a service of the vendor."""
        body = await read(request)
        cloud, key = sandbox.clouds[body.pop("cloud", "global")].key, str(body.pop("key"))
        app_id, scopes = known_id("application", key), set(body.pop("scopes", ()))
        clients = set(body.pop("known_clients", ()))
        if app_id in world.applications:
            raise ValueError("there is such an application")
        name, multi_tenant = str(body.pop("name")), bool(body.pop("multi_tenant", True))
        unknown(body)
        if strange := clients - world.applications.keys():
            raise KeyError(*strange)
        check_audience(world, scenarios.vendor_tenant(cloud), multi_tenant=multi_tenant)
        made = scenarios.add_application(world, app_id, name, cloud=cloud, multi_tenant=multi_tenant)
        made.known_clients = clients
        for client in clients:
            world.applications[client].permissions[app_id] = scopes
        return web.json_response({"app_id": app_id, "home_tenant": made.home_tenant}, status=201)

    async def add_partner(request: web.Request) -> web.Response:
        """Add a partner with its people and customers; ids follow from ``key``."""
        body = await read(request)
        cloud, key = sandbox.clouds[body.pop("cloud", "global")].key, str(body.pop("key"))
        if known_id("tenant", key) in world.tenants:
            raise ValueError("there is such a tenant")
        name, customers = str(body.pop("name")), int(body.pop("customers", 0))
        unknown(body)
        made = scenarios.add_partner(world, key, name, cloud=cloud, customers=customers)
        return web.json_response({"tenant_id": made.tenant_id, "domain": made.domain}, status=201)

    async def add_customer(request: web.Request) -> web.Response:
        """Add a customer of a partner, with a relationship that gives the partner's GDAP group its roles."""
        body = await read(request)
        partner, key = world.tenants[body.pop("partner")], str(body.pop("key"))
        if known_id("tenant", key) in world.tenants or partner.kind != "partner":
            raise ValueError("there is such a tenant, or this is no partner")
        name, status = str(body.pop("name")), str(body.pop("status", "active"))
        unknown(body)
        group = next(one for one, label in partner.groups.items() if label.startswith("GDAP"))
        made = scenarios.add_customer(world, partner, key, name, group, status=status)
        return web.json_response({"tenant_id": made.tenant_id, "domain": made.domain}, status=201)

    async def policies(request: web.Request) -> web.Response:
        """Set the application management policy of the vendor's tenant in a cloud; an empty one forbids nothing."""
        body = await read(request)
        tenant_id = scenarios.vendor_tenant(sandbox.clouds[body.pop("cloud", "global")].key)
        world.policies[tenant_id] = ManagementPolicy(**body)
        return web.json_response({"tenant_id": tenant_id})

    async def credential(request: web.Request) -> web.Response:
        """Register a credential with the application, as its owner would.

        ``certificate``: base64 DER; ``secret``; or ``managed_identity``: a client id, which the host gets as well.
        """
        body = await read(request)
        application = world.applications.get(request.match_info["app_id"])
        if application is None:
            raise web.HTTPNotFound(text="no such application")
        if "certificate" in body:
            der = base64.b64decode(body["certificate"])
            check_certificate(world, application.home_tenant, der)
            application.certificates.append(der)
        if "managed_identity" in body:
            trust(world, sandbox.clouds[body.get("cloud", "global")], application, body["managed_identity"])
        if "secret" in body:
            check_secret(world, application.home_tenant)
            application.secrets[body["secret"]] = world.now() + float(body.get("seconds", 86_400 * 365))
        if "redirect_uri" in body:
            application.redirect_uris.add(body["redirect_uri"])
        return web.json_response({"certificates": len(application.certificates)})

    async def authorize(request: web.Request) -> web.Response:
        """Go through the sign-in pages for a person: ``url``, ``user``, ``mfa``, ``accept``."""
        body = await read(request)
        try:
            answer = sandbox.sign_in(body.pop("url"), **body)
        except Shown as shown:
            return web.json_response({"shown": shown.code}, status=409)
        return web.json_response({"url": answer.url, "method": answer.method, "fields": answer.fields})

    listed = [
        web.get("/state", state),
        web.get("/counters", counters),
        web.get("/ledger", ledger),
        web.get("/crossings", crossings),
        web.post("/reset", reset),
        web.post("/clock", clock),
        web.post("/switches", switches),
        web.post("/faults", faults),
        web.delete("/faults", clear_faults),
        web.post("/release", release),
        web.post("/refusals", refusals),
        web.delete("/refusals", clear_refusals),
        web.post("/tampers", tampers),
        web.delete("/tampers", clear_tampers),
        web.post("/users/{upn}", user),
        web.post("/relationships/{id}", relationship),
        web.post("/grants", grants),
        web.post("/partners", add_partner),
        web.post("/customers", add_customer),
        web.post("/applications", add_application),
        web.post("/policies", policies),
        web.post("/applications/{app_id}", registration),
        web.post("/applications/{app_id}/credentials", credential),
        web.post("/authorize", authorize),
    ]
    return [web.route(each.method, each.path, _understood(each.handler)) for each in listed]


def unknown(rest: dict[str, Any]) -> None:
    """Refuse members that nothing reads.

    Raises:
        ValueError: there is one.
    """
    if rest:
        raise ValueError(f"nothing reads {', '.join(sorted(rest))}")


def _understood(handler: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answer 400 for a body that the handler cannot use."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except PolicyRefused as refused:
            return web.json_response({"error": {"code": refused.code, "message": refused.text}}, status=400)
        except (KeyError, TypeError, ValueError) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")
        return response

    return guarded
