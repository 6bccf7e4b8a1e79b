from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import path, reverse

from consent import clients
from consent.admin.credential_steps import next_of, used_by
from consent.admin.new_credentials import WAYS, answer_page, choose_page, way_page, with_reason
from consent.admin.panels import expiry_tone
from consent.applications import rotation
from consent.microsoft.credentials import own_certificate, sha1_thumbprint
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError
from portal.site.admin import ReadOnlyAdmin
from portal.site.asking import TypedWord, ask
from portal.site.base import actor_of
from portal.site.declared import column, guid_column, moment_column, needs
from portal.site.display import EMPTY, Tone, badge, guid, lines, links, moment
from portal.site.page_actions import PageAction, page_action
from portal.site.proof import demand, fresh
from portal.text import number_of
from tenants.models import PartnerTenant

Kind, State = ApplicationCredential.Kind, ApplicationCredential.State
STATE_TONES = {
    State.REQUESTED: Tone.WARN,
    State.CANDIDATE: Tone.BUSY,
    State.CURRENT: Tone.GOOD,
    State.PREVIOUS: Tone.QUIET,
    State.REFUSED: Tone.BAD,
    State.RETIRED: Tone.QUIET,
}
_BUTTONS: dict[str, set[str]] = {
    State.REQUESTED: {"answer_request", "retire_this"},
    State.CANDIDATE: {"promote_this", "retire_this"},
    State.CURRENT: {"replace_this", "promote_this", "roll_back"},
    State.PREVIOUS: {"promote_this", "retire_this"},
    State.REFUSED: {"promote_this", "retire_this"},
    State.RETIRED: set(),
}


def state_badge(credential: Any) -> str:
    """Show the annotated state (``with_state``)."""
    state = State(credential.state)
    unproven = state == State.CURRENT and credential.proven_at is None
    return badge(str(state.label), Tone.WARN if unproven else STATE_TONES[state])


def end_badge(credential: ApplicationCredential) -> str:
    """Show when it ends; in colour while it is in use."""
    if credential.expires_at is None:
        return "never" if credential.kind == Kind.FEDERATED else EMPTY
    if getattr(credential, "state", "") != State.CURRENT:
        return moment(credential.expires_at)
    return badge(f"{credential.expires_at:%Y-%m-%d}", expiry_tone(credential))


class RetireForm(forms.Form):
    word = TypedWord("retire")


class UnprovenForm(forms.Form):
    word = TypedWord("unproven")


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(ApplicationCredential)
class ApplicationCredentialAdmin(ReadOnlyAdmin[ApplicationCredential]):
    """Credentials of our registrations: what is in use, what is next, what can be gone back to (S-39)."""

    empty_text = "A credential proves one of our applications to Microsoft. Add one: a key pair is made here."
    export_fields = [
        "pk",
        "registration__name",
        "kind",
        "key_id",
        "state",
        "starts_at",
        "expires_at",
        "proven_at",
        "promoted_at",
        "retired_at",
    ]
    list_display = ["name", "registration", "shown_state", "ends", "proven", "promoted"]
    list_filter = [StateFilter, "kind", "registration"]
    list_select_related = ["registration", "proven_with"]
    search_fields = ["=key_id", "registration__name"]
    fieldsets = [
        (None, {"fields": ["registration", "kind", "shown_state", "shown_key_id", "refused_code"]}),
        ("Validity", {"fields": ["starts_at", "ends", "proven", "proven_at", "promoted", "retired_at"]}),
        ("In use", {"fields": ["used", "redeemed"]}),
        ("At Microsoft", {"fields": ["public_part", "weak_thumbprint", "chain"]}),
    ]
    actions = ["promote", "retire"]
    actions_detail = ["replace_this", "promote_this", "answer_request", "roll_back", "retire_this"]
    change_form_outer_before_template = "admin/consent/credential_next.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApplicationCredential]:
        rows = ApplicationCredential.objects.with_state().select_related("registration__credential", "proven_with")
        return self.visible_rows(request, rows)

    has_add_permission = needs("consent.add_applicationcredential")
    has_promote_permission = needs("consent.promote_applicationcredential")
    has_retire_permission = needs("consent.retire_applicationcredential")

    # --- list and detail ---

    name = column("Credential", str, ordering="pk")
    shown_state = column("State", state_badge)
    ends = column("Valid until", end_badge, ordering="expires_at")

    @admin.display(ordering="proven_at", description="Proven with")
    def proven(self, credential: ApplicationCredential) -> str:
        return credential.proven_with.name if credential.proven_with else "not proven"

    promoted = moment_column("promoted_at", "Promoted")
    shown_key_id = guid_column("key_id", "Id at Microsoft", label="id", sorts=False)

    @admin.display(description="Public part")
    def public_part(self, credential: ApplicationCredential) -> str:
        return links(_downloads(credential)) or EMPTY

    @admin.display(description="Thumbprint there")
    def weak_thumbprint(self, credential: ApplicationCredential) -> str:
        if not credential.public_certificate:
            return EMPTY
        return guid(sha1_thumbprint(credential.public_certificate), label="thumbprint")

    @admin.display(description="Chain (x5c)")
    def chain(self, credential: ApplicationCredential) -> str:
        return "sent with each assertion" if credential.sends_chain else "not sent"

    @admin.display(description="Used by")
    def used(self, credential: ApplicationCredential) -> str:
        return lines(used_by(credential))

    @admin.display(description="Last redemption")
    def redeemed(self, credential: ApplicationCredential) -> str:
        if credential.promoted_at is None or getattr(credential, "state", "") != State.CURRENT:
            return EMPTY
        own = PartnerConsent.objects.filter(registration=credential.registration_id)
        last = own.filter(last_success_at__gte=credential.promoted_at).aggregate(last=Max("last_success_at"))["last"]
        return moment(last, empty="none since it was promoted")

    def get_urls(self) -> list[Any]:
        public = path(
            "<int:key>/public/",
            self.admin_site.admin_view(self.download_public),
            name="consent_applicationcredential_public",
        )
        request = path(
            "<int:key>/request/",
            self.admin_site.admin_view(self.download_request),
            name="consent_applicationcredential_request",
        )
        new = path(
            "new/<int:registration>/<slug:way>/",
            self.admin_site.admin_view(self.new),
            name="consent_applicationcredential_new",
        )
        return [public, request, new, *super().get_urls()]

    def download_public(self, request: HttpRequest, key: int) -> HttpResponse:
        """Hand out the certificate without its key."""
        return self._download(request, key, "public_certificate", "application-{}.pem")

    def download_request(self, request: HttpRequest, key: int) -> HttpResponse:
        """Hand out the request for a certificate."""
        return self._download(request, key, "certificate_request", "application-{}.csr")

    def _download(self, request: HttpRequest, key: int, column: str, name: str) -> HttpResponse:
        credential = (
            self.visible_rows(request, ApplicationCredential.objects.exclude(**{column: ""})).filter(pk=key).first()
        )
        if credential is None or not self.has_view_permission(request, credential):
            raise Http404
        content = getattr(credential, column)
        if column == "public_certificate":
            content = own_certificate(content)
        return HttpResponse(
            content,
            content_type="application/x-pem-file",
            headers={"Content-Disposition": f'attachment; filename="{name.format(credential.pk)}"'},
        )

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Choose the registration, then the way; there is no form of the row itself."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return choose_page(self, request)

    def new(self, request: HttpRequest, registration: int, way: str) -> HttpResponseBase:
        """Ask what one way to a new credential needs."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        found = ApplicationRegistration.objects.exclude(state=ApplicationRegistration.State.RETIRED)
        owner = found.filter(pk=registration).first()
        if owner is None or way not in WAYS:
            raise Http404
        return demand(request, keep=False) or way_page(self, request, owner, way)  # it may hold a key

    # --- one credential ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        credential = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if credential is None else {"next": next_of(credential, _downloads(credential))}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def buttons(self, request: HttpRequest, row: ApplicationCredential) -> list[PageAction]:
        """Return the buttons that make sense in its state."""
        names = set(_BUTTONS[State(getattr(row, "state", State.RETIRED))])
        if "roll_back" in names and not self._earlier(row).exists():
            names.remove("roll_back")
        if row.registration.state == ApplicationRegistration.State.RETIRED:
            names.discard("replace_this")
        return [button for button in super().buttons(request, row) if button.name in names]

    @staticmethod
    def _earlier(credential: ApplicationCredential) -> QuerySet[ApplicationCredential]:
        return ApplicationCredential.objects.for_roll_back().filter(registration=credential.registration_id)

    def _credential(self, request: HttpRequest, object_id: str) -> ApplicationCredential:
        credential = self.get_object(request, object_id)
        if credential is None:
            raise Http404
        return credential

    @page_action(description="Upload the signed certificate", url_path="answer", permissions=["add"], fresh=True)
    def answer_request(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return answer_page(self, request, self._credential(request, object_id))

    @page_action(description="Replace", url_path="replace", permissions=["add"], fresh=True)
    def replace_this(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Lead to the ways of making another one for the same application."""
        registration = self._credential(request, object_id).registration_id
        return HttpResponseRedirect(f"{reverse('admin:consent_applicationcredential_add')}?registration={registration}")

    @page_action(description="Promote", url_path="promote", permissions=["promote"], fresh=True)
    def promote_this(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        credential = self._credential(request, object_id)
        return self._promote(request, credential, "promote_this") or _page_of(credential)

    @page_action(description="Roll back", url_path="roll-back", permissions=["promote"], fresh=True)
    def roll_back(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        credential = self._credential(request, object_id)
        earlier = self._earlier(credential).select_related("registration__credential").first()
        if earlier is None:
            self.message_user(request, "There is no earlier credential to go back to.", messages.ERROR)
            return _page_of(credential)
        return self._promote(
            request, earlier, "roll_back", title="Roll back", button="Prove and roll back"
        ) or _page_of(earlier)

    @page_action(description="Retire", url_path="retire", permissions=["retire"], dangerous=True, fresh=True)
    def retire_this(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        credential = self._credential(request, object_id)
        chosen = ApplicationCredential.objects.filter(pk=credential.pk)
        return self._retire(request, chosen, "retire_this") or _page_of(credential)

    # --- actions ---

    @fresh
    @admin.action(description="Promote the selected credential", permissions=["promote"])
    def promote(self, request: HttpRequest, queryset: QuerySet[ApplicationCredential]) -> HttpResponseBase | None:
        if queryset.count() != 1:
            self.message_user(request, "Select one credential.", messages.ERROR)
            return None
        return self._promote(request, queryset.select_related("registration__credential").get(), "promote")

    def _promote(
        self,
        request: HttpRequest,
        credential: ApplicationCredential,
        action: str,
        *,
        title: str = "Promote",
        button: str = "Prove and promote",
    ) -> HttpResponseBase | None:
        """Say what it will mean, then prove it and put it to use; None when that was done or refused."""
        seen = rotation.preview(credential)
        if seen.refused:
            self.message_user(request, f"Not promoted. {seen.refused}", messages.ERROR)
            return None
        answer = ask(
            self,
            request,
            ApplicationCredential.objects.filter(pk=credential.pk),
            forms.Form if seen.canaries else UnprovenForm,
            None,
            action=action,
            title=f"{title}: {credential.registration}",
            explanation=_explanation(seen),
            button=button if seen.canaries else "Put it to use unproven",
            dangerous=not seen.canaries,
        )
        if isinstance(answer, HttpResponseBase):
            return answer
        proven: list[PartnerTenant | None] = []
        # Unproven only where the person read that: a partner that was lost meanwhile is a refusal.
        unproven = "word" in answer.cleaned_data
        with_reason(
            self,
            request,
            "Not promoted.",
            lambda: proven.append(
                rotation.promote(credential, door=clients.tokens_with, actor=actor_of(request), allow_unproven=unproven)
            ),
        )
        for partner in proven:
            how = "unproven: no partner is connected" if partner is None else f"proven with the token of {partner}"
            self.message_user(request, f"{credential} promoted, {how}.")
        return None

    @fresh
    @admin.action(description="Retire the selected credentials", permissions=["retire"])
    def retire(self, request: HttpRequest, queryset: QuerySet[ApplicationCredential]) -> HttpResponseBase | None:
        return self._retire(request, queryset, "retire")

    def _retire(
        self, request: HttpRequest, queryset: QuerySet[ApplicationCredential], action: str
    ) -> HttpResponseBase | None:
        named = "; ".join(f"{one.registration}: {one}" for one in queryset.select_related("registration")[:20])
        answer = ask(
            self,
            request,
            queryset,
            RetireForm,
            None,
            action=action,
            title="Retire credentials",
            explanation=(
                f"{named}. These credentials are given up for good: what we made of them in the vault is switched "
                "off, and there is no roll back to them. Remove them at Microsoft as well."
            ),
            button="Retire",
            dangerous=True,
        )
        if isinstance(answer, HttpResponseBase):
            return answer
        done = 0
        for credential in queryset:
            try:
                rotation.retire(credential, vault=clients.vault(), keys=clients.vault_keys, actor=actor_of(request))
            except rotation.RotationRefused as refused:
                self.message_user(request, f"{credential}: {refused}", messages.ERROR)
            except RemoteError as error:
                self.message_user(
                    request, f"{credential} is retired, but still in the vault. {explain(error)}", "warning"
                )
            except VaultConfigurationError as error:
                self.message_user(
                    request, f"{credential}: what is in the vault was not switched off. {error}.", messages.ERROR
                )
            else:
                done += 1
        self.message_user(request, f"{done} retired.")
        return None


def _page_of(credential: ApplicationCredential) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:consent_applicationcredential_change", args=[credential.pk]))


def _downloads(credential: ApplicationCredential) -> list[tuple[str, str]]:
    """Return what can be downloaded of it; all of it is public."""
    name = "admin:consent_applicationcredential"
    if credential.public_certificate:
        return [("Download the certificate", reverse(f"{name}_public", args=[credential.pk]))]
    if credential.certificate_request:
        return [("Download the request", reverse(f"{name}_request", args=[credential.pk]))]
    return []


def _explanation(seen: rotation.Preview) -> str:
    before = "No credential is in use until now."
    if seen.before is not None:
        before = f"In use until now: {seen.before}. It stays stored: roll back to it at any time."
    if not seen.canaries:
        return (
            "No partner is connected through this application, so no token can prove the credential. If Microsoft "
            f"does not know it, no partner can connect until another one is promoted. {before}"
        )
    others = f", then {' and '.join(seen.canaries[1:])} if it cannot tell" if seen.canaries[1:] else ""
    return (
        f"A token of {seen.canaries[0]} is redeemed with this credential{others}. Only if Microsoft accepts it, all "
        f"processes use it from their next redemption on, for the tokens of {number_of(seen.partners, 'partner')}. "
        f"It is proven once more after the switch, and a refusal there switches back. {before}"
    )
