"""What the first page of the admin is made of. Apps bring the panels (``portal.site.extension_points``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
class Panel:
    """Figures beside each other and rows below; lower ``order`` stands first."""

    title: str
    figures: Sequence[Figure] = ()
    rows: Sequence[Row] = ()
    order: int = 100
    link: str = ""
    empty: str = ""  # what to say, as good news, when there is neither a figure nor a row
