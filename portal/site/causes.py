"""What apps say about the causes of incidents: their titles, and what does the next step for all of one cause."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One button for a whole group of incidents.

    Attributes:
        model: ``app.model`` of the list that it leads to.
        action: name of a list action, which gets the rows that the incidents concern; empty leads to the list itself.
        word: the name under which subjects of the incidents keep those rows, such as ``partner``.
        query: filters of the list.
    """

    label: str
    model: str
    action: str = ""
    word: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseWords:
    """How a cause is called, and what helps."""

    title: str
    remedy: Remedy | None = None
