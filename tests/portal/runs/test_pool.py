"""Results of threads reach the one that writes them in groups."""

from __future__ import annotations

import threading
import time

from portal.runs.pool import Pool


def test_results_that_come_soon_after_the_first_come_with_it() -> None:
    pool: Pool[int] = Pool(4)
    may_end = [threading.Event() for _ in range(4)]

    def job(number: int) -> int:
        may_end[number].wait(10)
        return number

    for number in range(4):
        pool.submit(lambda number=number: job(number))  # type: ignore[misc]

    may_end[0].set()
    assert pool.collect(10) == [0]
    for event in may_end[1:3]:
        event.set()
    assert sorted(pool.collect(10, together=0.3)) == [1, 2]
    began = time.monotonic()
    assert pool.collect(0.01, together=5.0) == []  # nothing came, so nothing is waited for
    assert time.monotonic() - began < 4
    may_end[3].set()
    assert pool.collect(10) == [3]
    pool.close()
