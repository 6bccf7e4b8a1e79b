"""Filters and columns that a person keeps for a list.

Covers: portal.site.keeping, portal.site.models.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory

from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.site.models import ChosenColumns, SavedFilter
from portal.site.preferences import Refused, choose_columns, columns_of, filters_of, forget_filter, keep_filter
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
PATH = "/admin/tenants/partnertenant/"


def page() -> Any:
    return admin.site.get_model_admin(PartnerTenant)


def keep(staff: Staff, query: str, name: str = "Mine", *, shared: bool = False) -> SavedFilter:
    request = RequestFactory().post(PATH)
    request.user = staff.user
    actor = Actor.staff(staff.user.username, "192.0.2.1")
    return keep_filter(page(), request, staff.user, name=name, query=query, shared=shared, actor=actor)


def test_a_filter_is_kept_as_the_list_understands_it_without_the_page_one_stood_on() -> None:
    staff = Staff()
    builders.partner(name="Harbour")
    builders.partner(name="Other")
    kept = keep(staff, "?q=harbour&state=new&p=3&o=1")
    assert kept.query == "q=harbour&state=new"
    found = staff.get(f"{PATH}?{kept.query}").context["cl"].result_list
    assert [str(row) for row in found] == ["Harbour"]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "Nothing is searched"),
        ("p=2", "Nothing is searched"),
        ("notes__startswith=a", "no such filter"),
        ("evil=1", "no such filter"),
        ("cloud__regex=g", "no such filter"),
        ("q=" + "x" * 1000, "too long"),
    ],
)
def test_what_the_list_does_not_know_is_not_kept(query: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        keep(Staff(), query)
    assert not SavedFilter.objects.exists()


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "\u202etxt"])
def test_a_name_that_deceives_or_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        keep(Staff(), "q=a", name)


def test_the_same_name_is_replaced_and_others_keep_theirs() -> None:
    anna, bert = Staff(), Staff()
    keep(anna, "q=a")
    keep(bert, "q=b")
    keep(anna, "q=c")
    assert sorted(SavedFilter.objects.values_list("query", flat=True)) == ["q=b", "q=c"]


def test_own_and_shared_filters_are_offered_and_only_ones_own_is_removed() -> None:
    anna, bert = Staff(), Staff()
    mine, shared, _ = keep(anna, "q=a"), keep(bert, "q=b", "Theirs", shared=True), keep(bert, "q=c", "Private")
    assert list(filters_of(page(), anna.user)) == [mine, shared]
    actor = Actor.staff("anna", "192.0.2.1")
    assert not forget_filter(anna.user, shared.pk, actor=actor)
    assert forget_filter(anna.user, mine.pk, actor=actor)
    assert list(filters_of(page(), anna.user)) == [shared]


def test_sharing_needs_its_own_permission_and_keeping_the_right_to_see_the_list() -> None:
    viewer = Staff("tenants.view_partnertenant")
    keep(viewer, "q=a")
    with pytest.raises(PermissionDenied):
        keep(viewer, "q=a", shared=True)
    keep(Staff("tenants.view_partnertenant", "portal_site.share_savedfilter"), "q=a", shared=True)
    with pytest.raises(PermissionDenied):
        keep(Staff("tenants.view_customertenant"), "q=a")


@pytest.mark.req("S-70")
def test_the_trail_says_that_a_filter_was_kept_and_not_what_was_searched() -> None:
    keep(Staff(), "q=anna@partner.example")
    event = AuditEvent.objects.get(action="filter.kept")
    assert event.subject == {"list": "tenants.partnertenant"}
    assert "anna" not in str(event.details)


def shown(staff: Staff) -> list[str]:
    return list(staff.get(PATH).context["cl"].list_display)


def test_a_person_sees_the_columns_that_they_chose_in_the_order_of_the_list() -> None:
    anna, bert = Staff(), Staff()
    builders.partner()
    everything = [name for name in shown(anna) if name != "action_checkbox"]
    choose_columns(page(), anna.user, everything, [everything[-1], everything[1]])
    assert shown(anna) == ["action_checkbox", everything[0], everything[1], everything[-1]]
    assert shown(bert) == ["action_checkbox", *everything]
    choose_columns(page(), anna.user, everything, everything)
    assert shown(anna) == ["action_checkbox", *everything]
    assert not ChosenColumns.objects.exists()


def test_a_column_that_went_away_is_left_out_and_an_unknown_one_is_refused() -> None:
    anna = Staff()
    with pytest.raises(Refused, match="no column notes"):
        choose_columns(page(), anna.user, ["name", "cloud"], ["notes"])
    ChosenColumns.objects.create(person=anna.user, list_name="tenants.partnertenant", columns=["gone", "cloud"])
    assert columns_of(page(), anna.user, ["name", "cloud", "synced"]) == ["name", "cloud"]


# --- on the page ---


def test_a_filter_is_saved_opened_and_removed_on_the_list_without_a_script() -> None:
    staff = Staff()
    builders.partner(name="Harbour")
    builders.partner(name="Other")
    asked = staff.get(f"{PATH}?q=harbour&cloud__exact=global&p=1").content.decode()
    assert 'name="query" value="cloud__exact=global&amp;q=harbour"' in asked
    form = {"name": "Harbours", "query": "cloud__exact=global&q=harbour"}
    done: Any = staff.post(f"{PATH}filters/keep/", form, follow=True)
    assert "The filter “Harbours” is saved." in told(done)
    assert [str(row) for row in done.context["cl"].result_list] == ["Harbour"]
    text = staff.get(PATH).content.decode()
    assert '<a href="?cloud__exact=global&amp;q=harbour"><span>Harbours</span></a>' in text
    key = SavedFilter.objects.get().pk
    gone: Any = staff.post(f"{PATH}filters/remove/", {"filter": key}, follow=True)
    assert "The filter is removed." in told(gone)
    assert "Harbours" not in gone.content.decode()
    for wrong in (key, "", "x", "9" * 40):
        page: Any = staff.post(f"{PATH}filters/remove/", {"filter": wrong}, follow=True)
        assert "You have no such filter." in told(page)


def test_nothing_is_offered_to_save_before_something_is_searched() -> None:
    staff = Staff()
    assert "filters/keep/" not in staff.get(f"{PATH}?p=1").content.decode()
    refused: Any = staff.post(f"{PATH}filters/keep/", {"name": "All", "query": ""}, follow=True)
    assert "Nothing is searched or filtered yet." in told(refused)
    assert refused.status_code == 200


def test_a_shared_filter_names_its_owner_and_only_the_owner_may_remove_it() -> None:
    anna, bert = Staff(), Staff("tenants.view_partnertenant")
    keep(anna, "q=a", "Ours", shared=True)
    assert "shared by you" in anna.get(PATH).content.decode()
    text = bert.get(PATH).content.decode()
    assert f"shared by {anna.user.username}" in text
    assert "filters/remove/" not in text
    assert 'name="shared"' not in bert.get(f"{PATH}?q=a").content.decode()
    form = {"name": "Mine", "query": "q=a", "shared": "on"}
    assert bert.post(f"{PATH}filters/keep/", form).status_code == 403
    assert bert.get(f"{PATH}filters/keep/").status_code == 405


def test_columns_are_chosen_on_the_list_and_the_search_stays() -> None:
    staff = Staff()
    builders.partner(name="Harbour")
    done: Any = staff.post(f"{PATH}columns/", {"column": ["cloud"], "query": "q=harbour"}, follow=True)
    assert list(done.context["cl"].list_display) == ["action_checkbox", "name", "cloud"]
    assert done.request["QUERY_STRING"] == "q=harbour"
    text = done.content.decode()
    assert 'name="column" value="cloud" checked' in text
    assert 'name="column" value="synced"> Customers synchronised' in text
    refused: Any = staff.post(f"{PATH}columns/", {"column": ["notes"]}, follow=True)
    assert "no column notes" in told(refused)
    stranger = Staff("tenants.view_customertenant")
    assert stranger.post(f"{PATH}columns/", {"column": ["cloud"]}).status_code == 403
