"""The first page of the admin: panels that apps bring.

An app registers in ``AppConfig.ready()``::

    register_panel(partners_panel)

A panel's function gets the request, runs a constant number of queries, and returns a :class:`Panel`, or None when it
has nothing for this person. It checks the permissions itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

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


PanelFunction = Callable[[HttpRequest], Panel | None]

_panels: list[PanelFunction] = []


def register_panel(function: PanelFunction) -> PanelFunction:
    """Add a panel to the first page; twice is once. Usable as a decorator."""
    if function not in _panels:
        _panels.append(function)
    return function


def panels(request: HttpRequest) -> list[Panel]:
    """Return what to show to this person, in order."""
    shown = [panel for function in _panels if (panel := function(request)) is not None]
    return sorted(shown, key=lambda panel: panel.order)


def add_panels(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Complete the context of the admin's index (``UNFOLD["DASHBOARD_CALLBACK"]``)."""
    return context | {"panels": panels(request)}
