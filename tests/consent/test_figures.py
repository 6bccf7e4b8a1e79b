"""Figures of a day: what is counted, once for each day, and for how long it is kept.

Covers: consent.models.figures.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.figures import count_today
from consent.models import DailyFigures
from portal.runs.registry import jobs
from tests.support import builders
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db


def some(number: int = 1) -> None:
    registration = builders.registration()
    for _ in range(number):
        partner = builders.partner()
        builders.consent(partner, registration)
        both, none = builders.customer(partner), builders.customer(partner)
        gone = builders.customer(partner, missing_since=timezone.now())
        for customer in (both, gone):
            builders.customer_consent(customer, registration, "User.Read.All", state="granted")
        builders.customer_consent(both, builders.registration(), "User.Read.All", state="granted")
        builders.customer_consent(none, registration, state="absent")
    builders.partner()


def test_partners_and_customers_are_counted_each_once() -> None:
    some(2)
    count_today()
    row = DailyFigures.objects.get()
    assert (row.partners, row.connected_partners) == ({"connected": 2, "new": 1}, 2)
    assert (row.customers, row.granted_customers) == (4, 2), "one that is not listed any more does not count"
    assert row.consents == {"granted": 6, "absent": 2}
    assert row.open_incidents == 0


def test_a_day_has_one_row_with_its_latest_figures() -> None:
    some()
    count_today()
    builders.partner()
    count_today()
    assert DailyFigures.objects.get().partners == {"connected": 1, "new": 2}


def test_the_queries_are_the_same_however_much_there_is() -> None:
    counts = []
    for number in (1, 9):
        some(number)
        with CaptureQueriesContext(connection) as queries:
            count_today()
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6


def test_the_last_thirty_days_come_in_order_and_days_without_figures_are_left_out() -> None:
    today = timezone.localdate()
    for ago in (40, 30, 29, 3, 0):
        DailyFigures.objects.create(day=today - timedelta(days=ago), counted_at=timezone.now())
    days = [row.day for row in DailyFigures.objects.last_days()]
    assert days == [today - timedelta(days=ago) for ago in (29, 3, 0)]


def test_the_schedule_counts_and_the_clean_up_removes_what_is_older_than_400_days(portal: Portal) -> None:
    today = timezone.localdate()
    for ago in (401, 400):
        DailyFigures.objects.create(day=today - timedelta(days=ago), counted_at=timezone.now())
    assert jobs()["figures"].work([]) == "0 customers counted, 0 never read"
    assert DailyFigures.objects.filter(day=today).exists()
    call_command("clean_up")
    assert list(DailyFigures.objects.values_list("day", flat=True)) == [today - timedelta(days=400), today]
