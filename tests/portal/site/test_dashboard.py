"""The first page of the admin: the panels of all apps, in order.

Covers: portal.site.extension_points, portal.site.first_page.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from django.test import Client

from portal.site import first_page
from portal.site.dashboard import Figure, Panel, Row
from portal.site.display import Tone
from portal.site.extension_points import AdminExtension
from portal.site.first_page import panels
from tests.portal.site.pages import site

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.portal.site.pages")]


type Panels = Callable[..., None]


@pytest.fixture(autouse=True)
def show(monkeypatch: pytest.MonkeyPatch) -> Panels:
    """Let the first page have these panels and no others; at first it has none."""

    def these(*functions: Callable[[HttpRequest], Panel | None]) -> None:
        monkeypatch.setattr(first_page, "extensions", lambda: [AdminExtension(panels=functions)])

    these()
    monkeypatch.setattr(django_admin, "site", site)
    return these


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery"))
    return client


def test_the_index_works_without_any_panel(staff: Client) -> None:
    response = staff.get("/admin/")
    assert response.status_code == 200
    assert b"/admin/auth/user/" in response.content


def test_panels_stand_in_order_with_their_links_and_escaped(staff: Client, show: Panels) -> None:
    show(
        lambda request: Panel(title="Later", order=2, empty="Nothing to do."),
        lambda request: Panel(
            title="First",
            order=1,
            figures=[Figure(label="Connected", value=412, link="/admin/x/?state__exact=connected", tone=Tone.GOOD)],
            rows=[Row(label="<b>Contoso</b>", detail="Consent again", link="/admin/x/1/", tone=Tone.BAD)],
        ),
    )
    html = staff.get("/admin/").content.decode()
    assert html.index("First") < html.index("Later")
    assert 'href="/admin/x/?state__exact=connected"' in html
    assert "&lt;b&gt;Contoso&lt;/b&gt;" in html
    assert "Nothing to do." in html


def test_a_panel_that_has_nothing_for_a_person_is_left_out(show: Panels) -> None:
    def one(request: HttpRequest) -> Panel:
        return Panel(title="One")

    show(one, lambda request: None)
    request = HttpRequest()
    request.user = AnonymousUser()
    assert [panel.title for panel in panels(request)] == ["One"]
