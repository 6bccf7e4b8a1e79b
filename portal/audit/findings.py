"""What can be wrong with the audit trail, as values: the kind of damage, where it is, and one plain sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Damage(StrEnum):
    """The ways in which the trail can be damaged."""

    CHANGED = "changed"
    REMOVED = "removed"
    RENUMBERED = "renumbered"
    SPLICED = "spliced"
    CUT = "cut"
    EMPTIED = "emptied"
    REPLACED = "replaced"
    TRIGGERS = "triggers"
    KEY = "key"
    ANCHORS = "anchors"
    RESULTS = "results"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damage.

    Attributes:
        words: one sentence for staff, which says what is wrong and where.
        sequence: number of the first entry that it concerns, None when it concerns no single one.
    """

    damage: Damage
    words: str
    sequence: int | None = None


def numbers(first: int, last: int) -> str:
    """Return one entry or several as the beginning of a sentence, with the verb that fits: ``Entries 3 to 5 are``."""
    return f"Entry {first} is" if first == last else f"Entries {first} to {last} are"
