"""Work in many threads that start at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import connections


def at_once[T](work: Callable[[int], T], count: int) -> list[T]:
    """Run the work in that many threads, all released at the same moment, and return what each gave."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        try:
            barrier.wait(30)
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
