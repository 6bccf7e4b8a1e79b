"""Faults on the wire, per call: another answer, a delay, a hold, a cut connection, slow bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from aiohttp import web

from portal.sandbox.world import Fault, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Faults:
    """Stands around every handler. A fault may keep the effect and lose the answer, as networks do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._release = threading.Event()
        self.holding = 0

    def release(self) -> None:
        """Let all held requests go on."""
        self._release.set()

    def hold_again(self) -> None:
        self._release.clear()

    async def around(self, service: str, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self._take(service, request.method, request.path)
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
            self.holding += 1
            while not self._release.is_set():
                await asyncio.sleep(0.01)
            self.holding -= 1
        if fault.close == "after":
            return _cut(request)
        if fault.slow_bytes and isinstance(response, web.Response):
            return await _slowly(request, response, fault.slow_bytes)
        return response

    def _take(self, service: str, method: str, path: str) -> Fault | None:
        for fault in list(self._world.faults):
            if not fault.matches(service, method, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                return None
            fault.times -= 1
            if fault.times <= 0:
                self._world.faults.remove(fault)
            return fault
        return None


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
