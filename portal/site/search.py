"""The command palette: find a record by what its list can be searched for."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

PER_LIST = 5
SHORTEST_TERM = 3


def search_records(request: HttpRequest, term: str) -> list[SearchResult]:
    """Return at most ``PER_LIST`` rows of each list that the person may view; one bounded query a list."""
    if len(term) < SHORTEST_TERM:
        return []
    found: list[SearchResult] = []
    for app in admin.site.get_app_list(request):
        for entry in app["models"]:
            model_admin = admin.site.get_model_admin(entry["model"])
            if not entry["admin_url"] or not model_admin.get_search_fields(request):
                continue
            options = entry["model"]._meta
            rows, _ = model_admin.get_search_results(request, model_admin.get_queryset(request), term)
            named_with = model_admin.get_list_select_related(request)
            if isinstance(named_with, list | tuple):
                rows = rows.select_related(*named_with)
            found += [
                SearchResult(
                    title=str(row),
                    description=str(entry["name"]),
                    link=reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[row.pk]),
                    icon=getattr(model_admin, "icon", "table_rows"),
                )
                for row in rows.order_by()[:PER_LIST]
            ]
    return found
