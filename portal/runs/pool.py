"""A pool of threads that never keeps a process alive: at the second signal, or when time is up, it is left behind.

On PostgreSQL, where each connection is a process of the server, these threads share a few: Django takes them from
psycopg's pool, and a thread gives its own back after each job and before each wait. All other threads of a process keep
a connection of their own, so a web page says at once that the database is away, and does not wait for the pool.
"""

from __future__ import annotations

import gc
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections

from portal.microsoft.waiting import before_waiting

MOST_CONNECTIONS: Final = 8
"""Connections that the threads of all pools of one process share on PostgreSQL."""
_SHARED: Final = {
    "min_size": 0,
    "max_size": MOST_CONNECTIONS,
    "timeout": 10.0,  # seconds for a free one; a unit that waits in vain comes again, and a polite stop is not late
    "reconnect_timeout": 5.0,  # after it whoever asks next tries at once; pauses would grow while the database is away
}
_TURN_SECONDS = 0.02
_LOOKS = 10_000, 2, 5  # new objects, then looks at the young, between two looks for cycles; less often costs memory


def tune_for_batches() -> None:
    """Make this process quicker at working runs. For programs that do nothing else, as it counts for all threads.

    A thread keeps the interpreter for longer: no thread of a batch needs it sooner, and each change costs time. The
    garbage collector stops all threads when it looks, so it looks less often.
    """
    sys.setswitchinterval(_TURN_SECONDS)
    gc.freeze()  # what the start made stays for ever, and needs no look
    gc.set_threshold(*_LOOKS)


class Pool[R]:
    """Runs jobs in at most ``size`` daemon threads, started as they are needed. A job must not raise."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._jobs: queue.SimpleQueue[Callable[[], R] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._results: queue.SimpleQueue[tuple[R] | None] = queue.SimpleQueue()
        self._busy = 0

    def submit(self, job: Callable[[], R]) -> None:
        """Hand in a job. With a size of one it is worked at once, in the caller's own thread."""
        self._busy += 1
        if self._size == 1:
            self._results.put((job(),))
            return
        self._jobs.put(job)
        if len(self._threads) < min(self._size, self._busy):
            thread = threading.Thread(target=self._loop, name=f"run-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Make ``collect`` return early; from any thread."""
        self._results.put(None)

    def collect(self, seconds: float, *, together: float = 0.0) -> list[R]:
        """Return what was finished.

        Args:
            seconds: wait so long for the first of it,
            together: and so much longer for more, since each time that this thread wakes up costs all others a turn.
        """
        found: list[R] = []
        try:
            result = self._results.get(timeout=seconds) if seconds > 0 else self._results.get_nowait()
            if together > 0:
                time.sleep(together)
            while True:
                if result is not None:
                    found.append(result[0])
                result = self._results.get_nowait()
        except queue.Empty:
            self._busy -= len(found)
        return found

    def close(self) -> None:
        """Let idle threads end. Those that still work are not waited for."""
        for _ in self._threads:
            self._jobs.put(None)

    def _loop(self) -> None:
        shares = _sharing.enter()
        try:
            with before_waiting(_give_back) if shares else nullcontext():
                while (job := self._jobs.get()) is not None:
                    result = job()
                    close_old_connections()  # of this thread, as after a request
                    self._results.put((result,))
        finally:
            connections.close_all()
            if shares:
                _sharing.leave()


def _give_back() -> None:
    if not connections[DEFAULT_DB_ALIAS].in_atomic_block:  # which this would end, and roll back without a word
        close_old_connections()


class _Sharing:
    """The threads of this process that share connections; the last one closes those."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0

    def enter(self) -> bool:
        """Let this thread share, and tell whether it does."""
        own = connections[DEFAULT_DB_ALIAS]
        if own.vendor != "postgresql":
            return False
        options = {**own.settings_dict["OPTIONS"], "pool": _SHARED}
        pooled: Any = type(own)  # no connection is kept between two uses: Django asks that of a pool
        connections[DEFAULT_DB_ALIAS] = pooled(
            {**own.settings_dict, "CONN_MAX_AGE": 0, "OPTIONS": options}, DEFAULT_DB_ALIAS
        )
        with self._lock:
            self._threads += 1
        return True

    def leave(self) -> None:
        mine: Any = connections[DEFAULT_DB_ALIAS]
        with self._lock:  # a thread that enters waits, and then gets a new pool
            self._threads -= 1
            if not self._threads:
                mine.close_pool()


_sharing = _Sharing()
