"""Circuit breakers: a host that gives no answer is left alone for a while, so that no caller waits for it (R-19).

One for each host; every cloud has hosts of its own, so one cloud's failure is never another's. Only silence counts, and
a gateway's word that nothing answers behind it: any other answer, also a refusal of one partner, shows that the host
works.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

FAILURES = 10
OPEN_SECONDS = 30.0
AWAY = frozenset({502, 503, 504})


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    until: float = 0.0


class Breakers:
    """The breakers of one session. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._breakers: dict[str, _Breaker] = {}
        self._lock = threading.Lock()

    def may_send(self, host: str) -> bool:
        """Tell whether a request to this host may leave; after the pause the first one that asks is the probe."""
        with self._lock:
            breaker = self._breakers.get(host)
            if breaker is None or breaker.failures < FAILURES:
                return True
            if self._clock() < breaker.until:
                return False
            breaker.until = self._clock() + OPEN_SECONDS  # the others wait for what the probe finds
            return True

    def failed(self, host: str) -> None:
        """Note that the host gave no answer."""
        with self._lock:
            breaker = self._breakers.setdefault(host, _Breaker())
            breaker.failures += 1
            if breaker.failures < FAILURES:
                return
            breaker.until = self._clock() + OPEN_SECONDS
            opened = breaker.failures == FAILURES
        if opened:
            log.warning("no answer from a host; calls fail fast for now", extra={"host": host, "failures": FAILURES})

    def answered(self, host: str) -> None:
        """Note that the host answered."""
        with self._lock:
            breaker = self._breakers.pop(host, None)
        if breaker is not None and breaker.failures >= FAILURES:
            log.warning("a host answers again", extra={"host": host})

    def away(self) -> list[str]:
        """Return the hosts whose calls fail fast now."""
        with self._lock:
            return sorted(host for host, one in self._breakers.items() if one.failures >= FAILURES)
