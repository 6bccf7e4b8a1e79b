"""The first page of the admin: the panels of all apps, in order."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from portal.site.dashboard import Panel
from portal.site.extension_points import extensions


def panels(request: HttpRequest) -> list[Panel]:
    """Return what to show to this person, in order."""
    functions = [function for extension in extensions() for function in extension.panels]
    shown = [panel for function in functions if (panel := function(request)) is not None]
    return sorted(shown, key=lambda panel: panel.order)


def add_panels(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Complete the context of the admin's index (``UNFOLD["DASHBOARD_CALLBACK"]``)."""
    return context | {"panels": panels(request)}
