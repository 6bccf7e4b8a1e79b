"""Filters and columns of a list that a person keeps."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.contrib import messages
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.utils.text import capfirst
from django.views.decorators.http import require_POST

from portal.site.base import Part, actor_of
from portal.site.preferences import (
    SHARE,
    Refused,
    choose_columns,
    columns_of,
    filters_of,
    forget_filter,
    keep_filter,
    query_of,
)
from portal.text import number_in


class Keeping[M: Model](Part[M]):
    """Shows a list as a person wants to see it."""

    def offered_columns(self, request: HttpRequest) -> list[str]:
        """Return the columns that a person may choose from."""
        return [str(name) for name in super().get_list_display(request)]

    def get_list_display(self, request: HttpRequest) -> Any:
        return self.chosen_columns(request)

    def chosen_columns(self, request: HttpRequest) -> list[str]:
        """Return the columns of the list that this person wants to see; asked for once in a request."""
        kept: dict[str, list[str]] = request.__dict__.setdefault("_chosen_columns", {})
        if self.opts.label_lower not in kept:
            kept[self.opts.label_lower] = columns_of(self, request.user, self.offered_columns(request))  # type: ignore[arg-type]
        return kept[self.opts.label_lower]

    def _kept(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the menus of filters and columns show; the filters are asked for where they are shown."""
        person: Any = request.user
        chosen = self.chosen_columns(request)
        _, *columns = self.offered_columns(request)
        return {
            "list_address": self._list_address(),
            "saved_filters": SimpleLazyObject(lambda: list(filters_of(self, person))),
            "may_share": person.has_perm(SHARE),
            "asked": query_of(request),
            "columns": [
                (name, capfirst(str(label_for_field(name, self.model, model_admin=self))), name in chosen)
                for name in columns
            ],
        }

    @method_decorator(require_POST)
    def keep_filter(self, request: HttpRequest) -> HttpResponse:
        """Keep the search and filters that the list shows under a name."""
        person: Any = request.user
        name, asked = request.POST.get("name", ""), request.POST.get("query", "")
        try:
            row = keep_filter(
                self, request, person, name=name, query=asked, shared="shared" in request.POST, actor=actor_of(request)
            )
        except Refused as reason:
            self.message_user(request, str(reason), messages.ERROR)
            return self._back_to_list(asked)
        self.message_user(request, f"The filter “{row.name}” is saved.", messages.SUCCESS)
        return self._back_to_list(row.query)

    @method_decorator(require_POST)
    def remove_filter(self, request: HttpRequest) -> HttpResponse:
        """Remove a filter of one's own."""
        person: Any = request.user
        if forget_filter(person, number_in(request.POST.get("filter")) or 0, actor=actor_of(request)):
            self.message_user(request, "The filter is removed.", messages.SUCCESS)
        else:
            self.message_user(request, "You have no such filter.", messages.ERROR)
        return self._back_to_list(request.POST.get("query", ""))

    @method_decorator(require_POST)
    def choose_columns(self, request: HttpRequest) -> HttpResponse:
        """Keep which columns the list shows to this person."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        person: Any = request.user
        first, *_ = offered = self.offered_columns(request)
        try:
            choose_columns(self, person, offered, [first, *request.POST.getlist("column")])
        except Refused as reason:
            self.message_user(request, str(reason), messages.ERROR)
        return self._back_to_list(request.POST.get("query", ""))

    def _back_to_list(self, query: str) -> HttpResponse:
        return HttpResponseRedirect(f"{self._list_address()}?{urlencode(parse_qsl(query))}".rstrip("?"))
