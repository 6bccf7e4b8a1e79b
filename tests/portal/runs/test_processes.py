"""Executors in processes of their own: killed, stopped, frozen, and side by side (R-26, R-27, R-28).

Covers: portal.runs.ending, portal.runs.tasks.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from dj_queue.models import Process
from django.db import connection
from django.db.models.functions import Now

from portal.runs import schedule, service, tasks
from portal.runs.models import Executor, Run, RunItem, ScheduledJob
from portal.runs.registry import Job
from tests.support.children import Bench, assert_all_once
from tests.support.work import alone_on_the_schedule

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


@pytest.mark.req("R-26")
def test_killed_at_two_fifths_the_run_goes_on_and_nothing_is_done_twice(bench: Callable[..., Bench]) -> None:
    work = bench(number=1000)
    first = work.start()
    work.wait_for_calls(400)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    before = len(work.calls())
    finished = RunItem.objects.filter(state="done").count()

    second = work.start()
    assert second.wait(60) == 0, work.errors.read_text()

    assert_all_once(work)
    repeated = len(work.calls()) - work.number
    # In flight: four threads, and what was finished but not yet written, a tenth of a second's worth.
    assert repeated == before - finished
    assert repeated <= 60


@pytest.mark.slow
@pytest.mark.req("R-26")
def test_killed_again_and_again_each_unit_has_one_result(bench: Callable[..., Bench]) -> None:
    work = bench(number=300, seconds=0.005)
    for part in (1, 2):
        child = work.start(concurrency=2)
        work.wait_for_calls(part * 90)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    last = work.start(concurrency=2)
    assert last.wait(60) == 0
    assert_all_once(work)


@pytest.mark.req("R-32")
def test_two_processes_share_a_run_and_no_unit_is_worked_twice(bench: Callable[..., Bench]) -> None:
    work = bench(number=400)
    children = [work.start(), work.start()]
    assert [child.wait(60) for child in children] == [0, 0]

    assert_all_once(work)
    calls = Counter(key for key, _ in work.calls())
    assert set(calls.values()) == {1}
    shares = Counter(pid for _, pid in work.calls())
    assert len(shares) == 2
    assert min(shares.values()) > 40


@pytest.mark.req("R-28")
@pytest.mark.req("R-33")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_politely_and_says_how_to_go_on(bench: Callable[..., Bench], number: signal.Signals) -> None:
    work = bench(number=200)
    child = work.start()
    work.wait_for_calls(50)
    child.send_signal(number)
    began = time.monotonic()
    assert child.wait(30) == 128 + number
    assert time.monotonic() - began < 30
    assert f"run_resume {work.run.pk}" in work.errors.read_text()
    assert RunItem.objects.filter(state="working").count() == 0
    assert RunItem.objects.filter(state="done").count() == len(work.calls())

    assert work.start().wait(60) == 0
    assert_all_once(work)
    assert len(work.calls()) == work.number


@pytest.mark.req("R-28")
def test_a_second_signal_stops_at_once(bench: Callable[..., Bench]) -> None:
    work = bench(number=50, seconds=20.0)
    child = work.start()
    work.wait_for_calls(4)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 128 + signal.SIGTERM


@pytest.mark.req("R-27")
def test_a_frozen_process_whose_lease_ran_out_calls_and_writes_nothing_more(bench: Callable[..., Bench]) -> None:
    work = bench(number=300)
    frozen = work.start(lease=3.0)
    work.wait_for_calls(40)
    frozen.send_signal(signal.SIGSTOP)
    # As if on another machine: nobody can see that the process still exists, only that the lease is over.
    Executor.objects.update(host="elsewhere")
    work.wait_for(lambda: not Executor.objects.living().exists())
    assert work.start().wait(60) == 0
    assert_all_once(work)
    calls = len(work.calls())

    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(30) == 1
    # Each of its four threads may stand between its last look at the lease and its call; nothing else is begun.
    assert len(work.calls()) <= calls + 4
    assert_all_once(work)


@pytest.mark.req("R-27")
def test_whoever_died_on_this_machine_is_not_waited_for(bench: Callable[..., Bench]) -> None:
    work = bench()
    child = work.start()
    work.wait_for_calls(20)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    assert Executor.objects.living().count() == 1
    assert service.expire_executors(work.run.pk) > 0
    assert Executor.objects.living().count() == 0


@pytest.mark.req("R-32")
def test_a_worker_that_was_killed_is_replaced_by_the_sweeper(bench: Callable[..., Bench]) -> None:
    work = bench(number=200)
    Run.objects.update(concurrency=4)
    tasks.enqueue(work.run)
    killed = work.start("worker")
    work.wait_for_calls(40)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    service.expire_executors(work.run.pk)

    assert schedule.sweep() == "1 run handed to the workers"
    schedule.sweep()  # delivered twice: one effect
    second = work.start("worker")
    work.wait_for(lambda: Run.objects.get().state == "done", 60)
    assert_all_once(work)
    second.send_signal(signal.SIGTERM)
    assert second.wait(40) == 0


@pytest.mark.req("R-28")
def test_a_worker_stops_politely_in_the_middle_of_a_run(bench: Callable[..., Bench]) -> None:
    work = bench(number=2000)
    Run.objects.update(concurrency=4)
    tasks.enqueue(work.run)
    worker = work.start("worker")
    work.wait_for_calls(40)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert RunItem.objects.filter(state="working").count() == 0
    assert RunItem.objects.filter(state="done").count() == len(work.calls()) < 2000


def lose_connections() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def let_connect(allowed: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_database SET datallowconn = %s WHERE datname = current_database()", [allowed])


@pytest.mark.req("R-36")
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no connection to lose")
@pytest.mark.parametrize("away", [False, True], ids=["connections lost", "database away"])
def test_a_worker_that_lost_its_database_works_on(bench: Callable[..., Bench], away: bool) -> None:
    work = bench(number=20)
    worker = work.start("worker")
    work.wait_for(lambda: Process.objects.count() == 3)  # one that cannot begin ends, and is started anew from outside
    until = time.monotonic() + 4
    let_connect(not away)
    try:
        while time.monotonic() < until:  # whatever the queue does at that moment
            lose_connections()
            time.sleep(0.02)
    finally:
        let_connect(True)
    tasks.enqueue(work.run)
    work.wait_for(lambda: Run.objects.get().state == "done", 40)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, work.errors.read_text()


@pytest.mark.req("R-36")
def test_a_worker_whose_work_was_given_to_others_says_so_and_ends(bench: Callable[..., Bench]) -> None:
    work = bench(number=1)
    worker = work.start("worker")
    work.wait_for(lambda: Process.objects.count() == 3)  # itself, one that works and one that hands out
    Process.objects.all().delete()  # as another worker does, of one that was silent for long
    assert worker.wait(40) == 1
    assert "others took its work" in work.errors.read_text()


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long job alone on the schedule; a worker knows its work (``tests.support.processes``)."""
    alone_on_the_schedule(
        monkeypatch, Job(name="long_job", label="Long job", every=timedelta(days=1), work=lambda times: "")
    )


def handed_out() -> ScheduledJob:
    assert schedule.tick() == ["long_job"]
    return ScheduledJob.objects.get()


@pytest.mark.req("R-28")
@pytest.mark.usefixtures("job")
def test_a_worker_stops_politely_in_the_middle_of_a_long_job_and_another_does_it_at_once(
    bench: Callable[..., Bench],
) -> None:
    work = bench(number=1)
    handed_out()
    worker = work.start("worker", job="pieces")
    work.wait_for_calls(1)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert time.monotonic() - began < 15
    assert "stopped with its process" in handed_out().last_result


@pytest.mark.req("R-28")
@pytest.mark.req("R-32")
@pytest.mark.usefixtures("job")
def test_a_worker_ends_in_time_although_its_job_does_not_and_the_job_is_repeated(
    bench: Callable[..., Bench],
) -> None:
    work = bench(number=1)
    handed_out()
    worker = work.start("worker", job="stuck")
    work.wait_for_calls(1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0, "END_SECONDS is 3 there, and the job takes 100"
    ScheduledJob.objects.update(repeat_at=Now() - timedelta(seconds=1))  # as a minute later
    assert "its process ended in the middle" in handed_out().last_result
    handed_out_again = work.start("worker", job="short")
    work.wait_for(lambda: ScheduledJob.objects.get().repeat_at is None)
    assert "begun again once" in ScheduledJob.objects.get().last_result
    handed_out_again.send_signal(signal.SIGTERM)
    assert handed_out_again.wait(20) == 0


@pytest.mark.req("R-36")
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no connection to lose")
def test_a_run_survives_the_loss_of_its_database_connection(bench: Callable[..., Bench]) -> None:
    work = bench(number=400)
    child = work.start()
    for part in (60, 160):
        work.wait_for_calls(part)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert child.wait(60) == 0
    assert_all_once(work)
    assert len(work.calls()) == work.number
