"""HTTP as this product speaks it: one guarded session under MSAL, the Azure SDKs and our own clients.

:class:`GuardedSession` enforces what no caller can forget: fixed destinations, no redirects, verified TLS, time
limits and a size limit (S-26, R-13, R-25). :class:`ApiClient` adds what our JSON clients share: bearer tokens,
correlation ids, retries that honour ``Retry-After``, error mapping, and paging that finishes or raises.
"""

from __future__ import annotations

import email.utils
import json
import math
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import certifi
import requests
import requests.adapters
import urllib3
from requests import PreparedRequest, Response
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from portal.microsoft.breakers import AWAY, Breakers
from portal.microsoft.diagnosis import diagnose_api_error
from portal.microsoft.errors import (
    RemoteError,
    UnexpectedResponse,
    Unreachable,
)
from portal.microsoft.identifiers import CorrelationId, RequestId
from portal.microsoft.secret import Secret

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
TOTAL_SECONDS = 30.0  # R-13; of one call, whatever the server does
MAX_BODY_BYTES = 1_000_000  # R-25; the largest documented answer is a tenth of it
MAX_WIRE_BYTES = 2 * MAX_BODY_BYTES  # of one answer with its head; http.client has ways to read without asking us
MOST_HOSTS = 64  # whose connections are kept; all clouds together have fewer
MOST_IN_FLIGHT = 256  # requests of one process to one host
MAX_PAGES = 1000  # of one list; at 300 to 500 items each far more than any partner's customers
MAX_RETRY_AFTER_SECONDS = 300.0
DEFAULT_RETRY_AFTER_SECONDS = 60.0  # Partner Center: when a 429 names no time


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


@contextmanager
def time_budget(seconds: float) -> Iterator[None]:
    """Bound all calls of one unit of work in this thread together; a web request waits 25 s at most (R-13)."""
    outer: float | None = getattr(_clock, "deadline", None)
    _clock.deadline = min(time.monotonic() + seconds, math.inf if outer is None else outer)
    try:
        yield
    finally:
        _clock.deadline = outer


@contextmanager
def turn_of(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock around a call, so that of many threads one makes it; wait no longer than this unit has time (R-13).

    Raises:
        TimeoutError: the time was over first.
    """
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


@contextmanager
def paced(pace: Pace) -> Iterator[None]:
    """Let ``pace`` decide about every request that this thread sends meanwhile."""
    outer: Pace | None = getattr(_clock, "pace", None)
    _clock.pace = pace
    try:
        yield
    finally:
        _clock.pace = outer


def nothing_was_sent() -> bool:
    """Whether the latest request of this thread failed before a byte of it left: name, connection or handshake."""
    return not getattr(_clock, "sent", True)


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
    (``RequestsTransport(session=...)``) and to :class:`ApiClient`.

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
        _clock.sent = False
        parts = urlsplit(request.url or "")
        if parts.scheme != "https" or parts.username or not self._is_allowed(parts.netloc):
            raise DestinationRefused("an address outside this deployment's hosts was about to be called")
        if self._loopback and not (parts.hostname or "").endswith(".localhost"):
            raise DestinationRefused("with test endpoints only names below .localhost are called")
        timeout = kwargs.get("timeout") or (CONNECT_SECONDS, READ_SECONDS)
        pace: Pace | None = getattr(_clock, "pace", None)
        if pace is not None:
            pace.wait(parts.netloc, parts.path)
        began = time.monotonic()
        with time_budget(TOTAL_SECONDS):
            if _remaining_seconds() <= 0:
                raise requests.exceptions.ConnectTimeout("total time limit reached")
            if not self.breakers.may_send(parts.netloc):
                raise requests.exceptions.ConnectionError("this host gave no answer lately and is left alone")
            _clock.received = 0
            try:
                # Straight to the transport: no redirect is followed, and no cookie that one tenant's answer set goes
                # out with the requests of all others (S-38).
                adapter = self.get_adapter(request.url or "")
                response = adapter.send(request, stream=True, timeout=timeout, proxies=self.proxies)
                _read_body(response)
            except requests.exceptions.ContentDecodingError:
                raise
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
                self.breakers.failed(parts.netloc)
                raise
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


_NO_TEXT = re.compile("[\\x00\\ud800-\\udfff]")

# --- JSON clients -------------------------------------------------------------------------------------------------


class TokenSource(Protocol):
    """Where a client gets its access token, call by call; ``consent.clients`` wires one in."""

    def __call__(self) -> Secret:
        """Return a live access token of the client's audience. Raises RemoteError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonResponse:
    """One good answer. ``body`` is parsed JSON, None for an empty body."""

    status: int
    headers: Mapping[str, str]
    body: Any
    correlation_id: CorrelationId


@dataclass(slots=True, kw_only=True)
class RetryPolicy:
    """How often a call that is safe to repeat is tried.

    The waits are jittered between ``base`` and ``base * 2**n`` seconds, or what ``Retry-After`` says; never less than
    ``base``, and never longer than the time that is left (R-13, R-16).
    """

    tries: int = 3
    base_seconds: float = 1.0
    longest_wait_seconds: float = 20.0
    sleep: Callable[[float], None] = field(default=time.sleep)


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


def parse_json(content: bytes) -> Any:
    """Parse strictly: UTF-8, no NaN or infinity, no repeated keys, no endless nesting (R-25). Raises ValueError."""

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("repeated key")
        return record

    def no_constants(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            raise ValueError("a number is too large")
        return number

    try:
        return json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=no_duplicates,
            parse_constant=no_constants,
            parse_float=finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


class ApiClient:
    """Base of our REST clients: app+user bearer token, JSON in and out.

    Subclasses set ``service`` and may override :meth:`error_for` to read their service's error body, and
    ``request_id_header`` / ``correlation_id_header``.
    """

    service = "api"
    correlation_id_header = "client-request-id"
    request_id_response_header = "request-id"

    def __init__(
        self,
        *,
        base_url: str,
        session: requests.Session,
        token_source: TokenSource,
        correlation_id: CorrelationId,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._base_url = base_url
        self._session = session
        self._token_source = token_source
        self._retry = retry or RetryPolicy()
        self.correlation_id = correlation_id

    def request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        params: Mapping[str, str] | None = None,
        payload: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: RequestId | None = None,
        repeatable: bool | None = None,
    ) -> JsonResponse:
        """Make one logical call, repeated as the policy allows when ``repeatable`` (default: GET only).

        Args:
            path: begins with ``/``; ids in it went through ``parse_*`` before.
            operation: in our words, for errors and logs.

        Raises:
            RemoteError: the family of ``portal.microsoft.errors``.
        """
        may_repeat = method == "GET" if repeatable is None else repeatable
        for attempt in range(1, self._retry.tries + 1):
            token = self._token_source()  # has its own rules for trying again; a failure here is no failure of the call
            try:
                return self._call(method, path, operation, token, params, payload, headers, request_id)
            except RemoteError as error:
                wait = self._wait_before_retry(error, attempt)
                if not may_repeat or wait is None:
                    raise
                self._retry.sleep(wait)
        raise AssertionError("unreachable: the last attempt raises")

    def _wait_before_retry(self, error: RemoteError, attempt: int) -> float | None:
        if not error.retryable or attempt >= self._retry.tries:
            return None
        base = self._retry.base_seconds
        if error.retry_after is not None:
            wait = max(error.retry_after, base)
        else:
            wait = random.uniform(base, base * 2**attempt)  # noqa: S311  # jitter, no secret
        # A longer wait is not slept through here: the caller learns it and puts the partner back.
        return wait if wait <= min(self._retry.longest_wait_seconds, budget_left()) else None

    def _call(
        self,
        method: str,
        path: str,
        operation: str,
        token: Secret,
        params: Mapping[str, str] | None,
        payload: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        request_id: RequestId | None,
    ) -> JsonResponse:
        sent = {
            "Accept": "application/json",
            self.correlation_id_header: self.correlation_id,
            "Authorization": f"Bearer {token.reveal()}",
            **self.common_headers(request_id),
            **(headers or {}),
        }
        try:
            response = self._session.request(method, self._base_url + path, params=params, json=payload, headers=sent)
        except requests.exceptions.ContentDecodingError:
            raise self._unexpected(operation, None, "the answer is too large or cannot be decoded") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
            # The texts of these exceptions carry addresses and headers; ours says what is needed.
            raise Unreachable(self.service, operation, correlation_id=self.correlation_id) from None
        body, readable = self._parse(response)
        if not 200 <= response.status_code < 300:
            raise self.error_for(response, body, operation)
        if not readable:
            raise self._unexpected(operation, response, "the answer is not the documented JSON")
        return JsonResponse(
            status=response.status_code, headers=response.headers, body=body, correlation_id=self.correlation_id
        )

    def common_headers(self, request_id: RequestId | None) -> Mapping[str, str]:
        """Return headers that this service wants on each call."""
        return {}

    @staticmethod
    def _parse(response: Response) -> tuple[Any, bool]:
        if not response.content.strip():
            return None, True
        if "json" not in response.headers.get("Content-Type", "").lower():
            return None, False
        try:
            return parse_json(response.content), True
        except ValueError:
            return None, False

    def error_code(self, body: Any, response: Response) -> str:
        """Return the service's own code out of a parsed error body; empty when there is none."""
        error = body.get("error") if isinstance(body, dict) else None
        return str(error.get("code", "")) if isinstance(error, dict) else ""

    def error_for(self, response: Response, body: Any, operation: str) -> RemoteError:
        """Map an answer outside 2xx to the family by the one table of ``diagnosis``, closed by default."""
        status, code = response.status_code, self.error_code(body, response)
        diagnosis = diagnose_api_error(service=self.service, status=status, code=code)
        retry_after = retry_after_seconds(response.headers.get("Retry-After"))
        if status == 429 and retry_after is None:
            retry_after = DEFAULT_RETRY_AFTER_SECONDS
        return diagnosis.error(
            self.service,
            operation,
            status=status,
            code=code,
            correlation_id=self.correlation_id,
            request_id=response.headers.get(self.request_id_response_header, ""),
            retry_after=retry_after,
            detail=diagnosis.cause,
        )

    def _unexpected(self, operation: str, response: Response | None, detail: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.service,
            operation,
            status=None if response is None else response.status_code,
            correlation_id=self.correlation_id,
            request_id="" if response is None else response.headers.get(self.request_id_response_header, ""),
            detail=detail,
        )

    def record(self, value: Any, operation: str) -> Mapping[str, Any]:
        """Return ``value`` if it is a JSON object, else raise UnexpectedResponse."""
        if not isinstance(value, dict):
            raise self._unexpected(operation, None, "a JSON object was expected")
        return value

    def records(self, value: Any, operation: str) -> list[Mapping[str, Any]]:
        """Return ``value`` if it is a list of JSON objects, else raise UnexpectedResponse."""
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._unexpected(operation, None, "a list of JSON objects was expected")
        return value

    def text(self, record: Mapping[str, Any], key: str, operation: str, *, required: bool = True) -> str:
        """Return a text field; "" when absent and not required. Raises UnexpectedResponse."""
        value = record.get(key)
        if value is None and not required:
            return ""
        # A zero character or half a surrogate pair is JSON, but no database takes it.
        if not isinstance(value, str) or (required and not value) or _NO_TEXT.search(value):
            raise self._unexpected(operation, None, f"the field {key} is missing or has the wrong type")
        return value

    def follow(
        self, first: Callable[[], JsonResponse], after: Callable[[JsonResponse], Callable[[], JsonResponse] | None]
    ) -> Iterator[JsonResponse]:
        """Yield every page, or raise: a page that failed is not an empty page, and a list without end is no list.

        ``after`` returns how to fetch the page that follows this one, or None at the end. It raises when a link
        repeats or leads elsewhere.
        """
        fetch = first
        for _ in range(MAX_PAGES):
            page = fetch()
            yield page
            following = after(page)
            if following is None:
                return
            fetch = following
        raise self._unexpected("read all pages", None, f"the list has more than {MAX_PAGES} pages")
