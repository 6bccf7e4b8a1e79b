"""Threads of a pool borrow connections: few for any number of threads, and none while a thread waits (R-36)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from portal.runs import connections
from portal.runs.connections import MOST, Lender
from portal.runs.kinds import OK, Outcome
from tenants.models import PartnerTag
from tests.support.work import GOOD, Work, classes

# --- the lender ---------------------------------------------------------------------------------------------------


class Driver:
    """A connection of a driver."""

    answers = True

    def __init__(self) -> None:
        self.closed = False

    def execute(self, statement: str) -> None:
        if not self.answers:
            raise OSError

    def close(self) -> None:
        self.closed = True


def test_a_connection_is_used_again_and_the_last_thread_closes_it() -> None:
    lender = Lender(2)
    lender.enter()
    lender.enter()
    first, second = lender.borrow(Driver), lender.borrow(Driver)
    lender.put_back(first)
    assert lender.borrow(Driver) is first
    lender.put_back(first)
    lender.put_back(second)
    lender.leave()
    assert not first.closed, "another thread may need it"
    lender.leave()
    assert [first.closed, second.closed] == [True, True]


def test_who_asks_for_one_too_many_waits_for_the_next_that_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lender = Lender(1)
    lent = lender.borrow(Driver)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(lender.borrow(Driver)))
    waiting.start()
    time.sleep(0.02)
    assert found == []
    lender.put_back(lent)
    waiting.join()
    assert found == [lent]

    monkeypatch.setattr(connections, "_LONGEST_WAIT", 0.01)
    with pytest.raises(OperationalError, match="All 1 connections"):
        lender.borrow(Driver)
    lender.drop()
    assert lender.borrow(Driver) is not lent, "what failed to wait took nothing"


@pytest.mark.req("R-36")
def test_after_a_restart_of_the_database_all_that_lay_idle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    lender = Lender(2)
    old = [lender.borrow(Driver), lender.borrow(Driver)]
    for each in old:
        each.answers = False
        lender.put_back(each)
    monkeypatch.setattr(connections, "_TRUSTED", 0.0)
    assert lender.borrow(Driver) not in old
    assert [each.closed for each in old] == [True, True]


def test_a_connection_that_cannot_be_made_takes_no_place() -> None:
    lender = Lender(1)

    def refused() -> Any:
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            lender.borrow(refused)
    assert isinstance(lender.borrow(Driver), Driver)


# --- threads of a run ---------------------------------------------------------------------------------------------


@pytest.fixture
def postgres(transactional_db: None) -> Iterator[None]:
    if connection.vendor != "postgresql":
        pytest.skip("on SQLite each thread has a connection of its own")
    yield
    assert connections.lender._lent == 0, "each was put back"


def of_this_database() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


@pytest.mark.req("R-36")
def test_64_threads_that_read_and_write_have_eight_connections(postgres: None) -> None:
    """With one for each thread a worker held up to 67 of the 100 that PostgreSQL gives by default."""
    before, most = of_this_database(), 0

    def reads_and_writes(key: int, attempt: int) -> Outcome:
        nonlocal most
        PartnerTag.objects.filter(name="x").exists()
        with transaction.atomic():
            tag = PartnerTag.objects.create(name=f"tag {key}")
            transaction.on_commit(lambda: PartnerTag.objects.filter(pk=tag.pk).update(name=f"tagged {key}"))
        for _ in PartnerTag.objects.iterator(chunk_size=2):
            break  # a list that nobody reads to its end
        most = max(most, of_this_database())
        time.sleep(0.01)
        return GOOD

    run, _ = Work(number=200, answer=reads_and_writes).do(concurrency=64)

    assert classes(run) == {OK: 200}
    assert PartnerTag.objects.filter(name__startswith="tagged").count() == 200
    assert before + 1 <= most <= before + MOST


def test_a_thread_that_waits_for_another_holds_no_connection(postgres: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the one that all wait for could wait for a connection that they have."""
    lock = threading.Lock()

    def in_turn(key: int, attempt: int) -> Outcome:
        PartnerTag.objects.exists()
        with lock:
            connection.close()
            time.sleep(0.005)
            PartnerTag.objects.create(name=f"tag {key}")
        return GOOD

    monkeypatch.setattr(connections, "_LONGEST_WAIT", 1.0)
    run, _ = Work(number=60, answer=in_turn).do(concurrency=4 * MOST)
    assert classes(run) == {OK: 60}
    assert PartnerTag.objects.count() == 60
    assert max(run.items.values_list("attempts", flat=True)) == 1


@pytest.mark.req("R-36")
def test_a_connection_that_broke_is_given_up_and_the_unit_comes_again(postgres: None) -> None:
    def breaks_once(key: int, attempt: int) -> Outcome:
        if attempt == 1:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        PartnerTag.objects.create(name=f"tag {key}")
        return GOOD

    run, _ = Work(number=4, answer=breaks_once).do(concurrency=4)
    assert classes(run) == {OK: 4}
    assert PartnerTag.objects.count() == 4
