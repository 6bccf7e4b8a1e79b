"""What apps declare about teams: what a team can be limited to, and which rows belong to which partner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model, QuerySet


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitKind:
    """One kind of thing that a team can be limited to, such as a tag.

    Attributes:
        model: the rows that are chosen from.
        partners: returns the partners that these keys let a team see.
    """

    title: str
    model: type[Model]
    partners: Callable[[Collection[int]], QuerySet[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Which rows of a model a member of a team sees: those that fit all that is declared, or that the person began.

    Attributes:
        partner: path to the partner that a row belongs to; ``pk`` of partners themselves.
        subject: a column of ids in JSON that names the partner.
        own: paths to what a limit names itself, by its kind; it counts for teams with a limit of that kind.
        person: path to the user name of whoever began it.
        everybody: what belongs to no partner, and is hidden from nobody.
    """

    partner: str = ""
    subject: str = ""
    own: Mapping[str, str] = field(default_factory=dict)
    person: str = ""
    everybody: bool = False


EVERYBODY = Sight(everybody=True)
