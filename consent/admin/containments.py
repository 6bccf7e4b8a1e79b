"""Emergency stops: begin one, see what it holds, ask to resume it; and the banner above every page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from consent import clients
from consent.applications.deactivation import Switched, activate, concerned, deactivate
from consent.containment import service
from consent.containment.service import ResumeRefused, Scope
from consent.models import ApplicationRegistration, Containment
from consent.runs import resuming
from consent.two_persons import RESUME, resume_of
from portal.decisions.asking import WhyForm, address_of, ask_second_person, what_comes_next
from portal.decisions.models import Decision
from portal.microsoft.http import time_budget
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.dashboard import Row
from portal.site.declared import badge_column, moment_column, needs
from portal.site.display import EMPTY, Tone, links, words
from portal.site.page_actions import PageAction, page_action
from tenants.admin import search_by
from tenants.models import PartnerTenant

State = Containment.State
_PAGE_SECONDS = 25.0  # a page waits no longer
TONES = {State.ON: Tone.BAD, State.RESUMING: Tone.WARN, State.OVER: Tone.QUIET}


def banner(request: HttpRequest) -> Sequence[Row]:
    """Say above every page what is stopped; no query."""
    standing = clients.gate().standing()
    if standing is None:
        return [
            Row(label="It is not known whether an emergency stop is on.", detail="No token is used.", tone=Tone.BAD)
        ]
    return [
        Row(
            label=f"Emergency stop of {one.about}.",
            detail="No token of it is used."
            if one.released_to is None
            else "It is being let go in waves; no token of partners that are not released yet is used.",
            link=_address(one.key) if request.user.has_perm("consent.view_containment") else "",
            tone=Tone.BAD if one.released_to is None else Tone.WARN,
        )
        for one in standing
    ]


def _address(key: int) -> str:
    return reverse("admin:consent_containment_change", args=[key])


def _asked(one: Containment) -> Decision | None:
    """Return the request to resume it that waits for a second person; one query."""
    rows = Decision.objects.filter(kind=RESUME.key, state=Decision.State.WAITING)
    return rows.filter(preview__subject__containment=one.pk).first()


class ContainForm(forms.ModelForm):  # type: ignore[type-arg]  # has no parameters at run time
    """What is stopped, and why. It has no confirmation: a stop must not wait."""

    partner = forms.CharField(
        label="Partner, by its tenant id", required=False, max_length=36, help_text="Only this partner."
    )

    class Meta:
        model = Containment
        fields = ["registration", "partner", "reason"]
        help_texts = {
            "registration": "Only this registration. Leave it and the partner empty to stop everything.",
            "reason": "For those who read it in a hurry. Partners never read it.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "registration" in self.fields:
            self.fields["registration"].required = False

    def clean_partner(self) -> PartnerTenant | None:
        typed = str(self.cleaned_data["partner"]).strip().lower()
        partner = PartnerTenant.objects.filter(tenant_id=typed).first() if typed else None
        if typed and partner is None:
            raise forms.ValidationError("No partner has this tenant id; it stands on the partner's page.")
        return partner

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        if found.get("registration") and found.get("partner"):
            raise forms.ValidationError("Choose a registration or a partner, not both.")
        return found

    def validate_constraints(self) -> None:
        """What is stopped already stays so; ``service.contain`` says which row that is."""


@admin.action(description="Stop all use of its tokens", permissions=["begin"])
def stop_partner(
    page: PortalModelAdmin[PartnerTenant], request: HttpRequest, queryset: QuerySet[PartnerTenant]
) -> HttpResponseBase | None:
    """Lead to the page that stops one partner; its button is the confirmation."""
    chosen = list(queryset.values_list("tenant_id", flat=True)[:2])
    if len(chosen) != 1:
        page.message_user(request, "Choose one partner, or stop everything under Emergency stops.", messages.ERROR)
        return None
    return HttpResponseRedirect(f"{reverse('admin:consent_containment_add')}?{urlencode({'partner': chosen[0]})}")


@admin.register(Containment)
class ContainmentAdmin(ReadOnlyAdmin[Containment]):
    """Emergency stops, the newest first."""

    form = ContainForm
    empty_text = (
        "Nothing was ever stopped. Add an emergency stop when a stranger may be using our access: from that second on "
        "no token is used."
    )
    export_fields = [
        "registration__name",
        "partner__name",
        "reason",
        "state",
        "began_at",
        "began_by",
        "resume_asked_by",
        "resumed_at",
        "resumed_by",
        "wave",
        "halted",
        "over_at",
    ]
    list_display = ["about", "shown_state", "reason", "began", "began_by", "over"]
    list_filter = ["state", "registration"]
    list_select_related = ["registration", "partner"]
    search_fields = [*search_by("partner"), "registration__name", "reason"]
    fields = [
        "about",
        "shown_state",
        "comes_next",
        "reason",
        "began",
        "began_by",
        "resume_asked_by",
        "resumed",
        "resumed_by",
        "wave",
        "check_of_wave",
        "at_microsoft",
        "halted",
        "over",
    ]
    actions_detail = ["ask_to_resume", "go_on", "deactivate", "activate", "contain_again"]

    has_begin_permission = needs("consent.begin_containment")
    has_resume_permission = needs("consent.resume_containment")

    shown_state = badge_column("state", "State", TONES)
    began = moment_column("began_at", "Began")
    resumed = moment_column("resumed_at", "Resumed")
    over = moment_column("over_at", "Over")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_begin_permission(request)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        one_button = {"show_save_and_add_another": False, "show_save_and_continue": False}
        words = {"save_label": "Stop all use of tokens"}
        return super().add_view(request, form_url, {**one_button, **words, **(extra_context or {})})

    def get_fields(self, request: HttpRequest, obj: Containment | None = None) -> Any:
        return ["registration", "partner", "reason"] if obj is None else super().get_fields(request, obj)

    def save_model(self, request: HttpRequest, obj: Containment, form: Any, change: bool) -> None:
        scope = Scope(registration=obj.registration, partner=obj.partner)
        obj.pk = service.contain(scope, reason=obj.reason, actor=actor_of(request)).pk

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Leave it to the audit trail, where the service wrote it."""

    def response_add(self, request: HttpRequest, obj: Containment, post_url_continue: str | None = None) -> Any:
        self.message_user(request, "From now on no token of it is used.", messages.SUCCESS)
        return HttpResponseRedirect(_address(obj.pk))

    # --- what it says ---

    @admin.display(description="What")
    def about(self, one: Containment) -> str:
        return str(one)

    @admin.display(description="What comes next")
    def comes_next(self, one: Containment) -> str:
        if one.state == State.OVER:
            return "Nothing to do."
        if one.state == State.RESUMING:
            if one.halted:
                return "See the check of the wave. Then let the waves go on, or stop everything again."
            if one.deactivated:
                return (
                    "Press Activate at Microsoft; then the first wave is released. If somebody activated it by hand, "
                    "let the waves go on."
                )
            return "Nothing to do: each wave is checked, and then the next one is released."
        rotate = ""
        if older := service.older_credentials(one):
            names = ", ".join(sorted({str(each.registration) for each in older}))
            rotate = f" Rotate the credential of {names} first: a stranger who had it before the stop still has it."
        asked = _asked(one)
        if asked is not None:
            said = f"{asked.requested_by} asked to resume. Another member of staff decides about it.{rotate}"
            return links([(said, ""), ("The request", address_of(asked))])
        return f"Work through docs/runbook-breach.md. When it is safe again, ask to resume.{rotate}"

    @admin.display(description="Check of the latest wave")
    def check_of_wave(self, one: Containment) -> str:
        if one.run_id is None:
            return EMPTY
        return links([(f"Run {one.run_id}", reverse("admin:runs_run_change", args=[one.run_id]))])

    @admin.display(description="At Microsoft")
    def at_microsoft(self, one: Containment) -> str:
        off = ApplicationRegistration.objects.filter(pk__in=one.deactivated).order_by("name")
        return (
            words([f"Deactivated by us: {each}" for each in off]) if off else "No registration was deactivated by us."
        )

    def buttons(self, request: HttpRequest, row: Containment) -> list[PageAction]:
        fits: list[str] = []
        if row.state == State.ON:
            fits = [*([] if _asked(row) else ["ask_to_resume"]), *(["deactivate"] if concerned(row) else [])]
        elif row.state == State.RESUMING:
            fits = ["contain_again", *(["go_on"] if row.halted or row.deactivated else [])]
            fits += ["activate"] if row.deactivated else []
        return [button for button in super().buttons(request, row) if button.name in fits]

    # --- what is decided ---

    @page_action(description="Ask to resume", url_path="ask-to-resume", permissions=["view", "resume"], fresh=True)
    def ask_to_resume(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        answer = ask(
            self,
            request,
            Containment.objects.filter(pk=one.pk),
            WhyForm,
            None,
            action="ask_to_resume",
            title=f"Ask to resume: {one}",
            explanation=(
                "Partners are released in waves of 1, 5, 25 and so on. A check shows that the tokens of a wave work "
                f"before the next one comes; one that ends badly is the last. {what_comes_next()}"
            ),
            button="Ask to resume",
        )
        if isinstance(answer, HttpResponseBase):
            return answer
        asked = ask_second_person(self, request, RESUME, resume_of(one), answer.cleaned_data["why"])
        return asked or HttpResponseRedirect(_address(one.pk))

    @page_action(description="Go on with the waves", url_path="go-on", permissions=["view", "resume"], fresh=True)
    def go_on(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        return self._decide(
            request,
            one,
            "go_on",
            explanation=(
                f"{one.halted} The next wave is released all the same."
                if one.halted
                else "You made sure that the registration is active at Microsoft. The first wave is released."
            ),
            button="Go on with the waves",
            dangerous=True,
        )

    @page_action(
        description="Deactivate at Microsoft", url_path="deactivate", permissions=["view", "begin"], dangerous=True
    )
    def deactivate(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        names = ", ".join(str(each) for each in concerned(one)) or "No active registration"
        return self._switch(
            request,
            one,
            deactivate,
            f"{names}: Microsoft issues no new token for it in any tenant, to us or to a stranger who has its "
            "credential. What was consented to stays, and it can be activated again.",
            "Deactivate at Microsoft",
        )

    @page_action(description="Activate at Microsoft", url_path="activate", permissions=["view", "resume"], fresh=True)
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        explanation = "Microsoft issues tokens for it again, to everyone who has its credential. Rotate that first."
        return self._switch(request, one, activate, explanation, "Activate at Microsoft")

    def _switch(
        self,
        request: HttpRequest,
        one: Containment,
        switch: Callable[..., list[Switched]],
        explanation: str,
        button: str,
    ) -> HttpResponseBase:
        rows = Containment.objects.filter(pk=one.pk)
        if answer := self.confirm(
            request,
            rows,
            action=switch.__name__,
            title=f"{button}: {one}",
            explanation=explanation,
            button=button,
            dangerous=True,
        ):
            return answer
        try:
            with time_budget(_PAGE_SECONDS):
                for each in switch(
                    one,
                    may_switch=clients.reads_registration,
                    switch=clients.switch_registration,
                    clouds=clients.cloud,
                    actor=actor_of(request),
                ):
                    self.message_user(request, each.words, messages.SUCCESS if each.done else messages.ERROR)
        except ResumeRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
        return HttpResponseRedirect(_address(one.pk))

    @page_action(description="Stop all of it again", url_path="again", permissions=["view", "begin"], dangerous=True)
    def contain_again(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        one = self._one(request, object_id)
        return self._decide(
            request,
            one,
            "contain_again",
            explanation="The partners that were released are stopped again. To resume takes two persons again.",
            button="Stop all of it again",
            dangerous=True,
        )

    def _decide(
        self, request: HttpRequest, one: Containment, what: str, *, explanation: str, button: str, **more: Any
    ) -> HttpResponseBase:
        rows = Containment.objects.filter(pk=one.pk)
        if answer := self.confirm(
            request, rows, action=what, title=f"{button}: {one}", explanation=explanation, button=button, **more
        ):
            return answer
        actor = actor_of(request)
        try:
            if what == "contain_again":
                scope = Scope(registration=one.registration, partner=one.partner)
                service.contain(scope, reason=one.reason, actor=actor)
                said = "From now on no token of it is used."
            else:
                service.go_on(one, actor=actor)
                said = f"{resuming.advance(one)}."
        except ResumeRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
        else:
            self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(_address(one.pk))

    def _one(self, request: HttpRequest, object_id: str) -> Containment:
        one = self.get_object(request, object_id)
        if one is None:
            raise Http404
        return one
