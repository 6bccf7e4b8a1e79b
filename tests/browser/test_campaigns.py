"""A campaign in a real Chromium over TLS: staff send it, a partner opens the mail and connects, the funnel shows it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.admin_steps import save, sign_in_as_staff
from tests.browser.conftest import RunningPortal, photograph
from tests.browser.csp import PolicyWatch
from tests.sandbox import scenarios
from tests.sandbox.world import known_id
from tests.support.smtp import MailServer, serving

pytestmark = [pytest.mark.browser, pytest.mark.req("S-61")]

SEED = f"""
from django.core.management import call_command
from tests.support import builders
builders.partner(name="Northwind Cloud", tenant_id="{known_id("tenant", "northwind")}",
                 contact_email="admin@northwind.example.com")
builders.partner(name="Southridge IT", tenant_id="{known_id("tenant", "southridge")}", contact_email="")
builders.registration(application_id="{scenarios.application_id()}", home_tenant_id="{scenarios.vendor_tenant()}",
                      permission_set="extended", state="draft", credential=None)
call_command("add_credential", "1", "secret")
call_command("promote_credential", "1", "--unproven", "--activate")
"""


@pytest.fixture
def mail_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    """A mail server whose settings the portal reads from its environment, as a deployment does."""
    with serving() as server:
        monkeypatch.setenv("EMAIL_HOST", "127.0.0.1")
        monkeypatch.setenv("EMAIL_PORT", str(server.port))
        monkeypatch.setenv("EMAIL_TLS", "none")
        monkeypatch.setenv("EMAIL_FROM", "Example <invitations@vendor.example>")
        yield server


@pytest.fixture
def ready(mail_server: MailServer, running_portal: RunningPortal) -> RunningPortal:
    """A portal with that mail server, an application and two partners, one of them without an address."""
    portal = running_portal
    secret = secrets.token_urlsafe(32)
    application = portal.sandbox.world.applications[scenarios.application_id()]
    application.secrets[secret] = portal.sandbox.world.now() + 3600
    application.redirect_uris.add(f"{portal.base}/consent/callback/global")
    portal.manage("shell", "--verbosity", "0", "-c", SEED, given=secret)
    return portal


def press(page: Page, words: str) -> None:
    page.locator(f"section button:has-text('{words}')").click()


def expect_figure(page: Page, progress: str, number: int) -> None:
    expect(page.locator(f".figure a[href$='progress={progress}'] .figure-value")).to_have_text(str(number))


def test_a_campaign_from_the_choice_to_the_connected_partner(
    ready: RunningPortal, mail_server: MailServer, staff: Page, partner: Page
) -> None:
    watch, watch_partner = PolicyWatch(staff.context), PolicyWatch(partner.context)
    sign_in_as_staff(ready, staff)

    staff.goto(f"{ready.base}/admin/consent/campaign/add/")
    press(staff, "Find partners")
    expect(staff.locator("#matching")).to_have_text("2 partners match")
    photograph(staff, "30-campaign-choose")
    press(staff, "Continue")
    expect(staff.locator(".rows")).to_contain_text("Northwind Cloud")
    staff.fill("[name=name]", "Autumn round")
    press(staff, "Create the campaign")
    expect(staff.locator("body")).to_contain_text("2 partners are in the campaign.")
    assert mail_server.kept == []

    staff.get_by_role("link", name="Send invitations").click()
    photograph(staff, "31-campaign-send")
    press(staff, "Send invitations")
    expect(staff.locator("body")).to_contain_text("1 sent.")
    expect_figure(staff, "sent", 1)
    expect_figure(staff, "send_failed", 1)
    campaign = staff.url

    # The partner reads the mail, opens its link, and connects.
    (kept,) = mail_server.kept
    assert kept.recipients == ["admin@northwind.example.com"]
    partner.goto(kept.link)
    expect(partner.locator("body")).to_contain_text("Northwind Cloud")
    staff.goto(campaign)
    expect_figure(staff, "sent", 1)  # opening a link starts nothing
    partner.click("form[action$=start] button")
    partner.get_by_label("service@northwind.example.com").check()
    staff.goto(campaign)
    expect_figure(staff, "started", 1)
    partner.click("#next")
    partner.click("#approve-mfa")
    partner.click("#accept")
    expect(partner.locator("h1")).to_contain_text("connected")

    staff.goto(campaign)
    expect_figure(staff, "connected", 1)
    photograph(staff, "32-campaign-funnel")
    staff.locator(".figure a[href$='progress=connected']").click()
    expect(staff.locator("#result_list")).to_contain_text("Northwind Cloud")
    expect(staff.locator("#result_list")).not_to_contain_text("Southridge IT")
    photograph(staff, "33-campaign-partners")

    staff.goto(campaign)
    staff.get_by_role("link", name="Close the campaign").click()
    press(staff, "Close")
    expect(staff.locator("body")).to_contain_text("0 links were revoked")
    staff.get_by_role("link", name="Remind").click()
    expect(staff.locator("body")).to_contain_text("The campaign is closed.")
    watch.assert_quiet()
    watch_partner.assert_quiet()
    assert re.search(r"/consent/[\w-]{43}", kept.link)
    assert "link.sent" in ready.manage("shell", "-c", "print(*AuditEvent.objects.values_list('action', flat=True))")


def test_a_link_is_mailed_extended_sent_again_and_copied(
    ready: RunningPortal, mail_server: MailServer, staff: Page, partner: Page
) -> None:
    watch = PolicyWatch(staff.context)
    staff.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=ready.base)
    sign_in_as_staff(ready, staff)
    staff.goto(f"{ready.base}/admin/consent/consentlink/add/?partner=1")
    staff.locator("[name=send]").check(force=True)
    save(staff)
    expect(staff.locator(".card [role=status]")).to_contain_text("It was sent to admin@northwind.example.com.")
    address = staff.locator("#consent-link").inner_text().strip()
    assert mail_server.kept[0].link == address
    expect(staff.locator("#consent-link-code")).to_be_visible()
    assert staff.evaluate("document.querySelector('#consent-link-code').naturalWidth > 0")
    photograph(staff, "34-link-sent")
    staff.locator("[data-copy] button").click()
    assert staff.evaluate("navigator.clipboard.readText()") == address

    for action, button, told in (
        ("extend_links", "Extend", "1 extended."),
        ("send_again", "Send new links", "1 sent."),
    ):
        staff.goto(f"{ready.base}/admin/consent/consentlink/?progress=open")
        staff.locator("input.action-select").first.check(force=True)
        staff.locator(f".actions button[value={action}]").click()
        if action == "extend_links":
            staff.fill("[name=days]", "30")
        press(staff, button)
        expect(staff.locator("body")).to_contain_text(told)

    assert partner.goto(address).status == 404  # type: ignore[union-attr]
    partner.goto(mail_server.kept[1].link)
    expect(partner.locator("body")).to_contain_text("Northwind Cloud")
    watch.assert_quiet()
