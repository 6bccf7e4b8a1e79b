"""Small words for messages and pages."""

from __future__ import annotations


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 link`` and ``2,000 links``; for nouns whose plural takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
