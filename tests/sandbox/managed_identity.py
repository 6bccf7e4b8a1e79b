"""The endpoint from which a host in Azure gets tokens of its managed identity; plain http, as the real one.

The SDKs find it by ``AZURE_POD_IDENTITY_AUTHORITY_HOST``, the address of the sandbox's browser port.

Source: Azure Instance Metadata Service, "How to use managed identities to acquire an access token".
"""

from __future__ import annotations

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.notes import CLOUDS
from tests.sandbox.tokens import access_token, sign
from tests.sandbox.world import Application, ManagedIdentity, World, known_id

PATH = "/metadata/identity/oauth2/token"
_SECONDS = 86_400


def routes(world: World) -> list[web.RouteDef]:
    """Return the route that answers whatever host is asked, as the real one is asked by address."""

    async def token(request: web.Request) -> web.Response:
        if request.headers.get("Metadata", "").lower() != "true":
            return _refuse("The Metadata header is missing.")
        clouds = [
            each for each in request[CLOUDS].values() if request.query.get("resource") == each.federation_audience
        ]
        identity = world.identities.get(request.query.get("client_id", ""))
        of_graph = [each for each in request[CLOUDS].values() if request.query.get("resource") == each.graph]
        if identity is not None and of_graph:
            world.book("identity", "token", 200, client=identity.client_id)
            return _answer(_graph_token(world, of_graph[0], identity), of_graph[0].graph, identity, int(world.now()))
        if not clouds or identity is None:
            return _refuse("Identity not found")
        world.book("identity", "token", 200, client=identity.client_id)
        now = int(world.now())
        claims = {
            "aud": clouds[0].federation_audience,
            "iss": issuer(clouds[0], identity),
            "sub": identity.principal_id,
            "oid": identity.principal_id,
            "appid": identity.client_id,
            "tid": identity.tenant_id,
            "idtyp": "app",
            "iat": now,
            "nbf": now,
            "exp": now + _SECONDS,
        }
        return _answer(sign(clouds[0].key, claims), clouds[0].federation_audience, identity, now)

    return [web.get(PATH, token)]


def _answer(token: str, resource: str, identity: ManagedIdentity, now: int) -> web.Response:
    return web.json_response(
        {
            "access_token": token,
            "client_id": identity.client_id,
            "expires_in": str(_SECONDS),
            "expires_on": str(now + _SECONDS),
            "not_before": str(now),
            "resource": resource,
            "token_type": "Bearer",
        }
    )


def _graph_token(world: World, cloud: NationalCloud, identity: ManagedIdentity) -> str:
    itself = Application(
        app_id=identity.client_id, name="identity", home_tenant=identity.tenant_id, roles=set(identity.roles)
    )
    return access_token(
        world,
        cloud,
        tenant=world.tenants[identity.tenant_id],
        audience=cloud.graph,
        application=itself,
        credential="2",
        user=None,
        home=None,
        scopes=set(),
        amr=[],
    )


def _refuse(text: str) -> web.Response:
    return web.json_response({"error": "invalid_request", "error_description": text}, status=400)


def issuer(cloud: NationalCloud, identity: ManagedIdentity) -> str:
    """Return the issuer of the identity's tokens."""
    return f"{cloud.authority}/{identity.tenant_id}/v2.0"


def trust(world: World, cloud: NationalCloud, application: Application, client_id: str) -> ManagedIdentity:
    """Assign an identity to the host and let the application trust it, as its owner would in Entra."""
    identity = ManagedIdentity(
        client_id=client_id, principal_id=known_id("principal", client_id), tenant_id=application.home_tenant
    )
    world.identities[client_id] = identity
    application.federated.append((issuer(cloud, identity), identity.principal_id, cloud.federation_audience))
    return identity
