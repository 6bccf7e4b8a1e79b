"""The guarded session against a real server over real TLS: time limits, size limits and certificates."""

from __future__ import annotations

import gzip
import math
import os
import socket
import ssl
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from portal.microsoft import http
from portal.microsoft.api import ApiClient, RetryPolicy
from portal.microsoft.breakers import FAILURES
from portal.microsoft.certificates import certificates
from portal.microsoft.diagnosis import FailureClass, diagnose
from portal.microsoft.errors import NoAnswer, RemoteError, UnexpectedResponse, Unreachable
from portal.microsoft.http import GuardedSession, time_budget
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from tests.support.sentences import check_words
from tests.support.tls_server import (
    HOST,
    Authority,
    Connection,
    Server,
    good_answer,
    raw_server,
    read_request,
    tls_server,
)

SECONDS = 0.4
LATEST = SECONDS + 2  # wall time within the limit + 2 s
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

type Behaviour = Callable[[Connection, threading.Event], None]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "throw-away")


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return authority.context()


def session_for(ca_file: Path | None) -> GuardedSession:
    return GuardedSession(
        is_allowed=lambda netloc: netloc.startswith(f"{HOST}:"),
        ca_file=str(ca_file) if ca_file else None,
        loopback=True,
    )


@pytest.fixture
def session(authority: Authority) -> Iterator[GuardedSession]:
    with session_for(authority.file) as session:
        yield session


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all limits; the total one is the shortest, so that it is the one that acts where bytes keep coming."""
    monkeypatch.setattr(http, "CONNECT_SECONDS", SECONDS)
    monkeypatch.setattr(http, "READ_SECONDS", SECONDS)
    monkeypatch.setattr(http, "TOTAL_SECONDS", SECONDS)


def answering(answer: bytes) -> Behaviour:
    def answer_all(connection: Connection, closing: threading.Event) -> None:
        while read_request(connection):
            connection.sendall(answer)

    return answer_all


def drip(text: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Send one byte at a time, each well within the read limit, for much longer than the total limit."""

    def send(connection: socket.socket, closing: threading.Event) -> None:
        for byte in text:
            connection.sendall(bytes([byte]))
            if closing.wait(SECONDS / 8):
                return

    return send


def client_for(session: GuardedSession, server: Server) -> ApiClient:
    return ApiClient(
        base_url=server.url,
        session=session,
        token_source=lambda: Secret("the access token"),
        correlation_id=CorrelationId("a2f3c4d5-6e7f-4081-92a3-b4c5d6e7f809"),
        retry=RetryPolicy(tries=1),
    )


def call(session: GuardedSession, server: Server, **keywords: Any) -> Any:
    return client_for(session, server).request("GET", "/v1.0/organization", operation="read", **keywords).body


def fails_in_time(session: GuardedSession, server: Server, kind: type[RemoteError]) -> None:
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        client_for(session, server).record(call(session, server), "read")
    assert type(caught.value) is kind
    assert time.monotonic() - started < LATEST


def test_a_good_answer_comes_over_tls_and_the_connection_is_kept(
    session: GuardedSession, context: ssl.SSLContext
) -> None:
    seen: list[bytes] = []

    def answer(connection: Connection, closing: threading.Event) -> None:
        while request := read_request(connection):
            seen.append(request)
            connection.sendall(good_answer(b'{"a": 1}'))

    with tls_server(context, answer) as server:
        assert [call(session, server) for _ in range(3)] == [{"a": 1}] * 3
        assert server.connections == 1
        assert seen[0].startswith(b"GET /v1.0/organization HTTP/1.1\r\n")
        assert f"Host: {HOST}:{server.port}\r\n".encode() in seen[0]
        session.close()


@pytest.mark.req("R-13")
def test_a_kept_connection_has_the_whole_time_again_after_a_call_that_had_little(
    session: GuardedSession, context: ssl.SSLContext
) -> None:
    def answer(connection: Connection, closing: threading.Event) -> None:
        for seconds in (0.0, 2 * SECONDS):
            read_request(connection)
            closing.wait(seconds)
            connection.sendall(good_answer(b"{}"))

    with tls_server(context, answer) as server:
        with time_budget(SECONDS):
            call(session, server)
        assert call(session, server) == {}
        assert server.connections == 1
        session.close()


def test_the_limit_of_a_kept_connection_is_not_set_anew_for_each_call(
    session: GuardedSession, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[float | None] = []
    before = ssl.SSLSocket.settimeout

    def noted(self: ssl.SSLSocket, value: float | None) -> None:
        changes.append(value)
        before(self, value)

    with tls_server(context, answering(good_answer(b"{}"))) as server:
        call(session, server)
        monkeypatch.setattr(ssl.SSLSocket, "settimeout", noted, raising=False)
        call(session, server)
        assert changes == []
        session.close()


# --- time ---------------------------------------------------------------------------------------------------------


def silent(connection: Connection, closing: threading.Event) -> None:
    closing.wait(20)


def silent_after_request(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    closing.wait(20)


def drips_headers(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    drip(HEAD + b"X: " + b"a" * 1000)(connection, closing)


def drips_body(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    drip(b"[" + b" " * 999)(connection, closing)


def drips_chunks(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    drip(b"1\r\n \r\n" * 200)(connection, closing)


def drips_compressed(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 500000\r\n\r\n")
    drip(gzip.compress(os.urandom(2000)))(connection, closing)


def stops_in_body(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"value": [')
    closing.wait(20)


def never_ends_without_length(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.sendall(HEAD + b"Connection: close\r\n\r\n{}")
    closing.wait(20)


def reads_slowly(connection: Connection, closing: threading.Event) -> None:
    while not closing.wait(SECONDS / 20):
        connection.recv(65_536)


def continues_forever(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    while not closing.wait(0.001):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.req("R-13")
@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        silent_after_request,
        drips_headers,
        drips_body,
        drips_chunks,
        drips_compressed,
        stops_in_body,
        never_ends_without_length,
        continues_forever,
    ],
    ids=lambda behaviour: behaviour.__name__,
)
def test_a_slow_server_holds_nobody_longer_than_the_limit(
    session: GuardedSession, context: ssl.SSLContext, behaviour: Behaviour
) -> None:
    with tls_server(context, behaviour) as server:
        fails_in_time(session, server, Unreachable)
        assert server.handshakes == 1


@pytest.mark.req("R-13")
@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("behaviour", [silent, drip(b"\x16\x03\x03\x40\x00" + bytes(200))], ids=["silent", "drips"])
def test_a_server_that_never_finishes_the_handshake_holds_nobody(session: GuardedSession, behaviour: Any) -> None:
    with raw_server(behaviour) as server:
        fails_in_time(session, server, Unreachable)


@pytest.mark.req("R-13")
@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("behaviour", [silent, reads_slowly], ids=["does not read", "reads slowly"])
def test_a_server_that_does_not_take_the_request_holds_nobody(
    session: GuardedSession, context: ssl.SSLContext, behaviour: Behaviour
) -> None:
    with tls_server(context, behaviour) as server:
        started = time.monotonic()
        with pytest.raises(requests.exceptions.RequestException):
            session.post(server.url, data=bytes(30_000_000))
        assert time.monotonic() - started < LATEST
        assert server.handshakes == 1


@pytest.mark.req("R-13")
def test_the_budget_of_a_unit_of_work_is_shorter_than_the_limit_of_a_call(
    session: GuardedSession, context: ssl.SSLContext
) -> None:
    with tls_server(context, drips_body) as server:
        with time_budget(SECONDS):
            fails_in_time(session, server, Unreachable)
            fails_in_time(session, server, Unreachable)  # nothing is left: at once
        assert server.connections == 1


@pytest.mark.req("R-13")
@pytest.mark.usefixtures("_short")
def test_a_caller_cannot_lift_the_total_limit(session: GuardedSession, context: ssl.SSLContext) -> None:
    with tls_server(context, drips_headers) as server:
        started = time.monotonic()
        with pytest.raises(requests.exceptions.RequestException):
            session.get(server.url, timeout=60, stream=True)
        assert time.monotonic() - started < LATEST


@pytest.mark.req("R-13")
@pytest.mark.usefixtures("_short")
def test_workers_are_free_again_after_a_slow_server(session: GuardedSession, context: ssl.SSLContext) -> None:
    with tls_server(context, drips_body) as slow, tls_server(context, answering(good_answer())) as good:
        with ThreadPoolExecutor(8) as workers:
            failures = [workers.submit(fails_in_time, session, slow, Unreachable) for _ in range(8)]
            assert [failure.result() for failure in failures] == [None] * 8
            answers = [workers.submit(call, session, good) for _ in range(8)]
            assert [answer.result() for answer in answers] == [{}] * 8
        session.close()


# --- broken and hostile connections -------------------------------------------------------------------------------


def chunk_of_a_bomb() -> bytes:
    return gzip.compress(bytes(20_000_000), compresslevel=9)


def sends(text: bytes) -> Behaviour:
    def send(connection: Connection, closing: threading.Event) -> None:
        read_request(connection)
        connection.sendall(text)

    return send


def sends_forever(head: bytes, part: bytes) -> Behaviour:
    def send(connection: Connection, closing: threading.Event) -> None:
        read_request(connection)
        connection.sendall(head)
        while not closing.is_set():
            connection.sendall(part)

    return send


def resets(connection: Connection, closing: threading.Event) -> None:
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN: dict[str, tuple[Behaviour, type[RemoteError]]] = {
    "closes without an answer": (sends(b""), Unreachable),
    "resets the connection": (resets, Unreachable),
    "closes in the status line": (sends(b"HTTP/1.1 2"), Unreachable),
    "closes in the headers": (sends(HEAD + b"Conte"), UnexpectedResponse),
    "closes in the body": (sends(HEAD + b"Content-Length: 100\r\n\r\n{}"), Unreachable),
    "closes in a chunk": (sends(CHUNKED + b"ff\r\n{}"), Unreachable),
    "closes before the last chunk": (sends(CHUNKED + b"2\r\n{}\r\n"), Unreachable),
    "speaks another protocol": (sends(b"220 mail.example ESMTP\r\n"), Unreachable),
    "status is no number": (sends(b"HTTP/1.1 OK fine\r\n\r\n"), Unreachable),
    "status is out of range": (sends(b"HTTP/1.1 999999 x\r\n\r\n"), Unreachable),
    "a header line of 70 kB": (sends(HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n{}"), Unreachable),
    "a thousand headers": (sends(HEAD + b"X: a\r\n" * 1000 + b"\r\n{}"), Unreachable),
    "headers without end": (sends_forever(HEAD, b"X: a\r\n"), Unreachable),
    "a status line without end": (sends_forever(b"HTTP/1.1 200 ", b"a" * 10_000), Unreachable),
    "chunk size is no number": (sends(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), Unreachable),
    "chunk size is negative": (sends(CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n"), UnexpectedResponse),
    "chunk size is minus one and the rest has no end": (sends_forever(CHUNKED + b"-1\r\n", b" " * 65_536), Unreachable),
    "a body without end": (sends_forever(HEAD + b"Connection: close\r\n\r\n", b" " * 65_536), UnexpectedResponse),
    "chunks without end": (sends_forever(CHUNKED, b"1000\r\n" + b" " * 4096 + b"\r\n"), UnexpectedResponse),
    "a length of ten gigabytes": (
        sends_forever(HEAD + b"Content-Length: 10000000000\r\n\r\n", b" " * 65_536),
        UnexpectedResponse,
    ),
    "a compressed bomb": (
        sends_forever(HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n", chunk_of_a_bomb()),
        UnexpectedResponse,
    ),
    "two lengths": (sends(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), Unreachable),
}


@pytest.mark.req("R-25")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_is_no_answer_and_memory_stays_bounded(
    session: GuardedSession, context: ssl.SSLContext, name: str
) -> None:
    behaviour, kind = BROKEN[name]
    with tls_server(context, behaviour) as server:
        tracemalloc.start()
        try:
            fails_in_time(session, server, kind)
            assert tracemalloc.get_traced_memory()[1] < 50_000_000
        finally:
            tracemalloc.stop()
        assert server.handshakes == 1


def test_a_connection_with_a_rest_on_it_is_not_used_again(session: GuardedSession, context: ssl.SSLContext) -> None:
    behaviour = sends_forever(HEAD + b"Content-Length: 10000000000\r\n\r\n", b" " * 65_536)
    with tls_server(context, behaviour) as server:
        fails_in_time(session, server, UnexpectedResponse)
        fails_in_time(session, server, UnexpectedResponse)
        assert server.connections == 2


@pytest.mark.req("S-26")
def test_a_redirect_makes_no_second_connection(session: GuardedSession, context: ssl.SSLContext) -> None:
    with tls_server(context, answering(good_answer())) as other:
        for status in (301, 302, 303, 307, 308):
            answer = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}/\r\nConnection: close\r\n\r\nmoved"
            with tls_server(context, sends(answer.encode())) as server:
                fails_in_time(session, server, UnexpectedResponse)
        assert other.connections == 0


def test_threads_share_a_session_and_never_an_answer(session: GuardedSession, context: ssl.SSLContext) -> None:
    def echo(connection: Connection, closing: threading.Event) -> None:
        while request := read_request(connection):
            number = request.partition(b"X-Number: ")[2].partition(b"\r\n")[0]
            connection.sendall(good_answer(number))

    with tls_server(context, echo) as server, ThreadPoolExecutor(16) as workers:
        answers = workers.map(lambda number: call(session, server, headers={"X-Number": str(number)}), range(1, 200))
        assert list(answers) == list(range(1, 200))
        session.close()


# --- certificates -------------------------------------------------------------------------------------------------


@pytest.fixture
def other_authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "another")


def refuses(session: GuardedSession, context: ssl.SSLContext, why: str) -> None:
    seen: list[bytes] = []

    def note(connection: Connection, closing: threading.Event) -> None:
        seen.append(read_request(connection))
        connection.sendall(good_answer())

    with tls_server(context, note) as server:
        for keywords in ({}, {"verify": False}, {"verify": None}, {"cert": None, "verify": False}):
            with pytest.raises(requests.exceptions.SSLError, match=why):
                session.get(server.url, headers={"Authorization": "Bearer x"}, **keywords)
        fails_in_time(session, server, Unreachable)
    assert not any(seen)


@pytest.mark.req("S-26")
@pytest.mark.parametrize(
    ("host", "days", "why"),
    [
        (HOST, -1, "certificate has expired"),
        ("graph.china.localhost", 1, "Hostname mismatch"),
        ("evil.example", 1, "Hostname mismatch"),
        ("localhost", 1, "Hostname mismatch"),
    ],
)
def test_a_certificate_that_has_ended_or_names_another_host_is_refused(
    session: GuardedSession, authority: Authority, host: str, days: int, why: str
) -> None:
    refuses(session, authority.context(host, days=days), why)


@pytest.mark.req("S-26")
def test_a_certificate_of_an_unknown_authority_is_refused_and_verify_false_changes_nothing(
    session: GuardedSession, other_authority: Authority
) -> None:
    refuses(session, other_authority.context(), "unable to get local issuer certificate")
    session.verify = False
    refuses(session, other_authority.context(), "unable to get local issuer certificate")


@pytest.mark.req("S-26")
def test_the_environment_cannot_add_an_authority(other_authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other_authority.file))
    monkeypatch.setenv("SSL_CERT_DIR", str(other_authority.file.parent))
    with session_for(None) as session:
        refuses(session, other_authority.context(), "unable to get local issuer certificate")


@pytest.mark.req("S-26")
def test_the_environment_cannot_take_an_authority_away_nor_add_a_proxy_or_a_password(
    session: GuardedSession, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST} login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[bytes] = []

    def note(connection: Connection, closing: threading.Event) -> None:
        seen.append(read_request(connection))
        connection.sendall(good_answer(headers="Connection: close\r\n"))

    with tls_server(context, note) as server:
        assert session.get(server.url).status_code == 200
    assert b"authorization" not in seen[0].lower()


@pytest.mark.req("S-26")
def test_old_tls_is_not_spoken(session: GuardedSession, authority: Authority) -> None:
    context = authority.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    refuses(session, context, "protocol version")


# --- names --------------------------------------------------------------------------------------------------------


def test_names_below_localhost_are_this_machine_whatever_the_resolver_says(
    session: GuardedSession, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def without_names(host: Any, *args: Any, **keywords: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "the resolver knows no names")
        return resolve(host, *args, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", without_names)
    with tls_server(context, answering(good_answer())) as server:
        assert call(session, server) == {}
        session.close()


def test_a_port_where_nobody_listens_is_unreachable(session: GuardedSession) -> None:
    with raw_server(lambda connection, closing: None) as server:
        pass
    fails_in_time(session, server, Unreachable)


# --- what is said of it -------------------------------------------------------------------------------------------

CAUSES: dict[str, tuple[NoAnswer, str]] = {
    "expired": (NoAnswer.CERTIFICATE_EXPIRED, "The certificate of {host} has expired, or is not valid yet."),
    "another name": (NoAnswer.CERTIFICATE_NAME, "What answers as {host} has the certificate of another name."),
    "unknown issuer": (
        NoAnswer.CERTIFICATE_ISSUER,
        "The certificate of {host} has an issuer that this server does not trust.",
    ),
    "no TLS": (NoAnswer.TLS, "No TLS connection to {host} came about."),
    "unknown name": (NoAnswer.NAME, "The host name {host} is not known."),
    "refused": (NoAnswer.REFUSED, "The connection to {host} was refused."),
    "silent": (NoAnswer.SILENT, "{host} gave no answer in time."),
    "silent before TLS": (NoAnswer.SILENT, "{host} gave no answer in time."),
    "cut": (NoAnswer.BROKEN_OFF, "The connection to {host} broke off."),
}


@contextmanager
def failing(case: str, authority: Authority, other: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server that fails in this way."""

    def nobody_knows(*args: Any, **keywords: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "the resolver knows no names")

    def no_tls(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(b"220 mail.example ESMTP\r\n")

    def silent_below_tls(connection: socket.socket, closing: threading.Event) -> None:
        closing.wait(20)

    contexts = {
        "expired": authority.context(days=-1),
        "another name": authority.context("login.global.localhost"),
        "unknown issuer": other.context(),
    }
    if case == "unknown name":
        monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)
    if case in {"no TLS", "silent before TLS"}:
        with raw_server(no_tls if case == "no TLS" else silent_below_tls) as server:
            yield server
        return
    behaviour = sends(b"") if case == "cut" else silent_after_request
    with tls_server(contexts.get(case, authority.context()), behaviour) as server:
        if case == "refused":
            server.close()
        yield server


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("case", CAUSES)
def test_each_way_of_getting_no_answer_is_a_sentence_that_names_the_host(
    session: GuardedSession,
    authority: Authority,
    other_authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    why, sentence = CAUSES[case]
    certificates.take()

    with failing(case, authority, other_authority, monkeypatch) as server, pytest.raises(Unreachable) as caught:
        call(session, server)

    host = f"{HOST}:{server.port}"
    assert (caught.value.code, caught.value.host) == (why, host)
    assert host in str(caught.value)
    diagnosis = diagnose(caught.value)
    assert diagnosis.cause == sentence.format(host=host)
    assert (diagnosis.failure_class, diagnosis.retry) == (FailureClass.TEMPORARY, True)
    check_words(diagnosis)
    assert certificates.take() == ({host: why} if why.is_certificate else {}, frozenset())


@pytest.mark.usefixtures("_short")
def test_a_host_that_is_left_alone_still_says_why(session: GuardedSession, other_authority: Authority) -> None:
    with tls_server(other_authority.context(), silent) as server:
        for _ in range(FAILURES + 1):
            with pytest.raises(Unreachable) as caught:
                call(session, server)
        assert server.connections == FAILURES
    assert caught.value.code == NoAnswer.CERTIFICATE_ISSUER


def test_a_call_for_which_no_time_is_left_says_so_and_blames_no_host(
    session: GuardedSession, context: ssl.SSLContext
) -> None:
    with tls_server(context, silent) as server, time_budget(0), pytest.raises(Unreachable) as caught:
        call(session, server)
    assert caught.value.code == NoAnswer.NO_TIME
    check_words(diagnose(caught.value))


def test_a_good_answer_takes_a_refused_certificate_back(
    session: GuardedSession, authority: Authority, other_authority: Authority
) -> None:
    certificates.take()
    with tls_server(authority.context(), answering(good_answer())) as server:
        call(session, server)
        assert certificates.take() == ({}, frozenset({f"{HOST}:{server.port}"}))
        session.close()


def test_the_limits_are_those_of_the_requirements() -> None:
    assert (http.CONNECT_SECONDS, http.READ_SECONDS, http.TOTAL_SECONDS) == (5, 20, 30)
    assert (http.MAX_BODY_BYTES, http.MAX_RETRY_AFTER_SECONDS) == (1_000_000, 300)
    assert math.isfinite(http._remaining_seconds())
