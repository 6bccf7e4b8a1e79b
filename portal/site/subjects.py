"""Ids in words: what an audit event, an incident or a run is about, with the names of things instead of numbers.

An app says in ``AppConfig.ready()`` which names mean which rows::

    name_subjects(partner=Named(PartnerTenant), consent=Named(PartnerConsent, "partner", "registration"))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Model
from django.urls import NoReverseMatch, reverse

from portal.microsoft.identifiers import canonical_guid

_SHOWN = 20

_ABOUT = re.compile(r"([a-z_]{1,40}):([1-9][0-9]{0,17})")

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


_named: dict[str, Named] = {}


def name_subjects(**named: Named) -> None:
    """Make names known."""
    _named.update(named)


def subject_of(model: type[Model]) -> str:
    """Return the name under which the audit trail knows rows of this model; empty if it knows none."""
    return next((name for name, named in _named.items() if named.model is model), "")


def parse_about(text: str | None) -> tuple[str, int] | None:
    """Return name and key of ``partner:7``, None for anything else."""
    parts = _ABOUT.fullmatch(text or "")
    return (parts[1], int(parts[2])) if parts and parts[1] in _named else None


def facts_of(mappings: Sequence[Mapping[str, Any]]) -> list[list[Fact]]:
    """Return each of these as lines: the name of each thing, and what is no thing as it stands.

    The number of queries depends on how many kinds of things are named, not on how many mappings there are.
    """
    wanted: dict[str, set[Any]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            if name in _named:
                wanted.setdefault(name, set()).update(_listed(value)[:_SHOWN])
    found = {name: _named[name].find(values) for name, values in wanted.items()}
    return [
        [fact for name in sorted(mapping) for fact in _facts(name, mapping[name], found.get(name))]
        for mapping in mappings
    ]


def facts(mapping: Mapping[str, Any]) -> list[Fact]:
    """Return one of them as lines."""
    return facts_of([mapping])[0]


def lines(mapping: Mapping[str, Any]) -> list[Fact]:
    """Return a mapping as lines, without looking anything up."""
    return [fact for name in sorted(mapping) for fact in _facts(name, mapping[name], None)]


def _facts(name: str, value: Any, found: Mapping[Any, Fact] | None) -> list[Fact]:
    word = name.replace("_", " ").capitalize()
    if found is None:
        return [(f"{word}: {_plain(value)}", "")]
    values = [one for one in _listed(value) if one]
    lines = []
    for one in values[:_SHOWN]:
        text, address = found.get(one, (f"{one}, not there any more", ""))
        lines.append((f"{word}: {text}", address))
    if len(values) > _SHOWN:
        lines.append((f"and {len(values) - _SHOWN:,} more", ""))
    return lines


def _plain(value: Any) -> str:
    """Return a value of a JSON column in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{str(key).replace('_', ' ')}: {_plain(one)}" for key, one in sorted(value.items())) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value) or "none"
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _address(row: Model) -> str:
    try:
        return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return ""
