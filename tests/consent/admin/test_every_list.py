"""Each list of the admin offers the same: filters with chips, saved filters, columns to choose, search and files."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from portal.site.admin import PortalModelAdmin
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
LISTS = sorted(model._meta.label_lower for model in admin.site._registry)
# A few rows each, found by their names: there is nothing to filter by.
WITHOUT_FILTERS = {
    "auth.group",
    "consent.ownpermissionset",
    "consent.partnerimport",
    "portal.team",
    "tenants.partnertag",
}


def page_of(label: str) -> PortalModelAdmin[Any]:
    [page] = [page for model, page in admin.site._registry.items() if model._meta.label_lower == label]
    assert isinstance(page, PortalModelAdmin)
    return page


def test_no_class_leans_on_a_widget_that_needs_a_script() -> None:
    assert len(LISTS) > 20
    leaning = [label for label in LISTS if page_of(label).autocomplete_fields or page_of(label).raw_id_fields]
    assert leaning == [], "autocomplete_fields and raw_id_fields need jQuery, and stay empty without a script"


@pytest.mark.parametrize("label", LISTS)
def test_each_list_has_filters_search_and_a_file(label: str) -> None:
    page = page_of(label)
    assert bool(page.list_filter) != (label in WITHOUT_FILTERS)
    assert page.search_fields
    assert page.export_fields


@pytest.mark.parametrize("label", LISTS)
def test_each_list_saves_filters_for_one_or_for_all_and_lets_columns_be_chosen(label: str) -> None:
    address = reverse(f"admin:{label.replace('.', '_')}_changelist")
    staff = Staff()
    shown = staff.get(address, {"q": "nothing like this"}).content.decode()
    assert f'action="{address}filters/keep/"' in shown
    assert 'name="shared"' in shown
    if len(page_of(label).list_display) > 1:
        assert f'action="{address}columns/"' in shown
    for shared in ({}, {"shared": "on"}):
        kept = staff.post(f"{address}filters/keep/", {"name": "Mine", "query": "q=a", **shared}, follow=True)
        assert "is saved" in kept.content.decode()


def test_a_filter_that_is_chosen_stands_as_a_chip_with_a_cross_on_each_list() -> None:
    staff, seen = Staff(), []
    for label in LISTS:
        address = reverse(f"admin:{label.replace('.', '_')}_changelist")
        listed = staff.get(address).context["cl"]
        choices = [choice for spec in listed.filter_specs for choice in list(spec.choices(listed))[1:]]
        if choices:  # others offer what their rows have
            chosen = staff.get(f"{address}{choices[0]['query_string']}").content.decode()
            assert 'class="filter-off"' in chosen, label
            assert "Take away the filter" in chosen, label
            seen.append(label)
    assert len(seen) > 15, seen
