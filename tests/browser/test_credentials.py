"""A credential by its pages in a real Chromium: a key pair is made, put to use and replaced by an uploaded file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from playwright.sync_api import Page, expect

from tests.browser import axe
from tests.browser.admin_steps import sign_in_as_staff
from tests.browser.conftest import RunningPortal, photograph
from tests.browser.csp import PolicyWatch
from tests.sandbox import scenarios
from tests.support.certificates import pem

pytestmark = [pytest.mark.browser, pytest.mark.req("S-39")]

SEED = f"""
from tests.support import builders
builders.registration(application_id="{scenarios.application_id()}", home_tenant_id="{scenarios.vendor_tenant()}",
                      name="Example Control Panel", state="draft", credential=None)
"""


def look(page: Page, name: str) -> None:
    """Keep a picture, and let axe judge the page."""
    photograph(page, name)
    axe.assert_none(axe.judge(page, name))
    page.set_viewport_size({"width": 1280, "height": 900})


def press(page: Page, words: str) -> None:
    page.locator(f"main button:has-text('{words}')").click()


def test_a_key_pair_and_an_uploaded_file_become_credentials(
    running_portal: RunningPortal, staff: Page, tmp_path: Path
) -> None:
    portal, watch = running_portal, PolicyWatch(staff.context)
    portal.manage("shell", "--verbosity", "0", "-c", SEED)
    sign_in_as_staff(portal, staff)
    staff.goto(f"{portal.base}/admin/consent/applicationcredential/add/")
    look(staff, "credential-ways")
    staff.click("text=Make a key pair here")
    look(staff, "credential-pair")
    press(staff, "Make the key pair")
    body = staff.locator("body")
    expect(body).to_contain_text("Make it known at Microsoft, then promote it.")
    look(staff, "credential-candidate")
    with staff.expect_download() as downloading:
        staff.locator(".next-step").get_by_text("Download the certificate").click()
    certificate = x509.load_pem_x509_certificate(downloading.value.path().read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=Example Control Panel"

    staff.locator("a.button", has_text="Promote").click()
    staff.fill("[name=word]", "unproven")
    look(staff, "credential-unproven")
    press(staff, "Put it to use unproven")
    expect(body).to_contain_text("It is in use and ends in")
    look(staff, "credential-current")

    file = tmp_path / "app.pem"
    file.write_text(pem())
    staff.goto(f"{portal.base}/admin/consent/applicationcredential/new/1/upload/")
    staff.set_input_files("[name=file]", file)
    staff.fill("[name=word]", "upload")
    look(staff, "credential-upload")
    press(staff, "Upload and store the key")
    expect(body).to_contain_text("It is not in use yet.")
    watch.assert_quiet()
