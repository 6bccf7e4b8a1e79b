"""A filter by what a row belongs to: a list of a few, words where there are many."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.site.list_filters import FEW
from tenants.models import PartnerTag
from tests.support import builders
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db
CUSTOMERS = "/admin/tenants/customertenant/"
MANY = FEW + 3


def many_partners() -> list[Any]:
    """Return more partners than a list offers, each with one customer."""
    partners = [builders.partner(name=f"Harbour {number:02}") for number in range(MANY)]
    for number, partner in enumerate(partners):
        builders.customer(partner, company_name=f"Customer {number:02}")
    return partners


def names(page: Any) -> list[str]:
    assert page.status_code == 200
    return [row.company_name for row in page.context["cl"].result_list]


def chosen(page: Any) -> list[str]:
    return re.findall(r"<summary[^>]*>[^<]*: <strong>([^<]*)</strong>", page.content.decode())


def test_a_few_are_offered_as_a_list_and_many_by_a_box() -> None:
    staff = Staff()
    one = builders.partner(name="Harbour")
    builders.customer(one)
    builders.customer(builders.partner(name="Meadow"))
    text = staff.get(CUSTOMERS).content.decode()
    assert f'href="?partner__id__exact={one.pk}"' in text
    assert "partner__named" not in text
    many_partners()
    text = staff.get(CUSTOMERS).content.decode()
    assert 'name="partner__named"' in text
    assert f'href="?partner__id__exact={one.pk}"' not in text


def test_words_find_the_rows_of_all_partners_that_they_find_without_a_script() -> None:
    partners = many_partners()
    page = Staff().get(CUSTOMERS, {"partner__named": '"HARBOUR 1"', "readiness__exact": "unknown"})
    assert names(page) == [f"Customer {number}" for number in range(10, MANY)]
    assert "“&quot;HARBOUR 1&quot;”" in chosen(page)
    # The box keeps the other filters, and the cross takes only this one away.
    assert '<input type="hidden" name="readiness__exact" value="unknown">' in page.content.decode()
    assert 'class="filter-off" href="?readiness__exact=unknown"' in page.content.decode()
    assert names(Staff().get(CUSTOMERS, {"partner__named": partners[3].tenant_id})) == ["Customer 03"]
    assert names(Staff().get(CUSTOMERS, {"partner__named": "nowhere"})) == []


def test_the_chosen_one_among_many_is_named_and_a_wrong_number_is_no_error() -> None:
    partners = many_partners()
    page = Staff().get(CUSTOMERS, {"partner__id__exact": partners[2].pk})
    assert names(page) == ["Customer 02"]
    assert chosen(page) == ["Harbour 02"]
    for wrong in ("0", "x", "9" * 30, "²"):
        assert Staff().get(CUSTOMERS, {"partner__id__exact": wrong}, follow=True).status_code == 200


def test_the_filter_costs_the_same_for_any_number_of_partners() -> None:
    staff = Staff()
    many_partners()
    staff.get(CUSTOMERS)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            page = staff.get(CUSTOMERS)
        counts.append(len(queries))
        many_partners()
    assert counts[0] == counts[1]
    assert page.content.decode().count("partner__id__exact") < 5


def test_what_a_script_offers_comes_from_the_list_of_partners_and_needs_its_permission() -> None:
    many_partners()
    staff = Staff()
    address = re.search(r'data-suggest="([^"]*)"', staff.get(CUSTOMERS).content.decode())
    assert address
    path = address[1].replace("&amp;", "&") + "&term=%22harbour+07%22"
    assert [one["text"] for one in staff.get(path).json()["results"]] == ["Harbour 07"]
    assert Staff("tenants.view_customertenant").get(path).status_code == 403


def test_partners_without_tags_are_found_beside_the_box() -> None:
    tags = [PartnerTag.objects.create(name=f"Tag {number:02}") for number in range(MANY)]
    tagged = builders.partner(name="Tagged")
    tagged.tags.set(tags[:2])
    builders.partner(name="Plain")
    staff = Staff()

    def found(**asked: str) -> list[str]:
        return [str(row) for row in staff.get("/admin/tenants/partnertenant/", asked).context["cl"].result_list]

    assert found(tags__named="Tag 0") == ["Tagged"]  # once, though two of its tags match
    assert found(tags__isnull="True") == ["Plain"]
