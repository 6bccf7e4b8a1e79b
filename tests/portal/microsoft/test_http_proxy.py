"""Through a proxy the same guards hold as without one."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable

import pytest

from portal.microsoft.http import GuardedSession, last_look
from tests.support.tls_server import HOST, Authority, Connection, good_answer, raw_server, read_request, tls_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "throw-away")


def tunnel(seen: list[bytes], port: int) -> Callable[[socket.socket, threading.Event], None]:
    """Return what a proxy does with a connection: read where it shall lead, and pass on bytes both ways."""

    def serve(client: socket.socket, closing: threading.Event) -> None:
        seen.append(client.recv(65_536))
        with socket.create_connection(("127.0.0.1", port)) as target:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            while not closing.is_set():
                ready, _, _ = select.select([client, target], [], [], 0.2)
                for one in ready:
                    if not (part := one.recv(65_536)):
                        return
                    (target if one is client else client).sendall(part)

    return serve


@pytest.mark.req("S-26")
@pytest.mark.req("S-80")
def test_through_a_proxy_requests_name_the_host_behind_it_and_every_guard_holds(authority: Authority) -> None:
    requests_seen: list[bytes] = []
    asked: list[bytes] = []

    def answer(connection: Connection, closing: threading.Event) -> None:
        while request := read_request(connection):
            requests_seen.append(request)
            connection.sendall(good_answer(b'{"a": 1}'))

    with (
        tls_server(authority.context(), answer) as server,
        raw_server(tunnel(asked, server.port)) as proxy,
        GuardedSession(
            is_allowed=lambda netloc: True,
            ca_file=str(authority.file),
            proxies={"https": f"http://127.0.0.1:{proxy.port}"},
            loopback=True,
        ) as session,
    ):
        assert session.get(f"{server.url}/v1").json() == {"a": 1}

        def keep_back() -> None:
            raise LookupError

        with last_look(keep_back), pytest.raises(LookupError):  # S-80
            session.get(f"{server.url}/v1")
        session.get(f"{server.url}/v1")
        session.close()
        assert (server.connections, proxy.connections) == (2, 2)  # a request that was kept back closes its own
    named = f"{HOST}:{server.port}".encode()
    assert asked[0].startswith(b"CONNECT " + named + b" HTTP/1.")
    assert [b"\r\nHost: " + named + b"\r\n" in request for request in requests_seen] == [True, True]
