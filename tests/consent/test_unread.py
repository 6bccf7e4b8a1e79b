"""The short list of customers that were never read: what stands there, and that it hides nobody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from consent import unread
from consent.models import CustomerConsent, UnreadCustomer
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner()


def customers(partner: PartnerTenant, number: int, *, hours: int = 2) -> list[CustomerTenant]:
    """Return customers that came so many hours ago."""
    came = timezone.now() - timedelta(hours=hours)
    return [builders.customer(partner, first_seen_at=came) for _ in range(number)]


def read(customer: CustomerTenant) -> None:
    CustomerConsent.objects.update_or_create(
        customer=customer, registration=builders.registration(), defaults={"verified_at": timezone.now()}
    )


def looked_for() -> set[int]:
    return {key for part, column in unread.maybe_unread() for key in part.values_list(column, flat=True)}


def keys(*found: CustomerTenant) -> set[int]:
    return {one.pk for one in found}


def test_nobody_is_hidden_before_the_schedule_looked_and_after(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "_CHUNK", 2)
    first, second, third, tried, last = customers(partner, 5)
    CustomerConsent.objects.create(customer=tried, registration=builders.registration())
    read(second)
    assert looked_for() == keys(first, second, third, tried, last)
    assert unread.renew() >= 4
    assert keys(first, third, tried, last) <= looked_for()
    read(third)
    unread.renew()
    [new] = customers(partner, 1)
    assert looked_for() & keys(first, second, third, tried, last, new) >= keys(first, tried, last, new)
    assert third.pk not in looked_for()


def test_the_last_one_stays_so_that_nothing_is_looked_at_twice(partner: PartnerTenant) -> None:
    all_of_them = customers(partner, 4)
    for one in all_of_them:
        read(one)
    assert unread.renew() == 1
    assert set(UnreadCustomer.objects.values_list("pk", flat=True)) == keys(all_of_them[-1])
    more = customers(partner, 2)
    assert unread.renew() == 2  # the one that was the last was read
    assert looked_for() == keys(*more)


def test_a_customer_whose_transaction_ends_late_is_not_passed_over(partner: PartnerTenant) -> None:
    [known] = customers(partner, 1)
    [young] = customers(partner, 1, hours=0)
    unread.renew()
    assert set(UnreadCustomer.objects.values_list("pk", flat=True)) == keys(known)
    assert looked_for() == keys(known, young)
