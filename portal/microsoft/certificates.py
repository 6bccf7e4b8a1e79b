"""What this process saw of the certificates of the hosts that it called. Knows no HTTP: to ask costs no import."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from portal.microsoft.errors import NoAnswer


class Certificates:
    """What this process saw of the hosts' certificates since somebody last took it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[str, NoAnswer] = {}
        self._accepted: set[str] = set()

    def saw(self, host: str, why: NoAnswer | None) -> None:
        """Take note of an answer (None), or of why none came."""
        if why is None:
            self._accepted.add(host)
        elif why.is_certificate:
            with self._lock:
                self._refused[host] = why

    def take(self) -> tuple[Mapping[str, NoAnswer], frozenset[str]]:
        """Return the hosts whose certificate was refused, and those that answered and had none refused."""
        with self._lock:
            refused, accepted = self._refused, self._accepted
            self._refused, self._accepted = {}, set()
        return refused, frozenset(accepted - refused.keys())


certificates = Certificates()
