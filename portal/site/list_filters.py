"""Filters of lists: by what a row belongs to (a list, or a box to search in), and by how long ago something was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib.admin import FieldListFilter, RelatedFieldListFilter, SimpleListFilter
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import get_model_from_relation
from django.contrib.admin.views.main import PAGE_VAR
from django.db import connection
from django.db.models import BooleanField, Case, F, Func, Q, QuerySet, Value, When
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from portal.rights import limits_of
from portal.site.sight import visible
from portal.text import number_in

NAMED = "named"
"""End of the parameter that carries typed words, such as ``partner__named``."""
FEW = 12  # that are offered as a list
_LONGEST = 200  # characters that are looked for
_READ = 500  # found ones that are filtered by their keys
FEW_ROWS = 15_000
"""Of a million rows, so many are read and sorted as quickly as others are met one by one in the order of a list."""
_LITERAL = 500  # keys that a statement names one by one


class _IsAnyOf(Func):
    """Compare with an array of PostgreSQL, whose index is asked key after key; for a subquery each is a search."""

    template = "(%(expressions)s::bigint[]))"
    arg_joiner = " = ANY("
    output_field = BooleanField()


def with_keys(keys: Sequence[int], path: str = "pk") -> Q:
    """Find rows with one of these keys: any number of them, handed over as one value."""
    if len(keys) <= _LITERAL:
        return Q((f"{path}__in", keys))
    if connection.vendor == "postgresql":
        return Q(_IsAnyOf(F(path), Value(f"{{{','.join(map(str, keys))}}}")))
    return Q((f"{path}__in", RawSQL("SELECT value FROM json_each(%s)", [json.dumps(keys)])))


def narrowed(rows: QuerySet[Any], condition: Q, *, among: QuerySet[Any]) -> QuerySet[Any]:
    """Return the rows of a large list that fit. PostgreSQL knows by its statistics how many that are; SQLite is told.

    There few are found by an index, in one statement more, and of many the first ones in the list's order are met soon.

    Args:
        among: all rows that the condition may be asked of, with what it reads.
    """
    if connection.vendor == "postgresql":
        return rows.filter(condition)
    keys = list(among.order_by().filter(condition).values_list("pk", flat=True)[: FEW_ROWS + 1])
    if len(keys) <= FEW_ROWS:
        return rows.filter(with_keys(keys))
    # The same, asked in a way that no index answers: it would hand over all of them before the first one is shown.
    return rows.filter(Case(When(condition, then=Value(True)), default=Value(False), output_field=BooleanField()))


class SinceFilter(SimpleListFilter):
    """How long ago something was.

    Attributes:
        column: when it was.
        span: what counts as new.
        words: what is offered, by ``never``, ``old`` and ``new``.
    """

    column: ClassVar[str]
    span: ClassVar[timedelta]
    words: ClassVar[Mapping[str, str]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.words.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        since = timezone.now() - self.span
        match self.value():
            case "never":
                return queryset.filter((f"{self.column}__isnull", True))
            case "old":
                return queryset.filter((f"{self.column}__lt", since))
            case "new":
                return queryset.filter((f"{self.column}__gte", since))
        return queryset


class RelatedFilter(RelatedFieldListFilter):
    """Rows of one partner, or of all partners that typed words find; the same for registrations, tags and the rest.

    Words find what the search of the related list finds. A script offers what they find while they are typed.
    """

    def __init__(
        self, field: Any, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any, field_path: str
    ) -> None:
        self.words_kwarg = f"{field_path}__{NAMED}"
        self.related = get_model_from_relation(field)
        try:
            page = model_admin.admin_site.get_model_admin(self.related)
        except NotRegistered:
            page = None
        self.page = page if page is not None and page.get_search_fields(request) else None
        self.hidden: list[tuple[str, str]] = []
        super().__init__(field, request, params, model, model_admin, field_path)
        words: Any = self.used_parameters.pop(self.words_kwarg, None) or [""]
        self.words = str(words[-1])[:_LONGEST].strip()

    def expected_parameters(self) -> list[str | None]:
        return [*super().expected_parameters(), self.words_kwarg]

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        """Return what is offered: all, or, where these are too many, the chosen one alone."""
        rows = visible(self.related._default_manager.all(), limits_of(request.user))
        rows = rows.complex_filter(field.get_limit_choices_to())
        rows = rows.order_by(*self.field_admin_ordering(field, request, model_admin))
        few = list(rows[: FEW + 1])
        self.is_searched = len(few) > FEW and self.page is not None
        if len(few) > FEW and not self.is_searched:
            few = list(rows)
        if self.is_searched:
            self.template = "admin/filter_related.html"
            keys = [key for text in self.lookup_val or () if (key := number_in(text)) is not None]
            few = list(rows.filter(pk__in=keys)) if keys else []
        return [(row.pk, str(row)) for row in few]

    def has_output(self) -> bool:
        return self.is_searched or bool(self.words) or super().has_output()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        found = super().queryset(request, queryset)
        if found is None or not self.words:
            return queryset if found is None else found
        if self.page is None:
            raise IncorrectLookupParameters
        seen = visible(self.related._default_manager.order_by(), limits_of(request.user))
        rows, _ = self.page.get_search_results(request, seen, self.words)
        keys = list(rows.values_list("pk", flat=True)[: _READ + 1])
        return found.filter(**{f"{self.field_path}__in": keys if len(keys) <= _READ else rows.values("pk")})

    def choices(self, changelist: Any) -> Any:
        own = self.expected_parameters()
        self.hidden = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name not in own and name != PAGE_VAR
            for value in values
        ]
        shown, *others = super().choices(changelist)
        if self.words:
            shown["selected"] = False
        shown["query_string"] = changelist.get_query_string(remove=own)
        yield shown
        if self.words:
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": f"“{self.words}”"}
        yield from others

    @property
    def suggestions(self) -> str:
        """Address that answers with rows that typed words find."""
        options = self.field.model._meta
        asked = {"app_label": options.app_label, "model_name": options.model_name, "field_name": self.field.name}
        return f"{reverse('admin:autocomplete')}?{urlencode(asked)}"


FieldListFilter.register(lambda field: bool(field.remote_field), RelatedFilter, take_priority=True)
