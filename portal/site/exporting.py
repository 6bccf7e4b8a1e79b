"""The export of a list: what is chosen, or all that fits the filters, as a file (S-64)."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase

from portal.audit.trail import record
from portal.rights import require
from portal.site.base import Part, actor_of
from portal.site.export import FileKind, file_response, heading, in_words
from portal.site.proof import demand

EXPORT_LIMIT = 100_000  # rows; more is a job for a command, not for a page
EXPORT = "portal_site.export_list"


class Exporting[M: Model](Part[M]):
    """Makes files of the rows of a list.

    Attributes:
        export_fields: columns of the exported files, as for ``values_list``; empty means there is no export.
        export_needs_proof: each exported file asks for a fresh proof, and not only one of everything.
    """

    export_fields: Sequence[str] = ()
    export_needs_proof = False

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Who may export: who has the right to it and may view, unless a class is stricter."""
        return request.user.has_perm(EXPORT) and self.has_view_permission(request)

    def export_csv(self, request: HttpRequest, queryset: QuerySet[M]) -> HttpResponseBase | None:
        """Stream ``export_fields`` of the selected rows, or of all that match the filters."""
        return self._export(request, queryset, FileKind.CSV)

    export_csv.short_description = "Export as CSV"  # type: ignore[attr-defined]
    export_csv.allowed_permissions = ("export",)  # type: ignore[attr-defined]

    def export_xlsx(self, request: HttpRequest, queryset: QuerySet[M]) -> HttpResponseBase | None:
        """Do the same as a workbook."""
        return self._export(request, queryset, FileKind.XLSX)

    export_xlsx.short_description = "Export as Excel workbook"  # type: ignore[attr-defined]
    export_xlsx.allowed_permissions = ("export",)  # type: ignore[attr-defined]

    def for_export(self, queryset: QuerySet[M]) -> QuerySet[M]:
        """Return the rows with what ``export_fields`` names and the list does not show."""
        return queryset

    def _export(self, request: HttpRequest, queryset: QuerySet[M], kind: FileKind) -> HttpResponseBase | None:
        require(actor_of(request), EXPORT)
        count = queryset.count()
        if count > EXPORT_LIMIT:
            self.message_user(
                request, f"{count:,} rows are too many for one file; filter to {EXPORT_LIMIT:,}.", messages.ERROR
            )
            return None
        everything = request.POST.get("select_across") == "1"
        if (everything or self.export_needs_proof) and (answer := demand(request)):
            return answer
        record(
            "list.exported",
            actor=actor_of(request),
            subject={"list": self.opts.label_lower},
            details={"rows": count, "columns": list(self.export_fields)},
        )
        exported = self.for_export(queryset)
        rows = in_words(exported, self.export_fields)
        header = [heading(self.model, path) for path in self.export_fields]
        return file_response(kind, f"{self.opts.app_label}-{self.opts.model_name}", header, rows)
