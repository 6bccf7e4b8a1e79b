"""The bench of the lists in small: its rows, its pages and its judgement, on the database of the suite (R-29).

``python -m tests.bench.lists`` is the same with many customers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Model

from tenants.models import CustomerTenant
from tests.bench import many_rows
from tests.bench.list_pages import Page, export, list_pages, measure, other_pages, searches
from tests.bench.many_rows import fill_database
from tests.support import builders
from tests.support.staff import Staff

_PARTNERS, _CUSTOMERS = 40, 6
_ONE_IN = 9  # of the many filters and orders, so that this takes a few seconds


@pytest.mark.django_db
@pytest.mark.req("R-29")
def test_each_page_of_the_bench_answers_with_few_statements() -> None:
    fill_database(_PARTNERS, _CUSTOMERS)
    staff = Staff()
    of_lists = list(list_pages(staff))
    assert len(of_lists) > 200
    pages = [*other_pages(staff, _PARTNERS, _CUSTOMERS), *searches(staff, _PARTNERS, _CUSTOMERS), *of_lists[::_ONE_IN]]
    found = [measure(page, rounds=1, warm=page is pages[0]) for page in pages]
    assert {one.page.name: one.statements for one in found if one.statements > one.page.statements} == {}
    size, _, _, _ = export(staff)
    assert size > 1000


def _made(model: type[Model]) -> set[str]:
    with connection.cursor() as cursor:
        return set(connection.introspection.get_constraints(cursor, model._meta.db_table))


@pytest.mark.django_db(transaction=True)
def test_a_quick_fill_leaves_each_index_and_each_key_of_another_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_rows, "_LARGE", 1)
    before, partner = _made(CustomerTenant), builders.partner()
    with many_rows.quickly(1, CustomerTenant):
        assert len(_made(CustomerTenant)) < len(before)
        row = {"id": 7, "partner_id": partner.pk, "company_name": "Harbour", "search_text": "harbour"}
        many_rows.fill(
            CustomerTenant, [row | dict.fromkeys(("first_seen_at", "last_seen_at"), "2026-11-30 12:00+00:00")]
        )
    assert _made(CustomerTenant) == before
    assert CustomerTenant.objects.get(search_text__finds="arbou").partner == partner


def _page(ask: Callable[[], object], *, seconds: float = 60, statements: int = 1) -> Page:
    return Page("a page", ask, seconds, statements)


def _work() -> None:
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass


def _ask_twice() -> None:
    for _ in range(2):
        User.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("page", "holds"),
    [
        (_page(_work), True),
        (_page(_work, seconds=0.02), False),
        (_page(_work, seconds=0.047), True),  # by less than a tenth
        (_page(_ask_twice, statements=2), True),
        (_page(_ask_twice), False),
    ],
)
def test_a_page_that_misses_its_goal_is_told(page: Page, holds: bool) -> None:
    found = measure(page, rounds=3)
    assert found.holds is holds, found
