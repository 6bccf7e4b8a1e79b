"""The error family: what the caller does next, and a text that is safe to show."""

from __future__ import annotations

import string
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.microsoft import errors
from portal.microsoft.errors import RemoteError, safe_code

SAFE = set(string.ascii_letters + string.digits + "_.-")


def family(kind: type[RemoteError] = RemoteError) -> Iterator[type[RemoteError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from family(below)


OURS = [kind for kind in family() if kind.__module__ == errors.__name__]
every_kind = pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)


def test_only_these_are_repeated() -> None:
    assert {kind.__name__ for kind in OURS if kind.retryable} == {
        "RetryableError",
        "Unreachable",
        "NotSent",
        "Throttled",
        "ServerFault",
    }


def test_what_a_caller_catches_covers_what_it_means() -> None:
    assert issubclass(errors.MfaRequired, errors.InteractionRequired)
    assert issubclass(errors.InteractionRequired, errors.ConsentRequired)
    assert issubclass(errors.AlreadyExists, errors.Conflict)
    assert not issubclass(errors.ConsentRequired, errors.AccessDenied)
    assert not issubclass(errors.AuthenticationFailed, errors.AccessDenied)


@every_kind
def test_an_error_says_who_what_and_where_to_look(kind: type[RemoteError]) -> None:
    error = kind(
        "graph",
        "read organization",
        status=503,
        code="SomeCode",
        correlation_id="a2f3c4d5",
        request_id="7d1c2f4e",
        retry_after=7,
    )
    assert str(error) == (
        f"graph: read organization: {kind.summary}, HTTP 503, code SomeCode, retry after 7 s, "
        "correlation id a2f3c4d5, request id 7d1c2f4e"
    )


@every_kind
def test_what_is_not_known_is_left_out(kind: type[RemoteError]) -> None:
    assert str(kind("graph", "read")) == f"graph: read: {kind.summary}"
    assert str(kind("graph", "read", detail="our own words")) == "graph: read: our own words"
    assert str(kind("graph", "read", status=0)) == f"graph: read: {kind.summary}, HTTP 0"


@every_kind
def test_every_summary_is_a_plain_phrase(kind: type[RemoteError]) -> None:
    assert kind.summary[0].isupper()
    assert not kind.summary.endswith(".")


@pytest.mark.req("S-23")
@pytest.mark.req("S-59")
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Authorization_RequestDenied", "Authorization_RequestDenied"),
        ("900150", "900150"),
        (900150, "900150"),
        ("a.b-c_d", "a.b-c_d"),
        ("", ""),
        (None, "None"),
        ("<script>", "_script_"),
        ("a b\r\nSet-Cookie: x", "a_b__Set-Cookie__x"),
        ("\x1b[31m", "__31m"),
        ("Zoë", "Zo_"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}abc", "_abc"),
        ("x" * 1000, "x" * 60),
    ],
)
def test_an_outside_code_becomes_harmless(text: object, code: str) -> None:
    assert safe_code(text) == code


@pytest.mark.req("S-23")
@given(text=st.text(), limit=st.integers(min_value=1, max_value=100))
def test_a_code_never_holds_anything_else_and_never_more(text: str, limit: int) -> None:
    code = safe_code(text, limit)
    assert set(code) <= SAFE
    assert len(code) <= limit
    assert safe_code(code, limit) == code


@pytest.mark.req("S-23")
@given(code=st.text(), request_id=st.text())
def test_what_came_from_outside_cannot_break_a_line_of_the_log(code: str, request_id: str) -> None:
    error = RemoteError("graph", "read", code=code, request_id=request_id)
    assert error.code == safe_code(code)
    assert error.request_id == safe_code(request_id)
    assert set(str(error)) <= SAFE | set(" :,")


def test_the_arguments_of_an_error_hold_our_words_only() -> None:
    error = RemoteError("graph", "read", code="x", request_id="y", detail="z")
    assert error.args == ("graph", "read")
    assert repr(error) == "RemoteError('graph', 'read')"
