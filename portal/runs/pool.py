"""A pool of threads that never keeps a process alive: at the second signal, or when time is up, it is left behind."""

from __future__ import annotations

import gc
import queue
import sys
import threading
import time
from collections.abc import Callable

from portal.runs import connections

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
        connections.enter()
        try:
            while (job := self._jobs.get()) is not None:
                result = job()
                connections.end_job()
                self._results.put((result,))
        finally:
            connections.leave()
