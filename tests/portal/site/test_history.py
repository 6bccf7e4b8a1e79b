"""History leads to what the audit trail says of that thing, and only where there is something to see (B13, S-55)."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group

from consent.invitations import links
from consent.partners import disable
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db


def test_history_shows_the_trails_events_about_this_row_only() -> None:
    partner, other = builders.partner(name="Harbour"), builders.partner()
    link, _ = links.issue(partner, builders.registration(), actor=builders.ACTOR)
    disable(partner, actor=builders.ACTOR)
    disable(other, actor=builders.ACTOR)
    staff = Staff()

    page = staff.get(f"/admin/tenants/partnertenant/{partner.pk}/history/", follow=True)

    actions = {event.action for event in page.context["cl"].result_list}
    assert actions == {"link.issued", "partner.disabled"}
    assert all(event.subject["partner"] == partner.pk for event in page.context["cl"].result_list)
    assert "Partner: Harbour" in page.content.decode()
    of_link = staff.get(f"/admin/consent/consentlink/{link.pk}/history/", follow=True)
    assert {event.action for event in of_link.context["cl"].result_list} == {"link.issued"}


@pytest.mark.parametrize(
    "about", ["", "partner", "partner:x", "a__b:1", "contains:1", "partner:" + "9" * 30, "partner:0"]
)
def test_nothing_else_is_asked_of_the_trail_by_that_address(about: str) -> None:
    disable(builders.partner(), actor=builders.ACTOR)
    page = Staff().get("/admin/audit/auditevent/", {"about": about}, follow=True)
    assert page.status_code == 200
    assert len(page.context["cl"].result_list) == 1


def test_who_may_not_read_the_trail_is_not_led_there() -> None:
    address = f"/admin/tenants/partnertenant/{builders.partner().pk}/"
    reader = Staff("tenants.view_partnertenant")
    assert f"{address}audit/" not in reader.get(f"{address}change/").content.decode()
    assert reader.get(f"{address}history/").status_code == 403
    auditor = Staff("tenants.view_partnertenant", "audit.view_auditevent")
    assert f"{address}audit/" in auditor.get(f"{address}change/").content.decode()
    assert Staff("audit.view_auditevent").get(f"{address}history/").status_code == 403
    assert auditor.get("/admin/tenants/partnertenant/999/history/", follow=True).status_code == 200


def test_what_the_trail_does_not_name_claims_nothing_about_its_making() -> None:
    group = Group.objects.create(name="Operators")
    page = Staff().get(f"/admin/auth/group/{group.pk}/history/").content.decode()
    assert "Nothing was changed here on these pages." in page


def test_a_list_is_called_what_it_holds_and_not_what_to_do() -> None:
    staff = Staff()
    for model in admin.site._registry:
        options = model._meta
        page = staff.get(f"/admin/{options.app_label}/{options.model_name}/")
        assert str(page.context["title"]).casefold() == str(options.verbose_name_plural).casefold()
        assert (
            str(apps.get_app_config(options.app_label).verbose_name).casefold()
            != str(options.verbose_name_plural).casefold()
        )
