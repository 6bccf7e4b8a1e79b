"""Partners in a real Chromium over TLS, with the sign-in pages on another site.

What they do by mistake, and what others do to them (R-18, Appendix 2 of the security requirements).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Cookie, Error, Page, Request, expect

from portal.sandbox.server import Sandbox
from portal.sandbox.world import Tamper
from tests.browser.busy import (
    CALLBACK,
    CONTINUE,
    FLOW_COOKIE,
    BusyPortal,
    accept,
    expect_connected,
    go_to_microsoft,
    intercept_answer,
    is_callback,
    post_answer,
    serve,
    sign_in,
    sign_in_and_accept,
)
from tests.browser.conftest import CHROMIUM, CHROMIUM_FLAGS

pytestmark = pytest.mark.browser

# Values of Chromium's preference ``profile.cookie_controls_mode``. Contexts like those of the other tests are incognito
# and block third-party cookies anyway; only a profile of its own can allow them.
ALLOW_THIRD_PARTY, BLOCK_THIRD_PARTY = 0, 1
PersonWith = Callable[[int], AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def portal(running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyPortal]:
    with serve(running_sandbox, tmp_path_factory.mktemp("busy"), partners=40) as portal:
        yield portal


@pytest.fixture
def person_with(chromium: Browser, tmp_path: Path) -> PersonWith:
    """Start a browser with a profile in which third-party cookies are allowed or blocked."""

    @contextmanager
    def start(cookie_controls: int) -> Iterator[Page]:
        profile = tmp_path / f"profile-{cookie_controls}"
        (profile / "Default").mkdir(parents=True)
        preferences = {"profile": {"cookie_controls_mode": cookie_controls}}
        (profile / "Default" / "Preferences").write_text(json.dumps(preferences))
        context = chromium.browser_type.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=CHROMIUM_FLAGS, ignore_https_errors=True
        )
        context.set_default_timeout(15_000)
        yield context.new_page()
        context.close()

    return start


def another_person(chromium: Browser) -> BrowserContext:
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    return context


def cookies(context: BrowserContext) -> dict[str, Cookie]:
    return {cookie["name"]: cookie for cookie in context.cookies()}


def go_back(page: Page) -> None:
    """Press Back; where the browser asks whether to send the form again, agree."""
    try:
        page.go_back()
    except Error as error:
        if "ERR_CACHE_MISS" not in error.message:
            raise
        page.wait_for_url("chrome-error://chromewebdata/")
        page.reload(wait_until="networkidle")  # some of these forms lead straight back to the portal


def open_foreign_site(page: Page, portal: BusyPortal) -> None:
    """Open a page of a site that belongs to nobody in the flow; it has no policy of its own."""
    page.goto(f"https://foreign.localhost:{portal.sandbox.port}/")


def open_sign_in_site(page: Page, portal: BusyPortal) -> None:
    """Open a page on the origin of the sign-in pages, without their policy."""
    page.goto(f"{portal.sign_in}/")


# --- the ways a flow ends -----------------------------------------------------------------------------------------


@pytest.mark.req("S-07")
@pytest.mark.req("S-62")
def test_a_partner_connects_and_the_browser_holds_one_bound_cookie(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)

    cookie = cookies(partner.context)[FLOW_COOKIE]
    assert (cookie["sameSite"], cookie["secure"], cookie["httpOnly"], cookie["path"]) == ("None", True, True, "/")
    assert cookie["domain"] == "portal.localhost"  # a leading dot would mean a Domain attribute
    assert 880 < cookie["expires"] - time.time() <= 900

    accept(partner, invitation)
    expect_connected(partner)
    expect(partner.locator("body")).to_contain_text(invitation.tenant_id)
    portal.assert_connected_once(invitation)
    held = cookies(partner.context)
    assert held.keys() == {FLOW_COOKIE, "__Host-csrftoken"}
    assert held["__Host-csrftoken"]["sameSite"] == "Lax"


def test_a_partner_who_declines_can_accept_with_the_same_link(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    sign_in(partner, invitation)
    partner.click("#cancel")
    expect(partner.locator("h1")).to_have_text("You did not accept, and that is fine")
    portal.assert_untouched(invitation)

    go_to_microsoft(partner, invitation)
    accept(partner, invitation)
    expect_connected(partner)
    portal.assert_connected_once(invitation)
    assert portal.outcomes(invitation) == ["refused", "connected"]


@pytest.mark.req("S-14")
def test_an_account_of_another_tenant_is_turned_away_and_nothing_is_stored(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    other = "0f5c2a86-6a0b-4a3f-9b58-4a0c7f7f2d11"
    issuer = f"{portal.sandbox.clouds['global'].authority}/{other}/v2.0"
    portal.sandbox.world.tampers.append(Tamper(claims={"tid": other, "iss": issuer}))
    go_to_microsoft(partner, invitation)
    accept(partner, invitation)

    expect(partner.locator("h1")).to_have_text("This account belongs to another tenant")
    expect(partner.locator("body")).not_to_contain_text(other)
    assert portal.outcomes(invitation) == ["refused"]
    assert portal.stored_generations(invitation) == []


# --- impatient and absent-minded partners -------------------------------------------------------------------------


@pytest.mark.req("R-18")
def test_back_after_success_leads_to_the_same_result(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    accept(partner, invitation)
    result = partner.url
    posts: list[Request] = []
    partner.on("request", lambda request: posts.append(request) if is_callback(request) else None)

    go_back(partner)  # Microsoft knows the consent by now and answers the repeated form with another code at once
    expect(partner).to_have_url(result)
    expect_connected(partner)
    assert len(posts) == 1
    portal.assert_connected_once(invitation)
    assert portal.outcomes(invitation) == ["connected"]


@pytest.mark.req("R-18")
def test_back_after_a_decline_shows_the_same_answer_and_the_link_still_works(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    sign_in(partner, invitation)
    partner.click("#cancel")
    expect(partner.locator("h1")).to_have_text("You did not accept, and that is fine")
    result = partner.url

    go_back(partner)
    partner.click("#accept")  # changing one's mind: but this attempt is over
    expect(partner).to_have_url(result)
    expect(partner.locator("h1")).to_have_text("You did not accept, and that is fine")
    portal.assert_untouched(invitation)

    for _ in range(8):
        if partner.url == invitation.address:
            break
        go_back(partner)
    partner.click(CONTINUE)
    sign_in(partner, invitation)  # no second consent screen: Microsoft knows the consent by now
    expect_connected(partner)
    portal.assert_connected_once(invitation)
    assert portal.outcomes(invitation) == ["refused", "connected"]


@pytest.mark.req("R-18")
def test_reloading_result_and_callback_changes_nothing(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    fields = intercept_answer(partner, invitation)
    open_sign_in_site(partner, portal)
    post_answer(partner, portal, fields)
    expect_connected(partner)
    result = partner.url
    for _ in range(3):
        answer = partner.reload()
        assert answer is not None
        assert answer.status == 200
        expect_connected(partner)

    for _ in range(2):
        open_sign_in_site(partner, portal)
        post_answer(partner, portal, fields)
        expect(partner).to_have_url(result)
        expect_connected(partner)
    portal.assert_connected_once(invitation)


@pytest.mark.req("R-18")
@pytest.mark.req("S-07")
def test_two_tabs_of_one_browser_connect_two_partners(portal: BusyPortal, partner: Page) -> None:
    first, second = portal.invite(), portal.invite()
    other_tab = partner.context.new_page()
    go_to_microsoft(partner, first)
    go_to_microsoft(other_tab, second)

    accept(partner, first)
    accept(other_tab, second)

    for page, invitation in ((partner, first), (other_tab, second)):
        expect_connected(page)
        expect(page.locator("body")).to_contain_text(invitation.tenant_id)
        portal.assert_connected_once(invitation)
        page.reload()
        expect_connected(page)


@pytest.mark.req("R-18")
def test_two_tabs_with_one_link_end_well_with_one_redemption_each(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    other_tab = partner.context.new_page()
    go_to_microsoft(partner, invitation)
    go_to_microsoft(other_tab, invitation)
    accept(partner, invitation)
    accept(other_tab, invitation)

    expect_connected(partner)
    expect_connected(other_tab)
    assert portal.outcomes(invitation) == ["connected", "connected"]
    assert portal.redemptions(invitation) == 2
    assert portal.stored_generations(invitation) == [2]


@pytest.mark.req("R-18")
def test_a_double_click_on_continue_starts_one_flow(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    partner.goto(invitation.address)
    partner.dblclick(CONTINUE)
    accept(partner, invitation)
    expect_connected(partner)
    assert portal.outcomes(invitation) == ["connected"]
    portal.assert_connected_once(invitation)


@pytest.mark.req("R-18")
def test_without_javascript_a_double_click_still_ends_in_one_redemption(portal: BusyPortal, chromium: Browser) -> None:
    invitation = portal.invite()
    context = chromium.new_context(ignore_https_errors=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(invitation.address)
    page.dblclick(CONTINUE)
    sign_in(page, invitation)
    page.click("#accept")
    page.click("#continue")  # the sign-in page's form for browsers without JavaScript
    expect_connected(page)
    portal.assert_connected_once(invitation)
    assert len(portal.outcomes(invitation)) <= 2
    context.close()


@pytest.mark.req("S-07")
def test_a_closed_tab_can_be_opened_again_before_and_after_the_end(portal: BusyPortal, partner: Page) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    at_microsoft = partner.url
    context = partner.context
    partner.close()

    reopened = context.new_page()
    reopened.goto(at_microsoft)
    accept(reopened, invitation)
    expect_connected(reopened)
    result = reopened.url
    reopened.close()

    again = context.new_page()
    again.goto(result)
    expect_connected(again)
    portal.assert_connected_once(invitation)


@pytest.mark.req("S-07")
@pytest.mark.parametrize(
    "seconds",
    [
        0,
        pytest.param(
            130, marks=pytest.mark.skipif(os.environ.get("RUN_SLOW") != "1", reason="takes 130 seconds: RUN_SLOW=1")
        ),
    ],
)
def test_a_wait_at_the_sign_in_page_does_no_harm(portal: BusyPortal, partner: Page, seconds: int) -> None:
    """Chromium sends a cookie without SameSite on a cross-site post for two minutes, by its own clock.

    A cookie of that kind stands beside ours, so that the test shows on which side of the two minutes it is.
    """
    invitation = portal.invite()
    posts: list[Request] = []
    partner.on("request", lambda request: posts.append(request) if is_callback(request) else None)
    partner.goto(invitation.address)
    partner.evaluate("document.cookie = 'no-same-site=1; Secure; Path=/'")
    partner.click(CONTINUE)
    partner.wait_for_timeout(seconds * 1000)
    accept(partner, invitation)

    expect_connected(partner)
    [post] = posts
    arrived = post.all_headers()["cookie"]
    assert FLOW_COOKIE in arrived
    assert ("no-same-site" in arrived) == (seconds < 120)
    assert "__Host-csrftoken" not in arrived  # Lax


# --- other browsers and other sites -------------------------------------------------------------------------------


@pytest.mark.req("S-07")
def test_another_browser_cannot_finish_and_does_not_spoil_it(
    portal: BusyPortal, partner: Page, chromium: Browser
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
def test_no_site_can_frame_the_landing_page(portal: BusyPortal, partner: Page, guarded: bool) -> None:
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
    portal: BusyPortal, person_with: PersonWith
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
def test_an_answer_posted_by_a_foreign_site_is_refused(portal: BusyPortal, partner: Page) -> None:
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
def test_blocking_third_party_cookies_changes_nothing(portal: BusyPortal, person_with: PersonWith, mode: int) -> None:
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
def test_a_sibling_host_cannot_plant_our_cookies(portal: BusyPortal, partner: Page) -> None:
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
def test_history_addresses_and_log_keep_no_code_and_no_state(portal: BusyPortal, partner: Page) -> None:
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
    portal: BusyPortal, staff: Page, chromium: Browser
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
