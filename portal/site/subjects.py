"""Ids in words: what an audit event, an incident or a run is about, with the names of things instead of numbers.

Which names mean which rows, the apps declare (``AdminExtension.subjects``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from django.db.models import Model

from portal.site.extension_points import extensions
from portal.site.named import Fact, Named

_SHOWN = 20

_ABOUT = re.compile(r"([a-z_]{1,40}):([1-9][0-9]{0,17})")


@cache
def _named() -> Mapping[str, Named]:
    return {name: rows for extension in extensions() for name, rows in extension.subjects.items()}


def subject_of(model: type[Model]) -> str:
    """Return the name under which the audit trail knows rows of this model; empty if it knows none."""
    return next((name for name, named in _named().items() if named.model is model), "")


def model_of(name: str) -> type[Model] | None:
    """Return the model of the rows that the audit trail knows under this name; None if it knows none."""
    named = _named().get(name)
    return named.model if named else None


def parse_about(text: str | None) -> tuple[str, int] | None:
    """Return name and key of ``partner:7``, None for anything else."""
    parts = _ABOUT.fullmatch(text or "")
    return (parts[1], int(parts[2])) if parts and parts[1] in _named() else None


def facts_of(mappings: Sequence[Mapping[str, Any]]) -> list[list[Fact]]:
    """Return each of these as lines: the name of each thing, and what is no thing as it stands.

    The number of queries depends on how many kinds of things are named, not on how many mappings there are.
    """
    named = _named()
    wanted: dict[str, set[Any]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            if name in named:
                wanted.setdefault(name, set()).update(_listed(value)[:_SHOWN])
    found = {name: named[name].find(values) for name, values in wanted.items()}
    return [
        [fact for name in sorted(mapping) for fact in _facts(name, mapping[name], found.get(name))]
        for mapping in mappings
    ]


def names_of(name: str, keys: set[int]) -> Mapping[Any, Fact]:
    """Return name and page of the rows that a name of a subject stands for; one query, none without keys."""
    named = _named().get(name)
    return named.find(keys) if named and keys else {}


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
