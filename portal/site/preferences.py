"""Filters and columns that a person keeps for a list. What is kept holds no more than the list itself would accept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, SuspiciousOperation, ValidationError
from django.db import transaction
from django.http import HttpRequest, QueryDict

from portal.audit.trail import Actor, record
from portal.search_text import folded
from portal.site.models import ChosenColumns, SavedFilter, SavedFilterQuerySet

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.contrib.auth.models import User

SHARE = "portal_site.share_savedfilter"
# Where one stands, not what one looks for. The order names a column by its place among those that a person chose.
_OF_A_PAGE = {"p", "o", "all", "_popup", "_to_field", "_facets", "e"}
_MOST = 50  # filters of one person for one list


class Refused(ValueError):
    """A filter or a choice of columns was not kept; the text says why."""


def filters_of(page: ModelAdmin[Any], person: User) -> SavedFilterQuerySet:
    """Return the filters that a person is offered for a list, own and shared; one query."""
    return SavedFilter.objects.for_person(person).filter(list_name=page.opts.label_lower).select_related("owner")


def keep_filter(
    page: ModelAdmin[Any], request: HttpRequest, person: User, *, name: str, query: str, shared: bool, actor: Actor
) -> SavedFilter:
    """Keep a search with its filters under a name; one's own filter of that name is replaced.

    Args:
        query: the part of the list's address after the question mark.

    Raises:
        Refused: the list has no such filter, nothing is chosen, or the name cannot be used.
        PermissionDenied: the person may not see the list, or not share filters.
    """
    if not page.has_view_permission(request) or (shared and not person.has_perm(SHARE)):
        raise PermissionDenied
    kept = _valid(page, request, query)
    row = SavedFilter(owner=person, list_name=page.opts.label_lower, name=name.strip(), query=kept, shared=shared)
    try:
        row.clean_fields(exclude=["owner"])
    except ValidationError as error:
        raise Refused(" ".join(error.messages)) from None
    mine = SavedFilter.objects.filter(owner=person, list_name=row.list_name)
    if mine.exclude(name=row.name).count() >= _MOST:
        raise Refused(f"You have {_MOST} filters for this list; remove one first.")
    with transaction.atomic():
        row, _ = SavedFilter.objects.update_or_create(
            owner=person, list_name=row.list_name, name=row.name, defaults={"query": row.query, "shared": row.shared}
        )
        # Not the query: what was searched for may be a person's name, and the trail keeps it for ever (S-70).
        record(
            "filter.kept",
            actor=actor,
            subject={"list": row.list_name},
            details={"filter": row.pk, "shared": row.shared},
        )
    return row


def forget_filter(person: User, key: int, *, actor: Actor) -> bool:
    """Remove one's own filter; False when there is none of this number."""
    with transaction.atomic():
        row = SavedFilter.objects.filter(owner=person, pk=key).first()
        if row is None:
            return False
        row.delete()
        record("filter.removed", actor=actor, subject={"list": row.list_name}, details={"filter": key})
    return True


def forget_texts(texts: Sequence[str]) -> int:
    """Remove every person's filters that search for one of these texts, because whom they name was erased (S-68).

    Whole words count; case and blanks do not. Returns how many were removed.
    """
    wanted = "|".join(re.escape(text) for text in map(folded, texts) if text)
    names = re.compile(rf"(?<!\w)(?:{wanted})(?!\w)") if wanted else None
    found = [
        key
        for key, name, query in SavedFilter.objects.values_list("pk", "name", "query")
        if names is not None and names.search(folded(name, *(value for _, value in parse_qsl(query))))
    ]
    SavedFilter.objects.filter(pk__in=found).delete()
    return len(found)


def _valid(page: ModelAdmin[Any], request: HttpRequest, query: str) -> str:
    """Return the query as it is kept, once the list itself answered it."""
    if len(query) > (SavedFilter._meta.get_field("query").max_length or 0):
        raise Refused("This filter is too long.")
    kept = _without_page(query)
    if not kept:
        raise Refused("Nothing is searched or filtered yet.")
    asked = copy(request)
    asked.method, asked.GET = "GET", QueryDict(kept)
    try:
        page.get_changelist_instance(asked)
    except (IncorrectLookupParameters, SuspiciousOperation):
        raise Refused("This list has no such filter.") from None
    return kept


def query_of(request: HttpRequest) -> str:
    """Return what the shown list is searched and filtered by, as a filter keeps it."""
    return _without_page(request.GET.urlencode())


def _without_page(query: str) -> str:
    return urlencode(sorted((key, value) for key, value in parse_qsl(query.lstrip("?")) if key not in _OF_A_PAGE))


# --- columns ---


def columns_of(page: ModelAdmin[Any], person: User, offered: Sequence[str]) -> list[str]:
    """Return which of the offered columns a person chose, in the list's order; all without a choice. One query."""
    row = ChosenColumns.objects.filter(person=person.pk, list_name=page.opts.label_lower).first()
    chosen = set(row.columns) if row else set(offered)
    # The first one names the row and leads to its page.
    return [name for number, name in enumerate(offered) if number == 0 or name in chosen]


def choose_columns(page: ModelAdmin[Any], person: User, offered: Sequence[str], chosen: Sequence[str]) -> None:
    """Keep which columns a person wants to see; all of them, or none, is no choice.

    Raises:
        Refused: the list has no such column.
    """
    if unknown := set(chosen) - set(offered):
        raise Refused(f"This list has no column {min(unknown)}.")
    name = page.opts.label_lower
    if not chosen or set(chosen) == set(offered):
        ChosenColumns.objects.filter(person=person, list_name=name).delete()
        return
    columns = [column for column in offered if column in chosen]
    ChosenColumns.objects.update_or_create(person=person, list_name=name, defaults={"columns": columns})
