"""Small words for messages and pages."""

from __future__ import annotations

_LONGEST_KEY = 19  # digits; databases hold no longer ones


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 link`` and ``2,000 links``; for nouns whose plural takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number_are(count: int, noun: str) -> str:
    """Return a count with its noun and verb, such as ``1 link is`` and ``2 links are``."""
    return f"{number_of(count, noun)} {'is' if count == 1 else 'are'}"


def number_in(text: str | None) -> int | None:
    """Return the key that a query or a form carries; None for anything else."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < _LONGEST_KEY else None
