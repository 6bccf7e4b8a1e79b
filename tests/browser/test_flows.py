"""Partners in a real Chromium over TLS, with the sign-in pages on another site: how flows end, and what impatient or
absent-minded partners do (R-18, Appendix 2 of the security requirements).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, Request, expect

from tests.browser.conftest import BLOCK_THIRD_PARTY, PersonWith, Prepared
from tests.browser.portal_with_partners import (
    CONTINUE,
    FLOW_COOKIE,
    PortalWithPartners,
    accept,
    cookies,
    expect_connected,
    go_to_microsoft,
    intercept_answer,
    is_callback,
    open_sign_in_site,
    post_answer,
    serve,
    sign_in,
)
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Tamper

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def portal(
    running_sandbox: Sandbox, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PortalWithPartners]:
    with serve(running_sandbox, prepared, tmp_path_factory.mktemp("portal"), partners=40) as portal:
        yield portal


def go_back(page: Page) -> None:
    """Press Back; where the browser asks whether to send the form again, agree."""
    try:
        page.go_back()
    except Error as error:
        if "ERR_CACHE_MISS" not in error.message:
            raise
        page.wait_for_url("chrome-error://chromewebdata/")
        page.reload(wait_until="networkidle")  # some of these forms lead straight back to the portal


# --- the ways a flow ends -----------------------------------------------------------------------------------------


@pytest.mark.req("S-07")
@pytest.mark.req("S-62")
def test_a_partner_connects_and_the_browser_holds_one_bound_cookie(portal: PortalWithPartners, partner: Page) -> None:
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


def test_a_partner_who_declines_can_accept_with_the_same_link(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    vault = portal.vault()
    go_to_microsoft(partner, invitation)
    sign_in(partner, invitation)
    partner.click("#cancel")
    expect(partner.locator("h1")).to_have_text("You did not accept, and that is fine")
    expect(partner.locator("body")).to_contain_text("Nothing was connected, and nothing was stored")
    portal.assert_untouched(invitation)
    assert portal.vault() == vault
    assert portal.audit(invitation) == ["link.issued", "flow.started", "flow.refused"]

    go_to_microsoft(partner, invitation)
    accept(partner, invitation)
    expect_connected(partner)
    portal.assert_connected_once(invitation)
    assert portal.outcomes(invitation) == ["refused", "connected"]


@pytest.mark.req("S-14")
def test_an_account_of_another_tenant_is_turned_away_and_nothing_is_stored(
    portal: PortalWithPartners, partner: Page
) -> None:
    invitation = portal.invite()
    vault = portal.vault()
    other = "0f5c2a86-6a0b-4a3f-9b58-4a0c7f7f2d11"
    issuer = f"{portal.sandbox.clouds['global'].authority}/{other}/v2.0"
    portal.sandbox.world.tampers.append(Tamper(claims={"tid": other, "iss": issuer}))
    go_to_microsoft(partner, invitation)
    accept(partner, invitation)

    expect(partner.locator("h1")).to_have_text("This account belongs to another tenant")
    expect(partner.locator("body")).not_to_contain_text(other)
    assert portal.outcomes(invitation) == ["refused"]
    assert portal.stored_generations(invitation) == []
    assert portal.vault() == vault
    assert portal.audit(invitation).count("flow.refused") == 1


# --- impatient and absent-minded partners -------------------------------------------------------------------------


@pytest.mark.req("R-18")
def test_back_after_success_leads_to_the_same_result(portal: PortalWithPartners, partner: Page) -> None:
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
def test_back_after_a_decline_shows_the_same_answer_and_the_link_still_works(
    portal: PortalWithPartners, partner: Page
) -> None:
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
def test_reloading_result_and_callback_changes_nothing(portal: PortalWithPartners, partner: Page) -> None:
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
def test_two_tabs_of_one_browser_connect_two_partners(portal: PortalWithPartners, partner: Page) -> None:
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
def test_two_tabs_with_one_link_end_well_with_one_redemption_each(portal: PortalWithPartners, partner: Page) -> None:
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
def test_a_double_click_on_continue_starts_one_flow(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    partner.goto(invitation.address)
    partner.dblclick(CONTINUE)
    accept(partner, invitation)
    expect_connected(partner)
    assert portal.outcomes(invitation) == ["connected"]
    portal.assert_connected_once(invitation)


@pytest.mark.req("R-18")
def test_without_javascript_a_double_click_still_ends_in_one_redemption(
    portal: PortalWithPartners, chromium: Browser
) -> None:
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
def test_a_closed_tab_can_be_opened_again_before_and_after_the_end(portal: PortalWithPartners, partner: Page) -> None:
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


def age(jar: Path, minutes: int) -> None:
    """Let a closed browser believe that its cookies are that much older."""
    earlier = minutes * 60 * 1_000_000  # Chromium counts microseconds
    with closing(sqlite3.connect(jar)) as connection, connection:
        connection.execute(
            "UPDATE cookies SET creation_utc = creation_utc - :earlier, last_access_utc = last_access_utc - :earlier, "
            "last_update_utc = last_update_utc - :earlier, expires_utc = expires_utc - :earlier",
            {"earlier": earlier},
        )


# Chromium sends a cookie without SameSite on a cross-site post for two minutes, by its own clock. A cookie of that kind
# stands beside ours, so that these tests show on which side of the two minutes they are.
PLAIN_COOKIE = "document.cookie = 'no-same-site=1; Secure; Path=/; Max-Age=900'"


@pytest.mark.req("S-07")
@pytest.mark.parametrize("minutes", [0, 3])
def test_three_minutes_at_the_sign_in_page_do_no_harm(
    portal: PortalWithPartners, person_with: PersonWith, tmp_path: Path, minutes: int
) -> None:
    """The minutes pass while the browser is closed: its cookies and the portal's flow are made older."""
    invitation = portal.invite()
    with person_with(BLOCK_THIRD_PARTY) as page:
        page.goto(invitation.address)
        page.evaluate(PLAIN_COOKIE)
        page.click(CONTINUE)
        expect(page.locator("#next")).to_be_visible()
        at_microsoft = page.url
    [jar] = tmp_path.glob("profile/**/Cookies")
    age(jar, minutes)
    portal.let_minutes_pass(invitation, minutes)

    with person_with(BLOCK_THIRD_PARTY) as page:
        page.goto(at_microsoft)
        with page.expect_request(is_callback) as posted:
            accept(page, invitation)
        expect_connected(page)
        expect_only_the_flow_cookie(posted.value, plain=minutes < 2)
    portal.assert_connected_once(invitation)


@pytest.mark.req("S-07")
@pytest.mark.release  # takes 130 seconds
def test_a_real_wait_at_the_sign_in_page_does_no_harm(portal: PortalWithPartners, partner: Page) -> None:
    invitation = portal.invite()
    partner.goto(invitation.address)
    partner.evaluate(PLAIN_COOKIE)
    partner.click(CONTINUE)
    partner.wait_for_timeout(130_000)
    with partner.expect_request(is_callback) as posted:
        accept(partner, invitation)
    expect_connected(partner)
    expect_only_the_flow_cookie(posted.value, plain=False)
    portal.assert_connected_once(invitation)


def expect_only_the_flow_cookie(post: Request, *, plain: bool) -> None:
    arrived = post.all_headers()["cookie"]
    assert FLOW_COOKIE in arrived
    assert ("no-same-site" in arrived) == plain
    assert "__Host-csrftoken" not in arrived  # Lax


# --- the portal has a bad moment ----------------------------------------------------------------------------------


@pytest.mark.req("R-37")
@pytest.mark.req("R-07")
def test_a_database_that_is_away_for_a_moment_costs_the_partner_a_reload(
    portal: PortalWithPartners, partner: Page
) -> None:
    invitation = portal.invite()
    go_to_microsoft(partner, invitation)
    sign_in(partner, invitation)
    with portal.without_database():
        with partner.expect_response(lambda response: is_callback(response.request)) as answered:
            partner.click("#accept")
        assert answered.value.status == 503
        expect(partner.locator("h1")).to_have_text("One moment: our storage is not ready")
        expect(partner.locator("body")).to_contain_text("nothing was lost")
    portal.assert_untouched(invitation)
    assert portal.outcomes(invitation) == ["open"]

    partner.reload()  # what the page says: reload, and send the form again
    expect_connected(partner)
    portal.assert_connected_once(invitation)
