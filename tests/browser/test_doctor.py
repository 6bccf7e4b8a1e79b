"""The doctor's page in a real Chromium: the button answers under the strict policy, and is open to a screen reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, expect
from pytest_django.fixtures import Settings

from tests.browser import axe
from tests.browser.csp import PolicyWatch, sign_in
from tests.sandbox.server import Sandbox
from tests.support import doctor
from tests.support.doctor import make_ward
from tests.support.smtp import serving

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_button_shows_what_fails_first(
    chromium: Browser,
    base: str,
    settings: Settings,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery staple")
    with serving() as mail, chromium.new_context() as context:
        watch, page = PolicyWatch(context), context.new_page()
        ward = make_ward(settings, sandbox, monkeypatch, tmp_path, mail.port, key_vault=True)
        doctor.canary_revoked(ward)
        sign_in(page, base, username="anna", password="correct horse battery staple")
        page.goto(base + reverse("admin:consent_doctor"))
        page.get_by_role("button", name="Try everything now").click()
        expect(page.get_by_role("status")).to_contain_text("The first that fails: A partner's token.")
        expect(page.locator("main .row.tone-bad")).to_have_count(1)
        axe.assert_none(axe.judge(page, "doctor"))
        watch.assert_quiet()
