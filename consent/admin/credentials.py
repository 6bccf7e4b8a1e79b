from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path, reverse

from consent import clients
from consent.admin.panels import expiry_tone
from consent.applications import rotation
from consent.microsoft.credentials import sha1_thumbprint
from consent.models import ApplicationCredential
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import time_budget
from portal.site.admin import ReadOnlyAdmin, actor_of
from portal.site.declared import column, guid_column, moment_column, needs
from portal.site.display import EMPTY, Tone, badge, guid, links, moment

_PAGE_SECONDS = 25.0  # a page waits no longer; the command has all the time it needs
Kind, State = ApplicationCredential.Kind, ApplicationCredential.State
STATE_TONES = {
    State.CANDIDATE: Tone.BUSY,
    State.CURRENT: Tone.GOOD,
    State.PREVIOUS: Tone.QUIET,
    State.REFUSED: Tone.BAD,
    State.RETIRED: Tone.QUIET,
}
_AT_MICROSOFT = {
    Kind.CERTIFICATE: (
        "Download the public part above. In the Entra admin center of the registration's home tenant: App "
        "registrations, the application, Certificates & secrets, Certificates, Upload certificate. Compare the "
        "thumbprint that is shown there. It takes some minutes to spread; promoting it before is refused and changes "
        "nothing."
    ),
    Kind.SECRET: (
        "Entra admin center, App registrations, the application, Certificates & secrets, Client secrets: the secret "
        "with this id. What was stored here is its value, which Microsoft showed once. Delete it there only after "
        "another credential is in use."
    ),
    Kind.FEDERATED: (
        "Entra admin center, App registrations, the application, Certificates & secrets, Federated credentials, Add "
        "credential, scenario Managed identity: choose the user-assigned identity with this client id. It must live "
        "in the registration's home tenant and cloud, and be assigned to every host on which the portal runs."
    ),
}


def state_badge(credential: Any) -> str:
    """Show the annotated state (``with_state``)."""
    state = State(credential.state)
    return badge(str(state.label), STATE_TONES[state])


def end_badge(credential: ApplicationCredential) -> str:
    """Show when it ends; in colour while it is in use."""
    if credential.expires_at is None:
        return "never" if credential.kind == Kind.FEDERATED else EMPTY
    if getattr(credential, "state", "") != State.CURRENT:
        return moment(credential.expires_at)
    return badge(f"{credential.expires_at:%Y-%m-%d}", expiry_tone(credential))


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

    empty_text = "A credential proves one of our applications to Microsoft."
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
        ("At Microsoft", {"fields": ["public_part", "weak_thumbprint", "chain", "set_up"]}),
    ]
    actions = ["promote", "retire"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApplicationCredential]:
        return ApplicationCredential.objects.with_state().select_related("registration", "proven_with")

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
        if not credential.public_certificate:
            return EMPTY
        address = reverse("admin:consent_applicationcredential_public", args=[credential.pk])
        return links([("Download the certificate", address)])

    @admin.display(description="Thumbprint there")
    def weak_thumbprint(self, credential: ApplicationCredential) -> str:
        if not credential.public_certificate:
            return EMPTY
        return guid(sha1_thumbprint(credential.public_certificate), label="thumbprint")

    @admin.display(description="Chain (x5c)")
    def chain(self, credential: ApplicationCredential) -> str:
        return "sent with each assertion" if credential.sends_chain else "not sent"

    @admin.display(description="Set-up")
    def set_up(self, credential: ApplicationCredential) -> str:
        return _AT_MICROSOFT[Kind(credential.kind)]

    def get_urls(self) -> list[Any]:
        public = path(
            "<int:key>/public/",
            self.admin_site.admin_view(self.download_public),
            name="consent_applicationcredential_public",
        )
        return [public, *super().get_urls()]

    def download_public(self, request: HttpRequest, key: int) -> HttpResponse:
        """Hand out the certificate without its key."""
        credential = ApplicationCredential.objects.exclude(public_certificate="").filter(pk=key).first()
        if credential is None or not self.has_view_permission(request, credential):
            raise Http404
        return HttpResponse(
            credential.public_certificate,
            content_type="application/x-pem-file",
            headers={"Content-Disposition": f'attachment; filename="application-{credential.pk}.pem"'},
        )

    # --- actions ---

    @admin.action(description="Promote the selected credential", permissions=["promote"])
    def promote(self, request: HttpRequest, queryset: QuerySet[ApplicationCredential]) -> HttpResponseBase | None:
        if queryset.count() != 1:
            self.message_user(request, "Select one credential.", messages.ERROR)
            return None
        if answer := self.confirm(
            request,
            queryset,
            action="promote",
            title=f"Promote a credential of {queryset.select_related('registration').get().registration}",
            explanation=(
                "The token of a connected partner is redeemed with this credential. Only if Microsoft accepts it, all "
                "processes use it from their next redemption on. The one in use until now stays stored: promote it "
                "to roll back."
            ),
            button="Prove and promote",
        ):
            return answer
        credential = queryset.get()
        try:
            with time_budget(_PAGE_SECONDS):
                partner = rotation.promote(credential, door=clients.tokens_with, actor=actor_of(request))
        except rotation.NoCanary as refused:
            words = f"{refused} If that is right, an operator promotes it unproven, as the operations guide describes."
            self.message_user(request, words, messages.ERROR)
        except rotation.RotationRefused as refused:
            self.message_user(request, f"Not promoted. {refused}", messages.ERROR)
        except RemoteError as error:
            self.message_user(request, f"Not promoted. {explain(error)}", messages.ERROR)
        except VaultConfigurationError as error:
            self.message_user(request, f"Not promoted. {error}", messages.ERROR)
        else:
            self.message_user(request, f"{credential} promoted, proven with the token of {partner}.")
        return None

    @admin.action(description="Retire the selected credentials", permissions=["retire"])
    def retire(self, request: HttpRequest, queryset: QuerySet[ApplicationCredential]) -> HttpResponseBase | None:
        named = "; ".join(f"{one.registration}: {one}" for one in queryset.select_related("registration")[:20])
        if answer := self.confirm(
            request,
            queryset,
            action="retire",
            title="Retire credentials",
            explanation=(
                f"{named}. These credentials are given up for good: what we stored of them is switched off in the "
                "vault, and there is no roll back to them. Remove them at Microsoft as well."
            ),
            button="Retire",
            dangerous=True,
        ):
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
            else:
                done += 1
        self.message_user(request, f"{done} retired.")
        return None
