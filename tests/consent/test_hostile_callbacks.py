"""What reaches the callback when somebody means harm. The table is written from S-06 to S-24, not from the code.

Three kinds of end: *refused at the door* (nothing is called, nothing is stored, the flow is not consumed, and the
honest answer still works), *ended* (the flow is spent, with one audit line), and *ignored* (the extra things change
nothing).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, get_resolver

from consent import flow
from consent.models import ConsentFlow, PartnerConsent
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.sandbox.entra import Answer
from tests import builders
from tests.consent.test_refusals import assert_refused, stored_tokens, token_calls
from tests.portal import Browser, Portal

FORM = "application/x-www-form-urlencoded"
MARK = "zzhostilezz"
CALLBACK = "/consent/callback/global"


@dataclass(slots=True, kw_only=True)
class Sent:
    """One request to the callback, honest until a case bends it."""

    fields: list[tuple[str, str]]
    headers: dict[str, str]
    method: str = "POST"
    path: str = CALLBACK
    query: str = ""
    content_type: str = FORM
    body: bytes | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def by(self, who: Browser) -> HttpResponse:
        """Send it."""
        response: HttpResponse = who.generic(
            self.method,
            self.path,
            urlencode(self.fields).encode() if self.body is None else self.body,
            self.content_type,
            headers=self.headers,
            QUERY_STRING=self.query,
            **self.environ,
        )
        return response

    def value(self, name: str) -> str:
        return dict(self.fields)[name]

    def replace(self, name: str, value: str) -> None:
        self.fields = [(key, value if key == name else old) for key, old in self.fields]

    def drop(self, name: str) -> None:
        self.fields = [pair for pair in self.fields if pair[0] != name]


Bend = Callable[[Sent, Portal], None]


def honest(portal: Portal, answer: Answer) -> Sent:
    """Return what the sign-in page's own form would send."""
    return Sent(
        fields=list(answer.fields.items()),
        headers={"origin": portal.sandbox.clouds["global"].sign_in, "sec-fetch-dest": "document"},
    )


def with_method(method: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.method = method

    return bend


def with_header(name: str, value: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.headers[name] = value

    return bend


def with_more(*pairs: tuple[str, str]) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.fields += pairs

    return bend


def with_value(name: str, value: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.replace(name, value)

    return bend


def with_repeated(name: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.fields.append((name, sent.value(name)))

    return bend


def without(*names: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        for name in names:
            sent.drop(name)

    return bend


def with_body(content_type: str, body: bytes) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.content_type, sent.body = content_type, body

    return bend


def with_query(query: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.query = query

    return bend


def with_environ(**values: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.environ |= values

    return bend


def in_the_query(sent: Sent, portal: Portal) -> None:
    """The same fields as a GET with response_mode=query would bring."""
    sent.method, sent.query, sent.body = "GET", urlencode(sent.fields), b""


def post_with_query(sent: Sent, portal: Portal) -> None:
    sent.query = urlencode({"state": sent.value("state")})


def as_multipart(sent: Sent, portal: Portal) -> None:
    lines = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in sent.fields]
    sent.content_type, sent.body = "multipart/form-data; boundary=b", ("".join(lines) + "--b--\r\n").encode()


def as_json(sent: Sent, portal: Portal) -> None:
    quoted = ", ".join(f'"{name}": "{value}"' for name, value in sent.fields)
    sent.content_type, sent.body = "application/json", f"{{{quoted}}}".encode()


def as_plain_text(sent: Sent, portal: Portal) -> None:
    sent.content_type = "text/plain"  # what a cross-site form may send without a preflight


def empty_error(sent: Sent, portal: Portal) -> None:
    sent.drop("code")
    sent.fields.append(("error", ""))


def too_large(sent: Sent, portal: Portal) -> None:
    sent.fields.append(("session_state", "x" * 65 * 1024))


def too_many_fields(sent: Sent, portal: Portal) -> None:
    sent.body = urlencode(sent.fields).encode() + b"&a=" * 20_000


def origin_of_another_cloud(sent: Sent, portal: Portal) -> None:
    sent.headers["origin"] = portal.sandbox.clouds["china"].sign_in


def origin_without_tls(sent: Sent, portal: Portal) -> None:
    sent.headers["origin"] = portal.sandbox.clouds["global"].authority.replace("https://", "http://") + "0"


def issuer_of_another_cloud(sent: Sent, portal: Portal) -> None:
    sent.fields.append(("iss", f"{portal.sandbox.clouds['usgov'].authority}/{portal.partner.tenant_id}/v2.0"))


def issuer_twice(sent: Sent, portal: Portal) -> None:
    issuer = f"{portal.sandbox.clouds['global'].authority}/{portal.partner.tenant_id}/v2.0"
    sent.fields += [("iss", issuer), ("iss", issuer)]


def on_path(path: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.path = path

    return bend


# What was sent, and the status that it gets. Each is refused before anything is looked up, called or changed.
AT_THE_DOOR: dict[str, tuple[int, Bend]] = {
    "GET with the fields in the query": (405, in_the_query),
    "GET with a body": (405, with_method("GET")),
    "HEAD": (405, with_method("HEAD")),
    "PUT": (405, with_method("PUT")),
    "PATCH": (405, with_method("PATCH")),
    "DELETE": (405, with_method("DELETE")),
    "OPTIONS": (405, with_method("OPTIONS")),
    "TRACE": (405, with_method("TRACE")),
    "a method of no standard": (405, with_method(MARK.upper())),
    "JSON": (400, as_json),
    "multipart": (400, as_multipart),
    "plain text": (400, as_plain_text),
    "no content type": (400, with_body("", f"state={MARK}&code={MARK}".encode())),
    "another character set": (400, with_body(FORM + "; charset=utf-7", b"state=+AGE-&code=+AGE-")),
    "a query string beside the body": (400, post_with_query),
    "an unknown query string": (400, with_query(f"next=//{MARK}.example")),
    "state twice": (400, with_repeated("state")),
    "code twice": (400, with_repeated("code")),
    "a second, other state": (400, with_more(("state", MARK))),
    "a second, other code": (400, with_more(("code", MARK))),
    "error twice": (400, with_more(("error", "access_denied"), ("error", MARK))),
    "code and error": (400, with_more(("error", MARK))),
    "neither code nor error": (400, without("code")),
    "no state": (400, without("state")),
    "nothing at all": (400, without("code", "state", "session_state")),
    "empty code": (400, with_value("code", "")),
    "empty state": (400, with_value("state", "")),
    "empty error": (400, empty_error),
    "65 KB": (413, too_large),
    "a length that is announced too large": (413, with_environ(CONTENT_LENGTH="65537")),
    "no length": (400, with_environ(CONTENT_LENGTH="")),
    "chunked": (400, with_environ(CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")),
    "a negative length": (400, with_environ(CONTENT_LENGTH="-1")),
    "a length that is no number": (400, with_environ(CONTENT_LENGTH="1e3")),
    "a length of 5,000 digits": (413, with_environ(CONTENT_LENGTH="9" * 5000)),
    "20,000 fields": (400, too_many_fields),
    "Origin of a stranger": (400, with_header("origin", f"https://{MARK}.example")),
    "Origin that begins like ours": (400, with_header("origin", f"https://login.microsoftonline.com.{MARK}.example")),
    "Origin of another cloud": (400, origin_of_another_cloud),
    "Origin of another port": (400, origin_without_tls),
    "Origin of the portal itself": (400, with_header("origin", "https://portal.localhost")),
    "empty Origin": (400, with_header("origin", "")),
    "inside a frame": (400, with_header("sec-fetch-dest", "iframe")),
    "by a script": (400, with_header("sec-fetch-dest", "empty")),
    "as an object": (400, with_header("sec-fetch-dest", "object")),
    "iss of a stranger": (400, with_more(("iss", f"https://{MARK}.example/v2.0"))),
    "iss of another cloud": (400, issuer_of_another_cloud),
    "iss twice": (400, issuer_twice),
    "empty iss": (400, with_more(("iss", ""))),
    "Host of a stranger": (400, with_header("host", f"{MARK}.example")),
    "Host with a user": (400, with_header("host", f"portal.localhost@{MARK}.example")),
    "the path of a cloud that does not exist": (404, on_path("/consent/callback/germany")),
    "the path with a slash": (404, on_path("/consent/callback/global/")),
    # Well-formed, but of no flow that this browser started.
    "another cloud's path, China": (400, on_path("/consent/callback/china")),
    "another cloud's path, US Government": (400, on_path("/consent/callback/usgov")),
    "unknown state": (400, with_value("state", "A" * 43)),
    "a state that is text": (400, with_value("state", f"<script>{MARK}</script>\r\nSet-Cookie: a=b\x00\x1b[31m\u202e")),
    "a state of 60 KB": (400, with_value("state", "A" * 60_000)),
    "a state with a blank after it": (
        400,
        lambda sent, portal: sent.replace("state", sent.value("state") + " "),
    ),
}


def one_answer(portal: Portal) -> tuple[Browser, Answer]:
    who = Browser()
    return who, portal.at_microsoft(portal.press_continue(who, portal.link()))


def everything_seen(response: Any, logged: str) -> str:
    rows = repr(list(AuditEvent.objects.values_list())) + repr(list(ConsentFlow.objects.values_list()))
    return "\n".join([response.content.decode(), repr(dict(response.headers)), logged, rows])


@pytest.mark.req("S-20")
@pytest.mark.req("S-19")
@pytest.mark.req("S-28")
@pytest.mark.parametrize(("status", "bend"), AT_THE_DOOR.values(), ids=AT_THE_DOOR)
def test_a_hostile_callback_is_refused_at_the_door_and_burns_nothing(
    portal: Portal, caplog: pytest.LogCaptureFixture, status: int, bend: Bend
) -> None:
    who, answer = one_answer(portal)
    sent = honest(portal, answer)
    bend(sent, portal)
    caplog.set_level("DEBUG")

    response = sent.by(who)

    assert response.status_code == status
    assert "Location" not in response
    # Django itself logs a refused Host header, through our one-line filter; operators look for it there.
    logged = "\n".join(
        record.getMessage() for record in caplog.records if record.name != "django.security.DisallowedHost"
    )
    assert MARK not in everything_seen(response, logged)
    assert token_calls(portal) == 0
    assert stored_tokens(portal) == 0
    assert not PartnerConsent.objects.exists()
    attempt = ConsentFlow.objects.get()
    assert (attempt.outcome, attempt.claimed_at) == (ConsentFlow.Outcome.OPEN, None)
    assert list(AuditEvent.objects.filter(action__startswith="flow.").values_list("action", flat=True)) == [
        "flow.started"
    ]
    # The honest answer of the same browser still works: nobody can burn a partner's flow from outside.
    assert honest(portal, answer).by(who).status_code == 303
    assert portal.consent().state == "connected"


def test_the_table_has_the_promised_length() -> None:
    assert len(AT_THE_DOOR) + len(ENDED) + len(IGNORED) >= 60


@pytest.mark.req("S-06")
def test_every_single_character_of_a_state_counts(portal: Portal) -> None:
    who, answer = one_answer(portal)
    state = answer.fields["state"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", state)

    for place, character in enumerate(state):
        sent = honest(portal, answer)
        sent.replace("state", state[:place] + ("A" if character != "A" else "B") + state[place + 1 :])
        assert sent.by(who).status_code == 400, place

    assert token_calls(portal) == 0
    assert honest(portal, answer).by(who).status_code == 303


@pytest.mark.req("S-06")
@pytest.mark.req("S-11")
@pytest.mark.req("S-12")
def test_state_nonce_and_challenge_of_each_flow_are_its_own(portal: Portal) -> None:
    from consent import links

    link, _ = links.issue(portal.partner, portal.registration, actor=builders.ACTOR)
    cloud = portal.sandbox.clouds["global"]
    seen: dict[str, set[str]] = {"state": set(), "nonce": set(), "code_challenge": set()}
    for _ in range(200):  # one browser, one cookie: what differs is the flow
        started = flow.start(link, binder="b" * 43, cloud=cloud, actor=Actor.link(link.pk, None))
        query = parse_qs(urlsplit(started.authorize_url).query)
        assert query["code_challenge_method"] == ["S256"]
        for name, values in seen.items():
            values.add(query[name][0])
    for name, values in seen.items():
        assert len(values) == 200, name
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", value) for value in values), name


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


# --- CSRF ----------------------------------------------------------------------------------------------------------


def views(resolver: URLResolver | None = None) -> Iterator[Callable[..., object]]:
    for one in (resolver or get_resolver()).url_patterns:
        if isinstance(one, URLPattern):
            yield one.callback
        else:
            yield from views(one)


@pytest.mark.req("S-21")
def test_the_callback_is_the_only_view_without_csrf_protection() -> None:
    exempt = {
        f"{view.__module__}.{getattr(view, '__qualname__', '?')}"
        for view in views()
        if getattr(view, "csrf_exempt", False)
    }
    assert exempt == {"consent.views.callback"}


@pytest.mark.req("S-21")
@pytest.mark.req("S-02")
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "sign-in"])
def test_start_needs_its_own_pages_token(portal: Portal, origin: str) -> None:
    who = Browser()
    path = portal.link()
    who.get(path)
    if origin == "sign-in":
        origin = portal.sandbox.clouds["global"].sign_in

    response = who.post(f"{path}start", {"csrfmiddlewaretoken": "A" * 64}, headers={"origin": origin})

    assert response.status_code == 403
    assert not ConsentFlow.objects.exists()
    assert "__Host-cpv-flow-token" not in who.cookies


@pytest.mark.req("S-02")
def test_looking_at_a_link_a_hundred_times_starts_nothing(portal: Portal) -> None:
    path = portal.link()
    who = Browser()
    for number in range(100):
        browser = who if number % 2 else Browser()
        response = browser.head(path) if number % 3 else browser.get(path)
        assert response.status_code == 200
        assert "__Host-cpv-flow-token" not in browser.cookies
        assert browser.get(f"{path}start").status_code == 405
    assert not ConsentFlow.objects.exists()
    assert AuditEvent.objects.filter(action__startswith="flow.").count() == 0


@pytest.mark.req("S-22")
def test_no_page_of_the_flow_is_cached_or_leaks_its_address(portal: Portal) -> None:
    who, answer = one_answer(portal)
    response = honest(portal, answer).by(who)
    page = who.get(response["Location"])
    refused = honest(portal, Answer(answer.url, "POST", {**answer.fields, "state": MARK})).by(who)

    for one in (response, page, refused):
        assert "no-store" in one["Cache-Control"]
    for one in (response, page):
        assert one["Referrer-Policy"] == "no-referrer"
    for text in (response["Location"], page.content.decode()):
        assert not [secret for secret in portal.seen if secret in text]
