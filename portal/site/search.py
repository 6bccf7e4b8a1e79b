"""The command palette: find a record by what its list can be searched for."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

from portal.microsoft.identifiers import canonical_guid, guids_from
from portal.site.admin import PARTS_RANK

PER_LIST = 5
SHORTEST_TERM = 3


def search_records(request: HttpRequest, term: str) -> list[SearchResult]:
    """Return at most ``PER_LIST`` rows of each list that the person may view, partners first.

    One bounded query a list.
    """
    if len(term) < SHORTEST_TERM:
        return []
    found: list[SearchResult] = []
    entries = [entry for app in admin.site.get_app_list(request) for entry in app["models"] if entry["admin_url"]]
    for entry in sorted(entries, key=_rank):
        model_admin = admin.site.get_model_admin(entry["model"])
        if not model_admin.get_search_fields(request) or (_rank(entry) >= PARTS_RANK and not _is_code(term)):
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


def _rank(entry: dict[str, Any]) -> int:
    return int(getattr(admin.site.get_model_admin(entry["model"]), "palette_rank", PARTS_RANK))


def _is_code(term: str) -> bool:
    return bool(canonical_guid(term) or guids_from(term))
