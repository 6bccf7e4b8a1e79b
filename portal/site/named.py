"""Rows that a name in the subject of an audit event, an incident or a run stands for."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.urls import NoReverseMatch, reverse

from portal.microsoft.identifiers import canonical_guid

type Fact = tuple[str, str]
"""A text and the address that it leads to, empty if it leads nowhere."""


class Named:
    """Rows that a name in a subject or a selection stands for.

    Args:
        model: found by its key, or by its ``tenant_id`` where that is what is written.
        related: what its ``__str__`` reads.
    """

    def __init__(self, model: type[Model], *related: str) -> None:
        self.model = model
        self.related = related

    def find(self, values: set[Any]) -> dict[Any, Fact]:
        """Return name and page of each of these that is still there; one query, two where both kinds are asked for."""
        found: dict[Any, Fact] = {}
        for column, some in (
            ("pk", [one for one in values if isinstance(one, int)]),
            ("tenant_id", [one for one in values if isinstance(one, str) and canonical_guid(one)]),
        ):
            if some:
                rows = self.model._default_manager.filter(**{f"{column}__in": some})
                rows = rows.select_related(*self.related) if self.related else rows
                found |= {getattr(row, column): (str(row), _address(row)) for row in rows}
        return found


def _address(row: Model) -> str:
    try:
        return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return ""
