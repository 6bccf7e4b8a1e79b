"""What the first page of the admin is made of. Apps bring the panels (``portal.site.extension_points``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from portal.site.charts import Chart
from portal.site.display import Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that leads to the list it was counted from."""

    label: str
    value: int | str
    link: str = ""
    tone: Tone = Tone.QUIET


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that somebody should look at."""

    label: str
    detail: str = ""
    link: str = ""
    tone: Tone = Tone.QUIET


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Figures that belong together, what they are made of, and what fits all of them."""

    title: str
    link: str = ""
    figures: Sequence[Figure] = ()
    parts: Sequence[Figure] = ()
    action: Row | None = None
    tone: Tone = Tone.QUIET


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures beside each other under a title of their own."""

    title: str
    figures: Sequence[Figure]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One card of the first page: good news in words, figures, lines, rows, charts; lower ``order`` stands first.

    ``note`` says how its numbers are to be read.
    """

    title: str
    note: str = ""
    news: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    groups: Sequence[Group] = ()
    lines: Sequence[Line] = ()
    rows: Sequence[Row] = ()
    charts: Sequence[Chart] = ()
    order: int = 100
    link: str = ""
    wide: bool = False
    empty: str = ""  # what to say, as good news, when there is neither a figure nor a row

    @property
    def is_filled(self) -> bool:
        return any((self.news, self.figures, self.groups, self.lines, self.rows, self.charts))
