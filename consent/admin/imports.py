"""Imports of partners: upload a file, look at what each row would do, confirm found tenants, apply."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent.models import PartnerImport, PartnerImportRow
from consent.moving_in import partners
from consent.moving_in.files import MOST_BYTES, MOST_ROWS, FileRefused
from consent.runs.find_tenants import start_finding
from portal.runs import tasks
from portal.site.admin import ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.dashboard import Figure, Panel
from portal.site.declared import badge_column, moment_column, path_column
from portal.site.display import EMPTY, Tone, guid
from portal.site.page_actions import page_action
from portal.text import number_of

Result = PartnerImportRow.Result
RESULT_TONES = {
    Result.NEW: Tone.BUSY,
    Result.CHANGED: Tone.BUSY,
    Result.SAME: Tone.QUIET,
    Result.TO_FIND: Tone.WARN,
    Result.TO_CONFIRM: Tone.WARN,
    Result.REFUSED: Tone.BAD,
    Result.ADDED: Tone.GOOD,
    Result.UPDATED: Tone.GOOD,
}


class FileForm(forms.Form):
    file = forms.FileField(
        label="File",
        widget=forms.FileInput(attrs={"accept": ".csv,.xlsx"}),
        error_messages={"required": f"Choose a CSV or XLSX file of at most {MOST_BYTES:,} bytes."},
    )


class _ForImporters[M: PartnerImport | PartnerImportRow](ReadOnlyAdmin[M]):
    """Pages for staff who may add and change partners: the rows name partners' people."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return all(request.user.has_perm(f"tenants.{right}_partnertenant") for right in ("add", "change"))

    has_import_permission = has_view_permission

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)


@admin.register(PartnerImport)
class PartnerImportAdmin(_ForImporters[PartnerImport]):
    """Files of partners, the latest first; written by services only."""

    empty_text = "Add an import: a CSV or Excel file of partners. What it would do is shown before anything is changed."
    export_fields = ["id", "file_name", "created_at", "created_by", "applied_at", "applied_by"]
    list_display = ["number", "file_name", "read", "created_by", "applied", "applied_by"]
    search_fields = ["=id", "file_name", "created_by"]
    fieldsets = [(None, {"fields": ["file_name", "read", "created_by", "applied", "applied_by"]})]
    actions_detail = ["apply_import", "find_tenants"]
    change_form_outer_before_template = "admin/consent/panels.html"

    has_add_permission = _ForImporters.has_view_permission

    number = path_column("pk", "Import", str)
    read = moment_column("created_at", "Read")
    applied = moment_column("applied_at", "Applied", empty="not yet")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Read an uploaded file and show what its rows would do; no partner is changed."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = FileForm(request.POST or None, request.FILES or None)
        problem = ""
        if request.method == "POST":
            form = FileForm(request.POST, request.FILES)
            if form.is_valid():
                file = form.cleaned_data["file"]
                try:
                    imported = partners.read(file.read(MOST_BYTES + 1), file_name=file.name, actor=actor_of(request))
                except FileRefused as refused:
                    problem = str(refused)
                else:
                    return HttpResponseRedirect(reverse("admin:consent_partnerimport_change", args=[imported.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": "Import partners",
            "form": form,
            "problem": problem,
            "columns": list(partners.COLUMNS),
            "most_rows": f"{MOST_ROWS:,}",
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/consent/partner_import.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        imported = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if imported is None else {"panels": [_panel(imported)]}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def _import(self, request: HttpRequest, object_id: str) -> PartnerImport:
        imported = self.get_object(request, object_id)
        if imported is None:
            raise Http404
        return imported

    @page_action(description="Apply", url_path="apply", permissions=["import"])
    def apply_import(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        imported = self._import(request, object_id)
        counts = partners.results(imported)
        if answer := self.confirm(
            request,
            PartnerImport.objects.filter(pk=imported.pk),
            action="apply_import",
            title="Apply the import",
            explanation=(
                "Adds the new partners and changes those that differ. Nothing is sent to them. Each row is compared "
                "anew, and nothing is taken away from a partner that is there."
            ),
            button="Apply",
            counts={str(Result(result).label): number for result, number in sorted(counts.items())},
        ):
            return answer
        done = partners.apply(imported, actor=actor_of(request))
        self.message_user(
            request,
            f"{number_of(done[Result.ADDED], 'partner')} added, {done[Result.UPDATED]:,} updated, "
            f"{done[Result.SAME]:,} same, {done[Result.REFUSED]:,} refused.",
        )
        return self._to(imported)

    @page_action(description="Find tenants of domains", url_path="find", permissions=["import"])
    def find_tenants(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        imported = self._import(request, object_id)
        if not imported.rows.to_find().exists():
            self.message_user(request, "No row waits for a search: none names a domain only.")
            return self._to(imported)
        if answer := self.confirm(
            request,
            PartnerImport.objects.filter(pk=imported.pk),
            action="find_tenants",
            title="Find tenants of domains",
            explanation=(
                "Asks Microsoft's sign-in service which tenant has each domain, in the background. What is found waits "
                "until you compared and confirmed it."
            ),
            button="Find",
        ):
            return answer
        run, _ = start_finding(imported, actor=actor_of(request))
        tasks.enqueue(run)
        self.message_user(request, f"Run {run.pk} looks for the tenants; come back in a minute.")
        return self._to(imported)

    @staticmethod
    def _to(imported: PartnerImport) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:consent_partnerimport_change", args=[imported.pk]))


def _panel(imported: PartnerImport) -> Panel:
    counts = partners.results(imported)
    address = f"{reverse('admin:consent_partnerimportrow_changelist')}?imported__id__exact={imported.pk}"
    return Panel(
        title=number_of(sum(counts.values()), "row"),
        figures=[
            Figure(
                label=str(result.label),
                value=f"{counts[result]:,}",
                tone=RESULT_TONES[result],
                link=f"{address}&result__exact={result.value}",
            )
            for result in Result
            if counts[result]
        ],
        link=address,
    )


@admin.register(PartnerImportRow)
class PartnerImportRowAdmin(_ForImporters[PartnerImportRow]):
    """The rows of imports, each with what it would do or did."""

    empty_text = "The rows of imported files stand here."
    export_fields = [
        "imported_id",
        "number",
        "result",
        "why",
        "name",
        "tenant_id",
        "cloud",
        "domain",
        "kind",
        "contact_addresses",
        "tag_names",
        "notes",
        "found_tenant_id",
        "confirmed_by",
    ]
    list_display = ["number", "name", "shown_result", "why", "shown_tenant", "domain", "imported"]
    list_filter = ["result"]
    list_select_related = ["imported"]
    link_lookups = ["imported__id__exact"]
    search_fields = ["name", "=tenant_id", "domain"]
    actions = ["confirm_tenants"]
    fieldsets = [
        (None, {"fields": ["imported", "number", "shown_result", "why"]}),
        (
            "As the file says",
            {"fields": ["name", "shown_tenant", "cloud", "domain", "kind", "contact_addresses", "tag_names", "notes"]},
        ),
        ("Found", {"fields": ["found_tenant_id", "found_cloud", "confirmed_by"]}),
    ]

    shown_result = badge_column("result", "Result", RESULT_TONES)

    @admin.display(ordering="tenant_id", description="Tenant id")
    def shown_tenant(self, row: PartnerImportRow) -> str:
        known = row.tenant_id or row.found_tenant_id
        return guid(known, label="tenant id") if known else EMPTY

    @admin.action(description="Confirm the found tenants", permissions=["import"])
    def confirm_tenants(self, request: HttpRequest, queryset: QuerySet[PartnerImportRow]) -> HttpResponseBase | None:
        waiting = queryset.filter(result=Result.TO_CONFIRM)
        imports = list(PartnerImport.objects.filter(rows__in=waiting.order_by()).distinct()[:2])
        if len(imports) != 1:
            self.message_user(request, "Choose rows of one import whose tenant is to be confirmed.", "warning")
            return None
        if answer := self.confirm(
            request,
            waiting,
            action="confirm_tenants",
            title="Confirm the found tenants",
            explanation=(
                "Compare each tenant id with what the partner told you: links and tokens will be bound to it, and it "
                "never changes. Applying the import then adds these partners."
            ),
            button="Confirm",
        ):
            return answer
        done = partners.confirm(imports[0], list(waiting.values_list("pk", flat=True)), actor=actor_of(request))
        self.message_user(request, f"{number_of(done, 'tenant')} confirmed. Apply the import next.")
        return HttpResponseRedirect(reverse("admin:consent_partnerimport_change", args=[imports[0].pk]))
