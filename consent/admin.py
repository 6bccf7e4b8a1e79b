from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin

from consent import links
from consent.models import (
    ApplicationGrant,
    ApplicationRegistration,
    ConsentFlow,
    ConsentLink,
    ConsentObservation,
    CustomerConsent,
    PartnerConsent,
)
from consent.registrations import parse_scopes
from portal.addresses import client_address
from portal.audit.trail import Actor, record
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant


def staff(request: HttpRequest) -> Actor:
    """Return the signed-in member of staff as an actor for the trail."""
    return Actor.staff(request.user.get_username(), client_address(request))


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


class ApplicationGrantForm(forms.ModelForm[ApplicationGrant]):
    scopes = ScopesField(
        widget=forms.Textarea(attrs={"rows": 2}), help_text="Delegated permissions, for example User.Read.All"
    )

    class Meta:
        model = ApplicationGrant
        fields = ["resource_application_id", "scopes"]


class ApplicationGrantInline(admin.TabularInline[ApplicationGrant, ApplicationRegistration]):
    model = ApplicationGrant
    form = ApplicationGrantForm
    extra = 0


@admin.register(ApplicationRegistration)
class ApplicationRegistrationAdmin(PortalModelAdmin):
    """Our registrations. The credential is stored by ``manage.py store_credential``, never here (S-39)."""

    list_display = ["name", "kind", "cloud", "application_id", "permission_set", "credential_kind", "state"]
    list_filter = ["state", "cloud", "kind"]
    search_fields = ["name__istartswith", "=application_id"]
    readonly_fields = ["credential_kind", "credential_expires_at", "permission_set_version", "created_at"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "cloud", "application_id", "home_tenant_id", "state"]}),
        ("Permissions in the partner's tenant", {"fields": ["permission_set", "permission_set_version"]}),
        ("Credential", {"fields": ["credential_kind", "credential_expires_at", "created_at"]}),
    ]
    inlines = [ApplicationGrantInline]

    def save_model(self, request: HttpRequest, obj: ApplicationRegistration, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        record(
            "registration.changed" if change else "registration.created",
            actor=staff(request),
            subject={"registration": obj.pk, "application_id": obj.application_id},
            details={"fields": sorted(form.changed_data)},
        )


class ConsentLinkForm(forms.ModelForm[ConsentLink]):
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
class ConsentLinkAdmin(PortalModelAdmin):
    """Links: made here, shown once, revoked here."""

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

    def get_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[str]:
        if obj is None:
            return ["partner", "registration", "days"]
        return ["partner", "registration", "created_at", "created_by", "expires_at", "closed_at", "revoked_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: ConsentLink | None = None) -> list[str]:
        return [] if obj is None else self.get_fields(request, obj)

    def get_form(self, request: HttpRequest, obj: ConsentLink | None = None, **kwargs: Any) -> Any:
        if obj is not None:
            return forms.modelform_factory(ConsentLink, fields=[])
        return super().get_form(request, obj, **kwargs)

    def save_model(self, request: HttpRequest, obj: ConsentLink, form: Any, change: bool) -> None:
        if change:
            return  # a link does not change; it is revoked or closed
        link, address = links.issue(
            obj.partner,
            obj.registration,
            actor=staff(request),
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
    def revoke_links(self, request: HttpRequest, queryset: Any) -> None:
        revoked = sum(links.revoke(link, actor=staff(request)) for link in queryset)
        self.message_user(request, f"{revoked} links revoked; they stopped working at once.")


@admin.register(ConsentFlow)
class ConsentFlowAdmin(ReadOnlyAdmin):
    """Attempts. Staff search the reference that a partner reads out."""

    list_display = ["reference", "link", "partner", "outcome", "problem", "code", "created_at", "finished_at"]
    list_filter = ["outcome", "problem"]
    list_select_related = ["link__partner"]
    search_fields = ["public_id__istartswith", "=correlation_id"]
    fields = [
        "reference",
        "link",
        "outcome",
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


@admin.register(PartnerConsent)
class PartnerConsentAdmin(ReadOnlyAdmin):
    """What we know about each partner's token; nothing here can be typed (S-35)."""

    list_display = [
        "partner",
        "registration",
        "state",
        "mfa",
        "last_success_at",
        "last_try_at",
        "last_problem",
        "generation",
    ]
    list_filter = ["state", "mfa", "last_problem", "registration"]
    list_select_related = ["partner", "registration"]
    search_fields = ["partner__name__istartswith", "=partner__tenant_id"]
    fieldsets = [
        (None, {"fields": ["partner", "registration", "state", "last_message", "last_code"]}),
        ("Sign-in", {"fields": ["consented_at", "pinned_oid", "granted_scopes", "mfa", "mfa_checked_at", "checks"]}),
        ("Token", {"fields": ["generation", "stored_at", "short_fingerprint"]}),
        ("Checks", {"fields": ["last_success_at", "last_try_at", "last_problem", "first_denied_at"]}),
    ]

    @admin.display(description="Fingerprint")
    def short_fingerprint(self, consent: PartnerConsent) -> str:
        return consent.fingerprint[:8]


class ConsentObservationInline(admin.TabularInline[ConsentObservation, CustomerConsent]):
    model = ConsentObservation
    extra = 0
    can_delete = False
    fields = ["observed_at", "state", "service_principal_id", "grants", "correlation_id"]
    readonly_fields = fields
    max_num = 0


@admin.register(CustomerConsent)
class CustomerConsentAdmin(ReadOnlyAdmin):
    """Our consent in customer tenants, as last read there."""

    list_display = ["customer", "partner", "registration", "state", "reason", "owner", "verified_at"]
    list_filter = ["state", "owner", "registration"]
    list_select_related = ["customer__partner", "registration"]
    search_fields = ["customer__company_name__istartswith", "=customer__tenant_id"]
    fields = [
        "customer",
        "registration",
        "state",
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
