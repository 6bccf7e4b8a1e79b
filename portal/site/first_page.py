"""The first page of the admin: the panels of all apps, in order."""

from __future__ import annotations

from django.http import HttpRequest

from portal.site.dashboard import Panel
from portal.site.extension_points import extensions


def panels(request: HttpRequest) -> list[Panel]:
    """Return what to show to this person, in order."""
    functions = [function for extension in extensions() for function in extension.panels]
    shown = [panel for function in functions if (panel := function(request)) is not None]
    return sorted(shown, key=lambda panel: panel.order)
