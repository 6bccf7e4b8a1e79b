"""The first page with much to say, and with nothing: readable, silent under the policy, clean for axe."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Browser, expect

from consent.models import Campaign, CampaignPartner, ConsentFlow, ConsentLink, DailyFigures, PartnerConsent
from portal.runs.models import Run, RunItem
from tests.browser import axe
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, open_pages, settle, sign_in
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.req("S-61"), pytest.mark.django_db(transaction=True)]
PASSWORD = "correct horse battery staple"
NAMES = ("Northwind", "Harbour", "Meadow", "Lakeview", "Fabric", "Southridge", "Alpine", "Coho", "Tailspin", "Wingtip")


@pytest.fixture
def base(base: str) -> str:
    User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    return base


def fill() -> None:
    """Ten partners and what may be the matter with them, forty customers, a run, campaigns and a month of figures."""
    now = timezone.now()
    registration = builders.registration(credential={"expires_at": now + timedelta(days=41)})
    well = {"last_try_at": now - timedelta(hours=2), "last_class": "ok", "mfa_checked_at": now - timedelta(hours=5)}
    far = {"forecast_at": now + timedelta(days=81), "forecast_cause": "idle"}
    states: list[dict[str, Any]] = [
        well | far,
        well | far,
        well | {"forecast_at": now + timedelta(days=6), "forecast_cause": "sign_in"},
        well | {"forecast_at": now + timedelta(days=25), "forecast_cause": "gdap"},
        far | {"last_try_at": now - timedelta(days=3), "mfa": "unproven", "last_class": "mfa_unproven"},
        well | far | {"state": "mfa_missing", "mfa": "missing", "last_problem": "mfa", "last_owner": "partner"},
        {"state": "needs_consent", "last_class": "needs_consent", "last_code": "AADSTS50173", "last_owner": "partner"},
        well | far | {"last_class": "not_permitted", "last_problem": "not_permitted", "last_owner": "partner"},
        well | far | {"last_class": "our_credential", "last_owner": "us"},
        {"state": "expired", "last_owner": "partner"},
    ]
    partners = [builders.partner(name=f"{name} Partners") for name in NAMES]
    for partner, columns in zip(partners, states, strict=True):
        builders.consent(partner, registration, **columns)
    for number in range(40):
        ready = {"readiness": "not_ready", "readiness_owner": "customer"} if number % 7 == 0 else {"readiness": "ready"}
        customer = builders.customer(partners[number % 3], gdap_ends_at=now + timedelta(days=12 * number + 9), **ready)
        if number % 4:
            bad = {"state": "blocked", "owner": "customer", "reason": "A policy of the customer refused it."}
            builders.customer_consent(customer, registration, **(bad if number % 9 == 0 else {}))
    new = builders.partner(name="Woodgrove Partners")
    for number, partner in enumerate([new, *partners[5:8]]):
        link = ConsentLink.objects.create(
            partner=partner,
            registration=registration,
            token_hash=f"{number:064x}",
            expires_at=now + timedelta(days=3 + number),
        )
        if number % 2:
            ConsentFlow.objects.create(
                link=link,
                public_id=f"{number:032x}",
                state_hash=f"{number:064x}",
                binder_hash="0" * 64,
                expires_at=now,
                claimed_at=now,
                outcome="refused",
                problem="role_missing",
                correlation_id=builders.guid(),
            )
    ConsentLink.objects.filter(partner=new).update(created_at=now - timedelta(days=9))
    campaign = Campaign.objects.create(name="New permissions", registration=registration)
    for partner in partners:
        CampaignPartner.objects.create(campaign=campaign, partner=partner)
    PartnerConsent.objects.filter(partner=partners[0]).update(consented_at=now + timedelta(seconds=5))
    run = Run.objects.create(
        kind="token_check", scope_hash="0" * 64, actor_kind="staff", actor="anna", total=412, started_at=now
    )
    for number in range(9):
        RunItem.objects.create(
            run=run,
            key=number,
            group=number,
            label="x",
            turn=0,
            state="done",
            correlation_id=builders.guid(),
            finished_at=now,
        )
    for number, state in enumerate(("done", "stopped", "done")):
        Run.objects.create(
            kind=("customer_sync", "consent_verify", "token_check")[number],
            scope_hash=f"{number + 1:064x}",
            state=state,
            actor_kind="staff",
            actor="anna",
            total=120 * (number + 1),
            finished_at=now - timedelta(hours=5 * number + 1),
        )
    for days in range(30):
        DailyFigures.objects.create(
            day=timezone.localdate(now) - timedelta(days=days),
            partners={"connected": 40 - days // 2 + (days % 5)},
            granted_customers=4100 - 31 * days + 40 * (days % 3),
            counted_at=now,
        )


@pytest.mark.parametrize("scheme", axe.SCHEMES)
def test_the_first_page_reads_well_and_is_silent(chromium: Browser, base: str, scheme: Any) -> None:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    watch, findings = PolicyWatch(context), []
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    for name in ("empty", "full"):
        if name == "full":
            fill()
        for width in axe.WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            open_pages(page, watch, base, ["/admin/"])
            findings += axe.judge_as_shown(page, "/admin/", scheme, width)
            photograph(page, f"overview-{name}-{width}-{scheme}")
    page.get_by_text("As a table").first.click()
    expect(page.get_by_role("cell", name="40", exact=True).first).to_be_visible()
    settle(page)
    watch.assert_quiet()
    axe.assert_none(findings)
    context.close()
