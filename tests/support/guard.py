"""What a guard is; ``python -m tests.guards`` takes them out one by one (S-75)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A line that refuses something, and who notices when it is gone.

    Attributes:
        text: what stands in the file exactly once.
        tests: each of them must fail; a name without parameters stands for all of them, of which one must fail.
        also: a second line that stops the same thing, and what stands there without it.
    """

    name: str
    shows: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
