"""Faults on the wire, per call: another answer, a delay, a hold, a cut connection, slow bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.sandbox.tokens import unb64
from tests.sandbox.world import Fault, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Faults:
    """Stands around every handler. A fault may keep the effect and lose the answer, as networks do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._releases = 0
        self.holding = 0
        """How many requests are held right now."""

    def release(self) -> None:
        """Let all requests that are held now go on; callable from any thread."""
        self._releases += 1

    async def around(self, service: str, request: web.Request, handler: Handler) -> web.StreamResponse:
        if (latency := self._world.switches["latency"]) and service != "control":
            await asyncio.sleep(latency)
        fault = self._take(service, request)
        if fault is None:
            return await handler(request)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.close == "before":
            return _cut(request)
        if fault.status is not None:
            await request.read()
            self._world.book(service, f"{request.method} {request.path}", fault.status, fault=True)
            headers = {"Content-Type": "application/json", **fault.headers}
            response: web.StreamResponse = web.Response(status=fault.status, text=fault.body or "", headers=headers)
        else:
            response = await handler(request)
        if fault.hold:
            await self._hold()
        if fault.close == "after":
            return _cut(request)
        if fault.gzip:
            response.enable_compression(web.ContentCoding.gzip)
        if fault.slow_bytes and isinstance(response, web.Response):
            return await _slowly(request, response, fault.slow_bytes)
        return response

    async def _hold(self) -> None:
        releases = self._releases
        self.holding += 1
        try:
            while self._releases == releases:
                await asyncio.sleep(0.01)
        finally:
            self.holding -= 1

    def _take(self, service: str, request: web.Request) -> Fault | None:
        if not self._world.faults:
            return None
        tenants = f"{request.path} {_issuing_tenant(request)}"
        return take(self._world, service, request.method, request.path, tenants)


def take(world: World, service: str, method: str, path: str, tenants: str, *, answers: bool = False) -> Fault | None:
    """Return the fault that this call meets, and count it; with ``answers`` only one that answers instead."""
    for fault in list(world.faults):
        if not fault.matches(service, method, path, tenants) or (answers and fault.status is None):
            continue
        if fault.skip > 0:
            fault.skip -= 1
            continue
        fault.times -= 1
        if fault.times <= 0:
            world.faults.remove(fault)
        return fault
    return None


def _issuing_tenant(request: web.Request) -> str:
    """Return the tenant that a bearer token claims to be of; nobody decides by it but the faults."""
    _, _, token = request.headers.get("Authorization", "").partition("Bearer ")
    try:
        return str(json.loads(unb64(token.split(".")[1]))["tid"])
    except (ValueError, LookupError, TypeError):
        return ""


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _slowly(request: web.Request, response: web.Response, seconds: float) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b""
    slow = web.StreamResponse(status=response.status, headers=response.headers)
    slow.content_length = len(body)
    await slow.prepare(request)
    for position in range(len(body)):
        await slow.write(body[position : position + 1])
        await asyncio.sleep(seconds)
    return slow
