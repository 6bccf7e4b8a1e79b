"""Each page of the portal's own admin, with rows of every kind, under the strict policy (S-61)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from playwright.sync_api import Browser
from pytest_django.live_server_helper import LiveServer

from consent.customers.plans import make_plan
from consent.invitations import campaigns, links
from consent.models import (
    ApplicationRegistration,
    Campaign,
    ConsentFlow,
    ConsentObservation,
    ConsentPlan,
    CustomerConsent,
)
from tenants.models import PartnerTag, PartnerTenant
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, admin_paths, open_pages, settle, sign_in
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.req("S-61"), pytest.mark.django_db(transaction=True)]
PASSWORD = "correct horse battery staple"
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="session", autouse=True)
def _database_beside_playwright() -> Iterator[None]:
    """Playwright keeps a loop running in this thread until the session ends, and Django refuses queries beside one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield


@pytest.fixture
def base(transactional_db: None, settings: Any) -> Iterator[str]:
    settings.SECURE_SSL_REDIRECT = False
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    server = LiveServer("localhost")  # not the fixture: that one starts before these settings
    yield server.url
    server.stop()


def fill() -> None:
    """Make rows for each list; names from outside are hostile."""
    now = timezone.now()
    User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    Group.objects.create(name="Operators")
    PartnerTag.objects.create(name="Europe")
    registration = builders.registration(state="active")
    builders.grant(registration, "User.Read.All", "Directory.Read.All")
    customer_states = list(CustomerConsent.State.values)
    for number, switch in enumerate([*[PartnerTenant.Switch.ON] * 3, *PartnerTenant.Switch]):
        partner = builders.partner(switch=switch)
        customer = builders.customer(partner, company_name=f"{HOSTILE} {number}")
        if partner.is_active:
            builders.consent(partner, registration)
            link, _ = links.issue(partner, registration, actor=builders.ACTOR)
            ConsentFlow.objects.create(
                link=link,
                public_id=f"{number:032x}",
                state_hash=f"{number:064x}",
                binder_hash="0" * 64,
                expires_at=now,
                correlation_id=builders.guid(),
            )
        consent = CustomerConsent.objects.create(
            customer=customer,
            registration=registration,
            state=customer_states[number],
            reason=HOSTILE,
            service_principal_id=builders.guid(),
            verified_at=now,
            actual_grants={"resource": [HOSTILE]},
        )
        ConsentObservation.objects.create(
            consent=consent, observed_at=now, state="granted", grants=[HOSTILE], correlation_id=builders.guid()
        )
    campaigns.create(
        name=HOSTILE,
        registration=registration,
        reason=Campaign.Reason.NEW_SCOPE,
        partners=PartnerTenant.objects.all(),
        link_days=14,
        actor=builders.ACTOR,
    )
    make_plan(registration, {}, actor=builders.ACTOR)


@pytest.mark.req("S-65")
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_every_page_is_silent_and_no_name_runs(chromium: Browser, base: str, width: int, scheme: Any) -> None:
    fill()
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watch = PolicyWatch(context)
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    sign_in(page, base, username="anna", password=PASSWORD)
    paths = admin_paths()
    assert any("/consent/customerconsent/" in path and path.endswith("/change/") for path in paths)
    campaign = Campaign.objects.get().pk
    paths += [f"/admin/consent/campaign/{campaign}/{name}/" for name in ("send", "remind", "close")]
    registration, plan = ApplicationRegistration.objects.get().pk, ConsentPlan.objects.get().pk
    paths += [f"/admin/consent/campaign/add/?registration={registration}"]
    paths += [f"/admin/consent/applicationregistration/{registration}/wanted/"]
    paths += [f"/admin/consent/consentplan/{plan}/{name}/" for name in ("apply", "undo")]
    paths += [f"/admin/consent/consentplanitem/?plan__id__exact={plan}"]
    for path in paths:
        open_pages(page, watch, base, [path])
        assert page.locator("img[onerror]").count() == 0, path
        photograph(page, f"admin-{width}-{scheme}{path.replace('/', '-').rstrip('-')}")
    settle(page)
    assert dialogs == []
    context.close()
