"""What is refused at the callback's door. The table is written from S-19, S-20 and S-28, not from the code.

Nothing is called, nothing is stored, the flow is not consumed, and the honest answer still works afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.invitations import links
from consent.models import ConsentFlow, ConsentLink, PartnerConsent
from consent.sign_in import flow
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.site.limits import limiter
from tests.sandbox.entra import Answer
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.hostile import (
    FORM,
    MARK,
    Bend,
    Sent,
    everything_seen,
    honest,
    one_answer,
    with_body,
    with_environ,
    with_header,
    with_method,
    with_more,
    with_query,
    with_repeated,
    with_value,
    without,
)
from tests.support.portal import Browser, Portal
from tests.support.refusals import stored_tokens, token_calls


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


another_character_set = with_body(FORM + "; charset=utf-7", b"state=+AGE-&code=+AGE-")
REFUSED_BY_DJANGO = {too_many_fields, another_character_set}  # while it reads the body


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


def on_path_of_china_as_from_there(sent: Sent, portal: Portal) -> None:
    sent.path = "/consent/callback/china"
    sent.headers["origin"] = portal.sandbox.clouds["china"].sign_in


def on_path_of_china_without_origin(sent: Sent, portal: Portal) -> None:
    sent.path = "/consent/callback/china"
    del sent.headers["origin"]


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
    "another character set": (400, another_character_set),
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
    "another cloud's path with that cloud's Origin": (400, on_path_of_china_as_from_there),
    "another cloud's path without Origin": (400, on_path_of_china_without_origin),
    "another cloud's path, US Government": (400, on_path("/consent/callback/usgov")),
    "unknown state": (400, with_value("state", "A" * 43)),
    "a state that is text": (400, with_value("state", f"<script>{MARK}</script>\r\nSet-Cookie: a=b\x00\x1b[31m\u202e")),
    "a state of 60 KB": (400, with_value("state", "A" * 60_000)),
    "a state with a blank after it": (
        400,
        lambda sent, portal: sent.replace("state", sent.value("state") + " "),
    ),
}


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
    # S-55: one line with the reason, an address, and nothing of what was sent. Django refuses a Host before any view.
    noted = AuditEvent.objects.filter(action="callback.refused")
    assert noted.count() == (0 if status == 404 or bend in REFUSED_BY_DJANGO or "host" in sent.headers else 1)
    for event in noted:
        assert event.details["why"] in set(flow.CallbackFlaw)
        assert (event.outcome, event.actor, event.address) == ("refused", "visitor", "127.0.0.1")
    # The honest answer of the same browser still works: nobody can burn a partner's flow from outside.
    assert honest(portal, answer).by(who).status_code == 303
    assert portal.consent().state == "connected"


def issuer(portal: Portal, tenant_id: str = "", cloud: str = "global") -> str:
    return f"{portal.sandbox.clouds[cloud].authority}/{tenant_id or portal.partner.tenant_id}/v2.0"


@pytest.mark.req("S-19")
def test_only_the_flows_own_issuer_is_taken(portal: Portal) -> None:
    """RFC 9207 section 2.4: simple string comparison. Another tenant on the same host is another issuer."""
    who, answer = one_answer(portal)
    own = issuer(portal)
    for foreign in (
        issuer(portal, builders.guid()),
        issuer(portal, cloud="usgov"),
        own + "/",
        own.upper(),
        own.removesuffix("/v2.0"),
        portal.sandbox.clouds["global"].authority + "/",
        f"{portal.sandbox.clouds['global'].authority}/{{tenantid}}/v2.0",
    ):
        sent = honest(portal, answer)
        sent.fields.append(("iss", foreign))
        assert sent.by(who).status_code == 400, foreign
    assert token_calls(portal) == 0
    noted = AuditEvent.objects.filter(action="callback.refused")
    assert {event.details["why"] for event in noted} == {"foreign_issuer"}
    assert {event.subject["partner"] for event in noted} == {portal.partner.pk}

    sent = honest(portal, answer)
    sent.fields.append(("iss", own))
    assert sent.by(who).status_code == 303
    assert portal.consent().state == "connected"


@pytest.mark.req("S-19")
def test_an_issuer_that_cannot_be_compared_spends_nothing(portal: Portal) -> None:
    who, answer = one_answer(portal)
    portal.sandbox.world.faults.append(Fault(service="login", path="openid-configuration", status=503, body=""))
    sent = honest(portal, answer)
    sent.fields.append(("iss", issuer(portal)))

    assert sent.by(who).status_code == 503
    assert token_calls(portal) == 0
    assert sent.by(who).status_code == 303


# --- what the trail says -------------------------------------------------------------------------------------------


def why_of(portal: Portal, bend: Bend, who: Browser | None = None) -> AuditEvent:
    """Send a bent answer and return the one line that it left."""
    mine, answer = one_answer(portal)
    sent = honest(portal, answer)
    bend(sent, portal)
    response = sent.by(who or mine)
    assert response.status_code >= 400
    return AuditEvent.objects.get(action="callback.refused")


@pytest.mark.req("S-55")
@pytest.mark.parametrize(
    ("why", "bend"),
    [
        ("method", with_method("GET")),
        ("form", as_json),
        ("size", too_large),
        ("foreign_origin", with_header("origin", "https://evil.example")),
        ("framed", with_header("sec-fetch-dest", "iframe")),
        ("repeated_parameters", with_repeated("state")),
        ("repeated_parameters", with_more(("error", "access_denied"))),
        ("repeated_parameters", issuer_twice),
        ("missing_parameters", without("code")),
        ("missing_parameters", with_value("state", "")),
        ("unknown_state", with_value("state", "A" * 43)),
        ("other_callback", on_path_of_china_without_origin),
        ("foreign_issuer", with_more(("iss", ""))),
    ],
)
def test_a_refused_callback_leaves_one_line_with_its_reason(portal: Portal, why: str, bend: Bend) -> None:
    event = why_of(portal, bend)

    known = why in {"other_callback", "foreign_issuer"}
    assert event.details["why"] == why
    assert event.details["cloud"] in {"global", "china"}
    assert event.subject.get("partner") == (portal.partner.pk if known else None)
    assert event.correlation_id == (ConsentFlow.objects.get().correlation_id if known else "")


@pytest.mark.req("S-55")
@pytest.mark.req("S-07")
def test_a_valid_state_with_a_foreign_cookie_names_the_flow_that_somebody_tried_to_finish(portal: Portal) -> None:
    event = why_of(portal, lambda sent, portal: None, Browser())

    attempt = ConsentFlow.objects.get()
    assert event.details["why"] == "foreign_cookie"
    assert event.subject == {"flow": attempt.pk, "link": attempt.link_id, "partner": portal.partner.pk}
    assert event.correlation_id == attempt.correlation_id


@pytest.mark.req("S-55")
def test_forged_admin_consents_leave_their_line(portal: Portal) -> None:
    for query, why in (
        ("admin_consent=True&state=" + "A" * 43, "forged_admin_consent"),
        ("admin_consent=True&admin_consent=True&state=a", "repeated_parameters"),
        ("admin_consent=True&state=a&state=b", "repeated_parameters"),
        ("admin_consent=False&state=a", "missing_parameters"),
        ("", "missing_parameters"),
    ):
        assert Browser().get(f"/consent/admin-consent/global?{query}").status_code == 400
        assert AuditEvent.objects.filter(action="callback.refused").first().details["why"] == why  # type: ignore[union-attr]


@pytest.mark.req("S-55")
def test_an_answer_for_a_link_that_ended_meanwhile_leaves_its_line(portal: Portal) -> None:
    def revoke(sent: Sent, portal: Portal) -> None:
        ConsentLink.objects.update(revoked_at=timezone.now())

    event = why_of(portal, revoke)

    assert (event.details["why"], event.subject["partner"]) == ("flow_ended", portal.partner.pk)


@pytest.mark.req("S-55")
@pytest.mark.req("S-63")
def test_a_flood_of_refused_callbacks_leaves_one_line_per_reason_address_and_hour(
    portal: Portal, settings: Settings
) -> None:
    settings.REQUEST_LIMIT_FACTOR = 1
    limiter.forget()
    who, answer = one_answer(portal)
    for _ in range(20):
        for bend in (with_method("GET"), with_repeated("state"), with_value("state", "A" * 43)):
            sent = honest(portal, answer)
            bend(sent, portal)
            sent.by(who)
    sent = honest(portal, answer)
    sent.environ["REMOTE_ADDR"] = "198.51.100.7"
    sent.method = "GET"
    sent.by(who)

    noted = AuditEvent.objects.filter(action="callback.refused").values_list("details__why", "address")
    assert sorted(noted) == [
        ("method", "127.0.0.1"),
        ("method", "198.51.100.7"),
        ("repeated_parameters", "127.0.0.1"),
        ("unknown_state", "127.0.0.1"),
    ]
    limiter.forget()


def test_the_table_has_the_promised_length() -> None:
    assert len(AT_THE_DOOR) >= 50


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
