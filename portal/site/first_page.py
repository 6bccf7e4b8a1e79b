"""What all apps add to pages of the admin: panels of the first page in order, and the top of every page."""

from __future__ import annotations

from django.http import HttpRequest

from portal.rights import limits_of
from portal.site.dashboard import Figure, Panel, Row
from portal.site.extension_points import extensions


def panels(request: HttpRequest) -> list[Panel]:
    """Return what to show to this person, in order. The panels count all partners, so a member of a team sees none."""
    if limits_of(request.user) is not None:
        return []
    functions = [function for extension in extensions() for function in extension.panels]
    shown = [panel for function in functions if (panel := function(request)) is not None]
    return sorted(shown, key=lambda panel: panel.order)


def running(request: HttpRequest) -> list[Row]:
    """Return a line for each thing that runs just now."""
    return [row for extension in extensions() for lines in extension.running for row in lines(request)]


def banners(request: HttpRequest) -> list[Row]:
    """Return what all staff must know, whatever they may do."""
    return [row for extension in extensions() for lines in extension.banners for row in lines(request)]


def bells(request: HttpRequest) -> list[Figure]:
    """Return how much waits for this person."""
    functions = [function for extension in extensions() for function in extension.bells]
    return [figure for function in functions if (figure := function(request)) is not None]
