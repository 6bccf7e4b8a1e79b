"""Small charts as SVG, made by the server; each has its table beside it, for who does not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

_MARGIN = 4  # room for the line's own width, and for a dot


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line over days.

    Attributes:
        points: the day, its number, the earliest first.
    """

    WIDTH: ClassVar = 320
    HEIGHT: ClassVar = 72

    title: str
    points: Sequence[tuple[str, int]]

    @property
    def least(self) -> int:
        return min((number for _, number in self.points), default=0)

    @property
    def most(self) -> int:
        return max((number for _, number in self.points), default=0)

    @property
    def latest(self) -> int:
        return self.points[-1][1] if self.points else 0

    @property
    def latest_words(self) -> str:
        return f"{self.latest:,}"

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The points as a table, the latest first."""
        return [(day, f"{number:,}") for day, number in reversed(self.points)]

    @property
    def change(self) -> str:
        """How much the last differs from the first, with its sign; nothing for a single day."""
        if len(self.points) < 2:
            return ""
        return f"{self.latest - self.points[0][1]:+,} in {len(self.points)} days"

    @property
    def path(self) -> str:
        """The line in the coordinates of ``WIDTH`` by ``HEIGHT``; a single day is a flat line."""
        numbers = [number for _, number in self.points]
        if len(numbers) == 1:
            numbers *= 2
        return " ".join(
            f"{self._across(place, len(numbers)):.1f},{self._up(each):.1f}" for place, each in enumerate(numbers)
        )

    @property
    def end(self) -> tuple[str, str]:
        """Where the line ends."""
        return f"{self.WIDTH - _MARGIN:.1f}", f"{self._up(self.latest):.1f}"

    def _across(self, place: int, number: int) -> float:
        return _MARGIN + place * (self.WIDTH - 2 * _MARGIN) / max(number - 1, 1)

    def _up(self, number: int) -> float:
        span = self.most - self.least
        share = (number - self.least) / span if span else 0.5
        return self.HEIGHT - _MARGIN - share * (self.HEIGHT - 2 * _MARGIN)
