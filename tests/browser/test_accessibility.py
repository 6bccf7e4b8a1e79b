"""No page keeps people out: axe on every public page and on what opens in the admin, under the policy of the page.

Both colour schemes, a phone and a desktop. ``test_portal_admin`` runs axe on every page of the admin.
KEEP_SCREENSHOTS=1 stores what was seen in tests/browser/screenshots.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect
from pytest_django.fixtures import Settings

from consent.invitations import links
from consent.views import COOKIE
from tests.browser import axe, public_pages
from tests.browser.axe import Finding
from tests.browser.conftest import photograph_each_view
from tests.browser.csp import sign_in
from tests.support import builders

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.browser.public_pages"),
]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def look(page: Page, name: str, seen: set[str] | None = None) -> list[Finding]:
    findings = axe.judge_unlike(set() if seen is None else seen, page, name)
    photograph_each_view(page, name)
    return findings


def visit(page: Page, address: str, name: str, *, status: int = 200, seen: set[str] | None = None) -> list[Finding]:
    answer = page.goto(address)
    assert answer is not None
    assert answer.status == status, name
    assert "unsafe" not in answer.headers["content-security-policy"]
    return look(page, name, seen)


def test_no_public_page_keeps_people_out(page: Page, base: str, settings: Settings) -> None:
    settings.OUTGOING_ADDRESSES = ["203.0.113.0/28", "2001:db8:4::/48"]
    binder = secrets.token_urlsafe(32)
    pages = public_pages.make(binder)
    page.context.add_cookies(
        [{"name": COOKIE, "value": binder, "domain": "localhost", "path": "/", "secure": True, "sameSite": "None"}]
    )
    findings, seen = [], set[str]()
    for one in pages:
        findings += visit(page, base + one.path, one.name, status=one.status, seen=seen)
    assert 8 < len(seen) < len(pages)
    landing = base + pages[0].path
    page.goto(landing)
    page.context.clear_cookies()
    page.click("form[action$=start] button")
    expect(page.locator(".note")).to_contain_text("403")
    findings += look(page, "error-403-form")
    settings.REQUEST_LIMIT_FACTOR = 0
    findings += visit(page, landing, "too-many-requests", status=429)
    axe.assert_none(findings)


def test_what_opens_on_pages_of_the_admin_keeps_nobody_out(page: Page, base: str) -> None:
    partner = builders.partner(name="Northwind Cloud Solutions")
    registration = builders.registration()
    builders.consent(partner, registration)
    builders.customer(partner)
    links.issue(partner, registration, actor=builders.ACTOR)
    User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery staple")

    findings = visit(page, base + reverse("admin:login"), "admin-login")
    sign_in(page, base, username="anna", password="correct horse battery staple")
    findings += visit(page, base + reverse("admin:index"), "admin-index")
    findings += visit(page, base + reverse("admin:search") + "?q=northwind", "admin-search")
    page.locator(".top summary:visible").first.click()
    page.fill("#search", "northwind")
    page.locator(".search-found a").first.wait_for()
    findings += look(page, "admin-search-open")
    findings += visit(page, base + reverse("admin:tenants_partnertenant_changelist") + "?state=new", "admin-filtered")
    page.locator(".filter summary").first.click()
    findings += look(page, "admin-filter-open")
    detail = reverse("admin:tenants_partnertenant_change", args=[partner.pk])
    findings += visit(page, base + detail, "admin-partner")
    page.goto(base + reverse("admin:consent_consentlink_changelist"))
    page.locator("input[type=checkbox][name=_selected_action]").first.check()
    findings += look(page, "admin-ticked-row")
    page.locator(".actions button[value=revoke_links]").click()
    findings += look(page, "admin-confirm")
    axe.assert_none(findings)
