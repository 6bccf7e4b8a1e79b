"""Filters of the audit trail: by who acted, what it was about, and a span of days."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from django.contrib.admin import DateFieldListFilter, SimpleListFilter
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.admin.views.main import PAGE_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from portal.audit.models import AuditEvent
from portal.site.subjects import model_of

_LONGEST = 200  # characters that are looked for
_MOST_ROWS = 500  # that words may find; with more the words say too little
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class WordsFilter(SimpleListFilter):
    """A box in which words are typed; without words the filter does nothing."""

    template = "admin/filter_words.html"
    hint: ClassVar[str] = ""
    """What the box asks for, below its label."""

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        self.hidden: list[tuple[str, str]] = []
        super().__init__(request, params, model, model_admin)
        self.words = str(self.value() or "")[:_LONGEST].strip()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        self.hidden = _others(changelist, [self.parameter_name])
        yield {
            "selected": not self.words,
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
            "display": "All",
        }
        if self.words:
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": f"“{self.words}”"}


def _others(changelist: Any, own: list[str | None]) -> list[tuple[str, str]]:
    """Return the parameters of the other filters, which the form of this one keeps."""
    return [
        (name, value)
        for name, values in changelist.filter_params.items()
        if name not in own and name != PAGE_VAR
        for value in values
    ]


class PersonFilter(WordsFilter):
    """Entries of one member of staff by the whole user name, or of commands by the name of the command or OS user."""

    title = "person"
    parameter_name = "person"
    hint = "A user name, or the name of a command"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if not self.words:
            return queryset
        kinds = AuditEvent.ActorKind  # which an index finds; actors alone have none
        return queryset.filter(
            Q(actor_kind=kinds.STAFF, actor__iexact=self.words)
            | Q(actor_kind=kinds.COMMAND, actor__icontains=self.words)
        )


class SubjectFilter(WordsFilter):
    """Entries about the rows that typed words find in their own list.

    Attributes:
        word: what the trail calls these rows.
    """

    word: ClassVar[str]
    hint = "Words of a name, a domain or a tenant id"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        found = model_of(self.word)
        try:
            page = model_admin.admin_site.get_model_admin(found) if found else None
        except NotRegistered:
            page = None
        self.page = page if page is not None and page.has_view_permission(request) else None

    def has_output(self) -> bool:
        return self.page is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if not self.words or self.page is None:
            return queryset
        rows, _ = self.page.get_search_results(request, self.page.model._default_manager.order_by(), self.words)
        keys = list(rows.values_list("pk", flat=True)[:_MOST_ROWS])
        if self.word in {"partner", "customer"}:
            return queryset.filter(**{f"{self.word}_key__in": [str(key) for key in keys]})
        return queryset.filter(**{f"subject__{self.word}__in": keys})


class PartnerFilter(SubjectFilter):
    """Entries about partners."""

    title = word = "partner"
    parameter_name = "partner"


class CustomerFilter(SubjectFilter):
    """Entries about customers."""

    title = word = "customer"
    parameter_name = "customer"


class RegistrationFilter(SubjectFilter):
    """Entries about applications."""

    title = "application"
    word = "registration"
    parameter_name = "registration"
    hint = "Words of its name, or its application id"


class DaysFilter(DateFieldListFilter):
    """Django's spans, and any other from one day to another, in UTC; both days count."""

    template = "admin/filter_days.html"

    def __init__(
        self, field: Any, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any, field_path: str
    ) -> None:
        self.from_name, self.to_name = f"{field_path}__gte", f"{field_path}__lte"
        self.from_day, self.to_day = (self._day(params, name) for name in (self.from_name, self.to_name))
        self.hidden: list[tuple[str, str]] = []
        for name, day, time in (
            (self.from_name, self.from_day, "00:00"),
            (self.to_name, self.to_day, "23:59:59.999999"),
        ):
            if day:
                params[name] = [f"{day} {time}+00:00"]
        super().__init__(field, request, params, model, model_admin, field_path)
        self.title = "day"

    @staticmethod
    def _day(params: dict[str, Any], name: str) -> str:
        value = str((params.get(name) or [""])[-1])
        return value if _DAY.fullmatch(value) else ""

    def expected_parameters(self) -> list[str | None]:
        return [*super().expected_parameters(), self.to_name]

    def choices(self, changelist: Any) -> Iterator[Any]:
        self.hidden = _others(changelist, self.expected_parameters())
        first, *others = super().choices(changelist)
        typed = bool(self.from_day or self.to_day)
        yield {**first, "selected": first["selected"] and not typed}
        if typed:
            words = f"{self.from_day or '…'} to {self.to_day or '…'}"
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": words}
        yield from others
