"""What staff do on a partner's page, counted in clicks, and by keyboard alone; each tab is silent and readable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Locator, Page, expect

from consent.models import PartnerConsent
from consent.tokens import health
from portal.runs.executor import Executor
from portal.runs.models import Run
from tenants.models import CustomerTenant, GdapRelationship, PartnerTag, PartnerTenant
from tests.browser.axe import SCHEMES, Finding, assert_none, judge, show
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, open_pages, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD
from tests.support import builders, fleet
from tests.support.connected import connect
from tests.support.portal import Portal

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TABS = ("change", "connection", "customers", "gdap", "activity", "audit", "details")


class Hand:
    """A person with a mouse: counts clicks and the pages that they open."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self.pages = page, 0, 0
        page.on("framenavigated", lambda frame: self._opened())

    def _opened(self) -> None:
        self.pages += 1

    def click(self, what: Locator) -> None:
        self.clicks += 1
        what.click()

    def press(self, name: str) -> None:
        """Press a button or follow a link of that name."""
        named = self.page.get_by_role("button", name=name, exact=True).or_(
            self.page.get_by_role("link", name=name, exact=True)
        )
        self.click(named.or_(self.page.locator("summary", has_text=name)).first)


@pytest.fixture
def base(portal: Portal, base: str) -> str:
    User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    return base


@pytest.fixture
def page(chromium: Browser, base: str) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    yield page
    context.close()


def work() -> None:
    """Let a worker come by."""
    Executor(Run.objects.filter(state="open").latest("pk")).work()


def broken(portal: Portal) -> PartnerTenant:
    partner = fleet.connected(portal, "harbour", "Harbour Managed Services")
    PartnerTenant.objects.filter(pk=partner.pk).update(customers_synced_at=timezone.now())
    partner.contacts.create(name="Ada", email="it@harbour.example.com")
    fleet.revoke(portal, partner)
    fleet.check(partner)
    return partner


def test_a_token_is_checked_with_one_click_and_the_answer_appears(portal: Portal, page: Page, base: str) -> None:
    [consent] = connect(portal, 1)
    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    PartnerConsent.objects.update(last_success_at=timezone.now() - timedelta(hours=1), last_class="ok")
    page.goto(base + reverse("admin:tenants_partnertenant_change", args=[consent.partner_id]))
    hand = Hand(page)
    hand.press("Check now")
    expect(page.get_by_text("no worker took it yet")).to_be_visible()
    opened = hand.pages
    work()
    expect(page.get_by_text("the token works.")).to_be_visible()
    assert (hand.clicks, hand.pages) == (1, opened)  # nothing was loaded again


def test_a_broken_partner_is_found_and_understood_with_one_click(portal: Portal, page: Page, base: str) -> None:
    partner = broken(portal)
    hand = Hand(page)
    page.keyboard.press("Control+k")
    page.keyboard.type("harbour managed")
    hand.click(page.locator(".search-found a", has_text=partner.name).first)
    step = page.locator(".next-step")
    expect(step).to_contain_text("The partner must consent again.")
    expect(step).to_contain_text("Who must act: The partner")
    box = step.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900  # without scrolling
    assert hand.clicks == 1


def test_a_partner_is_invited_again_with_two_clicks(portal: Portal, page: Page, base: str) -> None:
    partner = broken(portal)
    page.goto(base + reverse("admin:tenants_partnertenant_change", args=[partner.pk]))
    hand = Hand(page)
    hand.press("Invite again")
    hand.click(page.locator(".next-step").get_by_role("button", name="Make and send the link"))
    expect(page.get_by_text("/consent/")).not_to_have_count(0)
    assert hand.clicks == 2
    assert partner.links.count() == 2


def test_a_partner_is_added_and_its_link_made_with_four_clicks_on_two_pages(
    portal: Portal, page: Page, base: str
) -> None:
    hand = Hand(page)
    hand.click(page.locator(".frame > nav.side a", has_text="Partners"))
    hand.click(page.get_by_role("link", name="Add", exact=False).first)
    page.locator("#id_name").fill("Contoso")
    page.locator("#id_tenant_id").fill(builders.guid())
    hand.press("Save")
    expect(page.locator(".next-step")).to_contain_text("The partner was not invited yet.")
    hand.click(page.locator(".next-step").get_by_role("button", name="Make the link"))
    expect(page.get_by_text("/consent/")).not_to_have_count(0)
    assert hand.clicks <= 4


def test_a_partner_is_searched_and_its_token_checked_by_keyboard_alone(portal: Portal, page: Page, base: str) -> None:
    [consent] = connect(portal, 1)
    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    page.goto(base + reverse("admin:index"))
    keys = page.keyboard
    keys.press("Control+k")
    keys.type(consent.partner.name)
    expect(page.locator(".search-found a").first).to_be_visible()
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text(consent.partner.name)
    keys.press("Tab")  # the link that skips header and navigation
    keys.press("Enter")
    for _ in range(25):
        keys.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == "Check now":
            break
    keys.press("Enter")
    expect(page.get_by_text("no worker took it yet")).to_be_visible()
    work()
    expect(page.get_by_text("the token works.")).to_be_visible()


def life(portal: Portal) -> PartnerTenant:
    """Give one partner something for each tab."""
    partner = broken(portal)
    partner.tags.add(PartnerTag.objects.create(name="gold"))
    second = builders.registration(name="Backup for Microsoft 365")
    builders.grant(second, "User.Read.All")
    now = timezone.now()
    builders.consent(
        partner, second, last_class="ok", last_success_at=now, last_try_at=now, mfa_checked_at=now,
        checks=[{"check": "tenant", "state": "passed"}, {"check": "mfa", "state": "unverified"}],
    )  # fmt: skip
    seen = {"first_seen_at": now, "last_seen_at": now}
    for number, customer in enumerate(CustomerTenant.objects.for_partner(partner)):
        builders.customer_consent(customer, second, "User.Read.All", *(["Mail.Read"] if number else []))
        CustomerTenant.objects.filter(pk=customer.pk).update(
            readiness="not_ready", readiness_owner="partner", readiness_reason="No assigned group holds the role."
        )
        GdapRelationship.objects.create(
            partner=partner, customer=customer, relationship_id=f"r{number}", display_name=f"Support {number}",
            status="active", roles=["88d8e3e3-8f55-4a1e-953a-9b9898b8876b"], ends_at=now, **seen,
        )  # fmt: skip
    health.watch()
    return partner


def test_every_tab_is_silent_clean_and_no_wider_than_its_window(portal: Portal, chromium: Browser, base: str) -> None:
    partner = life(portal)
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    watch = PolicyWatch(context)
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    paths = {tab: reverse(f"admin:tenants_partnertenant_{tab}", args=[partner.pk]) for tab in TABS}
    customer = CustomerTenant.objects.for_partner(partner).latest("pk")
    new = builders.partner(name="Contoso")
    paths["customer"] = reverse("admin:tenants_customertenant_change", args=[customer.pk])
    paths["new"] = reverse("admin:tenants_partnertenant_change", args=[new.pk])
    found: list[Finding] = []
    for name, path in paths.items():
        open_pages(page, watch, base, [path])
        for width in (1280, 390):
            for scheme in SCHEMES:
                show(page, scheme, width)
                photograph(page, f"hub-{name}-{width}-{scheme}")
        found += judge(page, name)
    assert_none(found)
    settle(page)
    assert PartnerConsent.objects.count() == 2
    context.close()
