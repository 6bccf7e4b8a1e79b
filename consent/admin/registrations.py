from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline

from consent.admin.credentials import end_badge, state_badge
from consent.credential_models import ApplicationCredential
from consent.models import ApplicationGrant, ApplicationRegistration
from consent.permissions import parse_scopes
from portal.audit.trail import record
from portal.site.admin import PortalModelAdmin, ReadOnlyInline, actor_of
from portal.site.display import guid


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
else:
    _GrantForm = forms.ModelForm


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


class CredentialInline(ReadOnlyInline[ApplicationCredential, ApplicationRegistration]):
    """All credentials of the registration, the newest first."""

    model = ApplicationCredential
    fields = ["kind", "key_id", "shown_state", "ends"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApplicationCredential]:
        return ApplicationCredential.objects.with_state().order_by("-created_at", "-pk")

    @admin.display(description="State")
    def shown_state(self, credential: Any) -> str:
        return state_badge(credential)

    @admin.display(description="Valid until")
    def ends(self, credential: ApplicationCredential) -> str:
        return end_badge(credential)


@admin.register(ApplicationRegistration)
class ApplicationRegistrationAdmin(PortalModelAdmin[ApplicationRegistration]):
    """Our registrations. Credentials come in by ``manage.py add_credential``, never here (S-39)."""

    icon = "app_registration"
    list_display = ["name", "kind", "cloud", "shown_application_id", "permission_set", "credential", "state"]
    list_filter = ["state", "cloud", "kind"]
    search_fields = ["name__istartswith", "=application_id"]
    readonly_fields = ["credential", "permission_set_version", "created_at"]
    fieldsets = [
        (None, {"fields": ["name", "kind", "cloud", "application_id", "home_tenant_id", "state"]}),
        ("Permissions in the partner's tenant", {"fields": ["permission_set", "permission_set_version"]}),
        ("Credential", {"fields": ["credential", "created_at"]}),
    ]
    inlines = [ApplicationGrantInline, CredentialInline]

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
