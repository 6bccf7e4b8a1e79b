"""Steps of a member of staff in the admin."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import RunningPortal


def sign_in_as_staff(portal: RunningPortal, page: Page) -> None:
    page.goto(f"{portal.base}/admin/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", portal.password)
    page.click("button[type=submit], input[type=submit]")
    expect(page).to_have_url(re.compile("/admin/$"))


def save(page: Page) -> None:
    page.locator("[name=_save]").first.click()
