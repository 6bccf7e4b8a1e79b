"""Requests that two persons decide about: what waits for whom, what would change, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from portal.decisions import service
from portal.decisions.kinds import kinds
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused
from portal.decisions.service import Person
from portal.site import proof
from portal.site.addresses import client_address
from portal.site.admin import ReadOnlyAdmin
from portal.site.asking import TypedWord, ask
from portal.site.declared import badge_column, column, moment_column, path_column
from portal.site.display import EMPTY, Tone, described, links
from portal.site.page_actions import PageAction, page_action
from portal.site.subjects import facts

State = Decision.State
_TONES = {
    State.WAITING: Tone.WARN,
    State.APPROVED: Tone.BUSY,
    State.DONE: Tone.GOOD,
    State.REFUSED: Tone.QUIET,
    State.EXPIRED: Tone.QUIET,
    State.WITHDRAWN: Tone.QUIET,
    State.FAILED: Tone.BAD,
}
_NAMED = 10  # persons who can decide


def person_of(request: HttpRequest) -> Person:
    """Return who is signed in, and how fresh the proof of it is."""
    return Person(
        account=cast("User", request.user),
        address=client_address(request),
        proven=proof.age(request),
        factors=proof.factors(request),
    )


class AnswerForm(forms.Form):
    """What the person who decides writes."""

    answer = forms.CharField(
        label="Why",
        max_length=service.LONGEST_WHY,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="The person who asked reads it.",
    )


class ApproveForm(AnswerForm):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["answer"].label, self.fields["answer"].required = "Note", False


class EmergencyForm(forms.Form):
    word = TypedWord(service.EMERGENCY_WORD)


class WaitsForFilter(admin.SimpleListFilter):
    """Whose turn it is."""

    title = "waits for"
    parameter_name = "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "My decision"), ("others", "Others: I asked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Decision]) -> QuerySet[Decision]:
        match self.value():
            case "me":
                return queryset.filter(state=State.WAITING, kind__in=_decides(request)).exclude(_own(request))
            case "others":
                return queryset.filter(_own(request), state=State.WAITING)
        return queryset


class KindFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind.key, kind.title) for kind in kinds().values()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Decision]) -> QuerySet[Decision]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


def _decides(request: HttpRequest) -> list[str]:
    """Return the kinds that this person may decide about; no query but for permissions."""
    return [kind.key for kind in kinds().values() if request.user.has_perm(kind.permission)]


def _own(request: HttpRequest) -> Q:
    return Q(requester=request.user.pk)


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin[Decision]):
    """Who asked for what, and what became of it. Each person sees what they may decide about, and their own."""

    empty_text = "What cannot be undone is asked for by one person and decided by another one. It stands here then."
    list_display = ["named", "for_whom", "shown_state", "asked_by", "asked", "ends", "decided_by"]
    list_filter = [WaitsForFilter, "state", KindFilter, "way"]
    search_fields = ["what", "whom", "why", "requested_by", "decided_by", "=id"]
    fields = [
        "shown_state",
        "for_whom",
        "why",
        "asked_by",
        "asked",
        "ends",
        "who_can",
        "decided",
        "answer",
        "came_of_it",
        "about",
        "digest",
    ]
    export_fields = [
        "pk",
        "kind",
        "what",
        "whom",
        "why",
        "state",
        "requested_by",
        "requested_at",
        "expires_at",
        "way",
        "decided_by",
        "decided_at",
        "answer",
        "finished_at",
        "outcome",
        "digest",
    ]
    actions_detail = ["approve_request", "refuse_request", "withdraw_request", "override_request"]
    change_form_outer_before_template = "admin/decisions/decision.html"

    def has_view_permission(self, request: HttpRequest, obj: Decision | None = None) -> bool:
        """Who may see all, who may decide about a kind, and of one request who asked for it."""
        if request.user.has_perm("decisions.view_decision"):
            return True
        if obj is None:
            return bool(_decides(request))
        return obj.kind in _decides(request) or service.asked_by(obj, cast("User", request.user))

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return bool(_decides(request))

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        """Who has asked for something that is not over; the service looks whether it is this one."""
        return Decision.objects.open().filter(_own(request)).exists()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Decision]:
        rows = super().get_queryset(request)
        if request.user.has_perm("decisions.view_decision"):
            return rows
        return rows.filter(Q(kind__in=_decides(request)) | _own(request))

    def get_fields(self, request: HttpRequest, obj: Decision | None = None) -> Any:
        """Return what says something of this request."""
        if obj is None:
            return self.fields
        silent = {
            "who_can": obj.state != State.WAITING,
            "decided": obj.decided_at is None,
            "answer": not obj.answer,
            "came_of_it": not obj.outcome,
            "about": not obj.preview["subject"],
        }
        return [name for name in map(str, self.fields) if not silent.get(name)]

    # --- columns ---

    named = column("Request", str, ordering="what")
    for_whom = path_column("whom", "For whom")
    shown_state = badge_column("state", "State", _TONES)
    asked = moment_column("requested_at", "Asked at")
    ends = moment_column("expires_at", "Ends by itself")

    @admin.display(description="Asked by", ordering="requested_by")
    def asked_by(self, decision: Decision) -> str:
        if decision.requester_kind == "command":
            return described(decision.requested_by, "a command on the server")
        return decision.requested_by

    @admin.display(description="Who can decide")
    def who_can(self, decision: Decision) -> str:
        """Name the other active accounts with the right."""
        kind = kinds().get(decision.kind)
        if kind is None or decision.state != State.WAITING:
            return EMPTY
        others = service.others_who_may(kind, decision)[: _NAMED + 1]
        if not others:
            return "No other account has the right. Give a second person an account with it."
        more = " and others" if len(others) > _NAMED else ""
        return ", ".join(one.get_username() for one in others[:_NAMED]) + more

    @admin.display(description="Decided")
    def decided(self, decision: Decision) -> str:
        if decision.decided_at is None:
            return EMPTY
        how = decision.get_way_display() or "Refused"
        return described(decision.decided_by, f"{how}, {decision.decided_at:%Y-%m-%d %H:%M} UTC")

    @admin.display(description="What came of it")
    def came_of_it(self, decision: Decision) -> str:
        return links([(decision.outcome, ""), *facts(decision.outcome_subject)]) if decision.outcome else EMPTY

    @admin.display(description="About")
    def about(self, decision: Decision) -> str:
        return links(facts(decision.preview["subject"])) or EMPTY

    # --- one request ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        decision = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if decision is None else {"decision": decision, **_shown(request, decision)}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def buttons(self, request: HttpRequest, row: Decision) -> list[PageAction]:
        """Return what this person may do with it just now."""
        account, fits = cast("User", request.user), set()
        undone = row.state in Decision.OPEN and row.started_at is None
        own = service.asked_by(row, account)
        if row.state == State.WAITING and service.why_not(row, account) is None:
            fits.add("approve_request")
        elif row.state == State.WAITING and own and service.may_decide(row, account):
            fits.add("override_request")
        if undone and own:
            fits.add("withdraw_request")
        elif undone and service.may_decide(row, account):
            fits.add("refuse_request")
        return [button for button in super().buttons(request, row) if button.name in fits]

    @page_action(description="Approve", url_path="approve", permissions=["decide"], fresh=True)
    def approve_request(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._decide(
            request,
            object_id,
            ApproveForm,
            lambda decision, given: service.approve(decision, person=person_of(request), answer=given["answer"]),
            action="approve_request",
            title="Approve",
            explanation=(
                "You say that this shall happen, exactly as it stands here. It is done in the name of the person who "
                "asked, with your name beside it."
            ),
            button="Approve",
            dangerous=True,
        )

    @page_action(description="Refuse", url_path="refuse", permissions=["decide"], fresh=True)
    def refuse_request(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._decide(
            request,
            object_id,
            AnswerForm,
            lambda decision, given: service.refuse(decision, person=person_of(request), answer=given["answer"]),
            action="refuse_request",
            title="Refuse",
            explanation="Nothing is done. The person who asked reads why.",
            button="Refuse",
        )

    @page_action(description="Withdraw", url_path="withdraw", permissions=["withdraw"])
    def withdraw_request(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._decide(
            request,
            object_id,
            forms.Form,
            lambda decision, given: service.withdraw(decision, person=person_of(request)),
            action="withdraw_request",
            title="Withdraw",
            explanation="Nothing is done, and nobody has to decide any more. You can ask for it anew.",
            button="Withdraw",
        )

    @page_action(
        description="Do it alone: emergency", url_path="emergency", permissions=["decide"], dangerous=True, fresh=True
    )
    def override_request(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._decide(
            request,
            object_id,
            EmergencyForm,
            lambda decision, given: service.override(decision, person=person_of(request), word=given["word"]),
            action="override_request",
            title="Do it alone, in an emergency",
            explanation=(
                "Only when waiting for a second person does more harm than this. You need proofs by two different "
                "factors within five minutes. All staff are told by an incident, and you will be asked why."
            ),
            button="Do it alone",
            dangerous=True,
        )

    def _decide(
        self,
        request: HttpRequest,
        object_id: str,
        form: type[forms.Form],
        act: Callable[[Decision, dict[str, Any]], Decision],
        **words: Any,
    ) -> HttpResponseBase:
        """Ask with what would happen, then decide, and show what came of it."""
        decision = self.get_object(request, object_id)
        if decision is None:
            raise Http404
        back = HttpResponseRedirect(reverse("admin:decisions_decision_change", args=[decision.pk]))
        rows = Decision.objects.filter(pk=decision.pk)
        answer = ask(self, request, rows, form, None, **words | {"title": f"{words['title']}: {decision}"})
        if isinstance(answer, HttpResponseBase):
            if isinstance(answer, TemplateResponse):
                answer.template_name = "admin/decisions/decide.html"
                answer.context_data = {
                    **(answer.context_data or {}),
                    "decision": decision,
                    **_shown(request, decision),
                    "list_address": back["Location"],
                }
            return answer
        try:
            decided = act(decision, answer.cleaned_data)
        except DecisionRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
            return back
        failed = decided.state == State.FAILED
        said = f"{decided.get_state_display()}. {decided.outcome}".strip()
        self.message_user(request, said, messages.ERROR if failed else messages.SUCCESS)
        return back


def _shown(request: HttpRequest, decision: Decision) -> dict[str, Any]:
    """Return what would change, and while it waits what is not as it was, and why this person cannot approve."""
    waits = decision.state == State.WAITING
    reason = service.why_not(decision, cast("User", request.user)) if waits else None
    kind = kinds().get(decision.kind)
    return {
        "changes": decision.preview["changes"],
        "cannot_be_undone": decision.preview["cannot_be_undone"],
        "seen": service.look(decision) if waits else None,
        "why_not": reason.text if reason else "",
        "then": kind.then if decision.state == State.APPROVED and kind is not None and kind.execute is None else "",
    }
