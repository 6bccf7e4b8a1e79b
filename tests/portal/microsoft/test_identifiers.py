"""Identifiers from people and from answers: one canonical form, or a refusal that repeats nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.microsoft.identifiers import (
    CONSUMERS_TENANT,
    NIL_GUID,
    InvalidIdentifier,
    new_correlation_id,
    new_request_id,
    parse_application_id,
    parse_domain,
    parse_object_id,
    parse_tenant_id,
)

GUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
PARSERS: list[Callable[[str], str]] = [parse_tenant_id, parse_application_id, parse_object_id]
every_parser = pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)

pytestmark = [pytest.mark.req("S-04"), pytest.mark.req("S-26")]


@every_parser
@pytest.mark.parametrize(
    "text",
    [
        GUID,
        GUID.upper(),
        "3F2504e0-4f89-41D3-9a0c-0305E82C3301",
        f"{{{GUID}}}",
        f"{{{GUID.upper()}}}",
        f"  {GUID}  ",
        f" {{{GUID}}} ",
    ],
)
def test_the_usual_ways_of_writing_a_guid_have_one_canonical_form(parse: Callable[[str], str], text: str) -> None:
    assert parse(text) == GUID


@every_parser
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "common",
        "organizations",
        "consumers",
        "contoso.onmicrosoft.com",
        NIL_GUID,
        f"{{{NIL_GUID}}}",
        GUID.replace("-", ""),
        GUID[:-1],
        f"{GUID}0",
        f"{GUID}/",
        f"/{GUID}",
        f"../{GUID}",
        f"{GUID}/../common",
        f"{GUID}?x=1",
        f"{GUID}#x",
        f"{GUID}%00",
        f"{GUID}\x00",
        f"{GUID}\n",
        f"\n{GUID}",
        f"\t{GUID}",
        f"{GUID}\r\nHost: evil.example",
        f"{GUID} {GUID}",
        f"{GUID},{GUID}",
        f"({GUID})",
        f"{{{GUID}",
        f"{GUID}}}",
        f"{{{{{GUID}}}}}",
        f"{{ {GUID} }}",
        f"urn:uuid:{GUID}",
        f"'{GUID}'",
        f"{GUID}' or 1 eq 1",
        GUID.replace("3", "g"),
        GUID.replace("0", "٠"),
        GUID.replace("0", "０"),
        GUID.replace("e", "\N{CYRILLIC SMALL LETTER IE}"),
        GUID.replace("-", "\N{EN DASH}"),
        GUID.replace("-", "_"),
        f"\N{ZERO WIDTH SPACE}{GUID}",
        f"\N{NO-BREAK SPACE}{GUID}",
        f"\N{RIGHT-TO-LEFT OVERRIDE}{GUID}",
        "3f2504e04-f89-41d3-9a0c-0305e82c3301",
        "{",
        "}",
        "{}",
        "x" * 100_000,
    ],
)
def test_anything_else_is_refused_and_not_repeated(parse: Callable[[str], str], text: str) -> None:
    with pytest.raises(InvalidIdentifier, match=rf"\AAn? [a-z ()]+ id must be a GUID such as {GUID}\Z"):
        parse(text)


def test_the_tenant_of_personal_accounts_is_never_a_partner() -> None:
    for text in (CONSUMERS_TENANT, CONSUMERS_TENANT.upper(), f"{{{CONSUMERS_TENANT}}}"):
        with pytest.raises(InvalidIdentifier, match="personal Microsoft accounts"):
            parse_tenant_id(text)
    assert str(parse_application_id(CONSUMERS_TENANT)) == str(CONSUMERS_TENANT)


@given(guid=st.uuids(), upper=st.booleans(), braces=st.booleans(), before=st.text(" ", max_size=3))
def test_every_guid_is_accepted_in_every_form(guid: uuid.UUID, upper: bool, braces: bool, before: str) -> None:
    text = str(guid).upper() if upper else str(guid)
    text = f"{before}{{{text}}}" if braces else before + text
    assert parse_object_id(text) == str(guid)


@every_parser
@given(text=st.one_of(st.text(max_size=60), st.from_regex(r"[0-9a-fA-F{}\- \n]{30,42}", fullmatch=True)))
def test_what_is_accepted_is_always_canonical(parse: Callable[[str], str], text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidIdentifier:
        return
    assert parsed == str(uuid.UUID(parsed))
    assert parse(parsed) == parsed


# --- domains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("contoso.onmicrosoft.com", "contoso.onmicrosoft.com"),
        ("Contoso.OnMicrosoft.COM", "contoso.onmicrosoft.com"),
        (" contoso.com ", "contoso.com"),
        ("a.co", "a.co"),
        ("1.2.3.com", "1.2.3.com"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("example.xn--p1ai", "example.xn--p1ai"),
        (f"{'a' * 63}.com", f"{'a' * 63}.com"),
        (".".join(["a" * 61] * 4) + ".com", ".".join(["a" * 61] * 4) + ".com"),
    ],
)
def test_a_domain_has_one_canonical_form(text: str, domain: str) -> None:
    assert parse_domain(text) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "com",
        "localhost",
        ".com",
        "contoso.",
        "contoso.com.",
        "contoso..com",
        "-contoso.com",
        "contoso-.com",
        "contoso.c",
        "contoso.1",
        "1.2.3.4",
        "127.0.0.1",
        "[::1]",
        "contoso.com:443",
        "contoso.com/common",
        "contoso.com?x",
        "contoso.com#x",
        "user@contoso.com",
        "https://contoso.com",
        "con toso.com",
        "contoso.com\n",
        "\tcontoso.com",
        "contoso\x00.com",
        "contoso_x.com",
        "contoso%2ecom",
        "../contoso.com",
        "contoso\\evil.com",
        "münchen.de",
        "contoso\N{IDEOGRAPHIC FULL STOP}com",
        "c\N{CYRILLIC SMALL LETTER O}ntoso.com",
        "boo\N{KELVIN SIGN}.com",  # its lower case is an ASCII k
        f"{'a' * 64}.com",
        ".".join(["a" * 63] * 4) + ".com",
        "a." * 100_000 + "com",
        "a" * 1_000_000,
    ],
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentifier, match=r"\AA domain must look like contoso\.onmicrosoft\.com\Z"):
        parse_domain(text)


@given(st.text(st.sampled_from("aZ0-._@/:% \n"), max_size=80))
def test_what_is_accepted_as_domain_is_safe_in_a_path(text: str) -> None:
    try:
        domain = parse_domain(text)
    except InvalidIdentifier:
        return
    assert set(domain) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert "." in domain
    assert ".." not in domain
    assert parse_domain(domain) == domain


# --- ours ---------------------------------------------------------------------------------------------------------


def test_our_own_ids_are_fresh_canonical_guids() -> None:
    ids = [make() for make in (new_correlation_id, new_request_id) for _ in range(100)]
    assert len(set(ids)) == 200
    assert all(str(parse_object_id(each)) == str(each) and uuid.UUID(each).version == 4 for each in ids)
