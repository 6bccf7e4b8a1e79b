"""What the search in the header asks for, and where an app's rows are found by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import Model, Q, QuerySet

from portal.microsoft.identifiers import guids_from
from portal.search_text import TRIGRAM, Few, begins_with, words_of

MOST_OF_A_GROUP = 5
_NUMBER = re.compile(r"(?:#|([^\W\d]+) *#?)? *([0-9]{1,18})")
_REFERENCE = re.compile(r"[0-9a-f]{8,32}")
_BETWEEN = re.compile(r"[\s\-.:#]+")  # what people put into a code that they read out
_CODE_LENGTH = 8


class Asked:
    """A text that a person typed, read as everything that it may mean."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()[:200]

    @cached_property
    def guids(self) -> tuple[str, str] | None:
        """First and last GUID that begin with it; None when it is no beginning of one."""
        return guids_from(self.text)

    @cached_property
    def has_words(self) -> bool:
        """Whether it says enough to be looked for in names."""
        return any(len(word) > 1 for word in words_of(self.text)) and not (self.guids and "-" in self.text)

    @cached_property
    def has_long_words(self) -> bool:
        """Whether an index of trigrams can look for it inside of names."""
        return self.has_words and any(len(word) >= TRIGRAM for word in words_of(self.text))

    @cached_property
    def references(self) -> tuple[str, str] | None:
        """First and last reference code, 32 hexadecimal digits, that begin with it; None when it is no beginning."""
        start = self.text.lower()
        if len(spoken := _BETWEEN.sub("", start)) == _CODE_LENGTH:
            start = spoken
        return (start.ljust(32, "0"), start.ljust(32, "f")) if _REFERENCE.fullmatch(start) else None

    def number(self, word: str) -> int | None:
        """Return the number in ``12``, ``#12`` or ``plan 12``; None when it names another thing than this word."""
        found = _NUMBER.fullmatch(self.text)
        return int(found[2]) if found and (found[1] or word).lower() == word else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Searchable:
    """Rows that the search finds, those of one model.

    Attributes:
        title: heading of the group.
        rank: where the group stands, the lowest first.
        related: what its ``__str__`` and ``detail`` read.
        find: yields querysets for what was asked, the best first. Each is one bounded query, however many rows there
            are; one that cannot find anything is not yielded.
        detail: a few words beside the name.
        direct: when it is all that is found, its page is opened at once.
    """

    title: str
    rank: int
    model: type[Model]
    find: Callable[[Asked], Iterator[QuerySet[Any]]]
    related: Sequence[str] = ()
    detail: Callable[[Any], str] = lambda row: ""
    direct: bool = False


def by_tenant(model: type[Model]) -> Callable[[Asked], Iterator[QuerySet[Any]]]:
    """Find partners or customers: by tenant id, by the start of the name, by what stands anywhere in their texts."""

    def find(asked: Asked) -> Iterator[QuerySet[Any]]:
        rows = model._default_manager.order_by()
        if asked.guids:
            yield rows.filter(tenant_id__range=asked.guids)
        if asked.has_words:
            yield rows.filter(begins_with("search_text", asked.text)).order_by("search_text")
        if asked.has_long_words:
            yield rows.filter(search_text__finds=Few(asked.text, 2 * MOST_OF_A_GROUP))

    return find


def by_number(model: type[Model], word: str, *paths: str) -> Callable[[Asked], Iterator[QuerySet[Any]]]:
    """Find rows by their number, said with this word or without one, and by these columns, the latest first.

    A path to a ``search_text`` is searched as such, one that begins with ``=`` is an identifier, any other is a name
    that contains the text.
    """

    def find(asked: Asked) -> Iterator[QuerySet[Any]]:
        rows = model._default_manager.order_by("-pk")
        if (number := asked.number(word)) is not None:
            yield rows.filter(pk=number)
        either = Q()
        for path in paths:
            if path.startswith("="):
                either |= Q((f"{path[1:]}__range", asked.guids)) if asked.guids else Q()
            elif asked.has_words:
                lookup = "finds" if path.endswith("search_text") else "icontains"
                either |= Q((f"{path}__{lookup}", asked.text))
        if either:
            yield rows.filter(either)

    return find
