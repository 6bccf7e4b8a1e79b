"""The guarded session and the JSON clients: what is sent, and what becomes of each answer.

Covers: portal.microsoft.api, portal.microsoft.graph.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
import requests
import responses
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from portal.microsoft import api, errors, http
from portal.microsoft.api import ApiClient, RetryPolicy
from portal.microsoft.diagnosis import FailureClass, diagnose
from portal.microsoft.errors import RemoteError, Throttled, UnexpectedResponse, Unreachable
from portal.microsoft.graph import GraphApi
from portal.microsoft.http import DestinationRefused, GuardedSession, retry_after_seconds, time_budget
from portal.microsoft.secret import Secret
from portal.microsoft.waiting import before_waiting
from tests.support.calls import BASE, CORRELATION, PRIVATE, TOKEN, URL, Waits, failure, read

# --- what is sent -------------------------------------------------------------------------------------------------


@pytest.mark.req("R-47")
def test_a_read_sends_exactly_this(wire: responses.RequestsMock, client: ApiClient) -> None:
    wire.get(URL, json={"value": []}, headers={"request-id": "theirs"})
    answer = read(client, params={"$select": "id,displayName"}, headers={"ConsistencyLevel": "eventual"})
    (call,) = wire.calls
    assert call.request.method == "GET"
    assert call.request.url == f"{URL}?%24select=id%2CdisplayName"
    assert call.request.body is None
    sent = {name.lower(): value for name, value in call.request.headers.items()}
    assert sent.pop("user-agent")
    assert sent == {
        "accept": "application/json",
        "accept-encoding": sent["accept-encoding"],
        "authorization": f"Bearer {TOKEN}",
        "client-request-id": CORRELATION,
        "connection": "keep-alive",
        "consistencylevel": "eventual",
    }
    assert (answer.status, answer.body, answer.correlation_id) == (200, {"value": []}, CORRELATION)
    assert answer.headers["Request-Id"] == "theirs"


def test_a_write_sends_json(wire: responses.RequestsMock, client: ApiClient) -> None:
    wire.post(URL, status=201)
    answer = client.request("POST", "/v1.0/organization", operation="create", payload={"name": "Zoë", "n": 1})
    (call,) = wire.calls
    assert json.loads(call.request.body or b"") == {"name": "Zoë", "n": 1}
    assert call.request.headers["Content-Type"] == "application/json"
    assert (answer.status, answer.body) == (201, None)


def test_each_call_asks_for_a_token_again(wire: responses.RequestsMock, session: GuardedSession) -> None:
    tokens = iter(["first", "second"])
    client = ApiClient(
        base_url=BASE,
        session=session,
        token_source=lambda: Secret(next(tokens)),
        correlation_id=CORRELATION,
        retry=RetryPolicy(sleep=lambda _: None),
    )
    wire.get(URL, status=503)
    wire.get(URL, json={})
    read(client)
    assert [call.request.headers["Authorization"] for call in wire.calls] == ["Bearer first", "Bearer second"]


def test_a_failing_token_source_sends_nothing(wire: responses.RequestsMock, session: GuardedSession) -> None:
    def no_token() -> Secret:
        raise errors.ConsentRequired("entra", "redeem refresh token")

    client = ApiClient(base_url=BASE, session=session, token_source=no_token, correlation_id=CORRELATION)
    with pytest.raises(errors.ConsentRequired):
        read(client)
    assert not wire.calls


def test_no_cookie_goes_from_one_answer_into_another_request(wire: responses.RequestsMock, client: ApiClient) -> None:
    wire.get(URL, json={}, headers={"Set-Cookie": "partner=one; Path=/; Domain=microsoft.com"})
    read(client)
    read(client)
    assert "Cookie" not in wire.calls[1].request.headers


# --- each status --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, UnexpectedResponse),
        (400, errors.InvalidRequest),
        (401, errors.AuthenticationFailed),
        (402, UnexpectedResponse),
        (403, errors.AccessDenied),
        (404, errors.NotFound),
        (405, errors.InvalidRequest),
        (408, errors.ServerFault),
        (409, errors.Conflict),
        (410, UnexpectedResponse),
        (412, errors.Conflict),
        (418, UnexpectedResponse),
        (429, Throttled),
        (451, UnexpectedResponse),
        (500, errors.ServerFault),
        (501, UnexpectedResponse),
        (502, errors.ServerFault),
        (503, errors.ServerFault),
        (504, errors.ServerFault),
        (599, errors.ServerFault),
    ],
)
def test_each_status_has_its_error(
    wire: responses.RequestsMock, session: GuardedSession, status: int, kind: type[RemoteError]
) -> None:
    body = {"error": {"code": "SomeCode", "message": PRIVATE}}
    wire.get(URL, json=body, status=status, headers={"request-id": "their-id"})
    error = failure(
        ApiClient(
            base_url=BASE,
            session=session,
            token_source=lambda: Secret(TOKEN),
            correlation_id=CORRELATION,
            retry=RetryPolicy(tries=1),
        )
    )
    assert type(error) is kind
    assert (error.service, error.operation, error.status, error.code) == (
        "api",
        "read organization",
        status,
        "SomeCode",
    )
    assert (error.correlation_id, error.request_id) == (CORRELATION, "their-id")
    assert f"HTTP {status}, code SomeCode" in str(error)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 206])
def test_each_good_status_is_an_answer(wire: responses.RequestsMock, client: ApiClient, status: int) -> None:
    wire.get(URL, body=b"", status=status)
    assert read(client).status == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "Known.Code-1_a"}}, "Known.Code-1_a"),
        ({"error": {"code": "<script>alert(1)</script>"}}, "_script_alert_1___script_"),
        ({"error": {"code": "x" * 500}}, "x" * 60),
        ({"error": {"code": 900150}}, "900150"),
        ({"error": {}}, ""),
        ({"error": "text"}, ""),
        ({"error": None}, ""),
        ({}, ""),
        ([], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_an_error_code_is_reduced_to_harmless_characters(
    wire: responses.RequestsMock, client: ApiClient, body: object, code: str
) -> None:
    wire.get(URL, json=body, status=400)
    assert failure(client).code == code


# --- Retry-After --------------------------------------------------------------------------------------------------

NOW = 2_000_000_000.0  # Wed, 18 May 2033 03:33:20 GMT


@pytest.mark.req("R-16")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("300", 300),
        ("301", 300),
        ("9" * 5000, 300),
        ("Wed, 18 May 2033 03:33:50 GMT", 30),
        ("Wed, 18 May 2033 03:33:50", 30),
        ("Wednesday, 18-May-33 03:33:50 GMT", 30),
        ("Wed May 18 03:33:50 2033", 30),
        ("Wed, 18 May 2033 05:33:50 +0200", 30),
        ("Wed, 18 May 2033 03:00:00 GMT", 0),
        ("Wed, 18 May 2050 03:33:50 GMT", 300),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("NaN", None),
        ("inf", None),
        ("120, 60", None),
        ("Wed, 32 May 2033 03:33:50 GMT", None),
        ("Wed, 18 May 2033 25:61:61 GMT", None),
        ("Wed, 18 May 99999 03:33:50 GMT", None),
        ("Wed, 18 May 2033 03:33:50 +9999", None),
        ("\x00", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_five_minutes(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.req("R-16")
def test_a_date_without_a_zone_is_not_read_in_this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert retry_after_seconds("Wed, 18 May 2033 03:33:50", now=NOW) == 30
        assert retry_after_seconds("Wed, 18 May 2033 03:33:50 -0000", now=NOW) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=60))
def test_retry_after_never_fails_and_never_exceeds_the_cap(value: str) -> None:
    seconds = retry_after_seconds(value)
    assert seconds is None or 0 <= seconds <= 300


@pytest.mark.parametrize(("header", "seconds"), [({}, 60), ({"Retry-After": "7"}, 7), ({"Retry-After": "soon"}, 60)])
def test_throttling_without_a_time_means_a_minute(
    wire: responses.RequestsMock, client: ApiClient, header: dict[str, str], seconds: float
) -> None:
    wire.get(URL, body='{"statusCode":429,"message":"Rate limit is exceeded."}', status=429, headers=header)
    assert failure(client).retry_after == seconds


# --- retries ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-16")
def test_a_fault_is_repeated_with_growing_jittered_waits_and_never_at_once(
    wire: responses.RequestsMock, session: GuardedSession, waits: Waits
) -> None:
    policy = RetryPolicy(tries=5, sleep=waits)
    client = ApiClient(
        base_url=BASE, session=session, token_source=lambda: Secret(TOKEN), correlation_id=CORRELATION, retry=policy
    )
    for _ in range(3):
        wire.get(URL, status=503)
    wire.get(URL, json={"ok": True})
    assert read(client).body == {"ok": True}
    assert len(wire.calls) == 4
    assert [low <= wait <= high for wait, low, high in zip(waits, (1, 1, 1), (2, 4, 8), strict=True)] == [True] * 3


@pytest.mark.req("R-16")
def test_waits_are_jittered_over_the_whole_range(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", uniform)
    with responses.RequestsMock() as wire:
        wire.get(URL, status=503)
        failure(client)
    assert asked == [(1, 2), (1, 4)]


def test_before_a_call_is_tried_again_the_thread_gives_back_what_others_need(waits: Waits) -> None:
    said: list[str] = []

    def call() -> None:
        said.append("call")
        raise errors.ServerFault("graph", "read")

    with before_waiting(lambda: said.append("waits")), pytest.raises(errors.ServerFault):
        RetryPolicy(tries=2, sleep=waits).run(call)
    assert said == ["call", "waits", "call"]


@pytest.mark.req("R-16")
def test_a_permanent_fault_stops_at_the_limit(wire: responses.RequestsMock, client: ApiClient, waits: Waits) -> None:
    wire.get(URL, status=503)
    assert type(failure(client)) is errors.ServerFault
    assert len(wire.calls) == 3
    assert len(waits) == 2


@pytest.mark.req("R-16")
@pytest.mark.parametrize(("header", "waited"), [("7", 7), ("0", 1), ("20", 20)])
def test_retry_after_wins_over_our_own_wait(
    wire: responses.RequestsMock, client: ApiClient, waits: Waits, header: str, waited: float
) -> None:
    wire.get(URL, status=429, headers={"Retry-After": header})
    wire.get(URL, json={})
    read(client)
    assert waits == [waited]


@pytest.mark.req("R-31")
def test_a_long_retry_after_is_given_to_the_caller_and_not_slept_through(
    wire: responses.RequestsMock, client: ApiClient, waits: Waits
) -> None:
    wire.get(URL, status=429, headers={"Retry-After": "21"})
    assert failure(client).retry_after == 21
    assert not waits
    assert len(wire.calls) == 1


@pytest.mark.req("R-13")
def test_no_wait_is_longer_than_the_time_that_is_left(
    wire: responses.RequestsMock, client: ApiClient, waits: Waits
) -> None:
    wire.get(URL, status=429, headers={"Retry-After": "10"})
    with time_budget(5):
        failure(client)
    assert not waits
    assert len(wire.calls) == 1


@pytest.mark.req("R-13")
def test_nothing_is_sent_when_the_time_is_over(wire: responses.RequestsMock, client: ApiClient) -> None:
    wire.get(URL, json={})
    with time_budget(0):
        assert type(failure(client)) is Unreachable
    assert not wire.calls


@pytest.mark.req("R-13")
def test_an_inner_budget_never_extends_the_outer_one() -> None:
    with time_budget(1):
        with time_budget(100):
            assert http._remaining_seconds() <= 1
        assert http._remaining_seconds() <= 1
    assert http._remaining_seconds() == http.TOTAL_SECONDS


@pytest.mark.req("R-16")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 302])
def test_a_refusal_is_not_repeated(wire: responses.RequestsMock, client: ApiClient, waits: Waits, status: int) -> None:
    wire.get(URL, status=status)
    failure(client)
    assert len(wire.calls) == 1
    assert not waits


@pytest.mark.req("R-16")
@pytest.mark.parametrize(
    ("method", "repeatable", "calls"),
    [
        ("GET", None, 3),
        ("GET", False, 1),
        ("POST", None, 1),
        ("POST", True, 3),
        ("DELETE", None, 1),
        ("DELETE", True, 3),
        ("PATCH", None, 1),
        ("PUT", None, 1),
    ],
)
@pytest.mark.parametrize("fault", [503, 429, requests.exceptions.ConnectionError(), requests.exceptions.ReadTimeout()])
def test_only_reads_and_what_the_caller_calls_repeatable_is_repeated(
    wire: responses.RequestsMock,
    client: ApiClient,
    method: str,
    repeatable: bool | None,
    calls: int,
    fault: int | Exception,
) -> None:
    if isinstance(fault, int):
        wire.add(method, URL, status=fault, headers={"Retry-After": "1"})
    else:
        wire.add(method, URL, body=fault)
    with pytest.raises(errors.RetryableError):
        client.request(method, "/v1.0/organization", operation="do", repeatable=repeatable)
    assert len(wire.calls) == calls


@pytest.mark.parametrize(
    "fault",
    [
        requests.exceptions.ConnectionError(f"{URL}?token={PRIVATE}"),
        requests.exceptions.SSLError(PRIVATE),
        requests.exceptions.ProxyError(PRIVATE),
        requests.exceptions.ConnectTimeout(PRIVATE),
        requests.exceptions.ReadTimeout(PRIVATE),
        requests.exceptions.ChunkedEncodingError(PRIVATE),
        requests.exceptions.InvalidHeader(PRIVATE),
        urllib3.exceptions.ProtocolError(PRIVATE),
        urllib3.exceptions.LocationParseError(PRIVATE),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_what_the_transport_raises_becomes_unreachable_without_its_text(
    wire: responses.RequestsMock, client: ApiClient, fault: Exception
) -> None:
    wire.get(URL, body=fault)
    error = failure(client)
    assert type(error) is Unreachable
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert error.correlation_id == CORRELATION
    assert diagnose(error).failure_class is FailureClass.TEMPORARY


# --- destinations -------------------------------------------------------------------------------------------------


@pytest.mark.req("S-26")
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "https://graph.microsoft.com.evil.example/",
        "https://evilgraph.microsoft.com/",
        "https://graph.microsoft.com@evil.example/",
        "https://user@graph.microsoft.com/",
        "https://user:password@graph.microsoft.com/",
        "https://:password@graph.microsoft.com/",
        "https://graph.microsoft.com:444/",
        "https://graph.microsoft.com.:443/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/metadata/identity/oauth2/token",
        "https://localhost/",
        "http://graph.microsoft.com/",
        "https://evil.example\\@graph.microsoft.com/",
        "https://evil.example#@graph.microsoft.com/",
        "https://evil.example?@graph.microsoft.com/",
    ],
)
def test_an_address_that_is_not_ours_is_refused_before_any_socket(session: GuardedSession, url: str) -> None:
    # Sockets beyond loopback fail in another way in these tests, so this refusal comes from the guard.
    with pytest.raises(DestinationRefused) as caught:
        session.get(url)
    assert "evil" not in str(caught.value)


@pytest.mark.req("S-26")
@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://graph.microsoft.com/", "data:text/plain,x", "//x", "x"])
def test_no_other_scheme_is_spoken(session: GuardedSession, url: str) -> None:
    with pytest.raises((DestinationRefused, requests.exceptions.RequestException)):
        session.get(url)


@pytest.mark.req("S-26")
def test_a_prepared_request_passes_the_same_guard(session: GuardedSession) -> None:
    prepared = requests.Request("GET", URL).prepare()
    for url in ("https://evil.example/", "https://graph.microsoft.com\\@evil.example/", None):
        prepared.url = url
        with pytest.raises(DestinationRefused):
            session.send(prepared)


@pytest.mark.req("S-26")
@pytest.mark.parametrize("user", ["user@", "user:password@", ":password@", "evil.example@"])
def test_a_user_part_is_refused_whatever_the_list_of_hosts_says(
    wire: responses.RequestsMock, session: GuardedSession, user: str
) -> None:
    wire.get(URL, json={})
    lax = GuardedSession(is_allowed=lambda _: True)
    for one in (session, lax):  # the second one's list would let it pass
        with pytest.raises(DestinationRefused):
            one.get(URL.replace("https://", f"https://{user}"))
    assert not wire.calls


@pytest.mark.req("S-26")
@pytest.mark.parametrize("host", ["graph.microsoft.com", "localhost", "127.0.0.1", "evillocalhost"])
def test_with_test_endpoints_only_names_below_localhost_are_called(host: str) -> None:
    session = GuardedSession(is_allowed=lambda _: True, loopback=True)
    with pytest.raises(DestinationRefused):
        session.get(f"https://{host}/")


def test_a_refused_destination_is_no_remote_failure(client: ApiClient) -> None:
    client._base_url = "https://evil.example"
    with pytest.raises(DestinationRefused):
        read(client)
    assert not issubclass(DestinationRefused, RemoteError)


@pytest.mark.req("S-26")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://evil.example/take", f"{BASE}/elsewhere", "/elsewhere", "//evil.example", "http://[", "\udce4"]
)
def test_a_redirect_is_not_followed_and_the_token_stays_here(
    wire: responses.RequestsMock, client: ApiClient, status: int, location: str
) -> None:
    wire.get(URL, status=status, headers={"Location": location}, body="moved")
    wire.get("https://evil.example/take", json={})
    wire.get(f"{BASE}/elsewhere", json={})
    error = failure(client)
    assert type(error) is UnexpectedResponse
    assert [call.request.url for call in wire.calls] == [URL]


# --- paging -------------------------------------------------------------------------------------------------------


@pytest.fixture
def graph(session: GuardedSession, waits: Waits) -> GraphApi:
    return GraphApi(
        base_url=BASE,
        session=session,
        token_source=lambda: Secret(TOKEN),
        correlation_id=CORRELATION,
        retry=RetryPolicy(sleep=waits),
    )


def collect(graph: GraphApi) -> list[Mapping[str, Any]]:
    return list(graph.collection("/v1.0/organization", operation="list", params={}))


def test_all_pages_are_read_in_order(wire: responses.RequestsMock, graph: GraphApi) -> None:
    wire.get(URL, json={"value": [{"id": 1}], "@odata.nextLink": f"{URL}?$skiptoken=a%2Fb"})
    wire.get(f"{URL}?$skiptoken=a%2Fb", json={"value": [], "@odata.nextLink": f"{URL}?$skiptoken=c"})
    wire.get(f"{URL}?$skiptoken=c", json={"value": [{"id": 2}]})
    assert collect(graph) == [{"id": 1}, {"id": 2}]
    assert [call.request.headers["Authorization"] for call in wire.calls] == [f"Bearer {TOKEN}"] * 3


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, {}, errors.ServerFault),
        (403, {}, errors.AccessDenied),
        (404, {}, errors.NotFound),
        (200, None, UnexpectedResponse),
        (200, [], UnexpectedResponse),
        (200, {}, UnexpectedResponse),
        (200, {"value": None}, UnexpectedResponse),
        (200, {"value": {}}, UnexpectedResponse),
        (200, {"value": [1]}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": 7}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": ""}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": "https://evil.example/v1.0/x"}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": "https://graph.microsoft.com.evil.example/v1.0/"}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": "https://graph.microsoft.com@evil.example/v1.0/"}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": "http://graph.microsoft.com/v1.0/x"}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": "/v1.0/x"}, UnexpectedResponse),
        (200, {"value": [], "@odata.nextLink": f"{URL}?page=2"}, UnexpectedResponse),
    ],
)
def test_a_page_that_failed_is_not_an_empty_page(
    wire: responses.RequestsMock, graph: GraphApi, status: int, body: object, kind: type[RemoteError]
) -> None:
    wire.get(URL, json={"value": [{"id": 1}], "@odata.nextLink": f"{URL}?page=2"})
    wire.get(f"{URL}?page=2", json=body, status=status)
    with pytest.raises(kind):
        collect(graph)
    assert all((call.request.url or "").startswith(URL) for call in wire.calls)


def test_a_list_that_repeats_a_page_is_given_up_at_once(wire: responses.RequestsMock, graph: GraphApi) -> None:
    wire.get(URL, json={"value": [{}], "@odata.nextLink": f"{URL}?page=2"})
    wire.get(f"{URL}?page=2", json={"value": [{}], "@odata.nextLink": f"{URL}?page=2"})
    with pytest.raises(UnexpectedResponse):
        collect(graph)
    assert len(wire.calls) == 2


def test_a_list_without_end_is_given_up(
    wire: responses.RequestsMock, graph: GraphApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MAX_PAGES", 5)
    for number in range(10):
        link = f"{URL}?page={number + 1}"
        wire.get(f"{URL}?page={number}" if number else URL, json={"value": [{}], "@odata.nextLink": link})
    with pytest.raises(UnexpectedResponse):
        collect(graph)
    assert len(wire.calls) == 5
