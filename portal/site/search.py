"""The search of the header: everything that a text may mean, in groups, of what a person may view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import Model
from django.urls import reverse

from portal.models import Limits
from portal.rights import limits_of
from portal.site.extension_points import extensions
from portal.site.searchable import MOST_OF_A_GROUP, Asked, Searchable
from portal.site.sight import visible

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


@dataclass(frozen=True, slots=True)
class Found:
    """One row: its name, a few words beside it, and the address of its page."""

    name: str
    detail: str
    address: str


@dataclass(frozen=True, slots=True)
class Group:
    """What was found of one kind, at most ``MOST_OF_A_GROUP``, the best first."""

    title: str
    found: Sequence[Found]
    direct: bool


def search(text: str, person: User | AnonymousUser) -> list[Group]:
    """Return what this text may mean, partners first; empty groups are left out.

    Each kind of row takes three queries at most, whatever there is.
    """
    asked = Asked(text)
    if not asked.text:
        return []
    kinds = sorted((kind for extension in extensions() for kind in extension.searchable), key=lambda kind: kind.rank)
    limits = limits_of(person)
    groups = [Group(kind.title, _found(kind, asked, limits), kind.direct) for kind in kinds if _may_view(person, kind)]
    return [group for group in groups if group.found]


def only_page(groups: Sequence[Group]) -> str:
    """Return the address of the one row that was found, where its kind is opened at once; else nothing."""
    match groups:
        case [Group(found=[Found(address=address)], direct=True)]:
            return address
    return ""


def _may_view(person: User | AnonymousUser, kind: Searchable) -> bool:
    options = kind.model._meta
    rights = (f"{options.app_label}.{right}_{options.model_name}" for right in ("view", "change"))
    return any(person.has_perm(right) for right in rights)


def _found(kind: Searchable, asked: Asked, limits: Limits | None) -> list[Found]:
    rows: dict[int, Model] = {}
    for some in (visible(found, limits) for found in kind.find(asked)):
        if len(rows) < MOST_OF_A_GROUP:
            for row in (some.select_related(*kind.related) if kind.related else some)[:MOST_OF_A_GROUP]:
                rows.setdefault(row.pk, row)
    page = f"admin:{kind.model._meta.app_label}_{kind.model._meta.model_name}_change"
    return [
        Found(str(row), kind.detail(row), reverse(page, args=[row.pk])) for row in list(rows.values())[:MOST_OF_A_GROUP]
    ]
