"""What classes of the admin declare in one line: columns of lists and detail pages, and who may use an action.

A path goes over related rows with ``__``; a column sorts by its path unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from portal.site.display import EMPTY, Tone, badge, guid, moment

Column = Callable[[Any, Any], Any]


def needs(permission: str) -> Callable[..., bool]:
    """Return a ``has_…_permission`` that asks for this permission.

    An action that names it itself would make a system check read the database, also before the first migrate.
    """

    def has_permission(page: Any, request: HttpRequest, row: Any = None) -> bool:
        return request.user.has_perm(permission)

    return has_permission


def column(description: str, cell: Callable[[Any], Any], *, ordering: str | None = None) -> Column:
    """Return a column whose cell is made of the row."""

    @admin.display(description=description, ordering=ordering)
    def shown(page: Any, row: Any) -> Any:
        return cell(row)

    return shown


def path_column(
    path: str, description: str, cell: Callable[[Any], Any] = lambda value: value, *, sorts: bool = True
) -> Column:
    """Return a column of what is found at the path, as it is or made into a cell."""
    find = attrgetter(path.replace("__", "."))
    return column(description, lambda row: cell(find(row)), ordering=path if sorts else None)


def moment_column(path: str, description: str, *, empty: str = EMPTY, sorts: bool = True) -> Column:
    """Return a column of a time and how long ago or ahead it is."""
    return path_column(path, description, lambda value: moment(value, empty=empty), sorts=sorts)


def guid_column(path: str, description: str, *, label: str = "id", sorts: bool = True) -> Column:
    """Return a column of an identifier that can be copied."""
    return path_column(path, description, lambda value: guid(value, label=label), sorts=sorts)


def badge_column(field: str, description: str, tones: Mapping[Any, Tone]) -> Column:
    """Return a column of a field with choices, each with its tone."""
    return column(
        description,
        lambda row: badge(getattr(row, f"get_{field}_display")(), tones[getattr(row, field)]),
        ordering=field,
    )
