"""Well-formed answers that mean harm (S-07 to S-11, S-23, S-24): each ends the flow once, or changes nothing at all."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from consent.models import ConsentFlow, PartnerConsent
from portal.audit.models import AuditEvent
from tests.support import builders
from tests.support.hostile import (
    MARK,
    Bend,
    Sent,
    everything_seen,
    honest,
    one_answer,
    with_header,
    with_more,
    with_value,
)
from tests.support.portal import Browser, Portal
from tests.support.refusals import assert_refused, stored_tokens, token_calls

# --- attempts that end the flow ------------------------------------------------------------------------------------


def error_answer(error: str, description: str = "", **more: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.drop("code")
        sent.fields += [("error", error), ("error_description", description), *more.items()]

    return bend


HOSTILE_TEXTS = {
    "markup": f"AADSTS65004: <img src=x onerror=alert('{MARK}')><script>{MARK}</script>",
    "line breaks": f"AADSTS65004\r\nSet-Cookie: {MARK}=1\r\n\r\n{MARK}",
    "ANSI codes": f"AADSTS65004 \x1b[2J\x1b[31m{MARK}\x1b]0;{MARK}\x07",
    "bidi and invisible": f"AADSTS65004 \u202e{MARK}\u2066\u200b\ufeff\x00",
    "40 KB": f"AADSTS65004 {MARK} " * 1000,
    "template syntax": f"AADSTS65004 {{% load {MARK} %}}{{{{ {MARK}|safe }}}} %s %(a)s {{0}}",
    "a number too long for any code": f"AADSTS{'9' * 400} {MARK}",
    "digits that are not ASCII": f"AADSTS٦٥٠٠٤ {MARK}",
}

# problem that the flow ends with, what was sent, token calls
ENDED: dict[str, tuple[str | None, Bend, int]] = {
    **{
        f"access_denied with {name}": (None, error_answer("access_denied", text), 0)
        for name, text in HOSTILE_TEXTS.items()
    },
    **{
        f"an error of no standard: {name}": (None, error_answer(text[:2000], text[:2000]), 0)
        for name, text in HOSTILE_TEXTS.items()
    },
    "error_uri and error_subcode of a stranger": (
        None,
        error_answer("access_denied", MARK, error_uri=f"https://{MARK}.example/", error_subcode=f"<b>{MARK}</b>" * 100),
        0,
    ),
    "declined": ("declined", error_answer("access_denied", "AADSTS65004: no", error_subcode="cancel"), 0),
    "a code of nobody": ("start_again", with_value("code", MARK), 1),
    "a code with markup": (None, with_value("code", f"<script>{MARK}</script>\r\n\x00"), 1),
    "a code of 60 KB": (None, with_value("code", "A" * 60_000), 1),
}


@pytest.mark.req("S-23")
@pytest.mark.req("S-59")
@pytest.mark.parametrize(("problem", "bend", "calls"), ENDED.values(), ids=ENDED)
def test_hostile_text_in_a_well_formed_answer_is_data_and_shown_nowhere(
    portal: Portal, caplog: pytest.LogCaptureFixture, problem: str | None, bend: Bend, calls: int
) -> None:
    who, answer = one_answer(portal)
    sent = honest(portal, answer)
    bend(sent, portal)
    caplog.set_level("DEBUG")

    response = sent.by(who)

    assert response.status_code == 303
    page = who.get(response["Location"])
    ended = ConsentFlow.objects.get()
    if problem:
        assert ended.problem == problem
    assert_refused(portal, ended.problem)
    assert token_calls(portal) == calls
    # S-23 lets a cleaned code of 40 characters stay in our own books; a person sees not even that.
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{0,40}", ended.code), ended.code
    shown = page.content.decode() + repr(dict(page.headers)) + repr(dict(response.headers))
    assert MARK not in shown
    assert "\x1b" not in shown
    hostile = re.compile(rf"<[^>]*{MARK}|{MARK}[^\w]*\.example|[\x1b\u202e]")
    assert not hostile.search(everything_seen(page, caplog.text))
    assert MARK not in caplog.text


@pytest.mark.req("S-08")
@pytest.mark.req("S-11")
@pytest.mark.parametrize("crossed", ["code of B with state A", "state of B with code A", "both, one after the other"])
def test_two_flows_of_one_browser_cannot_be_crossed(portal: Portal, crossed: str) -> None:
    who = Browser()
    tenant = next(one for one in portal.sandbox.world.tenants.values() if one.domain == "southridge.example.com")
    other = builders.partner(name="Southridge IT", tenant_id=tenant.tenant_id)
    a = portal.at_microsoft(portal.press_continue(who, portal.link()))
    b = portal.at_microsoft(portal.press_continue(who, portal.link(other)), "service@southridge.example.com")

    attempts = []
    if crossed != "state of B with code A":
        attempts.append((a.fields["state"], b.fields["code"]))
    if crossed != "code of B with state A":
        attempts.append((b.fields["state"], a.fields["code"]))
    for state, code in attempts:
        sent = honest(portal, a)
        sent.replace("state", state)
        sent.replace("code", code)
        assert sent.by(who).status_code == 303

    assert stored_tokens(portal) == 0
    assert not PartnerConsent.objects.exists()
    assert AuditEvent.objects.filter(action="flow.refused").count() == len(attempts)
    assert ConsentFlow.objects.filter(outcome="refused").count() == len(attempts)


@pytest.mark.req("S-11")
def test_a_code_of_an_earlier_flow_of_the_same_partner_and_browser_is_worth_nothing(portal: Portal) -> None:
    """An injected code: same tenant, same client, same cookie. PKCE, bound to the flow, is what refuses it."""
    who = Browser()
    stolen = portal.at_microsoft(portal.press_continue(who, portal.link()))
    mine = portal.at_microsoft(portal.press_continue(who, portal.link()))
    sent = honest(portal, mine)
    sent.replace("code", stolen.fields["code"])

    assert sent.by(who).status_code == 303

    assert stored_tokens(portal) == 0
    assert not PartnerConsent.objects.exists()


@pytest.mark.req("S-07")
def test_an_authorize_address_of_an_attacker_finished_by_a_victim_gains_nothing(portal: Portal) -> None:
    """Cross-user session fixation: the victim signs in behind the attacker's address and posts the answer."""
    attacker, victim = Browser(), Browser()
    address = portal.press_continue(attacker, portal.link())
    answer = portal.at_microsoft(address)

    response = honest(portal, answer).by(victim)

    assert response.status_code == 400
    assert token_calls(portal) == 0
    assert ConsentFlow.objects.get().claimed_at is None


@pytest.mark.req("S-07")
@pytest.mark.parametrize(
    "cookie",
    ["", "A" * 43, "a" * 4000, "\xfc\xff" * 21, "; x=1", "\xe2\x80\xae" * 14],
    ids=lambda text: ascii(text[:8]),
)
def test_a_planted_flow_cookie_opens_nothing(portal: Portal, cookie: str) -> None:
    who, answer = one_answer(portal)
    own = who.cookies["__Host-cpv-flow-token"].value
    who.cookies["__Host-cpv-flow-token"] = cookie

    assert honest(portal, answer).by(who).status_code == 400

    assert token_calls(portal) == 0
    who.cookies["__Host-cpv-flow-token"] = own
    assert honest(portal, answer).by(who).status_code == 303


@pytest.mark.req("S-07")
@pytest.mark.req("S-62")
def test_the_flow_cookie_has_the_promised_shape(portal: Portal) -> None:
    who = Browser()
    portal.press_continue(who, portal.link())

    cookie = who.cookies["__Host-cpv-flow-token"]

    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", cookie.value)
    assert (cookie["secure"], cookie["httponly"], cookie["path"], cookie["samesite"], cookie["domain"]) == (
        True,
        True,
        "/",
        "None",
        "",
    )
    assert 0 < int(cookie["max-age"]) <= 900


@pytest.mark.req("S-09")
@pytest.mark.req("R-18")
def test_another_code_for_a_finished_flow_shows_the_first_result_only(portal: Portal) -> None:
    who, answer = one_answer(portal)
    first = honest(portal, answer).by(who)
    calls = token_calls(portal)
    sent = honest(portal, answer)
    sent.replace("code", MARK)

    again = sent.by(who)

    assert (again.status_code, again["Location"]) == (303, first["Location"])
    assert token_calls(portal) == calls
    assert portal.consent().state == "connected"


# --- what is simply ignored ----------------------------------------------------------------------------------------

IGNORED: dict[str, Bend] = {
    "another tenant": with_more(("tenant", "9188040d-6c67-4c5b-b112-36a304b66dad"), ("tid", MARK)),
    "another partner and link": with_more(("partner", "1"), ("link", "1"), ("flow", "1"), ("public_id", MARK)),
    "another redirect URI": with_more(("redirect_uri", f"https://{MARK}.example/")),
    "tokens in the post": with_more(
        ("id_token", MARK), ("access_token", MARK), ("refresh_token", MARK), ("token_type", "Bearer")
    ),
    "a place to go afterwards": with_more(
        ("next", f"//{MARK}.example"), ("return_url", f"https:{MARK}.example"), ("RelayState", f"/\\{MARK}.example")
    ),
    "a verifier, nonce and client of a stranger": with_more(
        ("code_verifier", MARK), ("nonce", MARK), ("client_id", MARK), ("scope", MARK)
    ),
    "another cloud instance": with_more(("cloud_instance_name", f"{MARK}.example"), ("cloud_graph_host_name", MARK)),
    "admin consent": with_more(("admin_consent", "True")),
    "X-Forwarded-Host": with_header("x-forwarded-host", f"{MARK}.example"),
    "Forwarded": with_header("forwarded", f"host={MARK}.example;proto=http"),
    "X-Original-URL": with_header("x-original-url", f"/{MARK}"),
    "X-HTTP-Method-Override": with_header("x-http-method-override", "GET"),
    "Referer": with_header("referer", f"https://{MARK}.example/"),
    "Authorization": with_header("authorization", f"Bearer {MARK}"),
    "Origin null": with_header("origin", "null"),
    "no Origin": lambda sent, portal: sent.headers.clear(),
}


@pytest.mark.req("S-08")
@pytest.mark.req("S-20")
@pytest.mark.req("S-24")
@pytest.mark.req("S-28")
@pytest.mark.parametrize("bend", IGNORED.values(), ids=IGNORED)
def test_extra_fields_and_headers_change_nothing(portal: Portal, caplog: pytest.LogCaptureFixture, bend: Bend) -> None:
    who, answer = one_answer(portal)
    sent = honest(portal, answer)
    bend(sent, portal)
    caplog.set_level("DEBUG")

    response = sent.by(who)

    assert response.status_code == 303
    assert re.fullmatch(r"/consent/result/[0-9a-f]{32}", response["Location"])
    page = who.get(response["Location"])
    assert page.status_code == 200
    consent = portal.consent()
    assert (consent.state, consent.partner_id, consent.generation) == ("connected", portal.partner.pk, 1)
    assert MARK not in everything_seen(page, caplog.text) + repr(dict(response.headers))
    tenants = {line["tenant"] for line in portal.sandbox.world.ledger if line.get("grant")}
    assert tenants == {portal.partner.tenant_id}
    assert portal.sandbox.world.crossings == []


@pytest.mark.req("S-24")
@pytest.mark.req("S-28")
@pytest.mark.parametrize("name", ["next", "redirect_uri", "tenant", "state", "prompt", "client_id"])
def test_nothing_posted_to_start_reaches_the_authorize_address(portal: Portal, name: str) -> None:
    who = Browser()
    path = portal.link()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', who.get(path).content.decode())
    assert token
    cloud = portal.sandbox.clouds["global"]

    response = who.post(
        f"{path}start?{name}=//{MARK}.example",
        {"csrfmiddlewaretoken": token[1], name: f"https:{MARK}.example"},
        headers={"referer": "https://portal.localhost" + path, "x-forwarded-host": f"{MARK}.example"},
    )

    assert response.status_code == 303
    location = response["Location"]
    assert MARK not in location
    assert location.startswith(f"{cloud.sign_in}/{portal.partner.tenant_id}/oauth2/v2.0/authorize?")
    assert parse_qs(urlsplit(location).query)["redirect_uri"] == ["https://portal.localhost/consent/callback/global"]
