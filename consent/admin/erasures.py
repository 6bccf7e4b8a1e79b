"""Erasure of a partner: begun on the partners' list, followed here, with its report to read and to keep."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from consent.admin.offboardings import SureForm
from consent.models import Erasure
from consent.offboarding import partner_erasure as service
from consent.two_persons import ERASE_PARTNER
from portal.audit.seals import Seal, fits
from portal.audit.trail import record
from portal.decisions.asking import ask_second_person, what_comes_next
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.declared import badge_column, moment_column
from portal.site.display import Tone
from portal.site.page_actions import PageAction, page_action
from portal.site.proof import fresh
from portal.text import number_of
from tenants.admin import search_by
from tenants.models import PartnerTenant

State = Erasure.State
_TONES = {State.ERASING: Tone.BUSY, State.DONE: Tone.GOOD}


@fresh
@admin.action(description="Erase the selected partner", permissions=["erase"])
def erase_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm with what it takes away and the typed name, then ask a second person; the schedule does the rest."""
    partner = queryset.first()
    if partner is None or queryset.count() != 1:
        page.message_user(request, "Choose one partner: each is confirmed by its name.", messages.ERROR)
        return None
    found, name, tenant_id = service.reach(partner), partner.name, partner.tenant_id

    class Sure(SureForm):
        wanted = name

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            field: forms.Field = self.fields["typed_name"]
            field.help_text = f"Type {name}. Its tenant id is {tenant_id}."

    answer = ask(
        page,
        request,
        queryset,
        Sure,
        None,
        action="erase_partners",
        title=f"Erase {name}",
        explanation=(
            f"Purged from the vault: {number_of(found.tokens, 'token')}. Removed: {number_of(found.links, 'link')} "
            f"with their attempts, {number_of(found.contacts, 'contact')}. The names of the partner and of "
            f"{number_of(found.customers, 'customer')} are taken out of what is kept. Ids, times and the audit trail "
            f"stay; a report says what. Nothing brings it back. {what_comes_next()}"
        ),
        button="Ask for it",
        dangerous=True,
    )
    if isinstance(answer, HttpResponseBase):
        return answer
    return ask_second_person(page, request, ERASE_PARTNER, {"partner": partner.pk}, answer.cleaned_data["why"])


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin[Erasure]):
    """How far each erasure is, and its report."""

    empty_text = (
        "A partner that was offboarded or disabled is erased from the list of partners. Its report stands here."
    )
    export_fields = [
        "partner__name",
        "partner__tenant_id",
        "state",
        "started_at",
        "started_by",
        "finished_at",
        "seal",
    ]
    list_display = ["partner", "shown_state", "started", "started_by", "finished"]
    list_filter = ["state"]
    list_select_related = ["partner"]
    search_fields = search_by("partner")
    fields = ["partner", "shown_state", "comes_next", "started", "started_by", "finished", "seal"]
    actions_detail = ["download"]
    change_form_outer_before_template = "admin/consent/erasure_report.html"

    shown_state = badge_column("state", "State", _TONES)
    started = moment_column("started_at", "Started")
    finished = moment_column("finished_at", "Finished")

    @admin.display(description="What comes next")
    def comes_next(self, one: Erasure) -> str:
        if one.state == State.DONE:
            return "Download the report, and keep it outside the portal."
        return "The vault is emptied first, again every ten minutes if need be. An incident says what is missing."

    def buttons(self, request: HttpRequest, row: Erasure) -> list[PageAction]:
        return super().buttons(request, row) if row.state == State.DONE else []

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        one = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {}
        if one is not None and one.report:
            genuine = fits(one.report, Seal(key_id=one.seal_key, value=one.seal))
            shown = {"report": json.loads(one.report), "genuine": genuine}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    @page_action(description="Download the report", url_path="report", permissions=["view"])
    def download(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self.get_object(request, object_id)
        if one is None:
            raise Http404
        if not one.report:
            self.message_user(request, "There is no report yet: it is made when everything is done.", messages.WARNING)
            return HttpResponseRedirect(reverse("admin:consent_erasure_change", args=[one.pk]))
        record("erasure.report_downloaded", actor=actor_of(request), subject={"erasure": one.pk})
        name = f"erasure-{one.partner.tenant_id}.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return HttpResponse(service.to_file(one), content_type="application/json", headers=headers)
