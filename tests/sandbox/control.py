"""The control address: scenarios, clock, switches, faults, people, books. JSON in and out, loopback only.

Reading: GET ``/state``, ``/counters``, ``/ledger?last=N``, ``/crossings``. Changing: POST ``/reset`` {scenario},
``/clock`` {seconds}, ``/switches`` {name: value}, ``/faults``, ``/refusals``, ``/tampers`` (the fields of the
dataclass of that name in ``world``; DELETE clears), ``/release``, ``/users/<upn>``, ``/relationships/<id>``,
``/grants`` {tenant, application, scopes: of Microsoft Graph}, ``/applications/<id>`` {enabled},
``/applications/<id>/credentials``, ``/authorize`` {url, user, mfa, accept}. What cannot be understood is answered
with 400 and changes nothing.
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
from tests.sandbox.world import GRAPH, Fault, Refusal, Tamper

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
        """Disable a registration for all tenants, as its owner can, or enable it again: ``enabled``."""
        application = world.applications.get(request.match_info["app_id"])
        if application is None:
            raise web.HTTPNotFound(text="no such application")
        application.enabled = bool((await read(request))["enabled"])
        return web.json_response({"enabled": application.enabled})

    async def credential(request: web.Request) -> web.Response:
        """Register a credential with the application, as its owner would.

        ``certificate``: base64 DER; ``secret``; or ``managed_identity``: a client id, which the host gets as well.
        """
        body = await read(request)
        application = world.applications.get(request.match_info["app_id"])
        if application is None:
            raise web.HTTPNotFound(text="no such application")
        if "certificate" in body:
            application.certificates.append(base64.b64decode(body["certificate"]))
        if "managed_identity" in body:
            trust(world, sandbox.clouds[body.get("cloud", "global")], application, body["managed_identity"])
        if "secret" in body:
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
        web.post("/applications/{app_id}", registration),
        web.post("/applications/{app_id}/credentials", credential),
        web.post("/authorize", authorize),
    ]
    return [web.route(each.method, each.path, _understood(each.handler)) for each in listed]


def _understood(handler: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answer 400 for a body that the handler cannot use."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except (KeyError, TypeError, ValueError) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")
        return response

    return guarded
