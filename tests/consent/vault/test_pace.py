"""The client-side budget of vault calls, with a clock of its own."""

from __future__ import annotations

import threading
from bisect import bisect_left

import pytest

from consent.vault.pace import Pace
from portal.microsoft.waiting import before_waiting

pytestmark = pytest.mark.req("R-08")


class Time:
    """A clock that stands still but for sleeping."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds

    def pace(self, calls: int = 100) -> Pace:
        return Pace(calls, 10.0, clock=self.clock, sleep=self.sleep, jitter=lambda: 1.5)


def busiest(moments: list[float], window: float = 10.0) -> int:
    """Return the most calls that began within one window."""
    return max(index + 1 - bisect_left(moments, moment - window + 1e-9) for index, moment in enumerate(moments))


def test_no_window_holds_more_than_a_fifth_over_the_budget_and_none_is_wasted() -> None:
    time = Time()
    pace = time.pace()
    moments = []
    for _ in range(1_000):
        assert pace.take(60) == 0
        moments.append(time.now)
    assert busiest(moments) <= 120
    assert 85 <= moments[-1] - moments[0] <= 100


def test_a_call_after_a_quiet_time_does_not_wait() -> None:
    time = Time()
    pace = time.pace()
    for _ in range(5):
        assert pace.take(0) == 0
        time.now += 3
    assert time.now == 1_015


def test_a_pause_holds_every_call_back_and_afterwards_they_come_one_by_one() -> None:
    time = Time()
    pace = time.pace()
    pace.take(60)
    pace.pause(30)
    moments = []
    for _ in range(50):
        assert pace.take(60) == 0
        moments.append(time.now)
    assert moments[0] == pytest.approx(1_031.5)
    assert moments[1] - moments[0] == pytest.approx(0.2)  # half the speed of before
    assert 4.9 < moments[-1] - moments[0] < 9.8


def test_the_speed_recovers_when_the_vault_refuses_nothing_more() -> None:
    time = Time()
    pace = time.pace()
    for _ in range(10):
        pace.pause(0)
    for _ in range(1_000):
        pace.take(60)
    start = time.now
    for _ in range(100):
        pace.take(60)
    assert time.now - start == pytest.approx(10)


def test_who_cannot_wait_so_long_is_told_when_to_come_back_and_takes_no_place() -> None:
    time = Time()
    pace = time.pace()
    pace.pause(200)
    for _ in range(3):
        assert pace.take(25) == pytest.approx(201.5)
    assert time.now == 1_000
    time.now += 201.5
    assert pace.take(0) == 0


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    time = Time()
    pace = time.pace()
    pace.pause(100)
    pace.pause(1)
    assert pace.take(0) == pytest.approx(101.5)


def test_who_waits_for_its_turn_gives_back_what_others_need() -> None:
    pace, said = Time().pace(), []
    with before_waiting(lambda: said.append("waits")):
        pace.take(10)
        pace.pause(1)
        pace.take(10)
    assert said == ["waits"], "the first had its turn at once"


def test_threads_share_one_budget() -> None:
    time = Time()
    pace = time.pace()
    waited: list[float] = []
    lock = threading.Lock()

    def take() -> None:
        for _ in range(50):
            pace.take(1_000)
            with lock:
                waited.append(time.now)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waited) == 400
    assert time.now - 1_000 >= 400 * 0.1 - 1.2
