"""Being written."""

from aiohttp import web

from portal.sandbox.world import World


def routes(world: World) -> list[web.RouteDef]:
    return []
