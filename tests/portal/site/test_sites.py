"""The frame of every page: the navigation, the bell and the search.

Covers: portal.site.navigation, portal.site.page_actions.
"""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.utils.html import escape

from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.site.admin import PortalModelAdmin
from portal.site.navigation import Section
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
ENTRIES = [section.name.capitalize() for section in Section]


def entries(page: str) -> list[tuple[str, str]]:
    """Return titles and addresses of the navigation."""
    shown = page[page.index('<nav class="side"') :]
    found = re.findall(r'<li><a href="([^"]+)"[^>]*><span[^>]*></span>([^<]+)</a>', shown[: shown.index("</nav>")])
    return [(title, address) for address, title in found]


def test_there_are_ten_entries_and_each_leads_to_a_page() -> None:
    staff = Staff()
    found = entries(staff.get("/admin/").content.decode())
    assert [title for title, _ in found] == ENTRIES
    for title, address in found:
        page = staff.get(address)
        assert page.status_code == 200
        assert page.context["section"].title == title
        assert 'aria-current="page"' in page.content.decode()


def test_every_list_belongs_to_an_entry() -> None:
    staff = Staff()
    for model in admin.site._registry:
        page = staff.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
        assert page.context["section"] is not None, model


def test_only_what_a_person_may_see_is_offered() -> None:
    reader = Staff("tenants.view_customertenant", "runs.view_scheduledjob")
    assert entries(reader.get("/admin/").content.decode()) == [
        ("Overview", "/admin/"),
        ("Customers", "/admin/tenants/customertenant/"),
        ("Activity", "/admin/runs/scheduledjob/"),
    ]
    assert entries(Staff("auth.view_user").get("/admin/password_change/").content.decode())[-1][0] == "Settings"


def test_the_bell_counts_the_open_incidents_that_are_ours() -> None:
    reader = Staff("incidents.view_incident")
    assert "0 open incidents are ours" in reader.get("/admin/password_change/").content.decode()
    for owner in (Owner.US, Owner.PARTNER):
        report("vault", about=f"vault:{owner}", owner=owner, words="It is shut.", subject={})
    page = reader.get("/admin/password_change/").content.decode()
    assert '<span class="bell-count">1</span>' in page
    assert "open incident is ours to act on" in page
    assert "bell" not in Staff("tenants.view_partnertenant").get("/admin/password_change/").content.decode()


def test_the_search_answers_as_a_page_and_as_a_list_for_the_box() -> None:
    staff = Staff()
    partner = builders.partner(name="Harbour <b>Managed</b> Services")
    link = f'<a href="/admin/tenants/partnertenant/{partner.pk}/change/">Harbour &lt;b&gt;Managed'
    page, part = (staff.get(f"/admin/search/?q=harbour{more}").content.decode() for more in ("", "&part=1"))
    assert link in page
    assert link in part
    assert "<main" in page
    assert "<main" not in part
    assert "Nothing was found" in staff.get("/admin/search/", {"q": "nowhere"}).content.decode()
    assert "Type what you look for." in staff.get("/admin/search/").content.decode()


def test_a_button_of_a_row_needs_its_permissions_also_at_its_address() -> None:
    registration = builders.registration()
    address = f"/admin/consent/applicationregistration/{registration.pk}"
    for staff, status in ((Staff(), 200), (Staff("consent.view_applicationregistration"), 403)):
        offered = f'href="{address}/wanted/"' in staff.get(f"{address}/change/").content.decode()
        assert offered == (status == 200)
        assert staff.get(f"{address}/wanted/").status_code == status


def test_an_empty_list_says_what_belongs_there() -> None:
    staff, said = Staff(), 0
    for model, page in admin.site._registry.items():
        answer = staff.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
        assert isinstance(page, PortalModelAdmin)
        if answer.context["list_title"] and not answer.context["cl"].result_count:
            assert page.empty_text, page
            assert f"<p>{escape(page.empty_text)}</p>" in answer.content.decode(), page
            said += 1
    assert said > 10
