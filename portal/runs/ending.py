"""Whether this process was asked to end, and what stops then (R-28). Knows no Django: Celery asks before it is up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Stoppable(Protocol):
    """Work that stops politely when it is asked to."""

    def stop(self) -> None: ...


_working: set[Stoppable] = set()
_process_ends = threading.Event()


def is_ending() -> bool:
    """Tell whether this process was asked to end, so that nothing new begins in it."""
    return _process_ends.is_set()


def wait_for_end(seconds: float) -> None:
    """Wait so long, or until this process is asked to end."""
    _process_ends.wait(seconds)


@contextmanager
def stopped_at_the_end(work: Stoppable) -> Iterator[None]:
    """Stop this work when the process is asked to end."""
    _working.add(work)
    try:
        yield
    finally:
        _working.discard(work)


def stop_all() -> None:
    """Let all work of this process stop politely, and begin no other: it was asked to end."""
    _process_ends.set()
    for work in list(_working):
        work.stop()
