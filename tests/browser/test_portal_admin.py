"""Each page of the portal's own admin, with rows of every kind: silent under the policy (S-61), clean for axe, and no
wider than its window. Each is opened once a screen, for everything that only looks.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser

from consent.models import (
    ApplicationRegistration,
    Campaign,
    ConsentPlan,
    OwnPermissionSet,
)
from consent.runs.customer_sync import CUSTOMER_SYNC
from portal.runs import service
from tenants.models import PartnerTenant
from tests.browser import axe, widths
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, admin_paths, open_pages, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD, REGISTRATION_PAGES, fill
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.req("S-61"), pytest.mark.django_db(transaction=True)]


@pytest.mark.req("S-65")
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_every_page_is_silent_and_no_name_runs(chromium: Browser, base: str, width: int, scheme: Any) -> None:
    fill()
    run, _ = service.start(CUSTOMER_SYNC, scope={}, actor=builders.ACTOR, concurrency=1)
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    watch = PolicyWatch(context)
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    elsewhere: list[str] = []
    heavy: list[str] = []  # pages must not lean on a library of the old kind
    page.on("request", lambda one: heavy.append(one.url) if re.search("jquery|select2", one.url) else None)
    page.on("request", lambda one: None if one.url.startswith((base, "data:")) else elsewhere.append(one.url))
    sign_in(page, base, username="anna", password=PASSWORD)
    paths = admin_paths()
    assert any("/consent/customerconsent/" in path and path.endswith("/change/") for path in paths)
    campaign = Campaign.objects.get().pk
    paths += [f"/admin/consent/campaign/{campaign}/{name}/" for name in ("send", "remind", "close")]
    registration, plan = ApplicationRegistration.objects.get().pk, ConsentPlan.objects.get().pk
    paths += [f"/admin/consent/campaign/add/?registration={registration}"]
    paths += [f"/admin/consent/consentlink/add/?partner={PartnerTenant.objects.active().latest('pk').pk}"]
    paths += [f"/admin/consent/ownpermissionset/{OwnPermissionSet.objects.get().pk}/edit/"]
    paths += [f"/admin/consent/applicationregistration/{one.format(registration)}" for one in REGISTRATION_PAGES]
    paths += [f"/admin/consent/consentplan/{plan}/{name}/" for name in ("apply", "undo")]
    paths += [f"/admin/consent/consentplanitem/?plan__id__exact={plan}"]
    paths += [f"/admin/runs/run/{run.pk}/cancel/", "/admin/tenants/partnertenant/find/"]
    findings: list[axe.Finding] = []
    too_wide: list[str] = []
    for path in paths:
        open_pages(page, watch, base, [path])
        assert page.locator("img[onerror]").count() == 0, path
        findings += axe.judge_as_shown(page, path, scheme, width)
        if scheme == "light":
            too_wide += widths.look(page, path)
        photograph(page, f"admin-{width}-{scheme}{path.partition('?')[0].replace('/', '-').rstrip('-')}")
    settle(page)
    assert dialogs == []
    assert elsewhere == []
    assert heavy == []
    axe.assert_none(findings)
    assert not too_wide, "\n".join(too_wide)
    context.close()
