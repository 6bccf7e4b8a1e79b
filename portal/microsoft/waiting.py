"""What a thread gives back before it waits, because others need it meanwhile: a connection to the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_thread = threading.local()


@contextmanager
def before_waiting(give_back: Callable[[], None]) -> Iterator[None]:
    """Call ``give_back`` each time when this thread begins to wait. The innermost counts."""
    outer: Callable[[], None] | None = getattr(_thread, "give_back", None)
    _thread.give_back = give_back
    try:
        yield
    finally:
        _thread.give_back = outer


def about_to_wait() -> None:
    """Say that this thread waits now: for an answer, for its turn, or for what another thread does.

    Each request of a ``GuardedSession`` and each ``turn_of`` says it. Whoever sleeps otherwise, or takes a lock that is
    held over a request, says it too: else the thread that all wait for may need what they hold.
    """
    give_back: Callable[[], None] | None = getattr(_thread, "give_back", None)
    if give_back is not None:
        give_back()
