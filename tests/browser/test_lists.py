"""The menus of a list: filters by words, saved filters and columns, with a script, without one, and by keyboard."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from portal.site.list_filters import FEW
from tests.browser import axe
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD, fill
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
_LOADED = 30_000  # milliseconds, for a page to come where the machine has much else to do
CUSTOMERS = "/admin/tenants/customertenant/"


@pytest.fixture
def base(base: str) -> str:
    fill()
    for number in range(FEW + 1):
        builders.customer(builders.partner(name=f"Harbour {number:02}"), company_name=f"Boats {number:02}")
    return base


def opened(page: Page, word: str) -> Any:
    """Open a menu by its word with the keyboard, and return it."""
    menu = page.locator("details.menu", has=page.locator("summary", has_text=word)).first
    menu.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(menu).to_have_attribute("open", "")
    return menu


@pytest.mark.req("S-61")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_menus_of_a_list_serve_by_keyboard(chromium: Browser, base: str, width: int, scheme: Any) -> None:
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    watch = PolicyWatch(context)
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    page.goto(base + CUSTOMERS)
    findings: list[axe.Finding] = []

    def look(name: str) -> None:
        box = page.locator("details.menu[open] > .menu-list").bounding_box()
        assert box is not None
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= width, name
        photograph(page, f"list-{name}-{width}-{scheme}")
        findings.extend(axe.judge_as_shown(page, name, scheme, width))

    menu = opened(page, "Partner")
    page.keyboard.press("Tab")
    page.keyboard.type('"harbour 07"')
    expect(menu.locator(".suggested a")).to_have_text(["Harbour 07"], timeout=_LOADED)
    look("partner")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1, timeout=_LOADED)
    expect(page.locator(".filter summary strong")).to_have_text("Harbour 07")

    menu = opened(page, "Saved filters")
    look("empty")
    menu.locator("input[name=name]").focus()
    page.keyboard.type("Boats of seven")
    page.keyboard.press("Enter")
    expect(page.locator(".messages, .notice").first).to_contain_text(
        "The filter “Boats of seven” is saved.", timeout=_LOADED
    )
    page.goto(base + CUSTOMERS)
    menu = opened(page, "Saved filters")
    look("saved")
    menu.get_by_role("link", name="Boats of seven").press("Enter")
    expect(page.locator("#result_list tbody tr")).to_have_count(1, timeout=_LOADED)

    menu = opened(page, "Columns")
    look("columns")
    menu.get_by_label("Reason").press("Space")
    menu.get_by_role("button", name="Show these").press("Enter")
    expect(page.locator("#result_list thead")).not_to_contain_text("Reason", timeout=_LOADED)
    expect(page.locator("#result_list tbody tr")).to_have_count(1, timeout=_LOADED)
    settle(page)
    assert watch.problems == []
    axe.assert_none(findings)
    context.close()


def test_menus_of_a_list_serve_without_a_script(chromium: Browser, base: str) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{base}/admin/")
    page.fill("input[name=username]", "anna")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.goto(base + CUSTOMERS)
    menu = page.locator("details.menu", has=page.locator("summary", has_text="Partner")).first
    menu.locator("summary").click()
    menu.locator("input[type=search]").fill('"harbour 07"')
    menu.get_by_role("button", name="Show").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1, timeout=_LOADED)
    menu = page.locator("details.menu", has=page.locator("summary", has_text="Saved filters"))
    menu.locator("summary").click()
    menu.locator("input[name=name]").fill("Seven")
    menu.get_by_role("button", name="Save").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1, timeout=_LOADED)
    menu = page.locator("details.menu", has=page.locator("summary", has_text="Saved filters"))
    menu.locator("summary").click()
    menu.get_by_role("button", name="Remove the filter Seven").click()
    expect(page.get_by_text("The filter is removed.")).to_be_visible(timeout=_LOADED)
    context.close()
