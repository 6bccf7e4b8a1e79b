"""What staff do on a partner's page, counted in clicks, and by keyboard alone; each tab is silent and readable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.core import mail
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Browser, Locator, Page, expect

from consent.models import ApplicationCredential, ConsentFlow, CustomerConsent, PartnerConsent
from consent.runs import on_request
from consent.tokens import health
from portal.runs.executor import Executor
from portal.runs.models import Run
from tenants.models import CustomerTenant, GdapRelationship, PartnerTag, PartnerTenant
from tests.browser.axe import Finding, assert_none, judge
from tests.browser.conftest import photograph, photograph_each_view
from tests.browser.csp import PolicyWatch, open_pages, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD
from tests.support import builders, fleet
from tests.support.connected import connect
from tests.support.credentials import current, know
from tests.support.portal import Portal

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TABS = ("change", "connection", "customers", "gdap", "activity", "audit", "details")


class Hand:
    """A person with a mouse: counts clicks and the pages that they open."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base, self.clicks, self.pages, self.confirmed = page, base, 0, 0, False
        page.on("framenavigated", lambda frame: self._opened())

    def _opened(self) -> None:
        self.pages += 1

    def open(self, path: str) -> None:
        """Begin on another page than the first."""
        self.page.goto(self.base + path)

    def confirm(self, name: str) -> None:
        """Press the button of a confirmation, which is counted apart."""
        self.page.locator(".confirm").get_by_role("button", name=name, exact=True).click()
        self.confirmed = True

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


def step_to(page: Page, words: str) -> None:
    """Press Tab until what has the focus begins with these words."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()").startswith(words):
            return
    pytest.fail(f"{words} is not reached by Tab")


# --- the jobs of staff, counted ---


def find(hand: Hand, words: str, name: str) -> None:
    """Find something with the search at the top."""
    hand.page.keyboard.press("Control+k")
    hand.page.keyboard.type(words)
    hand.click(hand.page.locator(".search-found a", has_text=name).first)


def add_a_partner(hand: Hand, portal: Portal) -> None:
    page = hand.page
    hand.click(page.locator(".frame > nav.side a", has_text="Partners"))
    hand.click(page.get_by_role("link", name="Add", exact=False).first)
    page.locator("#id_name").fill("Contoso")
    page.locator("#id_tenant_id").fill(builders.guid())
    hand.press("Save")
    expect(page.locator(".next-step")).to_contain_text("The partner was not invited yet.")
    hand.click(page.locator(".next-step").get_by_role("button", name="Make the link"))
    expect(page.get_by_text("/consent/")).not_to_have_count(0)


def why_is_it_broken(hand: Hand, portal: Portal) -> None:
    find(hand, "harbour managed", "Harbour Managed Services")
    step = hand.page.locator(".next-step")
    expect(step).to_contain_text("The partner must consent again.")
    expect(step).to_contain_text("Who must act: The partner")
    box = step.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900  # without scrolling


def invite_again(hand: Hand, portal: Portal) -> None:
    partner = PartnerTenant.objects.get(name="Harbour Managed Services")
    hand.open(reverse("admin:tenants_partnertenant_change", args=[partner.pk]))
    hand.press("Invite again")
    hand.click(hand.page.locator(".next-step").get_by_role("button", name="Make and send the link"))
    expect(hand.page.get_by_text("/consent/")).not_to_have_count(0)
    assert partner.links.count() == 2


def check_one(hand: Hand, portal: Portal) -> None:
    hand.open(reverse("admin:tenants_partnertenant_change", args=[PartnerTenant.objects.get(name="Partner 0").pk]))
    hand.press("Check now")
    expect(hand.page.get_by_text("no worker took it yet")).to_be_visible()
    opened = hand.pages
    work()
    expect(hand.page.get_by_text("the token works.")).to_be_visible()
    assert hand.pages == opened  # nothing was loaded again


def check_many(hand: Hand, portal: Portal) -> None:
    page = hand.page
    hand.click(page.locator("main a[href*='state=connected']").first)
    hand.click(page.locator(".list-tools").get_by_role("button", name="Select all"))
    hand.press("Check their tokens now")
    expect(page.get_by_text("5 tokens will be redeemed")).to_be_visible()
    hand.confirm("Check now")
    expect(page.locator("h1")).to_contain_text("Token check, run")
    work()
    expect(page.locator(".run-facts")).to_contain_text("5 of 5")


def push_to_one(hand: Hand, portal: Portal) -> None:
    customer = CustomerTenant.objects.filter(partner=portal.partner, readiness="ready").earliest("pk")
    find(hand, customer.company_name.lower(), customer.company_name)
    hand.click(hand.page.locator(".next-step").get_by_role("button", name="Plan consent"))
    expect(hand.page.locator(".confirm")).to_contain_text(f"{customer.company_name}: create")
    hand.confirm("Apply")
    expect(hand.page.locator("h1")).to_contain_text("run")
    work()
    assert CustomerConsent.objects.get(customer=customer).state == CustomerConsent.State.GRANTED


def plan_and_apply(hand: Hand, portal: Portal) -> None:
    find(hand, "northwind", portal.partner.name)
    hand.press("Plan consent")
    hand.press("Apply")
    hand.confirm("Apply")
    work()
    granted = CustomerConsent.objects.filter(state=CustomerConsent.State.GRANTED)
    assert granted.count() == CustomerTenant.objects.filter(partner=portal.partner, readiness="ready").count() > 1


def see_what_runs(hand: Hand, portal: Portal) -> None:
    on_request.check_tokens(PartnerConsent.objects.all(), actor=builders.ACTOR)
    hand.open(reverse("admin:tenants_partnertag_changelist"))  # any page
    expect(hand.page.locator(".running")).to_contain_text("Token check: being prepared")
    work()


def find_a_reference(hand: Hand, portal: Portal) -> None:
    flow = ConsentFlow.objects.filter(outcome=ConsentFlow.Outcome.REFUSED).latest("pk")
    find(hand, flow.reference, flow.reference)
    for words in ("What the partner read", "What to answer"):
        expect(hand.page.get_by_role("heading", name=words)).to_be_visible()


def export_a_list(hand: Hand, portal: Portal) -> None:
    hand.click(hand.page.locator("main a[href*='state=connected']").first)
    with hand.page.expect_download() as download:
        hand.press("CSV")
    connected = PartnerConsent.objects.filter(state=PartnerConsent.State.CONNECTED).count()
    assert len(download.value.path().read_text().splitlines()) == 1 + connected


def offboard(hand: Hand, portal: Portal) -> None:
    find(hand, "harbour managed", "Harbour Managed Services")
    hand.press("More")
    hand.click(hand.page.get_by_role("button", name="Offboard the selected partner"))
    hand.page.locator("[name=typed_name]").fill("Harbour Managed Services")
    hand.page.locator("[name=why]").fill("The contract ended.")
    hand.press("Ask for it")
    expect(hand.page.locator("main")).to_contain_text("Waits for a decision")


def rotate_a_credential(hand: Hand, portal: Portal) -> None:
    page = hand.page
    ends_soon = ApplicationCredential.objects.filter(current_for=portal.registration.pk)
    ends_soon.update(expires_at=timezone.now() + timedelta(days=20))
    page.reload()
    hand.click(page.get_by_role("link", name="Credential of", exact=False))  # what ends next
    hand.press("Replace")
    hand.press("Make a key pair here")
    hand.press("Make the key pair")
    with page.expect_download() as download:
        hand.press("Download the certificate")
    assert b"PRIVATE" not in download.value.path().read_bytes()
    made = ApplicationCredential.objects.latest("pk")
    know(portal, made)  # as an administrator uploads it at Microsoft
    hand.press("Promote")
    hand.confirm("Prove and promote")
    expect(page.locator("main")).to_contain_text("It is in use and ends in")
    assert current(portal) == made


# Job, clicks that are wanted, whether a confirmation is one click more, and how it is done.
JOBS: tuple[tuple[str, int, bool, Callable[[Hand, Portal], None]], ...] = (
    ("Add a partner and send its link", 4, False, add_a_partner),
    ("Why is this partner broken, who must act", 1, False, why_is_it_broken),
    ("Invite again, from the partner's page", 2, False, invite_again),
    ("Check one token, from the partner's page", 1, False, check_one),
    ("Check many tokens (filter, select all, check)", 3, True, check_many),
    ("Push consent to one customer", 2, True, push_to_one),
    ("Plan and apply for a partner", 3, True, plan_and_apply),
    ("See what runs", 0, False, see_what_runs),
    ("Find what a partner quotes", 1, False, find_a_reference),
    ("Export a filtered list", 2, False, export_a_list),
    ("Rotate a credential, with its download", 6, True, rotate_a_credential),
    ("Offboard", 4, False, offboard),
)


def test_each_job_takes_no_more_clicks_than_it_may(
    portal: Portal, page: Page, base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(site.get_model_admin(PartnerTenant), "list_per_page", 2)
    harbour = broken(portal)
    portal.onboard(accept=False)
    portal.onboard()
    on_request.synchronise(PartnerTenant.objects.filter(pk=portal.partner.pk), actor=builders.ACTOR)
    work()
    connect(portal, 4)
    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    working = PartnerConsent.objects.exclude(partner=harbour)
    working.update(last_success_at=timezone.now() - timedelta(hours=1), last_class="ok")
    table = [f"{'Job':48} wanted        measured"]
    missed = []
    for job, wanted, may_confirm, do in JOBS:
        page.goto(base + reverse("admin:index"))
        hand = Hand(page, base)
        do(hand, portal)
        measured = f"{hand.clicks}{' + confirm' if hand.confirmed else ''}"
        table.append(f"{job:48} {wanted}{' + confirm' if may_confirm else '':12} {measured}")
        if hand.clicks > wanted or (hand.confirmed and not may_confirm):
            missed.append(job)
        photograph(page, f"job-{do.__name__.replace('_', '-')}")
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *table, ""]))
    assert missed == []


def test_a_partner_is_searched_its_token_checked_and_a_link_sent_by_keyboard_alone(
    portal: Portal, page: Page, base: str
) -> None:
    [consent] = connect(portal, 1)
    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    consent.partner.contacts.create(name="Ada", email="ada@partner.example.com")
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
    step_to(page, "Check now")
    keys.press("Enter")
    expect(page.get_by_text("no worker took it yet")).to_be_visible()
    work()
    expect(page.get_by_text("the token works.")).to_be_visible()
    step_to(page, "Connection")
    keys.press("Enter")
    expect(page.get_by_text("Proven at the sign-in")).to_be_visible()
    step_to(page, "Invite again")
    keys.press("Enter")
    step_to(page, "Make and send the link")
    keys.press("Enter")
    expect(page.get_by_text("It was sent to ada@partner.example.com.")).to_be_visible()
    assert [one.to for one in mail.outbox] == [["ada@partner.example.com"]]


def test_a_second_contact_is_added_in_the_form_with_a_script(portal: Portal, page: Page, base: str) -> None:
    partner = builders.partner(name="Contoso")
    page.goto(base + reverse("admin:tenants_partnertenant_details", args=[partner.pk]))
    page.locator("#id_contacts-0-email").fill("ada@contoso.example")
    page.get_by_role("button", name="Add another Contact").click()
    expect(page.locator("#id_contacts-1-name")).to_be_focused()
    page.locator("#id_contacts-1-email").fill("bob@contoso.example")
    page.locator("[name=_save]").first.click()
    expect(page.locator(".next-step")).to_be_visible()
    assert sorted(partner.contacts.values_list("email", flat=True)) == ["ada@contoso.example", "bob@contoso.example"]


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
        photograph_each_view(page, f"hub-{name}")
        found += judge(page, name)
    assert_none(found)
    settle(page)
    assert PartnerConsent.objects.count() == 2
    context.close()
