"""Threads of a pool share connections: few for any number of threads, and none while a thread waits (R-36).

Covers: portal.microsoft.waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from portal.microsoft.http import GuardedSession, turn_of
from portal.microsoft.waiting import about_to_wait, before_waiting
from portal.runs.kinds import OK, Context, Outcome
from portal.runs.models import Run
from portal.runs.pool import MOST_CONNECTIONS, Pool
from tenants.models import PartnerTag
from tests.support import builders
from tests.support.tls_server import Authority, Connection, good_answer, read_request, tls_server
from tests.support.work import GOOD, Work, classes


def of_this_database() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


@pytest.fixture
def before(transactional_db: None) -> Iterator[int]:
    """Give how many connections there are without a run; there are as many after it."""
    if connection.vendor != "postgresql":
        pytest.skip("on SQLite each thread has a connection of its own")
    found = of_this_database()
    yield found
    until = time.monotonic() + 5
    while of_this_database() > found and time.monotonic() < until:
        time.sleep(0.01)  # the last thread of the run may still close them
    assert of_this_database() == found


def results(pool: Pool[object], jobs: Sequence[Callable[[], object]]) -> list[object]:
    """Work jobs in a pool."""

    def told(job: Callable[[], object]) -> object:
        try:
            return job()
        except Exception as error:  # noqa: BLE001  # a job must not raise
            return repr(error)

    for job in jobs:
        pool.submit(partial(told, job))
    found: list[object] = []
    while len(found) < len(jobs):
        found += pool.collect(1)
    return found


def most_attempts(run: Run) -> int:
    return max(run.items.values_list("attempts", flat=True))


@pytest.mark.req("R-36")
def test_64_threads_that_read_and_write_have_eight_connections(before: int) -> None:
    """With one for each thread a worker held up to 67 of the 100 that PostgreSQL gives by default."""
    most = 0

    def reads_and_writes(key: int, attempt: int) -> Outcome:
        nonlocal most
        PartnerTag.objects.filter(name="x").exists()
        with transaction.atomic():
            tag = PartnerTag.objects.create(name=f"tag {key}")
            about_to_wait()  # gives nothing back: this would end the transaction
            transaction.on_commit(lambda: PartnerTag.objects.filter(pk=tag.pk).update(name=f"tagged {key}"))
        for _ in PartnerTag.objects.iterator(chunk_size=2):
            break  # a list that nobody reads to its end
        most = max(most, of_this_database())
        return GOOD

    run, _ = Work(number=200, answer=reads_and_writes).do(concurrency=64)

    assert classes(run) == {OK: 200}
    assert PartnerTag.objects.filter(name__startswith="tagged").count() == 200
    assert before + 1 <= most <= before + MOST_CONNECTIONS


@pytest.mark.req("R-36")
def test_a_thread_that_waits_for_an_answer_holds_no_connection(before: int, tmp_path: Path) -> None:
    """The server answers only when more requests are there than there are connections."""
    authority = Authority(tmp_path, "throw-away")
    together = threading.Barrier(MOST_CONNECTIONS + 4)

    def answers_all_at_once(connection: Connection, closing: threading.Event) -> None:
        read_request(connection)
        together.wait(10)
        connection.sendall(good_answer())

    with tls_server(authority.context(), answers_all_at_once) as server:
        session = GuardedSession(is_allowed=lambda host: True, ca_file=str(authority.file), loopback=True)

        def asks() -> object:
            PartnerTag.objects.exists()
            answer = session.request("GET", server.url)
            PartnerTag.objects.exists()
            return answer.status_code

        pool: Pool[object] = Pool(together.parties)
        assert results(pool, [asks] * together.parties) == [200] * together.parties
        pool.close()
        session.close()


@pytest.mark.req("R-36")
def test_a_thread_that_waits_for_another_holds_no_connection(before: int) -> None:
    """Else the one that all wait for could wait for a connection that they have."""
    lock = threading.Lock()

    def in_turn(key: int, attempt: int) -> Outcome:
        PartnerTag.objects.exists()
        with turn_of(lock):
            about_to_wait()
            time.sleep(0.005)  # as a call takes
            PartnerTag.objects.create(name=f"tag {key}")
        return GOOD

    run, _ = Work(number=60, answer=in_turn).do(concurrency=4 * MOST_CONNECTIONS)
    assert classes(run) == {OK: 60}
    assert PartnerTag.objects.count() == 60
    assert most_attempts(run) == 1


def test_a_unit_that_sleeps_gives_back_what_others_need() -> None:
    said: list[str] = []
    context = Context(
        run_id=0, actor=builders.ACTOR, scope={}, options={}, correlation_id=str, halted=lambda: bool(said)
    )
    with before_waiting(lambda: said.append("waits")):
        context.sleep(1)
    assert said == ["waits"]


@pytest.mark.req("R-36")
def test_a_connection_that_broke_is_given_up_and_the_unit_comes_again(before: int) -> None:
    def breaks_once(key: int, attempt: int) -> Outcome:
        if attempt == 1:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        PartnerTag.objects.create(name=f"tag {key}")
        return GOOD

    run, _ = Work(number=4, answer=breaks_once).do(concurrency=4)
    assert classes(run) == {OK: 4}
    assert PartnerTag.objects.count() == 4


@pytest.mark.req("R-36")
def test_connections_that_broke_while_nobody_used_them_are_replaced_unseen(before: int) -> None:
    """As after a restart of the database: no unit has to come again for it."""
    pool: Pool[object] = Pool(2)
    together = threading.Barrier(2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        own = cursor.fetchone()[0]

    def each_uses_one() -> object:
        PartnerTag.objects.exists()
        together.wait(10)
        return "used"

    def breaks_the_other() -> object:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
                [own],
            )
            return f"broke {len(cursor.fetchall())}"

    assert results(pool, [each_uses_one] * 2) == ["used", "used"]
    assert results(pool, [breaks_the_other]) == ["broke 1"]
    assert results(pool, [each_uses_one] * 2) == ["used", "used"]
    pool.close()
