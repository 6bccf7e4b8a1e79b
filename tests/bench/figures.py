"""Figures that benches are held to: each with its goal, noted by the bench and judged by ``python -m tests.bench``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "BENCH_FIGURES"  # the variable that names the file where figures are noted
TOLERANCE = 0.1  # a goal is missed when it is by more than this share of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure and its goal.

    Attributes:
        is_least: the goal is the least that is wanted; without it the most that is allowed.
    """

    name: str
    value: float
    goal: float
    unit: str = ""
    is_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the goal is reached, or missed by a tenth at most."""
        if self.is_least:
            return self.value >= self.goal * (1 - TOLERANCE)
        return self.value <= self.goal * (1 + TOLERANCE)

    def line(self) -> str:
        """Return the row of the table; ``HEAD`` has its columns."""
        sign = "≥" if self.is_least else "≤"
        return f"{self.name:<58}{self.value:>9.2f}  {sign}{self.goal:>8.2f} {self.unit:<12}{_word(self)}"


HEAD = f"{'':<58}{'figure':>9}{'goal':>11}"


def _word(figure: Figure) -> str:
    return "ok" if figure.holds else "MISSED"


def note(figure: Figure) -> None:
    """Keep a figure for whoever started this bench; without anybody, nothing is done."""
    if name := os.environ.get(FILE):
        with Path(name).open("a") as file:
            file.write(json.dumps(asdict(figure)) + "\n")


def noted(file: Path) -> Iterator[Figure]:
    """Yield the figures of a file."""
    if file.exists():
        for line in file.read_text().splitlines():
            yield Figure(**json.loads(line))
