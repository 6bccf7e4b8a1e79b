"""From a one-time link to a sign-in by the passkey alone, in a real browser with a passkey of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from portal.staff import accounts
from tests.browser import axe
from tests.browser.conftest import photograph_each_view
from tests.browser.csp import PolicyWatch
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
NEW = "a long sentence of mine"


@pytest.mark.req("S-46")
def test_a_passkey_is_made_behind_a_link_and_signs_in_alone(chromium: Browser, base: str, settings: Any) -> None:
    settings.STAFF_PASSWORD_ALONE = False
    settings.PUBLIC_BASE_URL = base
    context = chromium.new_context(reduced_motion="reduce")
    watch = PolicyWatch(context)
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    findings: list[axe.Finding] = []

    def look(name: str) -> None:
        findings.extend(axe.judge(page, name))
        photograph_each_view(page, f"staff-{name}")

    page.goto(accounts.create("anna", superuser=True, actor=builders.ACTOR).reveal())
    look("link")
    page.fill("[name=new_password1]", NEW)
    page.fill("[name=new_password2]", NEW)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Set your second factor")
    look("first-factor")
    page.fill("[name=name]", "laptop")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Recovery codes")
    look("codes")
    page.click("text=I have kept them")
    expect(page).to_have_url(re.compile("/admin/$"))

    page.locator(".user summary").click()
    page.click("text=Your account")
    expect(page.locator("main")).to_contain_text("Passkey: laptop")
    expect(page.locator("main")).to_contain_text("10 recovery codes are left")
    look("account")
    page.goto(base + reverse("staff_prove"))
    look("prove")
    _leave(page, base)

    page.goto(base + reverse("admin:login"))
    look("sign-in")
    page.click("text=Use a passkey")
    expect(page).to_have_url(re.compile("/admin/$"))
    _leave(page, base)

    page.goto(base + reverse("admin:login"))
    page.fill("[name=username]", "anna")
    page.fill("[name=password]", NEW)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Second step")
    look("factor")
    page.click("text=Use a passkey")
    expect(page).to_have_url(re.compile("/admin/$"))
    watch.assert_quiet()
    axe.assert_none(findings)
    context.close()


def _leave(page: Page, base: str) -> None:
    page.goto(base + reverse("admin:index"))
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator(".user summary").click()
    page.locator("#logout-form button").click()
    page.wait_for_load_state()
