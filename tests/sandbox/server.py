"""One asyncio process that answers for all hosts of all clouds, over TLS on the loopback interface.

A second, plain-http port answers browsers for the sign-in pages and the control address only: a person's browser does
not know the throw-away CA.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from portal.microsoft.clouds import NationalCloud, local_clouds
from tests.sandbox import (
    certificates,
    control,
    entra,
    graph,
    key_vault_keys,
    managed_identity,
    pages,
    partner_center,
    scenarios,
)
from tests.sandbox.faults import Faults
from tests.sandbox.notes import CLOUD, CLOUDS, CORRELATION, VAULT
from tests.sandbox.world import World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOOPBACK = "127.0.0.1"
MAX_REQUEST_BYTES = 1_000_000


class Sandbox:
    """The running imitation. In tests: ``with Sandbox(tmp_path) as sandbox``; as a command: ``await serve()``."""

    def __init__(self, directory: Path, *, port: int = 0, browser_port: int = 0, scenario: str = "minimal") -> None:
        self.directory = directory
        self.world = World()
        with ExitStack() as until_complete:  # a port that is taken or an unknown scenario leaves no socket behind
            self._socket = until_complete.enter_context(_listen(port))
            self._browser_socket = until_complete.enter_context(_listen(browser_port))
            self.port: int = self._socket.getsockname()[1]
            self.browser_port: int = self._browser_socket.getsockname()[1]
            self.clouds = local_clouds(self.port, self.browser_port)
            self.ca_file, self._certificate, self._key = certificates.make(directory)
            scenarios.load(self.world, scenario, self.clouds)
            until_complete.pop_all()
        self.faults = Faults(self.world)
        self._services: dict[str, web.Application] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    # --- running ----------------------------------------------------------------------------------------------

    async def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until :meth:`stop`."""
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        await web.SockSite(runner, self._socket, ssl_context=context).start()
        await web.SockSite(runner, self._browser_socket).start()
        ready()
        try:
            await self._stopping.wait()
        finally:
            self.faults.release()
            # Kept-alive clients would hold TLS connections open for the length of a graceful goodbye.
            for connection in runner.server.connections if runner.server else []:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()
            await asyncio.sleep(0)

    def stop(self) -> None:
        """End :meth:`serve`; callable from any thread."""
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(started.set)), daemon=True)
        self._thread.start()
        if not started.wait(20):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(20)

    # --- dispatch ---------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        modules: dict[str, Callable[[World], list[web.RouteDef]]] = {
            "login": entra.routes,
            "partnercenter": partner_center.routes,
            "graph": graph.routes,
            "vault": key_vault_keys.routes,
            "identity": managed_identity.routes,
        }
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        routers: dict[str, web.UrlDispatcher] = {}
        for name, routes in modules.items():
            routers[name] = web.UrlDispatcher()
            routers[name].add_routes(routes(self.world))
        routers["control"] = web.UrlDispatcher()
        routers["control"].add_routes(control.routes(self))
        for name in ("login", "control"):  # what browsers open
            routers[name].add_routes(pages.routes(self.world))

        async def dispatch(request: web.Request) -> web.StreamResponse:
            place = self._place(request)
            if place is None:
                return web.Response(status=421, text="The sandbox answers for no such host")
            service, cloud, name = place
            request[CLOUD], request[CLOUDS], request[VAULT] = cloud, self.clouds, name
            request[CORRELATION] = request.headers.get("client-request-id") or str(uuid.uuid4())
            match = await routers[service].resolve(request)
            handler: Handler = match.handler
            request._match_info = match  # aiohttp resolves once per request; the host chose another router here
            match.add_app(application)
            return await self.faults.around(service, request, handler)

        application.router.add_route("*", "/{anything:.*}", dispatch)
        return application

    def _place(self, request: web.Request) -> tuple[str, NationalCloud, str] | None:
        """Return service, cloud and vault name for the request's host."""
        if request.path == managed_identity.PATH and not request.secure:
            return "identity", self.clouds["global"], ""
        labels = request.host.partition(":")[0].lower().split(".")
        if labels == ["control", "localhost"]:
            return "control", self.clouds["global"], ""
        if len(labels) < 3 or labels[-1] != "localhost" or labels[-2] not in self.clouds:
            return None
        cloud = self.clouds[labels[-2]]
        if len(labels) == 4 and labels[1] == "vault" and request.secure:
            return "vault", cloud, labels[0]
        if len(labels) == 3 and labels[0] == "login":
            return "login", cloud, ""
        if len(labels) == 3 and labels[0] in {"partnercenter", "graph"} and request.secure:
            return labels[0], cloud, ""
        return None

    # --- for tests --------------------------------------------------------------------------------------------

    def sign_in(self, authorize_url: str, **choices: Any) -> entra.Answer:
        """Do what a person does on the sign-in pages, without a browser; see ``entra.sign_in``."""
        return entra.sign_in(self.world, self.clouds, authorize_url, **choices)


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(512)
    except OSError:
        listening.close()
        raise
    return listening
