"""A clock that only waiting moves: for this process's ``time``, for Django's ``timezone`` and for SQLite's own now.

What the portal decides by a time it reads in one of these three ways, so weeks of its schedule pass in minutes, and
none of its rules is copied.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone

_JULIAN_EPOCH = 2440587.5
_DAY = 86_400.0


class MovedClock:
    """Seconds since 1970, moved by whoever waits.

    Only the thread that made it moves it. Another one's wait is a real one: a beat beside a job must not run ahead.
    """

    def __init__(self, start: datetime) -> None:
        self.seconds = start.timestamp()
        self._owner = threading.get_ident()
        self._really_sleep = time.sleep

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def read(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        if threading.get_ident() == self._owner:
            self.seconds += max(seconds, 0.0)
        else:
            self._really_sleep(seconds)

    def wait_until(self, seconds: float) -> None:
        """Move on to this moment; it may be past already, when work took longer."""
        self.seconds = max(self.seconds, seconds)


@contextmanager
def replaced(of: Any, **values: Any) -> Iterator[None]:
    """Let these names of a module stand for something else until the block ends."""
    before = {name: getattr(of, name) for name in values}
    for name, value in values.items():
        setattr(of, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(of, name, value)


@contextmanager
def moved(start: datetime) -> Iterator[MovedClock]:
    """Let everything in this process go by a clock of its own until the block ends. SQLite only."""
    if connection.vendor != "sqlite":
        raise NotImplementedError("the clock of PostgreSQL cannot be moved from here")
    clock = MovedClock(start)
    connection.ensure_connection()
    _teach(connection)
    connection_created.connect(_teach)
    try:
        with (
            replaced(time, time=clock.read, monotonic=clock.read, sleep=clock.sleep),
            replaced(timezone, now=clock.now),
        ):
            yield clock
    finally:
        connection_created.disconnect(_teach)


def _teach(connection: Any, **_: Any) -> None:
    """Let this connection's SQL read the time of this process, which is right afterwards as well."""
    connection.connection.create_function("strftime", -1, _strftime)
    connection.connection.create_function("julianday", -1, _julianday)


def _strftime(pattern: str, *_: Any) -> str:
    """Return SQLite's ``strftime(pattern, 'now')``; Django and the portal ask for nothing else."""
    seconds = time.time()
    text = datetime.fromtimestamp(seconds, UTC).strftime(pattern.replace("%f", "%S.@"))
    return text.replace("@", f"{int(seconds % 1 * 1000):03d}")


def _julianday(*_: Any) -> float:
    return time.time() / _DAY + _JULIAN_EPOCH
