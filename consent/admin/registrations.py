from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from unfold.decorators import action

from consent.admin.credentials import end_badge, state_badge
from consent.admin.wanted import change_page
from consent.credential_models import ApplicationCredential
from consent.models import ApplicationGrant, ApplicationRegistration, WantedGrants
from portal.audit.trail import record
from portal.site.admin import PortalModelAdmin, ReadOnlyInline, actor_of
from portal.site.display import guid, moment, words


class ApplicationGrantInline(ReadOnlyInline[ApplicationGrant, ApplicationRegistration]):
    """What we want in customer tenants. Changed by ``consent.wanted`` only, which says first what it will mean."""

    model = ApplicationGrant
    fields = ["resource", "shown_scopes"]
    show_change_link = False
    show_title = False

    @admin.display(description="Resource application id")
    def resource(self, grant: ApplicationGrant) -> str:
        return guid(grant.resource_application_id, label="application id")

    @admin.display(description="Delegated permissions")
    def shown_scopes(self, grant: ApplicationGrant) -> str:
        return words(grant.scopes)


class WantedGrantsInline(ReadOnlyInline[WantedGrants, ApplicationRegistration]):
    """Every set that was wanted so far, the newest first."""

    model = WantedGrants
    fields = ["number", "shown_grants", "made", "created_by"]
    show_change_link = False
    show_title = False

    @admin.display(description="Grants")
    def shown_grants(self, version: WantedGrants) -> str:
        return words([f"{resource[:8]}…: {', '.join(scopes)}" for resource, scopes in version.grants.items()])

    @admin.display(description="Wanted since")
    def made(self, version: WantedGrants) -> str:
        return moment(version.created_at)


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
    inlines = [ApplicationGrantInline, WantedGrantsInline, CredentialInline]
    actions_detail = ["change_wanted_grants"]

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

    @action(  # type: ignore[untyped-decorator]
        description="Change wanted grants", icon="tune", url_path="wanted", permissions=["change"]
    )
    def change_wanted_grants(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        registration = self.get_object(request, object_id)
        if registration is None:
            raise Http404
        return change_page(self, request, registration)
