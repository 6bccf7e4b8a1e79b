"""A run over a thousand partners from the list to its end, as a person sees and steers it; incidents by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from consent import alarms
from consent.models import ConsentFlow, PartnerConsent
from consent.runs import on_request
from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.runs import schedule
from portal.runs.executor import Executor
from portal.runs.models import Run, RunItem
from tests.browser.axe import Finding, assert_none, judge
from tests.browser.conftest import photograph_each_view
from tests.browser.csp import PolicyWatch, open_pages, sign_in
from tests.browser.csp import settle as settle_page
from tests.browser.rows_for_each_list import PASSWORD
from tests.support import builders
from tests.support.connected import connect
from tests.support.portal import Portal

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PARTNERS = 1000


@pytest.fixture
def base(portal: Portal, base: str) -> str:
    User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    return base


@pytest.fixture
def watch_and_page(chromium: Browser, base: str) -> Iterator[tuple[PolicyWatch, Page]]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    watch, page = PolicyWatch(context), context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    yield watch, page
    context.close()


def press(page: Page, name: str) -> None:
    """Press the button of a page's head, then the one of the confirmation."""
    page.locator(".page-head").get_by_role("link", name=name, exact=True).click()
    page.locator(".confirm .buttons button").click()


def test_a_run_of_a_thousand_partners_is_started_watched_stopped_resumed_and_finished(
    portal: Portal, watch_and_page: tuple[PolicyWatch, Page], base: str
) -> None:
    connect(portal, PARTNERS)
    watch, page = watch_and_page
    page.goto(f"{base}{reverse('admin:tenants_partnertenant_changelist')}?state=connected")
    page.locator(".list-tools").get_by_role("button", name=re.compile("Select all 1,?000")).click()
    page.get_by_role("button", name="Check their tokens now").click()
    expect(page.get_by_text("1,000 tokens will be redeemed")).to_be_visible()
    page.get_by_role("button", name="Check now").click()

    expect(page.locator("h1")).to_have_text(re.compile(r"Token check, run \d+"))
    run = Run.objects.get()
    page.evaluate("window.sameDocument = true")
    expect(page.locator(".run-facts")).to_contain_text("no process works it just now")

    done = 0
    while not done:
        Executor(run, seconds=4).work()  # a worker's slice, as ``tasks.advance`` gives it, only shorter
        done = run.items.filter(state=RunItem.State.DONE).count()
    assert done < PARTNERS
    expect(page.locator(".run-facts")).to_contain_text(f"{done:,} of 1,000")
    expect(page.locator("progress")).to_have_js_property("value", done)
    expect(page.locator(".figure", has_text="Ok")).to_contain_text(f"{done:,}")
    expect(page.locator(".running")).to_contain_text(f"{done:,} of 1,000")  # the same truth at the top of the page

    press(page, "Pause")
    expect(page.locator("#run-progress-title")).to_contain_text("paused")
    expect(page.locator(".page-head").get_by_role("link", name="Pause", exact=True)).to_have_count(0)
    Executor(run, seconds=3).work()
    assert run.items.filter(state=RunItem.State.DONE).count() == done  # stopped is stopped

    press(page, "Resume")
    expect(page.locator("#run-progress-title")).to_contain_text("open")
    while Run.objects.filter(pk=run.pk, state=Run.State.OPEN).exists():
        Executor(run, seconds=10).work()
    expect(page.locator("#run-progress-title")).to_contain_text("done")  # the page loaded itself again
    expect(page.locator(".run-facts")).to_contain_text("1,000 of 1,000")
    expect(page.locator(".page-head").get_by_role("link", name="Resume", exact=True)).to_have_count(0)
    assert PartnerConsent.objects.filter(last_class="ok").count() == PARTNERS

    page.get_by_role("link", name="All results, to filter and export").click()
    expect(page.locator("h1")).to_have_text(f"Results of run {run.pk}")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert len(download.value.path().read_text().splitlines()) == PARTNERS + 1
    watch.assert_quiet()


def step_to(page: Page, words: str, most: int = 60) -> None:
    """Press Tab until what has the focus says these words."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim().replace(/\\s+/g, ' ')") == words:
            return
    pytest.fail(f"{words} is not reached with {most} tabs")


def test_a_group_of_incidents_is_put_off_and_woken_by_keyboard_alone(
    portal: Portal, watch_and_page: tuple[PolicyWatch, Page], base: str
) -> None:
    for name in ("Harbour", "Nordwind"):
        alarms.report(alarms.Cause.MFA_MISSING, builders.consent(builders.partner(name=name), portal.registration))
    watch, page = watch_and_page
    keys = page.keyboard
    page.goto(base + reverse("admin:incidents_incident_groups"))
    step_to(page, "Skip to main content")
    keys.press("Enter")
    step_to(page, "Put off: MFA missing")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Put off incidents")
    page.locator("select[name=hours]").wait_for()
    for _ in range(40):
        keys.press("Tab")
        if page.evaluate("document.activeElement.name") == "hours":
            break
    keys.type("3 days")
    step_to(page, "Put off")
    keys.press("Enter")
    expect(page.get_by_text("2 incidents are put off until")).to_be_visible()
    expect(page.locator("h2.apart")).to_have_text("Put off")
    assert Incident.objects.open().asleep().count() == 2
    step_to(page, "Wake up: MFA missing", most=80)
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Wake incidents up")
    step_to(page, "Wake up")
    keys.press("Enter")
    expect(page.get_by_text("2 incidents are awake again.")).to_be_visible()
    watch.assert_quiet()


def test_the_pages_of_incidents_runs_and_references_are_silent_and_clean(
    portal: Portal, watch_and_page: tuple[PolicyWatch, Page], base: str
) -> None:
    watch, page = watch_and_page
    portal.onboard(accept=False)
    connect(portal, 3)
    for consent in PartnerConsent.objects.all():
        alarms.report(alarms.Cause.MFA_MISSING, consent)
    report("certificate_refused", about="host:a", name="a.example", owner=Owner.US, words="Look at it.")
    report("certificate_refused", about="host:b", name="b.example", owner=Owner.US, words="Look at it.")
    settle("certificate_refused", about="host:b")
    run = on_request.check_tokens(PartnerConsent.objects.all(), actor=builders.ACTOR).run
    Executor(run).work()
    schedule.tick()
    incident = Incident.objects.filter(cause="mfa_missing").latest("pk")
    flow = ConsentFlow.objects.get()
    paths = {
        "incidents": reverse("admin:incidents_incident_groups"),
        "incident": reverse("admin:incidents_incident_change", args=[incident.pk]),
        "put-off": reverse("admin:incidents_incident_put_off_one", args=[incident.pk]),
        "note": reverse("admin:incidents_incident_note_one", args=[incident.pk]),
        "run": reverse("admin:runs_run_change", args=[run.pk]),
        "results": f"{reverse('admin:runs_runitem_changelist')}?run__id__exact={run.pk}",
        "schedule": reverse("admin:runs_scheduledjob_changelist"),
        "job": reverse("admin:runs_scheduledjob_change", args=["sweep"]),
        "reference": f"{reverse('admin:search')}?q={flow.reference}",
    }
    found: list[Finding] = []
    for name, path in paths.items():
        open_pages(page, watch, base, [path])
        photograph_each_view(page, f"activity-{name}")
        found += judge(page, name)
    assert page.url.endswith(reverse("admin:consent_consentflow_change", args=[flow.pk]))
    assert_none(found)
    settle_page(page)
