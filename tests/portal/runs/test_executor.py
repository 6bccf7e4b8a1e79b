"""The engine: every unit once, whatever happens to it, to the run, or to who works it.

Covers: portal.runs.kinds, portal.runs.ledger, portal.runs.listening, portal.runs.models, portal.runs.reporting,
portal.runs.service, portal.runs.summaries, portal.runs.threads.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.runs import listing, service
from portal.runs.executor import Executor
from portal.runs.kinds import Outcome
from portal.runs.listening import Ending, Listener, Progress
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import Run, RunItem
from portal.runs.registry import kinds
from tests.support import builders
from tests.support.work import GOOD, OURS, THEIRS, Work, classes, item

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits before another try are seconds in real life; whole seconds are what the rows keep."""
    monkeypatch.setattr("portal.runs.ledger._FIRST_WAIT", 0.0)
    monkeypatch.setattr("portal.runs.ledger._LONGEST_WAIT", 0.0)


def slowly(key: int, attempt: int) -> Outcome:
    time.sleep(0.02)
    return GOOD


@pytest.mark.req("R-26")
@pytest.mark.parametrize("concurrency", [1, 8])
def test_every_unit_is_worked_once_and_its_result_written_once(concurrency: int) -> None:
    work = Work(number=1100, answer=lambda key, attempt: THEIRS if key % 10 == 0 else GOOD)

    run, ending = work.do(concurrency=concurrency)

    assert ending is Ending.DONE
    assert set(work.worked.values()) == {1}
    assert sorted(work.written) == [(key, "needs_consent" if key % 10 == 0 else "ok") for key in range(1, 1101)]
    assert classes(run) == {"ok": 990, "needs_consent": 110}
    assert (run.state, run.total, run.listed_to) == ("done", 1100, 1100)
    failed = item(run, 10)
    assert (failed.message, failed.owner, failed.attempts) == ("The partner must consent.", "partner", 1)
    assert AuditEvent.objects.get(action="run.finished").details["classes"] == {"ok": 990, "needs_consent": 110}


def test_a_run_without_units_is_done(db: None) -> None:
    run, ending = Work(number=0).do()
    assert (ending, run.state, run.total) == (Ending.DONE, "done", 0)


@pytest.mark.req("R-29")
def test_a_hundred_units_cost_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.runs.ledger._FLUSH_SECONDS", 10.0)
    counts = {}
    for number in (1000, 4000):
        Run.objects.all().delete()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            Work(number=number).do(concurrency=64)
        counts[number] = len(queries)
    # Claiming two, writing lease and results two with their savepoint; all in batches of 128.
    assert (counts[4000] - counts[1000]) / 30 <= 8


@pytest.mark.req("R-16")
def test_a_temporary_failure_comes_again_and_only_its_last_result_is_written() -> None:
    again = Outcome(failure_class="temporary", retry_after=0.0)
    work = Work(number=20, answer=lambda key, attempt: again if key == 7 and attempt < 3 else GOOD)

    run, ending = work.do()

    assert ending is Ending.DONE
    assert work.worked[7] == 3
    assert [each for each in work.written if each[0] == 7] == [(7, "ok")]
    assert work.released == [7, 7]
    assert item(run, 7).attempts == 3


@pytest.mark.req("R-16")
def test_a_unit_is_tried_five_times_at_most() -> None:
    again = Outcome(failure_class="throttled", retry_after=0.0, throttled=True)
    work = Work(number=10, answer=lambda key, attempt: again if key == 7 else GOOD)

    run, _ = work.do()

    assert work.worked[7] == 5
    assert classes(run) == {"ok": 9, "throttled": 1}


@pytest.mark.req("R-16")
def test_what_says_when_to_come_again_does_not_come_earlier() -> None:
    times: list[float] = []

    def answer(key: int, attempt: int) -> Outcome:
        if key != 3:
            return GOOD
        times.append(time.monotonic())
        return GOOD if attempt > 1 else Outcome(failure_class="throttled", retry_after=2.0, throttled=True)

    Work(number=5, answer=answer).do()

    assert times[1] - times[0] >= 2.0


@pytest.mark.req("R-16")
def test_retries_are_a_small_part_of_all_tries() -> None:
    again = Outcome(failure_class="temporary", retry_after=0.0)
    work = Work(number=200, answer=lambda key, attempt: again if key % 2 else GOOD)

    run, _ = work.do()

    retries = sum(work.worked.values()) - 200
    assert 10 <= retries <= 10 + 0.1 * sum(work.worked.values()) + 1
    assert classes(run) == {"ok": 100, "temporary": 100}


@pytest.mark.req("R-30")
def test_a_record_that_raises_is_marked_and_stops_nobody_else() -> None:
    def answer(key: int, attempt: int) -> Outcome:
        if key % 7 == 0:
            raise ValueError("a secret from outside")
        return GOOD

    run, ending = Work(number=50, answer=answer).do()

    assert ending is Ending.DONE
    assert classes(run) == {"ok": 43, "unexpected_error": 7}
    assert "ValueError" in item(run, 7).message
    assert "secret" not in item(run, 7).message


@pytest.mark.req("R-30")
def test_a_record_that_raised_in_three_runs_is_skipped_until_somebody_asks_for_it() -> None:
    broken = {4}

    def answer(key: int, attempt: int) -> Outcome:
        if key in broken:
            raise ValueError
        return GOOD

    work = Work(number=5, answer=answer)
    for _ in range(3):
        run, _ = work.do()
        assert item(run, 4).failure_class == "unexpected_error"
    run, _ = work.do()
    assert (work.worked[4], item(run, 4).failure_class) == (3, "skipped")
    assert "--skipped" in item(run, 4).message

    broken.clear()
    run, _ = work.do(options={"skipped": True})
    assert classes(run) == {"ok": 5}
    run, _ = work.do()
    assert classes(run) == {"ok": 5}


def test_a_subject_that_is_gone_when_its_turn_comes_is_named_and_not_worked() -> None:
    work = Work(number=5, present=lambda key: key != 2)
    run, _ = work.do()
    assert (work.worked[2], item(run, 2).failure_class) == (0, "gone")


# --- systemic stop ------------------------------------------------------------------------------------------------


@pytest.mark.req("R-14")
def test_a_cause_on_our_side_stops_within_the_first_five_and_writes_nothing() -> None:
    work = Work(number=1000, answer=lambda key, attempt: OURS)

    run, ending = work.do(concurrency=64)

    assert ending is Ending.STOPPED
    assert sum(work.worked.values()) == 5
    assert work.written == []
    assert (run.state, run.reason) == ("stopped", "Our secret expired.")
    assert RunItem.objects.filter(run=run, state="waiting").count() == run.total > 0


@pytest.mark.req("R-14")
def test_a_stopped_run_goes_on_after_the_repair() -> None:
    good = False
    work = Work(number=30, answer=lambda key, attempt: GOOD if good else OURS)
    run, _ = work.do()
    good = True

    assert service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE
    assert classes(run) == {"ok": 30}
    assert len(work.written) == 30


@pytest.mark.req("R-14")
@pytest.mark.parametrize("number", [1, 4])
def test_a_short_run_in_which_all_fails_for_our_cause_stops_too(number: int) -> None:
    run, ending = Work(number=number, answer=lambda key, attempt: OURS).do()
    assert (ending, run.state) == (Ending.STOPPED, "stopped")


@pytest.mark.req("R-14")
def test_one_good_unit_shows_that_the_others_are_to_be_written() -> None:
    work = Work(number=8, answer=lambda key, attempt: GOOD if key == 1 else OURS)
    run, ending = work.do()
    assert ending is Ending.DONE
    assert classes(run) == {"ok": 1, "our_credential": 7}


@pytest.mark.req("R-14")
def test_later_a_fifth_of_the_last_fifty_stops_the_run_and_those_are_tried_again() -> None:
    work = Work(number=1000, answer=lambda key, attempt: OURS if key > 400 else GOOD)

    run, ending = work.do()

    assert ending is Ending.STOPPED
    assert 400 <= sum(work.worked.values()) <= 400 + 50
    good = RunItem.objects.filter(run=run, failure_class="ok").count()
    assert 400 - 16 <= good <= 400  # units that lay ready when it stopped were given back
    work.answer = lambda key, attempt: GOOD
    service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE
    assert classes(run) == {"ok": 1000}
    assert {work.worked[key] for key in range(1, 401)} == {1}


def test_units_that_a_limit_stopped_say_nothing_about_us() -> None:
    limited = Outcome(failure_class="throttled", systemic=True, throttled=True, retry_after=0.0)
    work = Work(number=20, answer=lambda key, attempt: limited if attempt == 1 else GOOD)
    run, ending = work.do()
    assert (ending, classes(run)) == (Ending.DONE, {"ok": 20})


# --- people steer -------------------------------------------------------------------------------------------------


def test_a_paused_run_stops_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.runs.lease.HEARTBEAT_SECONDS", 0.0)
    work = Work(number=300)
    run = work.start()

    class Pauses(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            service.pause(Run.objects.get(pk=run.pk), actor=builders.ACTOR)

    assert Executor(run, listener=Pauses()).work() is Ending.PAUSED
    before = dict(work.worked)
    assert 0 < len(before) < 300
    assert RunItem.objects.filter(run=run, state="working").count() == 0

    assert service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE
    assert set(work.worked.values()) == {1}


def test_a_cancelled_run_works_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    run = work.start()
    assert service.cancel(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.CANCELLED
    assert not work.worked
    assert not service.cancel(run, actor=builders.ACTOR)
    assert not service.resume(run, actor=builders.ACTOR)


def test_after_the_deadline_nothing_new_begins_and_the_run_can_go_on() -> None:
    work = Work()
    run = work.start(deadline=timezone.now() - timedelta(seconds=1))
    assert Executor(run).work() is Ending.PAUSED
    assert (run.state, run.reason, dict(work.worked)) == ("paused", service.DEADLINE, {})
    service.resume(run, actor=builders.ACTOR)
    assert Executor(run).work() is Ending.DONE


@pytest.mark.req("R-28")
def test_a_stop_finishes_what_was_begun_and_gives_the_rest_back() -> None:
    work = Work(number=500, answer=slowly)
    run = work.start()

    class Stops(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            executor.stop()

    executor = Executor(run, listener=Stops())
    assert executor.work() is Ending.INTERRUPTED
    done = RunItem.objects.filter(run=run, state="done")
    assert set(done.values_list("key", flat=True)) == set(work.worked)
    assert RunItem.objects.filter(run=run, state="waiting", attempts=0).count() == 500 - len(work.worked)
    assert Executor(run).work() is Ending.DONE
    assert set(work.worked.values()) == {1}


@pytest.mark.req("R-28")
def test_a_stop_wakes_who_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.runs.executor._IDLE_SECONDS", 20.0)
    later = Outcome(failure_class="temporary", retry_after=60.0)
    run = Work(number=1, answer=lambda key, attempt: later).start()
    executor = Executor(run)
    began = time.monotonic()
    timer = threading.Timer(0.5, executor.stop)
    timer.start()
    assert executor.work() is Ending.INTERRUPTED
    assert time.monotonic() - began < 15


# --- leases -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-27")
def test_the_same_work_started_twice_is_one_run() -> None:
    work = Work()
    kind = work.kind()
    first, new = service.start(kind, scope={"tag": ["a"]}, actor=builders.ACTOR)
    again, old = service.start(kind, scope={"tag": ["a"]}, actor=builders.ACTOR)
    other, _ = service.start(kind, scope={"tag": ["b"]}, actor=builders.ACTOR)
    assert (new, old) == (True, False)
    assert first == again
    assert other != first


def dead_executor(run: Run, *keys: int) -> ExecutorRow:
    """An executor of another machine that stopped renewing its lease while it held these units."""
    row = ExecutorRow.objects.create(run=run, host="elsewhere", process=1, lease_until=Now() - timedelta(seconds=1))
    RunItem.objects.filter(run=run, key__in=keys).update(state="working", executor=row, attempts=1)
    return row


@pytest.mark.req("R-27")
@pytest.mark.req("R-32")
def test_what_a_dead_executor_held_is_worked_by_the_next() -> None:
    work = Work(number=20)
    run = work.start()
    while listing.list_units(run, work.kind()):
        pass
    dead = dead_executor(run, 1, 2, 3)

    assert Executor(run).work() is Ending.DONE

    assert set(work.worked) == set(range(1, 21))
    dead.refresh_from_db()
    assert dead.ended_at is not None
    assert item(run, 1).attempts == 2


@pytest.mark.req("R-32")
def test_a_unit_that_killed_five_executors_is_put_aside() -> None:
    work = Work(number=5)
    run = work.start()
    while listing.list_units(run, work.kind()):
        pass
    RunItem.objects.filter(key=3).update(attempts=5)

    Executor(run).work()

    assert (work.worked[3], item(run, 3).failure_class) == (0, "crashed")
    assert classes(run) == {"ok": 4, "crashed": 1}


@pytest.mark.req("R-27")
def test_an_executor_that_was_declared_dead_writes_nothing_any_more() -> None:
    work = Work(number=40)
    run = work.start()

    def answer(key: int, attempt: int) -> Outcome:
        time.sleep(0.05)
        return GOOD

    work.answer = answer

    class Buries(Listener):
        def progressed(self, progress: Progress) -> None:
            ExecutorRow.objects.update(lease_until=Now() - timedelta(minutes=1), host="elsewhere")
            service.expire_executors(run.pk)

    assert Executor(run, listener=Buries()).work() is Ending.LOST
    written = len(work.written)
    assert RunItem.objects.filter(run=run, state="done").count() == written
    assert RunItem.objects.filter(run=run, state="working").count() == 0
    assert Executor(run).work() is Ending.DONE
    assert sorted(key for key, _ in work.written) == list(range(1, 41))


# --- fairness -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-31")
def test_slow_partners_do_not_hold_up_the_others() -> None:
    """Ten partners of fifty units each are slow; the units of the others are done long before theirs."""
    finished: list[tuple[int, float]] = []
    began = time.monotonic()

    def answer(key: int, attempt: int) -> Outcome:
        time.sleep(0.3 if key <= 40 else 0.01)
        finished.append((key, time.monotonic() - began))
        return GOOD

    work = Work(number=240, answer=answer, group=lambda key: key % 4 if key <= 40 else 100 + key % 20)
    work.do(concurrency=16)

    others = max(at for key, at in finished if key > 40)
    slow = max(at for key, at in finished if key <= 40)
    assert others < slow / 1.5


@pytest.mark.req("R-31")
def test_the_units_of_all_partners_take_turns() -> None:
    order: list[int] = []

    def noted(key: int, attempt: int) -> Outcome:
        order.append(key)
        return GOOD

    work = Work(number=30, answer=noted, group=lambda key: (key - 1) // 10)
    work.do(concurrency=1)
    assert order[:6] == [1, 11, 21, 2, 12, 22]


def test_progress_counts_what_was_done_before_and_now() -> None:
    seen: list[Progress] = []

    class Watches(Listener):
        def progressed(self, progress: Progress) -> None:
            seen.append(progress)

    Work(number=300, answer=slowly).do(Watches())
    last: Any = seen[-1]
    assert last.total == 300
    assert 0 < last.done <= 300
    assert last.rate > 0


def test_a_process_that_goes_on_with_a_run_begins_with_a_few_as_well() -> None:
    halves = Work(number=200)
    run = halves.start()

    class Stops(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            executor.stop()

    executor = Executor(run, concurrency=1, listener=Stops())
    assert executor.work() is Ending.INTERRUPTED
    at_once: list[int] = []

    def slow_first(key: int, attempt: int) -> Outcome:
        at_once.append(halves.at_once)
        if len(at_once) <= 5:
            time.sleep(0.1)
        return GOOD

    halves.answer = slow_first
    assert Executor(run, concurrency=16).work() is Ending.DONE
    assert max(at_once[:5]) <= 5
    assert classes(run) == {"ok": 200}


# --- its pieces ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-31")
def test_a_partner_never_has_more_units_at_work_than_its_kind_allows() -> None:
    work = Work(number=30, answer=slowly, group=lambda key: 1)
    run = work.start(concurrency=8)
    work.kind(per_group=2)
    assert Executor(run).work() is Ending.DONE
    assert work.most_at_once == 2


@pytest.mark.req("R-31")
def test_a_partner_that_is_done_leaves_its_share_to_the_others() -> None:
    work = Work(number=60, answer=slowly, group=lambda key: 2 if key > 4 else 1)
    work.do(concurrency=8)
    assert work.most_at_once == 8


@pytest.mark.req("R-29")
def test_who_shares_a_run_with_a_slow_one_still_takes_many_units_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks how many are left: the others may have taken none."""
    monkeypatch.setattr("portal.runs.lease.HEARTBEAT_SECONDS", 0.0)
    run = Work(number=600).start(concurrency=16)
    ExecutorRow.objects.create(run=run, host="elsewhere", process=1, lease_until=Now() + timedelta(minutes=1))
    with CaptureQueriesContext(connection) as queries:
        assert Executor(run).work() is Ending.DONE
    claims = sum(
        "attempts" in each["sql"] and "'working'" in each["sql"] and "UPDATE" in each["sql"] for each in queries
    )
    assert claims < 60, "half of the units one or two at a time would be 150 and more"


@pytest.mark.req("R-36")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("away", "ends"), [(1.5, True), (60.0, False)])
def test_the_database_is_waited_for_as_long_as_a_restart_takes_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, away: float, *, ends: bool
) -> None:
    monkeypatch.setattr("portal.runs.lease._RECONNECT_SECONDS", 4.0)
    work = Work(number=3)
    run = work.start()
    kind, until = work.kind(), time.monotonic() + away

    def write(done: Any, context: Any) -> None:
        if time.monotonic() < until:
            raise OperationalError("the server closed the connection")
        work.write(done, context)

    kinds()[kind.name] = replace(kind, write=write)
    began = time.monotonic()
    if ends:
        assert Executor(run).work() is Ending.DONE
        assert sorted(work.written) == [(1, "ok"), (2, "ok"), (3, "ok")]
    else:
        with pytest.raises(OperationalError):
            Executor(run).work()
        assert 4 <= time.monotonic() - began < 15
        assert not RunItem.objects.filter(state="working").exists(), "others go on with what it held"
