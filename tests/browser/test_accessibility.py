"""No page keeps people out: axe on every public page and the admin's main pages, under the policy they are served with.

Both colour schemes, a phone and a desktop. KEEP_SCREENSHOTS=1 stores what it saw in tests/browser/screenshots.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from consent.invitations import links
from consent.views import COOKIE
from tests.browser import axe, public_pages
from tests.browser.axe import Finding
from tests.browser.conftest import photograph
from tests.browser.csp import admin_paths, sign_in
from tests.support import builders

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.browser.public_pages"),
]


# What others' scripts bring and no template or setting of ours reaches: axe's rule, a part of the place, the reason.
NOT_OURS = {
    ("aria-prohibited-attr", ".help-tooltip.search-label-icon"): (
        "Django's SelectFilter2.js puts an aria-label on the icon beside the field for filtering choices; the field "
        "itself has its own label, so nothing is lost."
    ),
}


@pytest.fixture(autouse=True)
def _database_beside_playwright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Playwright keeps a loop running in this thread, and Django refuses queries beside one."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture
def base(transactional_db: None, settings: Settings) -> Iterator[str]:
    settings.SECURE_SSL_REDIRECT = False
    server = LiveServer("localhost")
    yield server.url
    server.stop()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def look(page: Page, name: str) -> list[Finding]:
    admin = name.startswith("admin")
    widths = axe.ADMIN_WIDTHS if admin else axe.PUBLIC_WIDTHS
    findings = axe.judge(page, name, widths=widths, reload=admin, impacts=axe.SEVERE if admin else axe.ANY)
    if os.environ.get("KEEP_SCREENSHOTS") == "1":
        for scheme in axe.SCHEMES:
            for width in widths:
                axe.show(page, scheme, width, reload=admin)
                photograph(page, f"{name}-{scheme}-{width}")
    return findings


def visit(page: Page, address: str, name: str, *, status: int = 200) -> list[Finding]:
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == status, name
    assert "unsafe" not in answer.headers["content-security-policy"]
    return look(page, name)


def test_no_public_page_keeps_people_out(page: Page, base: str, settings: Settings) -> None:
    binder = secrets.token_urlsafe(32)
    pages = public_pages.make(binder)
    page.context.add_cookies(
        [{"name": COOKIE, "value": binder, "domain": "localhost", "path": "/", "secure": True, "sameSite": "None"}]
    )
    findings = [finding for one in pages for finding in visit(page, base + one.path, one.name, status=one.status)]
    landing = base + pages[0].path
    page.goto(landing)
    page.context.clear_cookies()
    page.click("form[action$=start] button")
    expect(page.locator(".note")).to_contain_text("403")
    findings += look(page, "error-403-form")
    settings.REQUEST_LIMIT_FACTOR = 0
    findings += visit(page, landing, "too-many-requests", status=429)
    axe.assert_none(findings)


def test_on_a_phone_the_button_is_in_view_from_the_first_line_to_the_last(page: Page, base: str) -> None:
    _, address = links.issue(builders.partner(), builders.registration(), actor=builders.ACTOR)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(base + urlsplit(address.reveal()).path)
    for part in (0, 0.5, 1):
        page.evaluate("part => scrollTo(0, part * document.documentElement.scrollHeight)", part)
        expect(page.get_by_role("button", name="Continue to Microsoft")).to_be_in_viewport(ratio=1)
    # Nothing that has the focus lies behind it.
    page.evaluate("scrollTo(0, 0)")
    for _turn in range(12):
        page.keyboard.press("Tab")
        hidden = page.evaluate("""() => {
          const one = document.activeElement.getBoundingClientRect();
          const on_top = document.elementFromPoint(one.x + one.width / 2, one.y + one.height / 2);
          return document.activeElement !== document.body && !document.activeElement.contains(on_top);
        }""")
        assert not hidden


def test_no_main_page_of_the_admin_keeps_people_out(page: Page, base: str) -> None:
    partner = builders.partner(name="Northwind Cloud Solutions")
    registration = builders.registration()
    builders.consent(partner, registration)
    builders.customer(partner)
    links.issue(partner, registration, actor=builders.ACTOR)
    User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery staple")
    of_app = {path.split("/")[2]: path for path in admin_paths() if path.count("/") == 4}  # one list of each app
    lists = [*of_app.values(), reverse("admin:consent_consentlink_changelist")]
    assert len(lists) > 4

    findings = visit(page, base + reverse("admin:login"), "admin-login")
    sign_in(page, base, username="anna", password="correct horse battery staple")
    findings += visit(page, base + reverse("admin:index"), "admin-index")
    for path in lists:  # the same template for all lists; what differs are rows and badges
        findings += visit(page, base + path, "admin" + path.removeprefix("/admin").replace("/", "-"))
    detail = reverse("admin:tenants_partnertenant_change", args=[partner.pk])
    findings += visit(page, base + detail, "admin-partner")
    page.goto(base + reverse("admin:consent_consentlink_changelist"))
    page.locator("input[type=checkbox][name=_selected_action]").first.check()
    page.select_option("select[name=action]", "revoke_links")
    page.locator("#changelist-form button[name=index]").click()
    findings += look(page, "admin-confirm")
    axe.assert_none([one for one in findings if not any(one.rule == rule and at in one.where for rule, at in NOT_OURS)])
