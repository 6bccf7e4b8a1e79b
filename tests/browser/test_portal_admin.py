"""Each page of the portal's own admin, with rows of every kind: silent under the policy (S-61), clean for axe, and no
wider than its window. Each is opened once, for everything that only looks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from consent.models import (
    ApplicationRegistration,
    Campaign,
    ConsentPlan,
    OwnPermissionSet,
)
from consent.runs.customer_sync import CUSTOMER_SYNC
from portal.decisions.models import Decision
from portal.runs import service
from portal.site import proof
from tenants.models import PartnerTenant
from tests.browser import axe, widths
from tests.browser.axe import Scheme
from tests.browser.conftest import photograph
from tests.browser.csp import PolicyWatch, admin_paths, open_pages, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD, REGISTRATION_PAGES, fill
from tests.support import builders

pytestmark = [pytest.mark.browser, pytest.mark.req("S-61"), pytest.mark.django_db(transaction=True)]
DESKTOP, PHONE = 1440, 390  # CSS pixels


def kind_of(path: str) -> str:
    """Return what the pages of all models have alike: ``add``, ``change``, ``history``; the others are their own."""
    model, _, end = path.partition("?")[0].rstrip("/").rpartition("/")
    return end if end in {"add", "change", "delete", "history"} else "list" if model.count("/") == 2 else path


@pytest.mark.req("S-65")
def test_every_page_is_silent_and_no_name_runs(chromium: Browser, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is opened on a light desktop, and narrows to a phone. One of each kind is looked at closer: in the dark
    too, by its colours, and at all widths. Before a release all are; else what models have alike is opened once.
    """
    monkeypatch.setattr(proof, "WITHIN", 3600)  # the walk takes longer than a proof holds
    fill()
    run, _ = service.start(CUSTOMER_SYNC, scope={}, actor=builders.ACTOR, concurrency=1)
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
    paths += [f"/admin/decisions/decision/{Decision.objects.get().pk}/{name}/" for name in ("approve", "refuse")]
    paths += [f"/admin/runs/run/{run.pk}/cancel/", "/admin/tenants/partnertenant/find/"]
    findings: list[axe.Finding] = []
    too_wide: list[str] = []
    kinds = {kind_of(path): path for path in paths}
    before_release = os.environ.get("RUN_SLOW") == "1"
    chosen = set(paths if before_release else kinds.values())
    paths = [path for path in paths if path in chosen or kind_of(path) not in {"delete", "history"}]
    assert kinds.keys() > {"add", "change", "history", "list", "/admin/"}

    with opened(chromium, base, DESKTOP, "light") as (page, watch):
        for path in paths:
            open_pages(page, watch, base, [path])
            assert page.locator("img[onerror]").count() == 0, path
            too_wide += widths.look(page, path, widths.WIDTHS if path in chosen else widths.OUTERMOST)
            views: list[tuple[int, Scheme]] = [(DESKTOP, "light"), (PHONE, "dark")]
            for width, scheme in views:
                axe.show(page, scheme, width)
                if path in chosen or width == DESKTOP:
                    findings += axe.judge_as_shown(page, path, scheme, width, colours=path in chosen)
                photograph(page, f"admin-{width}-{scheme}{path.partition('?')[0].replace('/', '-').rstrip('-')}")
            axe.show(page, "light", DESKTOP)
    with opened(chromium, base, PHONE, "dark") as (page, watch):
        for path in kinds.values():
            open_pages(page, watch, base, [path])
            assert page.locator("img[onerror]").count() == 0, path
    axe.assert_none(findings)
    assert not too_wide, "\n".join(too_wide)


@contextmanager
def opened(chromium: Browser, base: str, width: int, scheme: Scheme) -> Iterator[tuple[Page, PolicyWatch]]:
    """Sign in with a window of this kind; whatever is opened asks no other site, and opens no dialog."""
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
    yield page, watch
    settle(page)
    watch.assert_quiet()
    assert dialogs == []
    assert elsewhere == []
    assert heavy == []
    context.close()
