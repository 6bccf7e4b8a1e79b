"""No page of the admin is wider than its window, on a phone and on the usual desktops."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import Browser

from consent.models import ApplicationRegistration, Campaign, ConsentPlan, OwnPermissionSet
from consent.runs.customer_sync import CUSTOMER_SYNC
from portal.runs import service
from tests.browser.conftest import photograph
from tests.browser.csp import admin_paths, sign_in
from tests.browser.rows_for_each_list import PASSWORD, REGISTRATION_PAGES, fill
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WIDTHS = (360, 390, 768, 1280, 1920)


_TOO_WIDE = """
() => {
  const room = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= room) return "";
  const named = (one) => `${one.tagName.toLowerCase()}${one.id ? "#" + one.id : ""}.${one.className}`.slice(0, 80);
  const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > room + 1);
  return `${document.documentElement.scrollWidth} of ${room}: ${wide.slice(-4).map(named).join(" | ")}`;
}
"""
_TALL = """
() => [...document.querySelectorAll("td")]
  .filter((one) => one.getBoundingClientRect().height > 320)
  .map((one) => `${one.className.slice(0, 40)} ${Math.round(one.getBoundingClientRect().height)} px`).join(" | ")
"""


def test_no_page_is_wider_than_its_window_and_no_cell_fills_a_screen(chromium: Browser, base: str) -> None:
    fill()
    run, _ = service.start(CUSTOMER_SYNC, scope={}, actor=builders.ACTOR, concurrency=1)
    paths = admin_paths()
    campaign, plan = Campaign.objects.get().pk, ConsentPlan.objects.get().pk
    registration = ApplicationRegistration.objects.get().pk
    paths += [f"/admin/consent/campaign/{campaign}/{name}/" for name in ("send", "close")]
    paths += [f"/admin/consent/consentplan/{plan}/{name}/" for name in ("apply", "undo")]
    paths += [f"/admin/consent/ownpermissionset/{OwnPermissionSet.objects.get().pk}/edit/"]
    paths += [f"/admin/consent/applicationregistration/{one.format(registration)}" for one in REGISTRATION_PAGES]
    paths += [f"/admin/runs/run/{run.pk}/cancel/"]
    paths += ["/admin/tenants/partnertenant/find/", f"/admin/consent/campaign/add/?registration={registration}"]
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    found = []
    for path in paths:
        page.goto(base + path, wait_until="load")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            if wide := page.evaluate(_TOO_WIDE):
                found.append(f"{path} at {width}: {wide}")
            if tall := page.evaluate(_TALL):
                found.append(f"{path} at {width}: a cell too tall, {tall}")
            if os.environ.get("KEEP_SCREENSHOTS") == "1":
                photograph(page, f"width-{width}{path.split('?')[0].replace('/', '-').rstrip('-')}")
    context.close()
    assert not found, "\n".join(found)
