"""The bench of the lists in small: its rows, its pages and its judgement, on the database of the suite (R-29).

``python -m tests.bench.lists`` is the same with 500,000 customers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from tests.bench.list_pages import Page, export, list_pages, measure, other_pages, searches
from tests.bench.many_rows import fill_database
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
