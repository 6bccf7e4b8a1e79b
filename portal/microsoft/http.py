"""HTTP as this product speaks it: one guarded session under MSAL, the Azure SDKs and our own clients.

:class:`GuardedSession` enforces what no caller can forget: fixed destinations, no redirects, verified TLS, time limits
and a size limit (S-26, R-13, R-25). ``portal.microsoft.api`` builds our JSON clients on it.
"""

from __future__ import annotations

import email.utils
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Protocol
from urllib.parse import urlsplit

import certifi
import requests
import requests.adapters
import urllib3
from requests import PreparedRequest, Response
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from portal.microsoft.breakers import AWAY, Breakers
from portal.microsoft.certificates import certificates
from portal.microsoft.errors import NoAnswer, NotSent, Unreachable
from portal.microsoft.waiting import about_to_wait

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
TOTAL_SECONDS = 30.0  # R-13; of one call, whatever the server does
WEB_SECONDS = 25.0  # R-13; of all calls of one web request together
MAX_BODY_BYTES = 1_000_000  # R-25; the largest documented answer is a tenth of it
MAX_WIRE_BYTES = 2 * MAX_BODY_BYTES  # of one answer with its head; http.client has ways to read without asking us
MOST_HOSTS = 64  # whose connections are kept; all clouds together have fewer
MOST_IN_FLIGHT = 256  # requests of one process to one host
MAX_RETRY_AFTER_SECONDS = 300.0  # a longer Retry-After counts as this


class DestinationRefused(RuntimeError):
    """The address is not one of this deployment's (S-26). A programming or configuration error, never retried."""


# --- time ---------------------------------------------------------------------------------------------------------

_clock = threading.local()


def budget_left() -> float:
    """Return how many seconds the unit of work of this thread still has; infinite without one."""
    deadline: float | None = getattr(_clock, "deadline", None)
    return math.inf if deadline is None else deadline - time.monotonic()


def _remaining_seconds() -> float:
    """Return how many seconds a call may still take."""
    return min(budget_left(), TOTAL_SECONDS)


class _Meanwhile:
    """Something that holds for all calls of this thread inside the block; there are several around each call."""

    __slots__ = ("_name", "_outer", "_value")

    def __init__(self, name: str, value: object) -> None:
        self._name, self._value = name, value

    def __enter__(self) -> None:
        self._outer = getattr(_clock, self._name, None)
        setattr(_clock, self._name, self._value)

    def __exit__(self, *failure: object) -> None:
        setattr(_clock, self._name, self._outer)


def time_budget(seconds: float) -> AbstractContextManager[None]:
    """Bound all calls of one unit of work in this thread together; a web request waits 25 s at most (R-13)."""
    outer: float | None = getattr(_clock, "deadline", None)
    until = time.monotonic() + seconds
    return _Meanwhile("deadline", until if outer is None or until < outer else outer)


@contextmanager
def turn_of(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock around a call, so that of many threads one makes it; wait no longer than this unit has time (R-13).

    Raises:
        TimeoutError: the time was over first.
    """
    about_to_wait()
    if not lock.acquire(timeout=max(_remaining_seconds(), 0.0)):
        raise TimeoutError("another thread waits for the same answer, and none came in time")
    try:
        yield
    finally:
        lock.release()


class Pace(Protocol):
    """Decides when a request of this thread may leave, and learns what was answered; ``portal.runs.pacing``."""

    def wait(self, netloc: str, path: str) -> None:
        """Return when the request may leave, or raise: then nothing is sent."""

    def answered(self, netloc: str, path: str, status: int, retry_after: float | None, seconds: float) -> None:
        """Take note of an answer and of how long it took; ``retry_after`` in seconds."""


def paced(pace: Pace) -> AbstractContextManager[None]:
    """Let ``pace`` decide about every request that this thread sends meanwhile."""
    return _Meanwhile("pace", pace)


def last_look(may_send: Callable[[], None]) -> AbstractContextManager[None]:
    """Ask ``may_send`` about every request of this thread at the last moment: the connection stands, no byte left.

    A request may have waited long for its turn and its connection since somebody decided that it may leave. What
    ``may_send`` raises keeps it back and reaches the caller as it is. The innermost counts.
    """
    return _Meanwhile("may_send", may_send)


def nothing_was_sent() -> bool:
    """Whether the latest request of this thread failed before a byte of it left: name, connection or handshake."""
    return not getattr(_clock, "sent", True)


# --- what kept an answer from us ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Failure:
    host: str
    why: NoAnswer


def no_answer(
    service: str, operation: str, *, correlation_id: str = "", kind: type[Unreachable] | None = None
) -> Unreachable:
    """Return the error for the latest request of this thread, which got no answer: it names the host and the cause.

    Args:
        kind: NotSent when nothing of the request left, else Unreachable; unless the caller makes no difference.
    """
    failure: _Failure | None = getattr(_clock, "failure", None)
    raised = kind or (NotSent if nothing_was_sent() else Unreachable)
    if failure is None:
        return raised(service, operation, correlation_id=correlation_id)
    return raised(service, operation, code=failure.why, host=failure.host, correlation_id=correlation_id)


# OpenSSL's codes of a certificate that failed, "X509_verify_cert_error_string".
_CERTIFICATES: Mapping[int, NoAnswer] = {
    **dict.fromkeys((9, 10), NoAnswer.CERTIFICATE_EXPIRED),
    **dict.fromkeys((62, 64), NoAnswer.CERTIFICATE_NAME),
    **dict.fromkeys((2, 18, 19, 20, 21), NoAnswer.CERTIFICATE_ISSUER),
}
_BY_EXCEPTION: Mapping[NoAnswer, tuple[type[BaseException], ...]] = {
    NoAnswer.PROXY: (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError),
    NoAnswer.NAME: (socket.gaierror, urllib3.exceptions.NameResolutionError),
    NoAnswer.REFUSED: (ConnectionRefusedError,),
    NoAnswer.SILENT: (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError),
    NoAnswer.TLS: (ssl.SSLError, requests.exceptions.SSLError, urllib3.exceptions.SSLError),
}


def _why(error: BaseException) -> NoAnswer:
    """Tell by the types of an exception and its causes what happened; their texts differ and carry addresses."""
    causes = list(_with_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _CERTIFICATES.get(cause.verify_code, NoAnswer.CERTIFICATE)
    for why, kinds in _BY_EXCEPTION.items():
        if any(isinstance(cause, kinds) for cause in causes):
            return why
    return NoAnswer.BROKEN_OFF


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it; requests and urllib3 keep that in three places."""
    left, seen = [error], set()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            left += [each for each in inner if isinstance(each, BaseException)]


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket that obeys the limits of the call, even when a server sends one byte per second or never ends."""

    def settimeout(self, value: float | None) -> None:
        """Keep the longest limit that this connection was given; the call's own limit bounds it.

        urllib3 sets two for each request. Every change is a system call that lets other threads run in between.
        """
        current = self.gettimeout()
        if current is None or value is None or value > current:
            super().settimeout(value)

    def _limit(self) -> None:
        remaining = _remaining_seconds()
        if remaining <= 0:
            raise TimeoutError("total time limit reached")
        current = self.gettimeout()
        if current is None or current > remaining:
            super().settimeout(remaining)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        size = super().recv_into(*args, **kwargs)
        _clock.received = getattr(_clock, "received", 0) + size
        if _clock.received > MAX_WIRE_BYTES:
            raise OSError("the answer is larger than its limit")
        return size

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        may_send: Callable[[], None] | None = getattr(_clock, "unasked", None)
        if may_send is not None:
            _clock.unasked = None  # once for each request, before its first byte
            may_send()
        _clock.sent = True  # before it is: a write that fails may have left in part
        return super().send(*args, **kwargs)


# --- transport ----------------------------------------------------------------------------------------------------


class _LoopbackConnection(HTTPSConnection):
    """Names below ``.localhost`` are the loopback interface (RFC 6761), whatever the resolver of the machine says."""

    def _new_conn(self) -> Any:
        host = self._dns_host
        self._dns_host = "127.0.0.1"
        try:
            return super()._new_conn()
        finally:
            self._dns_host = host


class _LoopbackPool(HTTPSConnectionPool):
    ConnectionCls = _LoopbackConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Shares one ``SSLContext``: building one per connection costs 37 ms of CPU and 0.8 MB each."""

    def __init__(self, context: ssl.SSLContext, *, pool_size: int, loopback: bool) -> None:
        self._context = context
        self._loopback = loopback
        self._pools: dict[str, Any] = {}
        super().__init__(pool_connections=MOST_HOSTS, pool_maxsize=pool_size, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        if self._loopback:
            self.poolmanager.pool_classes_by_scheme = {"https": _LoopbackPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        # The same context behind a proxy: its authorities, and the sockets that keep the limits.
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    # Finding the pool by all its attributes takes longer than writing the request does.
    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        origin = "/".join((request.url or "").split("/", 3)[:3])
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    # requests would load the CA file again for every connection, and would obey verify=False: neither here.
    def build_connection_pool_key_attributes(self, request: PreparedRequest, verify: Any, cert: Any = None) -> Any:
        host_params, _ = super().build_connection_pool_key_attributes(request, True, None)
        return host_params, {"cert_reqs": "CERT_REQUIRED", "assert_hostname": None}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
        conn.ca_certs = None


def _ssl_context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _DeadlineSocket
    return context


class GuardedSession(requests.Session):
    """A ``requests.Session`` that only talks to allowed hosts, follows nothing and always ends.

    Thread-safe for concurrent requests. Hand the same object to MSAL (``http_client=``), to azure-core
    (``RequestsTransport(session=...)``) and to our JSON clients.

    Args:
        is_allowed: decides on ``host[:port]`` of every request.
        ca_file: PEM bundle to trust instead of the public authorities (private CA of an inspecting proxy, sandbox).
        proxies: as for requests; the environment is never read.
        pool_size: connections kept per host; at least as many as threads call it at once, or they are made anew.
        loopback: resolve every name to this machine; only for test endpoints below ``.localhost``.

    Raises on use:
        DestinationRefused: the address is not allowed; nothing was sent.
        requests.exceptions.RequestException: as requests, with ``Timeout`` at the total limit.
    """

    def __init__(
        self,
        *,
        is_allowed: Callable[[str], bool],
        ca_file: str | None = None,
        proxies: Mapping[str, str] | None = None,
        pool_size: int = MOST_IN_FLIGHT,
        loopback: bool = False,
    ) -> None:
        super().__init__()
        self.trust_env = False
        self.proxies = dict(proxies or {})
        self.breakers = Breakers()
        self._last: dict[str, NoAnswer] = {}
        self._is_allowed = is_allowed
        self._loopback = loopback
        self.adapters.clear()
        self.mount("https://", _Adapter(_ssl_context(ca_file), pool_size=pool_size, loopback=loopback))

    def request(  # type: ignore[override]
        self,
        method: str | bytes,
        url: str | bytes,
        params: Any = None,
        data: Any = None,
        headers: Mapping[str, Any] | None = None,
        *,
        json: Any = None,
        timeout: Any = None,
        **unused: Any,
    ) -> Response:
        """Send one request. What requests would add from cookies, hooks and environment is never wanted here."""
        prepared = PreparedRequest()
        prepared.prepare_method(str(method))
        prepared.prepare_url(url, params)
        prepared.prepare_headers({**self.headers, **(headers or {})})
        prepared.prepare_body(data, None, json)
        return self.send(prepared, timeout=timeout)

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        _clock.sent, _clock.failure = False, None
        parts = urlsplit(request.url or "")
        if parts.scheme != "https" or "@" in parts.netloc or not self._is_allowed(parts.netloc):
            raise DestinationRefused("an address outside this deployment's hosts was about to be called")
        if self._loopback and not (parts.hostname or "").endswith(".localhost"):
            raise DestinationRefused("with test endpoints only names below .localhost are called")
        timeout = kwargs.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        about_to_wait()
        pace: Pace | None = getattr(_clock, "pace", None)
        if pace is not None:
            pace.wait(parts.netloc, parts.path)
        began = time.monotonic()
        with time_budget(TOTAL_SECONDS):
            if _remaining_seconds() <= 0:
                _clock.failure = _Failure(parts.netloc, NoAnswer.NO_TIME)
                raise requests.exceptions.ConnectTimeout("total time limit reached")
            if not self.breakers.may_send(parts.netloc):
                _clock.failure = _Failure(parts.netloc, self._last.get(parts.netloc, NoAnswer.LEFT_ALONE))
                raise requests.exceptions.ConnectionError("this host gave no answer lately and is left alone")
            _clock.received, _clock.unasked = 0, getattr(_clock, "may_send", None)
            try:
                # Straight to the transport: no redirect is followed, and no cookie that one tenant's answer set goes
                # out with the requests of all others (S-38).
                adapter = self.get_adapter(request.url or "")
                response = adapter.send(request, stream=True, timeout=timeout, proxies=self.proxies)
                _read_body(response)
            except requests.exceptions.ContentDecodingError:
                raise
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
                why = self._last[parts.netloc] = _why(error)
                _clock.failure = _Failure(parts.netloc, why)
                certificates.saw(parts.netloc, why)
                self.breakers.failed(parts.netloc)
                raise
            self._last.pop(parts.netloc, None)
            certificates.saw(parts.netloc, None)
            if response.status_code in AWAY:
                self.breakers.failed(parts.netloc)
            else:
                self.breakers.answered(parts.netloc)
        if pace is not None:
            retry_after = retry_after_seconds(response.headers.get("Retry-After"))
            seconds = time.monotonic() - began
            pace.answered(parts.netloc, parts.path, response.status_code, retry_after, seconds)
        return response


def _read_body(response: Response) -> None:
    """Read the decoded body within the limits and leave the response as if requests had read it itself."""
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in response.iter_content(16_384):
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                response.close()
                raise requests.exceptions.ContentDecodingError("the answer is larger than one megabyte")
            if _remaining_seconds() <= 0:
                response.close()
                raise requests.exceptions.ReadTimeout("total time limit reached")
            chunks.append(chunk)
    except TimeoutError as timeout:
        response.close()
        raise requests.exceptions.ReadTimeout("total time limit reached") from timeout
    except ValueError as malformed:  # http.client's answer to a chunk of negative size
        response.close()
        raise requests.exceptions.ContentDecodingError("the answer is not well-formed HTTP") from malformed
    # requests has no public way to say "the body is read"; these two names are stable since its first release.
    response._content = b"".join(chunks)
    response._content_consumed = True  # type: ignore[attr-defined]


def retry_after_seconds(value: str | None, *, now: float | None = None) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date; None when absent or unreadable; capped at 5 minutes."""
    if not value:
        return None
    text = value.strip()
    if text.isdecimal():
        seconds = float(text)
    else:
        try:
            parsed = email.utils.parsedate_to_datetime(text)
        except ValueError:  # no date, or a 32nd of January
            return None
        # An HTTP date is in GMT even if it does not say so.
        moment = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        seconds = moment.timestamp() - (time.time() if now is None else now)
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
