"""The client-side budget of a vault: calls are spread out, and a vault that asks for a pause gets it (R-08)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from portal.microsoft.waiting import about_to_wait

CALLS: Final = 500  # of one process by default; Key Vault counts 4,000 for a vault, from all processes
SECONDS: Final = 10.0
_SLOWEST = 0.5  # seconds between two calls, after many refusals
_RECOVERY = 0.995  # per call: after some 140 calls without a refusal the speed is what it was before the last one


class Pace:
    """Admits calls evenly, with a little burst, in all threads of this process together.

    In any window of ``seconds`` at most ``1.1 * calls`` begin. Each refusal halves the speed, which then recovers, so a
    vault with a lower limit, or shared with others, is approached and not stormed.

    Args:
        calls: how many in ``seconds``.
        jitter: seconds added to a pause, so that many processes do not come back in the same moment.
    """

    def __init__(
        self,
        calls: int = CALLS,
        seconds: float = SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = lambda: random.uniform(0, 2),  # noqa: S311
    ) -> None:
        self._fastest = self._interval = seconds / calls
        self._burst = seconds / 10
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._lock = threading.Lock()
        self._next = 0.0

    def take(self, longest: float) -> float:
        """Wait for this call's turn.

        Args:
            longest: seconds that the caller can wait.

        Returns:
            0 when the call may go; else after how many seconds it is worth coming back, and nothing was waited.
        """
        with self._lock:
            now = self._clock()
            turn = max(self._next, now - self._burst)
            wait = max(turn - now, 0.0)
            if wait > longest:
                return wait
            self._next = turn + self._interval
            self._interval = max(self._fastest, self._interval * _RECOVERY)
        if wait:
            about_to_wait()
            self._sleep(wait)
        return 0.0

    def pause(self, seconds: float) -> None:
        """Hold all calls back for so long, as the vault asked, and go slower afterwards."""
        with self._lock:
            self._interval = min(self._interval * 2, _SLOWEST)
            self._next = max(self._next, self._clock() + seconds + self._jitter())
