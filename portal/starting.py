"""What must be true before a web process or a worker takes work; each app adds what only it can see."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from portal.extensions import declared


class StartRefused(Exception):
    """The process must not start; the text is one sentence for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one app looks at: ``START`` in its module ``start``. Each check raises StartRefused."""

    checks: Sequence[Callable[[], None]]


def check() -> None:
    """Look once. Raises StartRefused."""
    for start in declared("start", "START", Start):
        for each in start.checks:
            each()


def check_or_exit(who: str) -> None:
    """Look once; end this process with one sentence and code 3, which gunicorn takes for a start not worth repeating.

    Args:
        who: starts the sentence, for example ``The portal``.
    """
    try:
        check()
    except StartRefused as refused:
        sys.stderr.write(f"{who} does not start: {refused}.\n")
        sys.exit(3)
