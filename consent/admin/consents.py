from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from consent import clients
from consent.admin.cells import registration_column
from consent.admin.panels import FLOW_TONES
from consent.models import ConsentFlow, WaitingToken
from consent.sign_in import approvals
from consent.sign_in.references import explain as explain_attempt
from consent.tokens.custody import TokenUnavailable
from consent.words import CHECK_WORDS
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import new_correlation_id
from portal.site.admin import ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.declared import badge_column, guid_column, moment_column, needs, path_column
from portal.site.display import EMPTY, described, links
from portal.site.proof import fresh
from portal.site.searchable import Asked
from tenants.admin import search_by


def by_reference(asked: Asked) -> Iterator[QuerySet[ConsentFlow]]:
    """Find attempts by the reference code that a partner reads out, or by the correlation id in Microsoft's log."""
    if asked.references:
        yield ConsentFlow.objects.order_by("-pk").filter(public_id__range=asked.references)
    if asked.guids and "-" in asked.text:
        yield ConsentFlow.objects.order_by("-pk").filter(correlation_id__range=asked.guids)


@admin.register(ConsentFlow)
class ConsentFlowAdmin(ReadOnlyAdmin[ConsentFlow]):
    """Attempts. Staff search the reference that a partner reads out; its page says what was read and what to answer."""

    empty_text = "Each press of Continue behind a link is an attempt, with its reference code and how it ended."
    export_fields = [
        "public_id",
        "link__partner__name",
        "link__partner__tenant_id",
        "link__registration__name",
        "link__registration__application_id",
        "outcome",
        "problem",
        "code",
        "created_at",
        "finished_at",
    ]
    list_display = ["reference", "partner", "registration", "shown_outcome", "problem", "code", "started"]
    list_filter = ["outcome", "problem", "link__registration"]
    list_select_related = ["link__partner", "link__registration"]
    search_fields = ["^public_id", "=correlation_id"]
    fields = ["link", "registration", "started", "shown_code", "checked"]
    change_form_outer_before_template = "admin/consent/reference.html"

    @admin.display(ordering="public_id", description="Reference")
    def reference(self, flow: ConsentFlow) -> str:
        return flow.reference

    partner = path_column("link__partner__name", "Partner")
    registration = registration_column("link__registration")
    shown_outcome = badge_column("outcome", "Outcome", FLOW_TONES)
    started = moment_column("created_at", "Started")

    # --- the page of one code ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        flow = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown: dict[str, Any] = {}
        if flow is not None:
            shown = {"about": explain_attempt(flow), "outcome": self.shown_outcome(flow)}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    @admin.display(description="Code")
    def shown_code(self, flow: ConsentFlow) -> str:
        return described(flow.code, explain_attempt(flow).cause) if flow.code else EMPTY

    @admin.display(description="What was checked")
    def checked(self, flow: ConsentFlow) -> str:
        words = [CHECK_WORDS[check["check"]][check["state"]] for check in flow.checks]
        return links([(f"{one['label']}: {one['detail']}", "") for one in words]) if words else EMPTY


_HOW_TO_ASK = (
    "Ask the partner, by a channel that you know, whether the change is theirs. Give them both object ids: in the "
    "Entra admin center, Users, a search for an object id shows the account with its name."
)


@admin.register(WaitingToken)
class WaitingTokenAdmin(ReadOnlyAdmin[WaitingToken]):
    """Changed accounts: somebody compares the two object ids with the partner, and decides (S-15).

    The portal keeps no name of an account; the partner finds the object id beside the account's name.
    """

    empty_text = "When a partner signs in with another account than before, the new account waits here for approval."
    export_fields = [
        "consent__partner__name",
        "consent__partner__tenant_id",
        "consent__registration__name",
        "consent__pinned_oid",
        "object_id",
        "mfa",
        "created_at",
        "expires_at",
        "decision",
        "decided_by",
    ]
    list_display = ["partner", "registration", "pinned", "waiting_account", "mfa", "since", "until", "decision"]
    list_filter = ["decision", "consent__registration"]
    list_select_related = ["consent__partner", "consent__registration"]
    search_fields = ["=object_id", *search_by("consent__partner")]
    fields = [
        "partner",
        "registration",
        "pinned",
        "waiting_account",
        "how_to_ask",
        "mfa",
        "since",
        "until",
        "decision",
        "decided_by",
        "decided_at",
    ]
    actions = ["approve", "reject"]

    has_decide_permission = needs("consent.decide_waitingtoken")

    partner = path_column("consent__partner__name", "Partner")
    registration = registration_column("consent__registration")

    @admin.display(description="How to ask")
    def how_to_ask(self, waiting: WaitingToken) -> str:
        return _HOW_TO_ASK

    pinned = guid_column("consent__pinned_oid", "Account in use", label="object id", sorts=False)
    waiting_account = guid_column("object_id", "Account that signed in", label="object id")
    since = moment_column("created_at", "Since")
    until = moment_column("expires_at", "Switched off")

    @fresh
    @admin.action(description="Approve the account", permissions=["decide"])
    def approve(self, request: HttpRequest, queryset: QuerySet[WaitingToken]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="approve",
            title="Approve changed accounts",
            explanation=(
                "From now on the portal works with the new account's token, and only this account may renew it. "
                f"{_HOW_TO_ASK}"
            ),
            button="Approve",
            dangerous=True,
        ):
            return answer
        for waiting in queryset:
            try:
                approvals.approve(
                    waiting,
                    tools=clients.consent_tools(),
                    actor=actor_of(request),
                    correlation_id=new_correlation_id(),
                )
            except (approvals.DecisionRefused, TokenUnavailable) as refused:
                self.message_user(request, f"{waiting}: {refused}", messages.ERROR)
            except RemoteError as error:
                self.message_user(request, f"{waiting}: {explain(error)}", messages.ERROR)
            else:
                self.message_user(request, f"{waiting}: approved; the older account's token is switched off.")
        return None

    @fresh
    @admin.action(description="Reject the account", permissions=["decide"])
    def reject(self, request: HttpRequest, queryset: QuerySet[WaitingToken]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="reject",
            title="Reject changed accounts",
            explanation="The new account's token is switched off; the account in use stays.",
            button="Reject",
        ):
            return answer
        for waiting in queryset:
            try:
                approvals.reject(waiting, vault=clients.vault(), actor=actor_of(request))
            except approvals.DecisionRefused as refused:
                self.message_user(request, f"{waiting}: {refused}", messages.ERROR)
            else:
                self.message_user(request, f"{waiting}: rejected.")
        return None
