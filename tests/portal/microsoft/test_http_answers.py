"""Hostile, broken and odd answers: never believed, never too much, never another error than documented (R-25)."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable, Mapping

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from portal.microsoft import errors
from portal.microsoft.api import ApiClient, RetryPolicy, parse_json
from portal.microsoft.diagnosis import FailureClass, diagnose
from portal.microsoft.errors import RemoteError, UnexpectedResponse
from portal.microsoft.http import GuardedSession
from portal.microsoft.secret import Secret
from tests.support.calls import BASE, CORRELATION, TOKEN, URL, Waits, check_text, failure, read

# --- hostile and broken answers -----------------------------------------------------------------------------------


def peak_bytes(function: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.req("R-25")
def test_the_body_of_a_redirect_is_bounded_too(wire: responses.RequestsMock, client: ApiClient) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    headers = {"Location": "/elsewhere", "Content-Encoding": "gzip"}
    wire.get(URL, status=302, headers=headers, body=bomb)
    assert peak_bytes(lambda: failure(client)) < 10_000_000


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    return opening * depth + closing * depth


JSON = "application/json"
# name: content type, body, further headers
HOSTILE: dict[str, tuple[str, bytes, Mapping[str, str]]] = {
    # not JSON
    "html": ("text/html", b"<html><body>Sign in</body></html>", {}),
    "html called json": (JSON, b"<html><body>Sign in</body></html>", {}),
    "json called html": ("text/html", b'{"value": []}', {}),
    "json called text": ("text/plain", b'{"value": []}', {}),
    "json without a content type": ("", b'{"value": []}', {}),
    "json called bytes": ("application/octet-stream", b'{"value": []}', {}),
    "xml": ("text/xml", b"<?xml version='1.0'?><value/>", {}),
    "xml bomb": (JSON, b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', {}),
    "javascript": (JSON, b"callback({})", {}),
    "json hijacking guard": (JSON, b")]}',\n{}", {}),
    "form": (JSON, b"error=invalid_grant", {}),
    "yaml": (JSON, b"value: []", {}),
    "two objects": (JSON, b"{}{}", {}),
    "json lines": (JSON, b"{}\n{}", {}),
    "trailing text": (JSON, b'{"value": []} thanks', {}),
    "cut object": (JSON, b'{"value": [', {}),
    "cut text": (JSON, b'{"value": "abc', {}),
    "cut escape": (JSON, b'"\\u12', {}),
    "cut number": (JSON, b"[1.", {}),
    "single quotes": (JSON, b"{'value': []}", {}),
    "bare names": (JSON, b"{value: []}", {}),
    "trailing comma": (JSON, b'{"value": [],}', {}),
    "comment": (JSON, b'{"value": [] /* none */}', {}),
    "bare word": (JSON, b"undefined", {}),
    "python literal": (JSON, b"None", {}),
    "leading zero": (JSON, b"[01]", {}),
    "hexadecimal": (JSON, b"[0x10]", {}),
    "control character in text": (JSON, b'"a\x01b"', {}),
    "line break in text": (JSON, b'"a\nb"', {}),
    "wrong escape": (JSON, b'"\\x41"', {}),
    "only a bom": (JSON, b"\xef\xbb\xbf", {}),
    "zero bytes": (JSON, bytes(100), {}),
    "random bytes": (JSON, random.Random(7).randbytes(5000), {}),
    # numbers that are none
    "nan": (JSON, b'{"value": NaN}', {}),
    "infinity": (JSON, b'{"value": Infinity}', {}),
    "minus infinity": (JSON, b"[-Infinity]", {}),
    "a float that overflows": (JSON, b'{"expires_in": 1e999}', {}),
    "a negative float that overflows": (JSON, b'{"expires_in": -1e999}', {}),
    "an integer of 5,000 digits": (JSON, b'{"expires_in": ' + b"9" * 5000 + b"}", {}),
    # shape
    "repeated key": (JSON, b'{"value": [], "value": [1]}', {}),
    "repeated key below": (JSON, b'{"value": [{"id": 1, "id": 2}]}', {}),
    "repeated key by escape": (JSON, b'{"id": 1, "\\u0069d": 2}', {}),
    "deep arrays": (JSON, deep("[", "]").encode(), {}),
    "deep objects": (JSON, deep('{"a":', "}").replace(":}", ":1}", 1).encode(), {}),
    "deep and never closed": (JSON, b"[" * 900_000, {}),
    # JSON, but no record
    "empty": (JSON, b"", {}),
    "blanks": (JSON, b" \r\n", {}),
    "null": (JSON, b"null", {}),
    "an array": (JSON, b'[{"value": []}]', {}),
    "a text": (JSON, b'"{}"', {}),
    "a number": (JSON, b"200", {}),
    # encoding
    "utf-16": (JSON, '{"value": []}'.encode("utf-16"), {}),
    "utf-32": (JSON, '{"value": []}'.encode("utf-32"), {}),
    "latin-1": (JSON, '{"name": "Zoë"}'.encode("latin-1"), {}),
    "utf-7": (JSON, '{"name": "Zoë"}'.encode("utf-7") + b"\xff", {}),
    "overlong utf-8": (JSON, b'"\xc0\xaf"', {}),
    "surrogates in utf-8": (JSON, b'"\xed\xa0\x80"', {}),
    "a cut character": (JSON, b'"\xe2\x82"', {}),
    "two boms": (JSON, b"\xef\xbb\xbf\xef\xbb\xbf{}", {}),
    # size and compression
    "one byte too many": (JSON, b'"' + b"a" * 999_999 + b'"', {}),
    "five megabytes": (JSON, b"[" + b"1," * 2_500_000 + b"1]", {}),
    "five megabytes of blanks": (JSON, b" " * 5_000_000 + b"{}", {}),
    "gzip bomb": (JSON, gzip.compress(b" " * 20_000_000), {"Content-Encoding": "gzip"}),
    "deflate bomb": (JSON, zlib.compress(b" " * 20_000_000), {"Content-Encoding": "deflate"}),
    "gzip in gzip": (JSON, gzip.compress(gzip.compress(b"[" * 20_000_000)), {"Content-Encoding": "gzip, gzip"}),
    "compressed a hundred times": (JSON, b"{}", {"Content-Encoding": ", ".join(["gzip"] * 100)}),
    "not compressed though it says so": (JSON, b'{"value": []}', {"Content-Encoding": "gzip"}),
    "compressed though it says nothing": (JSON, gzip.compress(b"{}"), {}),
    "cut gzip header": (JSON, gzip.compress(b"{}")[:6], {"Content-Encoding": "gzip"}),
    "damaged gzip": (JSON, gzip.compress(b"{}")[:10] + b"\xff" * 20, {"Content-Encoding": "gzip"}),
}


@pytest.mark.req("R-25")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_answer_is_a_protocol_error_in_bounded_memory(
    wire: responses.RequestsMock, client: ApiClient, waits: Waits, name: str
) -> None:
    content_type, body, headers = HOSTILE[name]
    wire.get(URL, body=body, content_type=content_type or None, headers=headers)

    def read_record() -> None:
        with pytest.raises(RemoteError) as caught:
            client.record(read(client).body, "read organization")
        check_text(caught.value)
        assert type(caught.value) is UnexpectedResponse
        assert diagnose(caught.value).failure_class is FailureClass.PROTOCOL_ERROR

    assert peak_bytes(read_record) < 30_000_000
    assert not waits


def test_the_table_above_has_sixty_bodies() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.req("R-25")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("status", [400, 503])
def test_the_same_body_under_an_error_never_hides_the_status(
    wire: responses.RequestsMock, session: GuardedSession, name: str, status: int
) -> None:
    content_type, body, headers = HOSTILE[name]
    wire.get(URL, body=body, content_type=content_type or None, headers=headers, status=status)
    client = ApiClient(
        base_url=BASE,
        session=session,
        token_source=lambda: Secret(TOKEN),
        correlation_id=CORRELATION,
        retry=RetryPolicy(tries=1),
    )
    error = failure(client)
    # Where the body could not even be read to its end, that is what is known.
    assert type(error) in {errors.InvalidRequest, errors.ServerFault, UnexpectedResponse}
    assert error.code == ""


@pytest.mark.parametrize(
    ("content_type", "body", "parsed"),
    [
        (JSON, b"", None),
        (JSON, b" \r\n\t", None),
        ("", b"", None),
        ("text/html", b"", None),
        (JSON, b"null", None),
        (JSON, b"[]", []),
        (JSON, b"\xef\xbb\xbf{}", {}),
        ("application/json; charset=utf-8", b"{}", {}),
        ("Application/JSON", b"{}", {}),
        ("application/json;odata.metadata=minimal;odata.streaming=true;charset=utf-8", b"{}", {}),
        ("application/problem+json", b"{}", {}),
        (JSON, '{"name": "Zoë 株式会社 😀"}'.encode(), {"name": "Zoë 株式会社 😀"}),
        (JSON, b'{"name": "\\ud83d\\ude00"}', {"name": "😀"}),
        (JSON, b'"' + b"a" * 999_998 + b'"', "a" * 999_998),
        (JSON, b"[1e300, -0.0, 12345678901234567890]", [1e300, -0.0, 12345678901234567890]),
        (JSON, deep("[", "]", 500).encode(), json.loads(deep("[", "]", 500))),
    ],
)
def test_a_good_answer_is_read(
    wire: responses.RequestsMock, client: ApiClient, content_type: str, body: bytes, parsed: object
) -> None:
    wire.get(URL, body=body, content_type=content_type or None)
    assert read(client).body == parsed


def test_a_compressed_answer_is_read(wire: responses.RequestsMock, client: ApiClient) -> None:
    wire.get(URL, body=gzip.compress(b'{"a": 1}'), content_type=JSON, headers={"Content-Encoding": "gzip"})
    assert read(client).body == {"a": 1}


@given(st.binary(max_size=200))
def test_parsing_any_bytes_gives_a_value_or_a_value_error(content: bytes) -> None:
    try:
        parse_json(content)
    except ValueError:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_parsing_what_is_json_gives_it_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


# --- the helpers for reading a parsed answer ----------------------------------------------------------------------


@pytest.mark.req("R-25")
@pytest.mark.parametrize("value", [None, [], "x", 1, True, 1.5])
def test_a_record_must_be_an_object(client: ApiClient, value: object) -> None:
    with pytest.raises(UnexpectedResponse):
        client.record(value, "read")


@pytest.mark.req("R-25")
@pytest.mark.parametrize("value", [None, {}, "x", 1, [1], [{}, None], [[]], [{}, "x"]])
def test_records_must_be_a_list_of_objects(client: ApiClient, value: object) -> None:
    with pytest.raises(UnexpectedResponse):
        client.records(value, "read")


@pytest.mark.req("R-25")
@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, "a\x00b", "\ud800", "x\udfff"])
def test_a_required_text_must_be_a_text_that_can_be_stored(client: ApiClient, value: object) -> None:
    with pytest.raises(UnexpectedResponse) as caught:
        client.text({"name": value}, "name", "read")
    assert "name" in str(caught.value)


def test_a_text_that_is_not_required_may_be_absent_but_not_of_another_type(client: ApiClient) -> None:
    assert client.text({}, "name", "read", required=False) == ""
    assert client.text({"name": None}, "name", "read", required=False) == ""
    assert client.text({"name": "Zoë 😀"}, "name", "read") == "Zoë 😀"
    with pytest.raises(UnexpectedResponse):
        client.text({"name": 7}, "name", "read", required=False)
