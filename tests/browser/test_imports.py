"""A file of partners is uploaded, looked at, and applied, by the pages alone and without a script."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from portal.site.export import csv_lines
from tests.browser.csp import PolicyWatch, settle, sign_in
from tests.browser.rows_for_each_list import PASSWORD, fill
from tests.support.builders import guid
from tests.support.moving_in import HEADER, file_row

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.req("S-61")
def test_a_file_of_partners_is_uploaded_looked_at_and_applied(chromium: Browser, base: str, tmp_path: Path) -> None:
    fill()
    file = tmp_path / "partners.csv"
    rows = [file_row("Contoso", guid(), "contoso.example.com"), file_row("By domain", domain="fabrikam.example.com")]
    file.write_text("".join(csv_lines(HEADER, [*rows, file_row("Broken", "common")])))
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    watch = PolicyWatch(context)
    page = context.new_page()
    sign_in(page, base, username="anna", password=PASSWORD)
    page.goto(f"{base}/admin/tenants/partnertenant/")
    page.get_by_role("link", name="Imports", exact=True).click()
    page.get_by_role("link", name="Add import of partners").click()
    page.get_by_label("CSV in UTF-8").set_input_files(file)
    page.get_by_role("button", name="Read the file").click()
    expect(page.get_by_text("3 rows")).to_be_visible()
    page.get_by_role("link", name="Refused").click()
    expect(page.get_by_text("A tenant id must be a GUID")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="Apply", exact=True).click()
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.get_by_text("1 partner added, 0 updated, 0 same, 1 refused.")).to_be_visible()
    settle(page)
    watch.assert_quiet()
    context.close()
