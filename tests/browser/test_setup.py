"""From an empty database to a granted customer by the checklist of a registration alone, in each cloud."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from tests.browser.admin_steps import save, sign_in_as_staff
from tests.browser.conftest import ROOT, RunningPortal, photograph
from tests.sandbox.scenarios import add_partner
from tests.support.administrator import Administrator

pytestmark = pytest.mark.browser
CLICKS = 31
"""Of staff in the portal, from the first page to the granted customer; typing and what others do is not counted."""


class Hand:
    """Clicks, and counts them."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks = page, 0

    def press(self, name: str, within: str = "main") -> None:
        """Press the first button, link or summary of this name."""
        self.clicks += 1
        place = self.page.locator(within)
        named = place.get_by_role("button", name=name, exact=True).or_(place.get_by_role("link", name=name, exact=True))
        named.or_(place.locator("summary", has_text=name)).first.click()

    def step(self, number: int, name: str) -> None:
        """Press a button of one step of the checklist."""
        self.press(name, f"section.card:has(h2:text-matches('^{number}\\\\.'))")

    def stands(self, number: int, words: str) -> None:
        expect(self.page.locator(f"section.card:has(h2:text-matches('^{number}\\\\.')) h2 .badge")).to_have_text(words)


@contextmanager
def worker(portal: RunningPortal) -> Iterator[None]:
    """Run a worker beside the portal."""
    with portal.log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "worker", "--no-schedule"],
            cwd=ROOT, env=portal.environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(40)


@pytest.mark.parametrize(
    "cloud", ["global", *(pytest.param(one, marks=pytest.mark.release) for one in ("usgov", "china"))]
)
def test_the_checklist_leads_from_an_empty_database_to_a_granted_customer(
    running_portal: RunningPortal, staff: Page, partner: Page, cloud: str
) -> None:
    portal, world = running_portal, running_portal.sandbox.world
    world.applications.clear()
    company = add_partner(world, f"first-{cloud}", "First Partner", cloud=cloud, customers=1)
    administrator = Administrator(portal.sandbox, cloud)
    administrator.tenant.principals.clear()
    sign_in_as_staff(portal, staff)
    hand = Hand(staff)

    # Before it exists: the page gives the calls, an administrator of the home tenant makes them.
    hand.press("Applications", "body")
    hand.press("Add application registration", "body")
    hand.press("Make the app registration there first")
    staff.get_by_label("Name").fill("Example Control Panel")
    staff.get_by_label("Cloud").select_option(cloud)
    staff.get_by_label("Home tenant id").fill(administrator.tenant.tenant_id)
    staff.get_by_label("Permission set", exact=True).select_option("extended")
    hand.press("Show what to do")
    photograph(staff, f"setup-prepare-{cloud}")
    hand.press("Graph calls, for any other client")
    app_id = administrator.perform(staff.locator("details[open] pre code").inner_text())
    hand.press("Add the registration")
    staff.get_by_label("Application (client) id").fill(app_id)
    hand.clicks += 1
    save(staff)

    # The checklist. The credential comes in on the server.
    expect(staff.locator(".next-step")).to_contain_text("Next: 6. Add a credential")
    made = administrator.graph("POST", f"/applications(appId='{app_id}')/addPassword", {})
    portal.manage("add_credential", app_id, "secret", "--key-id", made["keyId"], given=made["secretText"])
    staff.reload()
    hand.step(6, "Verify at Microsoft")
    for number in (2, 6):
        hand.stands(number, "Done")
    hand.step(3, "Compare")
    staff.get_by_label("What the command printed").fill(json.dumps(administrator.look(app_id)))
    hand.press("Compare")
    expect(staff.locator("main")).to_contain_text("Ada Admin owns the application")
    photograph(staff, f"setup-compared-{cloud}")
    hand.press("All of these are ours")
    hand.press("Set-up")
    for number in (3, 4):
        hand.stands(number, "Done")
    photograph(staff, f"setup-steps-{cloud}")
    hand.step(7, "Verify and activate")
    hand.stands(7, "Done")

    # The canary.
    hand.step(8, "Add a partner")
    staff.locator("#id_name").fill("First Partner")
    staff.locator("#id_tenant_id").fill(company.tenant_id)
    staff.locator("#id_cloud").select_option(cloud)
    hand.clicks += 1
    save(staff)
    hand.press("Make the link", ".next-step")
    partner.goto(staff.locator("#consent-link").inner_text().strip())
    partner.click("form[action$=start] button")
    partner.get_by_label(f"service@{company.domain}").check()
    partner.click("#next")
    partner.click("#approve-mfa")
    partner.click("#accept")
    expect(partner.locator("h1")).to_contain_text("connected")

    # What is wanted, and the first customer.
    hand.press("Applications", "body")
    hand.press("Example Control Panel")
    hand.stands(8, "Done")
    hand.step(9, "Change wanted grants")
    staff.fill("[name=grants]", f"{GRAPH_APPLICATION_ID}: User.Read.All, Directory.Read.All")
    hand.press("Show what it will mean")
    hand.press("Want this from now on")
    hand.stands(9, "Done")
    with worker(portal):
        hand.step(8, "See the partners")
        hand.press("First Partner")
        hand.press("Synchronise")
        expect(staff.locator("#run-progress")).to_contain_text("OK", timeout=60_000)
        hand.press("Partners", "body")
        hand.press("First Partner")
        hand.press("Plan consent")
        hand.press("Apply")
        hand.press("Apply")
        expect(staff.locator("#run-progress")).to_contain_text("OK", timeout=60_000)
    hand.press("Applications", "body")
    hand.press("Example Control Panel")
    for number in (1, 10):
        hand.stands(number, "Done")
    expect(staff.locator(".next-step")).to_contain_text("The set-up is complete")
    photograph(staff, f"setup-complete-{cloud}")
    assert hand.clicks == CLICKS
    assert world.crossings == []
