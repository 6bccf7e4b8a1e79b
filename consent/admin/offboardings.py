"""Offboarding: begun on the partners' list, followed and decided here, with its report to read and to keep."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from consent.models import ConsentObservation, Offboarding
from consent.offboarding import steps as service
from consent.offboarding.report import to_file
from consent.two_persons import FINISH, OFFBOARD, finish_of, offboarding_of
from portal.audit.seals import Seal, fits
from portal.audit.trail import record
from portal.decisions.asking import WhyForm, ask_second_person, what_comes_next
from portal.runs import tasks
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.dashboard import Figure
from portal.site.declared import badge_column, moment_column, needs
from portal.site.display import Tone, links, who
from portal.site.page_actions import PageAction, page_action
from portal.site.proof import fresh
from portal.text import number_are, number_of
from tenants.admin import search_by
from tenants.models import PartnerTenant

State = Offboarding.State
_TONES = {State.REMOVING: Tone.BUSY, State.WAITING: Tone.WARN, State.CLOSING: Tone.BUSY, State.DONE: Tone.GOOD}
_SHOWN_CUSTOMERS = 500


class SureForm(WhyForm):
    """Asks for the partner's name, in any case; the page shows it, and the tenant id to tell two of a name apart."""

    typed_name = forms.CharField(label="Name of the partner", widget=forms.TextInput(attrs={"autocomplete": "off"}))
    wanted = ""

    def clean_typed_name(self) -> str:
        typed = str(self.cleaned_data["typed_name"])
        if _plain(typed) != _plain(self.wanted):
            raise forms.ValidationError(f"This is not the name of the chosen partner: {self.wanted}.")
        return typed


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


@fresh
@admin.action(description="Offboard the selected partner", permissions=["offboard"])
def offboard_partners(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Confirm with what it touches and the typed name, then ask a second person; the workers do the rest."""
    partner = queryset.first()
    if partner is None or queryset.count() != 1:
        page.message_user(request, "Choose one partner: each is confirmed by its name.", messages.ERROR)
        return None
    found = service.reach(partner)

    name, tenant_id = partner.name, partner.tenant_id

    class Sure(SureForm):
        wanted = name

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.fields[
                "typed_name"
            ].help_text = (
                f"Type {name}, so that no other partner is offboarded by mistake. Its tenant id is {tenant_id}."
            )

    answer = ask(
        page,
        request,
        queryset,
        Sure,
        None,
        action="offboard_partners",
        title=f"Offboard {partner.name}",
        explanation=(
            f"Our consent ({found.registrations or 'none is known'}) is removed in "
            f"{number_of(found.customers, 'customer tenant')} and each is read back. Closed at once: "
            f"{number_of(found.open_links, 'open link')}. When all customers are proven to be without it, "
            f"{number_of(found.tokens, 'token')} of the partner will be switched off and erased, and the partner is "
            "offboarded for good. If customers remain, the token is kept until a person decides."
            + (
                f" Never read: {number_of(found.customers_never_read, 'customer')}. Read them first, "
                "with Read again on their pages."
                if found.customers_never_read
                else ""
            )
            + f" {what_comes_next()}"
        ),
        button="Ask for it",
        dangerous=True,
    )
    if isinstance(answer, HttpResponseBase):
        return answer
    return ask_second_person(page, request, OFFBOARD, offboarding_of(partner), answer.cleaned_data["why"])


@admin.register(Offboarding)
class OffboardingAdmin(ReadOnlyAdmin[Offboarding]):
    """How far each offboarding is, what it waits for, and its report."""

    empty_text = "A partner that leaves is offboarded from its page. The steps and the report stand here then."
    export_fields = [
        "partner__name",
        "partner__tenant_id",
        "state",
        "remaining",
        "started_at",
        "started_by",
        "decided_by",
        "finished_at",
        "seal",
    ]
    list_display = ["partner", "shown_state", "remaining", "started", "started_by", "finished"]
    list_filter = ["state"]
    list_select_related = ["partner"]
    search_fields = search_by("partner")
    fields = [
        "partner",
        "shown_state",
        "comes_next",
        "remaining",
        "work",
        "started",
        "started_by",
        "decided_by",
        "finished",
        "seal",
    ]
    actions_detail = ["try_again", "finish", "download"]
    change_form_outer_before_template = "admin/consent/offboarding_report.html"

    has_offboard_permission = needs("consent.offboard_partner")

    shown_state = badge_column("state", "State", _TONES)
    started = moment_column("started_at", "Started")
    finished = moment_column("finished_at", "Finished")

    @admin.display(description="Customers")
    def work(self, one: Offboarding) -> str:
        consents = reverse("admin:consent_customerconsent_changelist")
        shown = [("Their consents", f"{consents}?customer__partner__id__exact={one.partner_id}")]
        if one.run_id:
            shown.append((f"Run {one.run_id}", reverse("admin:runs_run_change", args=[one.run_id])))
        return links(shown)

    @admin.display(description="What comes next")
    def comes_next(self, one: Offboarding) -> str:
        match one.state:
            case State.REMOVING:
                return "Nothing to do: the workers remove our consent from the customers, and read each one back."
            case State.WAITING:
                return (
                    f"{number_are(one.remaining, 'customer')} not proven to be without our consent. Look at why, and "
                    "try them again; or finish with them: the report then says who must act for each."
                )
            case State.CLOSING:
                return "Nothing to do: the tokens are being erased, which is tried again every minute until it worked."
        return "Nothing to do. Download the report, and keep it."

    def buttons(self, request: HttpRequest, row: Offboarding) -> list[PageAction]:
        fits = {State.WAITING: ["try_again", "finish"], State.DONE: ["download"]}.get(State(row.state), [])
        return [button for button in super().buttons(request, row) if button.name in fits]

    # --- the report ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        one = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = _shown(one) if one is not None and one.report else {}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    @page_action(description="Download the report", url_path="report", permissions=["view"])
    def download(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        if not one.report:
            self.message_user(request, "There is no report yet: it is made when everything is done.", messages.WARNING)
            return self._back(one)
        record("offboarding.report_downloaded", actor=actor_of(request), subject={"offboarding": one.pk})
        name = f"offboarding-{one.partner.tenant_id}.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        return HttpResponse(to_file(one), content_type="application/json", headers=headers)

    # --- deciding ---

    @page_action(
        description="Try the remaining customers again",
        url_path="again",
        permissions=["view", "offboard"],
        fresh=True,
    )
    def try_again(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        if not self._waits(request, one):
            return self._back(one)
        if answer := self.confirm(
            request,
            Offboarding.objects.filter(pk=one.pk),
            action="try_again",
            title=f"Try again: {one.partner.name}",
            explanation=(
                f"Remaining: {number_of(one.remaining, 'customer')}. The workers go through the partner's customers "
                "once more."
            ),
            button="Try again",
        ):
            return answer
        one = service.try_again(one, actor=actor_of(request))
        if one.run is not None:
            tasks.enqueue(one.run)
        return self._back(one)

    @page_action(
        description="Finish with the remaining customers",
        url_path="finish",
        permissions=["view", "offboard"],
        fresh=True,
    )
    def finish(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        if not self._waits(request, one):
            return self._back(one)
        answer = ask(
            self,
            request,
            Offboarding.objects.filter(pk=one.pk),
            WhyForm,
            None,
            action="finish",
            title=f"Finish: {one.partner.name}",
            explanation=(
                f"{number_are(one.remaining, 'customer')} not proven to be without our consent, and without the "
                "partner's token we cannot look again. The report lists each of them, and who must act. The "
                f"token is switched off and erased, and the partner is offboarded for good. {what_comes_next()}"
            ),
            button="Ask for it",
            dangerous=True,
        )
        if isinstance(answer, HttpResponseBase):
            return answer
        asked = ask_second_person(self, request, FINISH, finish_of(one), answer.cleaned_data["why"])
        return asked or self._back(one)

    def _waits(self, request: HttpRequest, one: Offboarding) -> bool:
        """Say that only an offboarding that waits can be asked for this."""
        if one.state == State.WAITING or "_once" in request.POST:
            return True
        self.message_user(request, "Nothing waits for this: see the state.", messages.WARNING)
        return False

    def _one(self, request: HttpRequest, object_id: str) -> Offboarding:
        one = self.get_object(request, object_id)
        if one is None:
            raise Http404
        return one

    def _back(self, one: Offboarding) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:consent_offboarding_change", args=[one.pk]))


def _shown(one: Offboarding) -> dict[str, Any]:
    """Return the report for its page: those that remain first, and not more customers than a page can bear."""
    report = json.loads(one.report)
    counts = report["counts"]
    customers = sorted(report["customers"], key=lambda each: (each["proven_absent"], each["company"]))
    genuine = fits(one.report, Seal(key_id=one.seal_key, value=one.seal))
    figures = [
        Figure(label="Proven absent", value=counts["proven_absent"], tone=Tone.GOOD, link="#customers"),
        Figure(
            label="Remaining",
            value=counts["remaining"],
            tone=Tone.WARN if counts["remaining"] else Tone.QUIET,
            link="#customers",
        ),
        Figure(label="Links", value=len(report["links"]), tone=Tone.QUIET, link="#links"),
        Figure(label="Vault entries", value=len(report["vault"]), tone=Tone.QUIET, link="#vault"),
    ]
    for each in customers:
        each["proof"] = ConsentObservation.Evidence(each["after"]["evidence"]).label if each["after"] else ""
        each["who"] = who(each["owner"])
        held = each["before"]["grants"] if each["before"] else []
        each["held"] = [scope for grant in held for scope in grant["scopes"]]
    return {
        "report": report,
        "figures": figures,
        "customers": customers[:_SHOWN_CUSTOMERS],
        "hidden": max(len(customers) - _SHOWN_CUSTOMERS, 0),
        "genuine": genuine,
    }
