from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.core import signing
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from consent.admin.cells import grants_cell
from consent.admin.credentials import end_badge, state_badge
from consent.admin.doctor import doctor_page
from consent.admin.permission_sets import campaign_address
from consent.admin.registration_hub import RegistrationHub
from consent.admin.wanted import change_page
from consent.applications import permission_sets, registrations
from consent.applications.addresses import admin_consent_redirect_uri, redirect_uri
from consent.models import (
    ApplicationCredential,
    ApplicationGrant,
    ApplicationRegistration,
    OwnPermissionSet,
    WantedGrants,
)
from consent.words.permissions import resource_name
from portal.site.admin import PortalModelAdmin, ReadOnlyInline
from portal.site.base import actor_of
from portal.site.dashboard import Figure
from portal.site.declared import column, guid_column, moment_column, path_column
from portal.site.display import Tone, described, guid, words
from portal.site.page_actions import page_action

_FIXED = (
    "Application id, home tenant and cloud are fixed, because partners have links or consents of this application. For "
    "another application make a new registration, invite the partners with it, and retire this one."
)
_ENTRA = "What Entra must know of this application: both are redirect URIs of the platform Web."


class ApplicationGrantInline(ReadOnlyInline[ApplicationGrant, ApplicationRegistration]):
    """What we want in customer tenants. Changed by ``consent.customers.wanted`` only, which first says the effect."""

    model = ApplicationGrant
    fields = ["shown_resource", "shown_scopes"]
    show_change_link = False
    show_title = False

    @admin.display(description="Resource")
    def shown_resource(self, grant: ApplicationGrant) -> str:
        resource = grant.resource_application_id
        return described(resource_name(resource), guid(resource, label="application id"))

    shown_scopes = path_column("scopes", "Delegated permissions", words, sorts=False)


class WantedGrantsInline(ReadOnlyInline[WantedGrants, ApplicationRegistration]):
    """Every set that was wanted so far, the newest first."""

    model = WantedGrants
    fields = ["number", "shown_grants", "made", "created_by"]
    show_change_link = False
    show_title = False

    shown_grants = path_column("grants", "Grants", grants_cell, sorts=False)
    made = moment_column("created_at", "Wanted since", sorts=False)


class CredentialInline(ReadOnlyInline[ApplicationCredential, ApplicationRegistration]):
    """All credentials of the registration, the newest first."""

    model = ApplicationCredential
    fields = ["kind", "key_id", "shown_state", "ends"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApplicationCredential]:
        return ApplicationCredential.objects.with_state().order_by("-created_at", "-pk")

    shown_state = column("State", state_badge)
    ends = column("Valid until", end_badge)


@admin.register(ApplicationRegistration)
class ApplicationRegistrationAdmin(RegistrationHub, PortalModelAdmin[ApplicationRegistration]):
    """Our registrations."""

    empty_text = "Add the application that partners consent to. Its credential comes next."
    export_fields = [
        "name",
        "kind",
        "cloud",
        "application_id",
        "home_tenant_id",
        "permission_set",
        "own_set__name",
        "state",
        "created_at",
    ]
    list_display = ["name", "kind", "cloud", "shown_application_id", "shown_set", "credential", "state"]
    list_select_related = ["credential", "own_set"]
    list_filter = ["state", "cloud", "kind"]
    search_fields = ["name", "=application_id"]
    readonly_fields = ["credential", "created_at", "sign_in_uri", "whole_tenant_uri"]
    audit_word = "registration"
    fieldsets = [
        (None, {"fields": ["name", "kind", "cloud", "application_id", "home_tenant_id", "state"]}),
        ("Permissions in the partner's tenant", {"fields": ["permission_set", "own_set"]}),
        ("In Entra", {"fields": ["sign_in_uri", "whole_tenant_uri"], "description": _ENTRA}),
        ("Credential", {"fields": ["credential", "created_at"]}),
    ]
    inlines = [ApplicationGrantInline, WantedGrantsInline, CredentialInline]
    actions_detail = ["change_wanted_grants"]
    change_form_outer_before_template = "admin/consent/applicationregistration/before_form.html"

    def get_fieldsets(self, request: HttpRequest, obj: ApplicationRegistration | None = None) -> Any:
        first, permissions, entra, credential = self.fieldsets
        if obj is None:  # the addresses depend on the cloud, and a credential needs a row
            return [first, permissions]
        if obj.is_known_to_partners():
            first = (first[0], {**first[1], "description": _FIXED})
        return [first, permissions, entra, credential]

    def get_readonly_fields(self, request: HttpRequest, obj: ApplicationRegistration | None = None) -> list[str]:
        fixed = obj is not None and obj.is_known_to_partners()
        return [*self.readonly_fields, *(ApplicationRegistration.IDENTITY if fixed else ())]

    shown_application_id = guid_column("application_id", "Application (client) id", label="application id")

    @admin.display(description="Permission set", ordering="permission_set")
    def shown_set(self, registration: ApplicationRegistration) -> str:
        own = registration.own_set
        return own.name if own is not None else registration.get_permission_set_display().partition(":")[0]

    @admin.display(description="Redirect URI of sign-ins")
    def sign_in_uri(self, registration: ApplicationRegistration) -> str:
        return guid(redirect_uri(registration.cloud), label="redirect URI")

    @admin.display(description="Redirect URI of links for the whole tenant")
    def whole_tenant_uri(self, registration: ApplicationRegistration) -> str:
        return guid(admin_consent_redirect_uri(registration.cloud), label="redirect URI")

    def get_urls(self) -> list[URLPattern]:
        return [path("doctor/", self.admin_site.admin_view(doctor_page), name="consent_doctor"), *super().get_urls()]

    def audit_subject(self, obj: ApplicationRegistration) -> dict[str, str | int]:
        return {"registration": obj.pk, "application_id": obj.application_id}

    # --- edit, see what it will mean, save ---

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if answer := self.demand_proof(request, object_id):
            return answer
        if request.method == "POST" and object_id is not None:
            registration = self.get_object(request, unquote(object_id))
            if registration is not None and self.has_change_permission(request, registration):
                asked = self._change(request, registration)
                if asked is not None:
                    return asked
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: ApplicationRegistration, form: Any, change: bool) -> None:
        if not change:  # a change goes through ``_change`` only
            super().save_model(request, obj, form, change)

    def _change(self, request: HttpRequest, registration: ApplicationRegistration) -> HttpResponse | None:
        """Ask before what the form says is saved, or save what was asked. None: there is nothing to ask yet."""
        if "_once" in request.POST:
            return self._save(request, registration)
        fields = flatten_fieldsets(self.get_fieldsets(request, registration))
        typed = self.get_form(request, registration, change=True, fields=fields)(request.POST, instance=registration)
        if not typed.is_valid() or not typed.changed_data:
            return None
        values = {name: typed.cleaned_data[name] for name in typed.changed_data}
        stored = ApplicationRegistration.objects.get(pk=registration.pk)  # the form wrote on the other one
        seen = registrations.preview(stored, values)
        answer = self.confirm(
            request,
            ApplicationRegistration.objects.filter(pk=stored.pk),
            action="change",
            title=f"What this change of {stored.name} will mean",
            explanation=" ".join(seen.sentences),
            button="Change the registration",
            dangerous=seen.takes_away,
        )
        assert isinstance(answer, TemplateResponse)  # noqa: S101  # nothing was confirmed yet: it is the page
        answer.template_name = "admin/consent/wanted_preview.html"
        answer.context_data = {
            **(answer.context_data or {}),
            "proposed": signing.dumps({"before": seen.before, "after": seen.after}, salt=_salt(stored)),
            "changes": [
                (_label(name), words([f"{_word(name, seen.before[name])} → {_word(name, seen.after[name])}"]))
                for name in seen.after
            ],
            "figures_title": "How many partners it concerns",
            "figures": [
                Figure(
                    label=effect.label,
                    value=f"{effect.partners:,}",
                    tone=Tone.WARN if effect.partners else Tone.QUIET,
                )
                for effect in seen.effects
            ],
            "list_address": reverse("admin:consent_applicationregistration_change", args=[stored.pk]),
        }
        return answer

    def _save(self, request: HttpRequest, registration: ApplicationRegistration) -> HttpResponse:
        chosen = ApplicationRegistration.objects.filter(pk=registration.pk)
        if answer := self.confirm(request, chosen, action="change", title="", explanation="", button=""):
            assert isinstance(answer, HttpResponse)  # noqa: S101  # a redirection with a message
            return answer
        try:
            proposed = signing.loads(request.POST.get("proposed", ""), salt=_salt(registration))
            registrations.change(registration, proposed["after"], shown=proposed["before"], actor=actor_of(request))
        except signing.BadSignature:
            self.message_user(request, "This page was changed on the way. Nothing was saved.", messages.ERROR)
        except registrations.ChangeRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
        else:
            self.message_user(request, "The registration was changed.")
            row = ApplicationRegistration.objects.get(pk=registration.pk)
            changed = proposed["after"].keys() & {"permission_set", "own_set"}
            if changed and row.state == row.State.ACTIVE and permission_sets.concerned(row, row.asked).again:
                return HttpResponseRedirect(campaign_address(row))
        return HttpResponseRedirect(reverse("admin:consent_applicationregistration_change", args=[registration.pk]))

    @page_action(description="Change wanted grants", url_path="wanted", permissions=["change"], fresh=True)
    def change_wanted_grants(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        registration = self.get_object(request, object_id)
        if registration is None:
            raise Http404
        return change_page(self, request, registration)


def _salt(registration: ApplicationRegistration) -> str:
    """Bind what a page proposes to its registration."""
    return f"consent.admin.registrations.{registration.pk}"


def _label(name: str) -> str:
    column: Any = ApplicationRegistration._meta.get_field(name)
    return str(column.verbose_name)[0].upper() + str(column.verbose_name)[1:]


def _word(name: str, value: str) -> str:
    """Return a column's value as the form shows it."""
    if name == "own_set":
        return str(OwnPermissionSet.objects.filter(pk=value or 0).first() or "none")
    column: Any = ApplicationRegistration._meta.get_field(name)
    return str(dict(column.flatchoices).get(value, value))
