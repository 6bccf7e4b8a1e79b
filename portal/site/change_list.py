"""Lists that cost the same for any number of rows (R-29)."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import models
from django.db.models import Model
from django.http import HttpRequest

MOST_LISTED = 2_000  # rows that a list counts and pages through


class PortalChangeList(ChangeList):
    """A list that costs the same for any number of rows.

    A forgotten ``list_select_related`` is an error at once, not a query a row. Rows are counted up to ``MOST_LISTED``;
    what lies behind is found by a search, a filter or another order.
    """

    def get_results(self, request: HttpRequest) -> None:
        """Find rows by keys: search, filters and order are worked out once, joins and columns for the shown rows."""
        keys = list(self.queryset.values_list("pk", flat=True)[: MOST_LISTED + 1])
        self.has_more = len(keys) > MOST_LISTED
        self.result_count = min(len(keys), MOST_LISTED)
        self.multi_page = self.result_count > self.list_per_page
        self.can_show_all = self.result_count <= self.list_max_show_all
        self.paginator = Paginator(range(self.result_count), self.list_per_page)
        self.page_num = min(max(1, self.page_num), self.paginator.num_pages)  # an address may be older than the rows
        if self.multi_page and not (self.show_all and self.can_show_all):
            first = (self.page_num - 1) * self.list_per_page
            keys = keys[first : first + self.list_per_page]
        rows = self.apply_select_related(self.root_queryset).fetch_mode(models.FETCH_RAISE).order_by()
        found = {row.pk: row for row in rows.filter(pk__in=keys)} if keys else {}
        self.result_list = [found[key] for key in keys if key in found]
        self.show_admin_actions, self.show_full_result_count, self.full_result_count = True, False, None
        # Django would resolve the address of each row to see whether it may carry the filters.
        self._kept_filters, self.preserved_filters = self.preserved_filters, ""

    def get_ordering_field(self, field_name: Any) -> Any:
        """Return what a column is sorted by; an address sorts by no column that offers no sorting."""
        if self.sortable_by is not None and field_name not in self.sortable_by:
            return None
        return super().get_ordering_field(field_name)

    def url_for_result(self, result: Model) -> str:
        """Return the address of a row's page, which leads back to the list as it is filtered."""
        address: str = super().url_for_result(result)
        return f"{address}?{self._kept_filters}" if self._kept_filters else address

    @property
    def number(self) -> str:
        """How many rows there are, in words."""
        return f"{self.result_count:,}{'+' if self.has_more else ''}"
