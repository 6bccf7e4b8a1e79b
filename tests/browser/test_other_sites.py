"""Other browsers and other sites against a partner's flow, in a real Chromium over TLS; and what a flow leaves behind.

Appendix 2 of the security requirements holds the facts about browsers that these tests rest on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from tests.browser.conftest import ALLOW_THIRD_PARTY, BLOCK_THIRD_PARTY, PersonWith, Prepared
from tests.browser.portal_with_partners import (
    CALLBACK,
    CONTINUE,
    FLOW_COOKIE,
    PortalWithPartners,
    accept,
    cookies,
    expect_connected,
    go_to_microsoft,
    intercept_answer,
    is_callback,
    open_foreign_site,
    open_sign_in_site,
    post_answer,
    serve,
    sign_in_and_accept,
)
from tests.sandbox.server import Sandbox

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def portal(
    running_sandbox: Sandbox, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PortalWithPartners]:
    with serve(running_sandbox, prepared, tmp_path_factory.mktemp("portal"), partners=40) as portal:
        yield portal


def another_person(chromium: Browser) -> BrowserContext:
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    return context


# --- other browsers and other sites -------------------------------------------------------------------------------


@pytest.mark.req("S-07")
def test_another_browser_cannot_finish_and_does_not_spoil_it(
    portal: PortalWithPartners, partner: Page, chromium: Browser
) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    other = another_person(chromium).new_page()
    other.goto(partner.url)  # the address of the sign-in page, sent to somebody else
    sign_in_and_accept(other, invitation)
    expect(other.locator("h1")).to_have_text("This sign-in could not be finished")
    portal.assert_untouched(invitation)
    assert portal.outcomes(invitation) == ["open"]

    # The other browser started a flow of its own: its cookie is not this flow's cookie.
    go_to_microsoft(other, portal.invite())
    other.goto(partner.url)
    sign_in_and_accept(other, invitation)
    expect(other.locator("h1")).to_have_text("This sign-in could not be finished")
    portal.assert_untouched(invitation)

    accept(partner, invitation)
    expect_connected(partner)
    portal.assert_connected_once(invitation)
    answer = other.goto(partner.url)
    assert answer is not None
    assert answer.status == 404  # S-22: the result is for the browser that holds the cookie
    expect(other.locator("body")).not_to_contain_text(invitation.tenant_id)
    other.context.close()


@pytest.mark.req("S-61")
@pytest.mark.parametrize("guarded", [True, False], ids=["with our headers", "control: without them"])
def test_no_site_can_frame_the_landing_page(portal: PortalWithPartners, partner: Page, guarded: bool) -> None:
    invitation = portal.invite()
    if not guarded:
        answer = partner.goto(invitation.address)
        assert answer is not None
        guards = {"content-security-policy", "x-frame-options"}
        headers = {name: value for name, value in answer.headers.items() if name not in guards}
        body = answer.body()
        partner.route(invitation.address, lambda route: route.fulfill(status=200, headers=headers, body=body))
    open_foreign_site(partner, portal)
    shown = partner.frame_locator("iframe").locator(CONTINUE)
    if guarded:
        with partner.expect_console_message(lambda message: "frame-ancestors 'none'" in message.text):
            frame_page(partner, invitation.address)
        expect(shown).to_have_count(0)
    else:
        frame_page(partner, invitation.address)
        expect(shown).to_be_visible()


def frame_page(page: Page, address: str) -> None:
    page.evaluate(
        """(src) => {
          const frame = Object.assign(document.createElement("iframe"), {src, name: "inner"});
          frame.addEventListener("load", () => { frame.dataset.done = "1"; });
          document.body.append(frame);
        }""",
        address,
    )


@pytest.mark.req("S-20")
def test_an_answer_posted_into_a_frame_is_refused_although_the_cookie_arrives(
    portal: PortalWithPartners, person_with: PersonWith
) -> None:
    invitation = portal.invite()
    with person_with(ALLOW_THIRD_PARTY) as page:
        go_to_microsoft(page, invitation)
        fields = intercept_answer(page, invitation)
        open_sign_in_site(page, portal)  # the right origin: only the frame is wrong
        frame_page(page, "about:blank")
        with page.expect_response(lambda response: is_callback(response.request)) as posted:
            post_answer(page, portal, fields, into="inner")
        sent = posted.value.request.all_headers()
        assert FLOW_COOKIE in sent["cookie"]
        assert sent["sec-fetch-dest"] == "iframe"
        assert posted.value.status == 400
        portal.assert_untouched(invitation)
        assert portal.outcomes(invitation) == ["open"]

        post_answer(page, portal, fields)
        expect_connected(page)
    portal.assert_connected_once(invitation)


@pytest.mark.req("S-20")
def test_an_answer_posted_by_a_foreign_site_is_refused(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    fields = intercept_answer(partner, invitation)
    open_foreign_site(partner, portal)
    post_answer(partner, portal, fields)
    expect(partner.locator("h1")).to_have_text("We could not read this request")
    portal.assert_untouched(invitation)
    assert portal.outcomes(invitation) == ["open"]


@pytest.mark.req("S-07")
@pytest.mark.parametrize("mode", [ALLOW_THIRD_PARTY, BLOCK_THIRD_PARTY], ids=["allowed", "blocked"])
def test_blocking_third_party_cookies_changes_nothing(
    portal: PortalWithPartners, person_with: PersonWith, mode: int
) -> None:
    invitation = portal.invite()
    with person_with(mode) as page:
        go_to_microsoft(page, invitation)
        at_microsoft = page.url
        # The control: inside a frame of a foreign site, the flow cookie is a third-party cookie.
        open_foreign_site(page, portal)
        with page.expect_request(f"{portal.base}/nothing") as asked:
            frame_page(page, f"{portal.base}/nothing")
        page.wait_for_function("document.querySelector('iframe').dataset.done")
        assert (FLOW_COOKIE in asked.value.all_headers().get("cookie", "")) == (mode == ALLOW_THIRD_PARTY)

        page.goto(at_microsoft)
        accept(page, invitation)
        expect_connected(page)
    portal.assert_connected_once(invitation)


@pytest.mark.req("S-62")
def test_a_sibling_host_cannot_plant_our_cookies(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    port = urlsplit(portal.base).port
    partner.goto(f"https://evil.portal.localhost:{port}/")
    for name in (FLOW_COOKIE, "__Host-csrftoken", "__Host-sessionid", "__Secure-control"):
        partner.evaluate(
            "(name) => { document.cookie = `${name}=${'p'.repeat(43)}; Secure; Path=/; Domain=portal.localhost`; }",
            name,
        )
    # The control: without the __Host- prefix a sibling reaches the portal.
    assert cookies(partner.context).keys() == {"__Secure-control"}
    assert cookies(partner.context)["__Secure-control"]["domain"] == ".portal.localhost"

    go_to_microsoft(partner, invitation)
    assert cookies(partner.context)[FLOW_COOKIE]["value"] != "p" * 43
    accept(partner, invitation)
    expect_connected(partner)
    portal.assert_connected_once(invitation)


# --- what stays behind --------------------------------------------------------------------------------------------


@pytest.mark.req("S-22")
def test_history_addresses_and_log_keep_no_code_and_no_state(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    requests: list[Request] = []
    partner.on("request", lambda request: requests.append(request))  # noqa: PLW0108  # it cannot take a builtin
    go_to_microsoft(partner, invitation)
    accept(partner, invitation)
    expect_connected(partner)
    partner.reload()

    [post] = [request for request in requests if is_callback(request)]
    fields = dict(item.split("=", 1) for item in (post.post_data or "").split("&"))
    code, state = fields["code"], fields["state"]
    assert len(code) > 40
    assert len(state) == 43

    entries = partner.context.new_cdp_session(partner).send("Page.getNavigationHistory")["entries"]
    addresses = [entry["url"] for entry in entries] + [request.url for request in requests]
    ours = [address for address in addresses if address.startswith(portal.base)]
    assert any("/consent/result/" in address for address in ours)
    assert not [entry for entry in entries if entry["url"].startswith(portal.base + CALLBACK)]
    assert not [address for address in addresses if code in address]
    assert not [address for address in ours if state in address or urlsplit(address).query]
    for request in requests:
        # From the result page nothing is sent to anybody, and nobody hears where it was.
        referrer = request.all_headers().get("referer", "")
        assert not re.search(r"/consent/(result|callback)/", referrer), request.url

    log = portal.running.log.read_text()
    link_token = urlsplit(invitation.address).path.split("/")[2]
    cookie = cookies(partner.context)[FLOW_COOKIE]["value"]
    for secret in (code, code[:40], state, link_token, cookie):
        assert secret not in log


@pytest.mark.req("S-25")
def test_a_staff_session_in_the_same_browser_changes_nothing(
    portal: PortalWithPartners, staff: Page, chromium: Browser
) -> None:
    invitation = portal.invite()
    staff.goto(f"{portal.base}/admin/")
    staff.fill("input[name=username]", "admin")
    staff.fill("input[name=password]", portal.running.password)
    staff.click("button[type=submit], input[type=submit]")
    expect(staff).to_have_url(re.compile("/admin/$"))
    session = cookies(staff.context)["__Host-sessionid"]
    stored = portal.query("SELECT session_key, session_data, expire_date FROM django_session")
    logins = portal.query("SELECT last_login FROM auth_user")
    assert len(stored) == 1

    stranger = another_person(chromium).new_page()
    stranger.goto(invitation.address)
    staff.goto(invitation.address)
    assert without_csrf(staff.content()) == without_csrf(stranger.content())

    set_cookies: list[str] = []
    staff.on("response", lambda response: set_cookies.append(response.all_headers().get("set-cookie", "")))
    staff.click(CONTINUE)
    accept(staff, invitation)
    expect_connected(staff)
    as_staff = staff.content()
    staff.context.clear_cookies(name="__Host-sessionid")
    staff.reload()
    assert staff.content() == as_staff
    assert not [line for line in set_cookies if "sessionid" in line]
    assert session["name"] not in cookies(staff.context)

    staff.context.add_cookies([{**session, "url": None}])
    assert portal.query("SELECT session_key, session_data, expire_date FROM django_session") == stored
    assert portal.query("SELECT last_login FROM auth_user") == logins
    staff.goto(f"{portal.base}/admin/")
    expect(staff).to_have_url(re.compile("/admin/$"))
    stranger.context.close()


def without_csrf(html: str) -> str:
    changed, count = re.subn(r'(name="csrfmiddlewaretoken" value=")[^"]+', r"\1", html)
    assert count == 1
    return changed
