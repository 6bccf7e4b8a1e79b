"""The lease of an executor, and its steps over a restart of the database; test_processes.py has frozen processes."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction

from portal.runs import lease as leases
from portal.runs.lease import Lease, LeaseLost
from portal.runs.models import Executor
from tests.support.work import Work

pytestmark = pytest.mark.django_db


def entered() -> Lease:
    lease = Lease()
    lease.enter(Work(number=1).start())
    return lease


def test_a_lease_is_held_for_its_time_after_a_renewal_and_renewed_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "LEASE", timedelta(seconds=0.2))
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    lease = entered()
    assert (lease.is_held(), lease.is_due()) == (False, True)
    lease.renew()
    lease.renewed()
    assert (lease.is_held(), lease.is_due()) == (True, False)
    time.sleep(0.06)
    assert (lease.is_held(), lease.is_due()) == (True, True)
    time.sleep(0.2)
    assert not lease.is_held()
    lease.renewed()
    lease.renew_soon()
    assert (lease.is_held(), lease.is_due()) == (True, True)


@pytest.mark.req("R-27")
def test_an_executor_that_others_ended_renews_nothing() -> None:
    lease = entered()
    Executor.objects.filter(pk=lease.executor_id).update(ended_at="2026-01-01T00:00:00Z")
    with pytest.raises(LeaseLost):
        lease.renew()


@pytest.mark.django_db(transaction=True)
@pytest.mark.req("R-36")
def test_a_step_is_repeated_until_the_database_is_there_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_RECONNECT_SECONDS", 1.5)
    lease, tries = Lease(), 0

    def away(times: int) -> str:
        nonlocal tries
        tries += 1
        if tries <= times:
            raise OperationalError("away")
        return "there"

    assert lease.steadily(lambda: away(1)) == "there"
    assert (tries, lease.unsure) == (2, True)
    tries = 0
    with pytest.raises(OperationalError):
        lease.steadily(lambda: away(99))
    assert tries == 3  # at once, after one second, and after two, which is too late


@pytest.mark.django_db(transaction=True)
def test_a_step_within_a_transaction_is_not_repeated() -> None:
    tries = []

    def away() -> None:
        tries.append(connection.in_atomic_block)
        raise OperationalError("away")

    with pytest.raises(OperationalError), transaction.atomic():
        Lease().steadily(away)
    assert tries == [True]
