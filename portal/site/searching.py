"""The search of a list: every word somewhere, in any case of any script, by an index where there is one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from django.db import connections, models
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.text import smart_split

from portal.microsoft.identifiers import canonical_guid, guids_from
from portal.search_text import MOST_WORDS, RowByRow, SearchTextField, few_keys, unquoted
from portal.site.base import Part
from portal.site.list_filters import FEW_ROWS, with_keys
from portal.text import number_in

_FEW_RELATED = 2_000  # rows of a small table, whose keys are looked for
_GUID_LENGTH = 36  # characters


class Searching[M: Model](Part[M]):
    """Finds the rows of a list."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[M], search_term: str
    ) -> tuple[QuerySet[M], bool]:
        """Find rows in which every word stands, each in any of ``search_fields``, in any case of any script.

        A search text (``SearchTextField``) must hold all words alone. A GUID is looked for only in the fields that
        begin with ``=``, whole or from its first eight characters on, so that an index answers. A field with ``^`` must
        begin with the word. Words in quotes are one word.
        """
        names = [str(name) for name in self.get_search_fields(request)]
        term = unicodedata.normalize("NFC", search_term).strip()
        if not names or not term:
            return queryset, False
        exact = [name[1:] for name in names if name.startswith("=")]
        if exact and (whole := canonical_guid(term)):
            return queryset.filter(_any_of(Q((name, whole)) for name in exact if self._is_text(name))), False
        words = [unquoted(word) for word in smart_split(term)]
        if "\0" in term or len(words) > MOST_WORDS:
            return queryset.none(), False
        vendor = connections[queryset.db].vendor
        texts = [name for name in names if isinstance(self._field(name), SearchTextField)]
        others = [name for name in names if name not in texts]
        row_by_row = self.lists_few(request)
        found = [Q((f"{name}__finds", RowByRow(term))) if row_by_row else self._by_text(name, term) for name in texts]
        by_word = [_any_of(self._finds(name, word, vendor) for name in others) for word in words]
        return queryset.filter(_any_of([*found, Q(*by_word)])), False

    def lists_few(self, request: HttpRequest) -> bool:
        """Tell whether a filter leaves so few rows that it takes longer to ask all others for their keys first."""
        return False

    def _by_text(self, name: str, term: str) -> Q:
        """Say how a search text is looked for: few rows by their keys, also those that belong to few others.

        Of a table of many rows, words of one or two characters alone find the texts that begin with them.
        """
        field, relation = self._field(name), name.rpartition("__")[0]
        keys = few_keys(field, term, FEW_ROWS if field.indexed else _FEW_RELATED)
        if keys is None:
            return Q((f"{name}__finds", RowByRow(term)))
        if not relation:
            return with_keys(keys)
        rows = self.model._default_manager.order_by().filter(with_keys(keys, relation))
        mine = list(rows.values_list("pk", flat=True)[: FEW_ROWS + 1])
        return with_keys(mine) if len(mine) <= FEW_ROWS else with_keys(keys, relation)

    def _finds(self, name: str, word: str, vendor: str) -> Iterator[Q]:
        """Say how a word is looked for in one search field."""
        if name.startswith("^"):
            yield Q((f"{name[1:]}__istartswith", word))
            return
        if not name.startswith("="):
            # SQLite's LIKE ignores the case of ASCII letters only.
            as_pattern = vendor == "sqlite" and not word.isascii()
            yield Q((f"{name}__iregex", re.escape(word)) if as_pattern else (f"{name}__icontains", word))
            return
        name = name[1:]
        if not self._is_text(name):
            if (number := number_in(word)) is not None:
                yield Q((name, number))
        elif limits := guids_from(word):
            yield Q((f"{name}__range", limits))
        elif not self._is_identifier(name):
            yield Q((f"{name}__iexact", word))

    def _is_text(self, name: str) -> bool:
        return isinstance(self._field(name), models.CharField | models.TextField)

    def _is_identifier(self, name: str) -> bool:
        field = self._field(name)
        return hasattr(field, "parser") or field.max_length == _GUID_LENGTH


def _any_of(conditions: Iterable[Q | Iterator[Q]]) -> Q:
    """Join conditions with "or"; without any, nothing is found."""
    joined = Q()
    for one in conditions:
        for condition in [one] if isinstance(one, Q) else one:
            joined |= condition
    return joined or Q(pk__in=[])
