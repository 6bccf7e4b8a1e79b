"""From the admin's login to a granted customer, in a real Chromium over TLS with two sites."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from tests.browser.admin_steps import save, sign_in_as_staff
from tests.browser.conftest import RunningPortal, photograph
from tests.sandbox import scenarios
from tests.sandbox.world import known_id

pytestmark = pytest.mark.browser

NORTHWIND = known_id("tenant", "northwind")
CUSTOMER = known_id("tenant", "northwind-customer-0")


def test_the_whole_thread(running_portal: RunningPortal, staff: Page, partner: Page) -> None:
    portal = running_portal
    secret = secrets.token_urlsafe(32)
    application = portal.sandbox.world.applications[scenarios.application_id()]
    application.secrets[secret] = portal.sandbox.world.now() + 3600
    application.redirect_uris.add(f"{portal.base}/consent/callback/global")

    # Staff: registration, partner, link.
    sign_in_as_staff(portal, staff)
    photograph(staff, "01-admin-index")
    staff.goto(f"{portal.base}/admin/consent/applicationregistration/add/")
    staff.fill("[name=name]", "Example Control Panel")
    staff.fill("[name=application_id]", scenarios.application_id())
    staff.fill("[name=home_tenant_id]", scenarios.vendor_tenant())
    staff.select_option("[name=permission_set]", "extended")
    photograph(staff, "02-registration")
    save(staff)
    expect(staff.locator("body")).to_contain_text("was added successfully")
    staff.goto(f"{portal.base}/admin/consent/applicationregistration/1/wanted/")
    staff.fill("[name=grants]", f"{GRAPH_APPLICATION_ID}: User.Read.All, Directory.Read.All")
    staff.click("text=Show what it will mean")
    expect(staff.locator("body")).to_contain_text("What this change will mean")
    photograph(staff, "02-wanted-grants")
    staff.click("text=Want this from now on")
    expect(staff.locator("body")).to_contain_text("Version 1 is what we want from now on.")
    portal.manage("add_credential", "1", "secret", given=secret)
    portal.manage("promote_credential", "1", "--unproven", "--activate")

    staff.goto(f"{portal.base}/admin/tenants/partnertenant/add/")
    staff.fill("[name=name]", "Northwind Cloud")
    staff.fill("[name=tenant_id]", "{" + NORTHWIND.upper() + "}")  # people paste what they find
    save(staff)
    expect(staff.locator("body")).to_contain_text("was added successfully")

    staff.goto(f"{portal.base}/admin/consent/consentlink/add/?partner=1&registration=1")
    photograph(staff, "03-make-link")
    save(staff)
    address = staff.locator("#consent-link").inner_text().strip()
    assert address.startswith(f"{portal.base}/consent/")
    photograph(staff, "04-link-shown-once")

    # The partner: read, continue, sign in with MFA, accept.
    partner.goto(address)
    photograph(partner, "05-landing")
    expect(partner.locator("body")).to_contain_text("Northwind Cloud")
    partner.click("form[action$=start] button")
    expect(partner).to_have_url(
        re.compile(rf"^https://login\.global\.localhost:\d+/{NORTHWIND}/oauth2/v2\.0/authorize")
    )
    partner.get_by_label("service@northwind.example.com").check()
    photograph(partner, "06-choose-account")
    partner.click("#next")
    partner.click("#approve-mfa")
    photograph(partner, "07-consent-screen")
    partner.click("#accept")
    expect(partner).to_have_url(re.compile(rf"^{portal.base}/consent/result/[0-9a-f]{{32}}$"))
    photograph(partner, "08-connected")
    expect(partner.locator("h1")).to_contain_text("connected")
    assert "code=" not in partner.url

    # Staff see it; the commands do the rest; staff see the customer granted.
    staff.goto(f"{portal.base}/admin/tenants/partnertenant/")
    expect(staff.locator("#result_list")).to_contain_text("Connected")
    photograph(staff, "09-partner-connected")
    assert "3 listed" in portal.manage("sync_customers")
    assert "1 ok" in portal.manage("check_tokens")
    assert "granted" in portal.manage("push_consent", NORTHWIND, CUSTOMER)
    staff.goto(f"{portal.base}/admin/consent/customerconsent/")
    expect(staff.locator("#result_list")).to_contain_text("Granted")
    photograph(staff, "10-customer-granted")
    staff.locator("#result_list tbody th a").first.click()
    photograph(staff, "11-evidence")
    log = portal.log.read_text()
    assert secret not in log


def test_a_declined_consent_in_the_browser(running_portal: RunningPortal, partner: Page) -> None:
    portal = running_portal
    application = portal.sandbox.world.applications[scenarios.application_id()]
    application.redirect_uris.add(f"{portal.base}/consent/callback/global")
    address = portal.manage("shell", "--verbosity", "0", "-c", _SEED, given=None).strip().splitlines()[-1]

    partner.goto(address)
    partner.click("form[action$=start] button")
    partner.get_by_label("service@northwind.example.com").check()
    partner.click("#next")
    partner.click("#approve-mfa")
    partner.click("#cancel")

    expect(partner).to_have_url(re.compile(r"/consent/result/"))
    photograph(partner, "12-declined")
    expect(partner.locator("body")).to_contain_text("Reference")


_SEED = f"""
from tests.support import builders
from consent.invitations import links
partner = builders.partner(name="Northwind Cloud", tenant_id="{NORTHWIND}")
registration = builders.registration(application_id="{scenarios.application_id()}")
print(links.issue(partner, registration, actor=builders.ACTOR)[1].reveal())
"""
