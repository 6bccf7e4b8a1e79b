"""JSON clients of Microsoft's services.

:class:`ApiClient` has what they share: bearer tokens, correlation ids, retries that honour ``Retry-After``, errors
mapped by one table, strict parsing (R-25), and paging that finishes or raises.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

import requests
import urllib3
from requests import Response

from portal.microsoft.diagnosis import diagnose_api_error
from portal.microsoft.errors import RemoteError, Throttled, UnexpectedResponse, Unreachable
from portal.microsoft.http import budget_left, last_look, no_answer, retry_after_seconds
from portal.microsoft.identifiers import CorrelationId, RequestId
from portal.microsoft.secret import Secret
from portal.microsoft.waiting import about_to_wait

MAX_PAGES = 1000  # of one list; at 300 to 500 items each far more than any partner's customers
DEFAULT_RETRY_AFTER_SECONDS = 60.0  # Partner Center: when a 429 names no time
_NO_TEXT = re.compile("[\\x00\\ud800-\\udfff]")


class TokenSource(Protocol):
    """Where a client gets its access token, call by call; ``consent.clients`` wires one in."""

    def __call__(self) -> Secret:
        """Return a live access token of the client's audience. Raises RemoteError."""


@dataclass(frozen=True, slots=True)
class GuardedSource:
    """A token source whose tokens may stop being usable at any moment.

    Attributes:
        token: gives one.
        may_send: raises when nothing may be sent with it any more; asked at the last moment before each request.
    """

    token: Callable[[], Secret]
    may_send: Callable[[], None]

    def __call__(self) -> Secret:
        return self.token()


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

    Attributes:
        tries_when_throttled: as ``tries`` for calls that were refused for their rate; 0 stands for the same number.
            While a person waits it goes on as long as there is time: giving up would cost another sign-in.
    """

    tries: int = 3
    tries_when_throttled: int = 0
    base_seconds: float = 1.0
    longest_wait_seconds: float = 20.0
    sleep: Callable[[float], None] = field(default=time.sleep)

    def run[T](self, call: Callable[[], T]) -> T:
        """Make a call that is safe to repeat. Raises what the last try raised."""
        for attempt in itertools.count(1):
            try:
                return call()
            except RemoteError as error:
                wait = self.wait(error, attempt)
                if wait is None:
                    raise
            about_to_wait()  # the call may have written its failure down
            self.sleep(wait)
        raise AssertionError("unreachable: the last attempt raises")

    def wait(self, error: RemoteError, attempt: int) -> float | None:
        """Return the seconds to wait after this try before the next one; None when it was the last."""
        tries = (isinstance(error, Throttled) and self.tries_when_throttled) or self.tries
        if not error.retryable or attempt >= tries:
            return None
        base = self.base_seconds
        if error.retry_after is not None:
            wait = max(error.retry_after, base)
        else:
            wait = random.uniform(base, base * 2**attempt)  # noqa: S311  # jitter, no secret
        # A longer wait is not slept through here: the caller learns it and puts the partner back.
        return wait if wait <= min(self.longest_wait_seconds, budget_left()) else None


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
        self._looked_at: Callable[[], AbstractContextManager[None]] = nullcontext
        if isinstance(token_source, GuardedSource):
            self._looked_at = partial(last_look, token_source.may_send)
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
        for attempt in itertools.count(1):
            token = self._token_source()  # has its own rules for trying again; a failure here is no failure of the call
            try:
                return self._call(method, path, operation, token, params, payload, headers, request_id)
            except RemoteError as error:
                wait = self._retry.wait(error, attempt)
                if not may_repeat or wait is None:
                    raise
                self._retry.sleep(wait)
        raise AssertionError("unreachable: the last attempt raises")

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
            with self._looked_at():
                response = self._session.request(
                    method, self._base_url + path, params=params, json=payload, headers=sent
                )
        except requests.exceptions.ContentDecodingError:
            raise self._unexpected(operation, None, "the answer is too large or cannot be decoded") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError):
            # The texts of these exceptions carry addresses and headers; ours says what is needed.
            raise no_answer(self.service, operation, correlation_id=self.correlation_id, kind=Unreachable) from None
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

    def display(self, record: Mapping[str, Any], key: str, operation: str) -> str:
        """Return a text that is only shown, with U+FFFD for what no database takes; "" when absent.

        Raises:
            UnexpectedResponse: it is no text.
        """
        value = record.get(key)
        if not isinstance(value, str | None):
            raise self._unexpected(operation, None, f"the field {key} has the wrong type")
        return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value or "")

    def each[Item](
        self,
        items: Any,
        operation: str,
        read: Callable[[Mapping[str, Any]], Item],
        *,
        name: Callable[[Mapping[str, Any]], object],
        odd: list[str] | None,
    ) -> list[Item]:
        """Read the items of a list, each by ``read``.

        Args:
            name: what a person calls an item that ``read`` refuses, if it is a text.
            odd: takes what is wrong with which item, and the item is left out; None: one odd item is an error.

        Raises:
            UnexpectedResponse: no list, or an odd item.
        """
        if not isinstance(items, list):
            raise self._unexpected(operation, None, "a list of JSON objects was expected")
        found = []
        for number, item in enumerate(items, start=1):
            try:
                found.append(read(self.record(item, operation)))
            except UnexpectedResponse as error:
                if odd is None:
                    raise
                called = name(item) if isinstance(item, dict) else None
                printable = "".join(filter(str.isprintable, called))[:60] if isinstance(called, str) else ""
                odd.append(f"{printable or f'item {number}'} ({error.detail})")
        return found

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
