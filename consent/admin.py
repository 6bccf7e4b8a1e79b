from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers
from unfold.admin import TabularInline

from consent import approvals, clients, links
from consent.commands import explain
from consent.custody import TokenUnavailable
from consent.models import (
    ApplicationGrant,
    ApplicationRegistration,
    ConsentFlow,
    ConsentLink,
    ConsentObservation,
    CustomerConsent,
    PartnerConsent,
    WaitingToken,
)
from consent.panels import CONSENT_TONES, CUSTOMER_TONES, FLOW_TONES
from consent.permissions import parse_scopes
from consent.words import CHECK_WORDS
from portal.audit.trail import record
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin, ReadOnlyInline, actor_of
from portal.site.display import badge, guid, moment, words
from tenants.models import PartnerTenant


class ScopesField(forms.CharField):
    """Permission names, typed with commas or blanks between them."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        try:
            return parse_scopes(value or "")
        except ValueError as error:
            raise ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


if TYPE_CHECKING:  # only the type checker can subscript a form
    _GrantForm = forms.ModelForm[ApplicationGrant]
    _LinkForm = forms.ModelForm[ConsentLink]
else:
    _GrantForm = _LinkForm = forms.ModelForm


class ApplicationGrantForm(_GrantForm):
    scopes = ScopesField(
        widget=forms.Textarea(attrs={"rows": 2}), help_text="Delegated permissions, for example User.Read.All"
    )

    class Meta:
        model = ApplicationGrant
        fields = ["resource_application_id", "scopes"]


class ApplicationGrantInline(TabularInline):  # type: ignore[misc]  # unfold has no types
    model = ApplicationGrant
    form = ApplicationGrantForm
    extra = 0


@admin.register(ApplicationRegistration)
class ApplicationRegistrationAdmin(PortalModelAdmin[ApplicationRegistration]):
    """Our registrations. The credential is stored by ``manage.py store_credential``, never here (S-39)."""

    icon = "app_registration"
    list_display = ["name", "kind", "cloud", "shown_application_id", "permission_set", "credential_kind", "state"]
    list_filter = ["state", "cloud", "kind"]
    search_fields = ["name__istartswith", "=application_id"]
    readonly_fields = ["credential_kind", "credential_expires_at", "permission_set_version", "created_at"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "cloud", "application_id", "home_tenant_id", "state"]}),
        ("Permissions in the partner's tenant", {"fields": ["permission_set", "permission_set_version"]}),
        ("Credential", {"fields": ["credential_kind", "credential_expires_at", "created_at"]}),
    ]
    inlines = [ApplicationGrantInline]

    @admin.display(ordering="application_id", description="Application (client) id")
    def shown_application_id(self, registration: ApplicationRegistration) -> str:
        return guid(registration.application_id, label="application id")

    def save_model(self, request: HttpRequest, obj: ApplicationRegistration, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        record(
            "registration.changed" if change else "registration.created",
            actor=actor_of(request),
            subject={"registration": obj.pk, "application_id": obj.application_id},
            details={"fields": sorted(form.changed_data)},
        )


class ConsentLinkForm(_LinkForm):
    days = forms.IntegerField(
        min_value=1, max_value=90, initial=14, label="Days", help_text="How long the link works, at most 90 days."
    )

    class Meta:
        model = ConsentLink
        fields = ["partner", "registration"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices: dict[str, Any] = self.fields
        if "partner" in choices:  # an existing link has no fields to choose
            choices["partner"].queryset = PartnerTenant.objects.active()
            choices["registration"].queryset = ApplicationRegistration.objects.filter(state="active")


@admin.register(ConsentLink)
class ConsentLinkAdmin(PortalModelAdmin[ConsentLink]):
    """Links: made here, shown once, revoked here."""

    icon = "link"
    form = ConsentLinkForm
    list_display = ["__str__", "partner", "registration", "created_at", "expires_at", "closed_at", "revoked_at"]
    list_filter = [
        ("closed_at", admin.EmptyFieldListFilter),
        ("revoked_at", admin.EmptyFieldListFilter),
        "registration",
    ]
    list_select_related = ["partner", "registration"]
    search_fields = ["=partner__tenant_id", "partner__name__istartswith"]
    autocomplete_fields = ["partner"]
    actions = ["revoke_links"]

    def get_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[Any]:
        if obj is None:
            return ["partner", "registration", "days"]
        return ["partner", "registration", "created_at", "created_by", "expires_at", "closed_at", "revoked_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[str]:
        return [] if obj is None else self.get_fields(request, obj)

    def get_form(
        self, request: HttpRequest, obj: ConsentLink | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            return forms.modelform_factory(ConsentLink, fields=[])
        return super().get_form(request, obj, change=change, **kwargs)

    def save_model(self, request: HttpRequest, obj: ConsentLink, form: Any, change: bool) -> None:
        if change:
            return  # a link does not change; it is revoked or closed
        link, address = links.issue(
            obj.partner,
            obj.registration,
            actor=actor_of(request),
            created_by=request.user if request.user.is_authenticated else None,
            lifetime=timedelta(days=form.cleaned_data["days"]),
        )
        obj.__dict__.update(link.__dict__)
        request.issued_address = address  # type: ignore[attr-defined]

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response: HttpResponse = super().changeform_view(request, *args, **kwargs)
        except links.LinkRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
            response = self.response_post_save_add(request, ConsentLink())
        return response

    def response_add(self, request: HttpRequest, obj: ConsentLink, post_url_continue: Any = None) -> HttpResponse:
        """Show the address, this once: only its hash is kept (S-01)."""
        address: Secret = request.issued_address  # type: ignore[attr-defined]
        response = TemplateResponse(
            request,
            "admin/consent/link_issued.html",
            {
                **self.admin_site.each_context(request),
                "title": "Consent link",
                "address": address.reveal(),
                "link": obj,
                "partner": obj.partner,
                "opts": self.opts,
            },
        )
        add_never_cache_headers(response)
        return response

    @admin.action(description="Revoke the selected links", permissions=["change"])
    def revoke_links(self, request: HttpRequest, queryset: QuerySet[ConsentLink]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="revoke_links",
            title="Revoke links",
            explanation="These links stop working at once, also for a partner who is at Microsoft right now.",
            button="Revoke",
            dangerous=True,
        ):
            return answer
        revoked = sum(links.revoke(link, actor=actor_of(request)) for link in queryset)
        self.message_user(request, f"{revoked} revoked.")
        return None


@admin.register(ConsentFlow)
class ConsentFlowAdmin(ReadOnlyAdmin[ConsentFlow]):
    """Attempts. Staff search the reference that a partner reads out."""

    icon = "login"
    export_fields = ["public_id", "link__partner__name", "outcome", "problem", "code", "created_at", "finished_at"]
    list_display = ["reference", "partner", "shown_outcome", "problem", "code", "started"]
    list_filter = ["outcome", "problem"]
    list_select_related = ["link__partner"]
    search_fields = ["public_id__istartswith", "=correlation_id"]
    fields = [
        "reference",
        "link",
        "shown_outcome",
        "problem",
        "code",
        "checks",
        "created_at",
        "expires_at",
        "claimed_at",
        "finished_at",
        "correlation_id",
    ]

    @admin.display(ordering="public_id", description="Reference")
    def reference(self, flow: ConsentFlow) -> str:
        return flow.reference

    @admin.display(ordering="link__partner__name", description="Partner")
    def partner(self, flow: ConsentFlow) -> str:
        return flow.link.partner.name

    @admin.display(ordering="outcome", description="Outcome")
    def shown_outcome(self, flow: ConsentFlow) -> str:
        return badge(flow.get_outcome_display(), FLOW_TONES[ConsentFlow.Outcome(flow.outcome)])

    @admin.display(ordering="created_at", description="Started")
    def started(self, flow: ConsentFlow) -> str:
        return moment(flow.created_at)


@admin.register(PartnerConsent)
class PartnerConsentAdmin(ReadOnlyAdmin[PartnerConsent]):
    """What we know about each partner's token; nothing here can be typed (S-35)."""

    icon = "key"
    export_fields = [
        "partner__name",
        "partner__tenant_id",
        "state",
        "mfa",
        "last_success_at",
        "last_try_at",
        "last_problem",
    ]
    list_display = ["partner", "shown_state", "mfa", "last_success", "last_try", "last_message"]
    list_filter = ["state", "mfa", "last_problem", "registration"]
    list_select_related = ["partner", "registration"]
    search_fields = ["partner__name__istartswith", "=partner__tenant_id"]
    fieldsets = [
        (None, {"fields": ["partner", "registration", "shown_state", "last_message", "last_code"]}),
        ("Sign-in", {"fields": ["consented_at", "pinned_oid", "permissions", "mfa", "mfa_checked_at", "shown_checks"]}),
        ("Token", {"fields": ["generation", "stored_at", "short_fingerprint"]}),
        ("Checks", {"fields": ["last_success_at", "last_try_at", "last_problem", "first_denied_at"]}),
    ]

    @admin.display(ordering="state", description="State")
    def shown_state(self, consent: PartnerConsent) -> str:
        return badge(consent.get_state_display(), CONSENT_TONES[PartnerConsent.State(consent.state)])

    @admin.display(ordering="last_success_at", description="Last success")
    def last_success(self, consent: PartnerConsent) -> str:
        return moment(consent.last_success_at, empty="never")

    @admin.display(ordering="last_try_at", description="Last try")
    def last_try(self, consent: PartnerConsent) -> str:
        return moment(consent.last_try_at, empty="never")

    @admin.display(description="Proven at the sign-in")
    def shown_checks(self, consent: PartnerConsent) -> str:
        return words([f"{CHECK_WORDS[one['check']][one['state']]['label']}: {one['state']}" for one in consent.checks])

    @admin.display(description="Granted permissions")
    def permissions(self, consent: PartnerConsent) -> str:
        return words(consent.granted_scopes)

    @admin.display(description="Fingerprint")
    def short_fingerprint(self, consent: PartnerConsent) -> str:
        return consent.fingerprint[:8]


@admin.register(WaitingToken)
class WaitingTokenAdmin(ReadOnlyAdmin[WaitingToken]):
    """Changed accounts: somebody compares the two object ids with the partner, and decides (S-15)."""

    icon = "switch_account"
    list_display = ["partner", "pinned", "waiting_account", "mfa", "since", "until", "decision"]
    list_filter = ["decision"]
    list_select_related = ["consent__partner"]
    search_fields = ["=object_id", "consent__partner__name__istartswith"]
    fields = ["partner", "pinned", "waiting_account", "mfa", "since", "until", "decision", "decided_by", "decided_at"]
    actions = ["approve", "reject"]

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.decide_waitingtoken")

    @admin.display(ordering="consent__partner__name", description="Partner")
    def partner(self, waiting: WaitingToken) -> str:
        return waiting.consent.partner.name

    @admin.display(description="Account in use")
    def pinned(self, waiting: WaitingToken) -> str:
        return guid(waiting.consent.pinned_oid, label="object id")

    @admin.display(ordering="object_id", description="Account that signed in")
    def waiting_account(self, waiting: WaitingToken) -> str:
        return guid(waiting.object_id, label="object id")

    @admin.display(ordering="created_at", description="Since")
    def since(self, waiting: WaitingToken) -> str:
        return moment(waiting.created_at)

    @admin.display(ordering="expires_at", description="Switched off")
    def until(self, waiting: WaitingToken) -> str:
        return moment(waiting.expires_at)

    @admin.action(description="Approve the account", permissions=["decide"])
    def approve(self, request: HttpRequest, queryset: QuerySet[WaitingToken]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="approve",
            title="Approve changed accounts",
            explanation=(
                "From now on the portal works with the new account's token, and only this account may renew it. "
                "Ask the partner, by a channel that you know, whether the change is theirs."
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


class ConsentObservationInline(ReadOnlyInline[ConsentObservation, CustomerConsent]):
    model = ConsentObservation
    fields = ["observed_at", "state", "service_principal_id", "grants", "correlation_id"]


@admin.register(CustomerConsent)
class CustomerConsentAdmin(ReadOnlyAdmin[CustomerConsent]):
    """Our consent in customer tenants, as last read there."""

    icon = "verified_user"
    export_fields = ["customer__company_name", "customer__tenant_id", "state", "reason", "owner", "verified_at"]
    list_display = ["customer", "partner", "shown_state", "reason", "owner", "verified"]
    list_filter = ["state", "owner", "registration"]
    list_select_related = ["customer__partner", "registration"]
    search_fields = ["customer__company_name__istartswith", "=customer__tenant_id"]
    fields = [
        "customer",
        "registration",
        "shown_state",
        "reason",
        "owner",
        "actual_grants",
        "service_principal_id",
        "verified_at",
        "requested_at",
    ]
    inlines = [ConsentObservationInline]

    @admin.display(ordering="customer__partner__name", description="Partner")
    def partner(self, consent: CustomerConsent) -> str:
        return consent.customer.partner.name

    @admin.display(ordering="state", description="State")
    def shown_state(self, consent: CustomerConsent) -> str:
        return badge(consent.get_state_display(), CUSTOMER_TONES[CustomerConsent.State(consent.state)])

    @admin.display(ordering="verified_at", description="Last read")
    def verified(self, consent: CustomerConsent) -> str:
        return moment(consent.verified_at, empty="never")
