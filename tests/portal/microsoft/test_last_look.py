"""The last look: a request that may not leave any more sends no byte, however far it came."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from portal.microsoft.api import ApiClient, GuardedSource, RetryPolicy
from portal.microsoft.http import GuardedSession, last_look, nothing_was_sent
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from tests.support.tls_server import Authority, Connection, good_answer, read_request, tls_server

pytestmark = pytest.mark.req("S-80")


class Stopped(Exception):
    pass


def test_a_request_is_kept_back_at_the_last_moment_and_the_next_one_leaves(tmp_path: Path) -> None:
    authority, seen, may = Authority(tmp_path, "throw-away"), [], [True]

    def answer(connection: Connection, closing: threading.Event) -> None:
        if head := read_request(connection):  # one for each connection, so that nobody waits for another at the end
            seen.append(head)
            connection.sendall(good_answer(b"{}"))

    def look() -> None:
        if not may[0]:
            raise Stopped

    with (
        tls_server(authority.context(), answer) as server,
        GuardedSession(is_allowed=lambda netloc: True, ca_file=str(authority.file), loopback=True) as session,
    ):
        client = ApiClient(
            base_url=server.url,
            session=session,
            token_source=GuardedSource(lambda: Secret("token"), look),
            correlation_id=CorrelationId("1"),
            retry=RetryPolicy(tries=1),
        )
        client.request("GET", "/", operation="read")
        may[0] = False

        with pytest.raises(Stopped):
            client.request("GET", "/", operation="read")
        with last_look(look), pytest.raises(Stopped):
            session.get(f"{server.url}/")

        assert nothing_was_sent()
        assert len(seen) == 1
        session.get(f"{server.url}/")  # whom nobody asked to look is not kept back
        assert not nothing_was_sent()
        assert len(seen) == 2
