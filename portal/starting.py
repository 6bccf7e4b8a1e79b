"""What must be true before a web process or a worker takes work; each app adds what only it can see."""

from __future__ import annotations

from collections.abc import Callable


class StartRefused(Exception):
    """The process must not start; the text is one sentence for the operator."""


CHECKS: list[Callable[[], None]] = []


def check() -> None:
    """Look once. Raises StartRefused."""
    for each in CHECKS:
        each()
