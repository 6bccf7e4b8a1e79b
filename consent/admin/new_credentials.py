"""The ways by which a registration gets a new credential: each asks on one page and adds a candidate (S-39)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent import clients
from consent.applications import key_pairs, rotation
from consent.models import ApplicationCredential, ApplicationRegistration
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.audit.trail import Actor
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import time_budget
from portal.microsoft.secret import Secret
from portal.site.admin import PortalModelAdmin
from portal.site.asking import TypedWord, ask
from portal.site.base import actor_of

PAGE_SECONDS = 25.0  # a page waits no longer; the commands have all the time they need
LONGEST_FILE = 100_000  # bytes; a key with its certificates is some kilobytes
_READ, _SIGNED = "read", "signed"
_PLACES = [
    (_READ, "In the vault, from which each process of the portal reads it into its memory"),
    (_SIGNED, "In the vault for good: the vault signs, and the key cannot be copied (Azure Key Vault)"),
]
_CHAIN_HELP = "Only for an application that trusts a subject and an issuer instead of this one certificate."


class SmallFile(forms.FileField):
    """A file that stays in memory."""

    def __init__(self, label: str, *, required: bool = True, help_text: str = "") -> None:
        super().__init__(
            label=label,
            required=required,
            help_text=help_text,
            error_messages={"required": f"Choose a file of at most {LONGEST_FILE // 1000} KB."},
        )

    def clean(self, data: Any, initial: Any = None) -> bytes:
        """Return the content; empty without a file."""
        file = super().clean(data, initial)
        if not isinstance(file, UploadedFile):
            return b""
        if (file.size or 0) > LONGEST_FILE:
            raise forms.ValidationError(f"Choose a file of at most {LONGEST_FILE // 1000} KB.")
        return bytes(file.read())


class _PlaceForm(forms.Form):
    place = forms.ChoiceField(
        label="Where the private key lives", choices=_PLACES, initial=_READ, widget=forms.RadioSelect
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not clients.vault_signs():
            del self.fields["place"]


class PairForm(_PlaceForm):
    days = forms.TypedChoiceField(
        label="The certificate is valid for",
        choices=[(days, f"{days} days") for days in key_pairs.DAYS],
        coerce=int,
        initial=key_pairs.DAYS[1],
        help_text="A policy of the home tenant can limit it. Staff are reminded 60, 30, 14 and 7 days before its end.",
    )


class RequestForm(_PlaceForm):
    pass


class EntryForm(_PlaceForm):
    name = forms.CharField(max_length=127, label="Name in the vault")
    version = forms.RegexField(
        r"^[0-9a-fA-F]{32}$", label="Version", help_text="32 of 0-9 and a-f, the last part of its identifier there."
    )
    certificate = SmallFile(
        "Public certificate",
        required=False,
        help_text="Only for a key that signs in the vault: PEM, DER or PKCS7, without a private key.",
    )
    sends_chain = forms.BooleanField(required=False, label="Send the certificate chain (x5c)", help_text=_CHAIN_HELP)

    def clean_name(self) -> str:
        return str(self.cleaned_data["name"]).strip().lower()  # the vault ignores case

    def clean_version(self) -> str:
        return str(self.cleaned_data["version"]).lower()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("place") == _SIGNED and not values.get("certificate"):
            self.add_error("certificate", "A key that signs in the vault needs its public certificate here.")
        return values


class IdentityForm(forms.Form):
    client_id = forms.CharField(
        max_length=36,
        label="Client id of the managed identity",
        help_text="Of a user-assigned identity. Azure shows it on the identity's overview; it is not the object id.",
    )


class UploadForm(forms.Form):
    file = SmallFile("PFX or PEM file", help_text="One RSA private key of 2,048 bits or more, with its certificate.")
    password = forms.CharField(
        required=False,
        max_length=200,
        strip=False,
        label="Password of the file",
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Used once to open the file, and kept nowhere.",
    )
    sends_chain = forms.BooleanField(required=False, label="Send the certificate chain (x5c)", help_text=_CHAIN_HELP)
    word = TypedWord("upload")


class AnswerForm(forms.Form):
    file = SmallFile("Signed certificate", help_text="PEM, DER (.cer) or PKCS7 (.p7b), with its issuers or without.")
    sends_chain = forms.BooleanField(required=False, label="Send the certificate chain (x5c)", help_text=_CHAIN_HELP)


type _Add = Callable[[ApplicationRegistration, Mapping[str, Any], Actor], ApplicationCredential]


def _pair(registration: ApplicationRegistration, values: Mapping[str, Any], actor: Actor) -> ApplicationCredential:
    if values.get("place") == _SIGNED:
        return key_pairs.make_vault_key(registration, days=values["days"], keys=clients.vault_keys(), actor=actor)
    return key_pairs.make_pair(registration, days=values["days"], vault=clients.vault(), actor=actor)


def _request(registration: ApplicationRegistration, values: Mapping[str, Any], actor: Actor) -> ApplicationCredential:
    if values.get("place") == _SIGNED:
        return key_pairs.request_for_vault_key(registration, keys=clients.vault_keys(), actor=actor)
    return key_pairs.request_certificate(registration, vault=clients.vault(), actor=actor)


def _entry(registration: ApplicationRegistration, values: Mapping[str, Any], actor: Actor) -> ApplicationCredential:
    name, version, chain = values["name"], values["version"], values["sends_chain"]
    if values.get("place") == _SIGNED:
        return key_pairs.add_vault_key(
            registration,
            name,
            version,
            values["certificate"],
            sends_chain=chain,
            keys=clients.vault_keys(),
            actor=actor,
        )
    return rotation.add_certificate_of_vault(
        registration, name, version, sends_chain=chain, vault=clients.vault(), actor=actor
    )


def _identity(registration: ApplicationRegistration, values: Mapping[str, Any], actor: Actor) -> ApplicationCredential:
    return rotation.add_managed_identity(registration, values["client_id"], actor=actor)


def _upload(registration: ApplicationRegistration, values: Mapping[str, Any], actor: Actor) -> ApplicationCredential:
    return key_pairs.add_upload(
        registration,
        values["file"],
        Secret(values["password"]),
        sends_chain=values["sends_chain"],
        vault=clients.vault(),
        actor=actor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to a credential.

    Attributes:
        title: of its page, as what is done there.
        when: when it is the right one, for the choice.
        what: what will happen, for the page that asks.
        warning: why another way is better.
    """

    title: str
    when: str
    what: str
    button: str
    form: type[forms.Form]
    add: _Add
    warning: str = ""


WAYS: Mapping[str, Way] = {
    "identity": Way(
        title="Trust a managed identity",
        when="The portal runs in Azure. Nothing is stored, nothing ends and nothing can be copied.",
        what=(
            "The application is to trust a user-assigned managed identity of its home tenant. Nothing is stored here "
            "but the identity's client id. The next page says what to add at Microsoft."
        ),
        button="Add the identity",
        form=IdentityForm,
        add=_identity,
    ),
    "pair": Way(
        title="Make a key pair here",
        when="Anywhere else. The private key goes to the vault and is never shown; you upload the certificate.",
        what=(
            "A key and a certificate that it signs itself are made now. The private key goes to the vault and nowhere "
            "else. The next page has the public certificate and its thumbprint, to upload at Microsoft."
        ),
        button="Make the key pair",
        form=PairForm,
        add=_pair,
    ),
    "request": Way(
        title="Have a certificate signed",
        when="Your rules want a certificate of your own certificate authority.",
        what=(
            "A key and a request for its certificate are made now. The private key goes to the vault and nowhere else. "
            "The next page has the request to download. Your certificate authority signs it, and you upload the "
            "certificate on the same page."
        ),
        button="Make the request",
        form=RequestForm,
        add=_request,
    ),
    "entry": Way(
        title="Name an entry of the vault",
        when="An administrator of the vault keeps the certificate or the key there and renews it.",
        what=(
            "The portal uses what lies in its vault under this name and version, and never switches it off. A "
            "certificate is read with its key. A key that signs in the vault is named with its public certificate."
        ),
        button="Use this entry",
        form=EntryForm,
        add=_entry,
    ),
    "upload": Way(
        title="Upload a PFX or PEM file",
        when="The last resort: the private key has been in files and in a browser, so others may hold it as well.",
        what=(
            "The key goes to the vault without the file's password, which is kept nowhere. Delete the file afterwards, "
            "and replace this credential by a key pair that is made here."
        ),
        warning=(
            "Take one of the other ways if you can. A key that lay in a file can have been copied on its way, and the "
            "portal cannot know."
        ),
        button="Upload and store the key",
        form=UploadForm,
        add=_upload,
    ),
}


def choose_page(page: PortalModelAdmin[ApplicationCredential], request: HttpRequest) -> HttpResponse:
    """Show the ways for the registration that the address names, or the registrations to choose from."""
    open_ones = ApplicationRegistration.objects.exclude(state=ApplicationRegistration.State.RETIRED)
    asked = request.GET.get("registration", "")
    if asked.isascii() and asked.isdecimal() and len(asked) < 19:
        open_ones = open_ones.filter(pk=int(asked))
        if not open_ones:
            raise Http404
    found = list(open_ones[:100])
    registration = found[0] if len(found) == 1 else None
    context = {
        **page.admin_site.each_context(request),
        "title": "New credential" if registration is None else f"New credential of {registration}",
        "registration": registration,
        "registrations": found,
        "ways": []
        if registration is None
        else [
            (way, reverse("admin:consent_applicationcredential_new", args=[registration.pk, key]))
            for key, way in WAYS.items()
        ],
        "opts": page.opts,
        "media": page.media,
    }
    return TemplateResponse(request, "admin/consent/credential_ways.html", context)


def way_page(
    page: PortalModelAdmin[ApplicationCredential],
    request: HttpRequest,
    registration: ApplicationRegistration,
    key: str,
) -> HttpResponseBase:
    """Ask what this way needs, then add the candidate and go to its page."""
    way = WAYS[key]
    answer = ask(
        page,
        request,
        ApplicationRegistration.objects.filter(pk=registration.pk),
        way.form,
        None,
        action=f"new_{key}",
        title=f"{way.title}: {registration}",
        explanation=way.what,
        button=way.button,
        dangerous=bool(way.warning),
    )
    if isinstance(answer, HttpResponseBase):
        return _in_form(answer, way.warning)
    added: list[ApplicationCredential] = []
    with_reason(
        page,
        request,
        "Nothing was added.",
        lambda: added.append(way.add(registration, answer.cleaned_data, actor_of(request))),
    )
    if not added:
        return HttpResponseRedirect(request.get_full_path())
    page.message_user(request, f"{added[0]} is added to {registration}. It is not in use yet.")
    return HttpResponseRedirect(reverse("admin:consent_applicationcredential_change", args=[added[0].pk]))


def answer_page(
    page: PortalModelAdmin[ApplicationCredential], request: HttpRequest, credential: ApplicationCredential
) -> HttpResponseBase:
    """Take the signed certificate of a request."""
    answer = ask(
        page,
        request,
        ApplicationCredential.objects.filter(pk=credential.pk),
        AnswerForm,
        None,
        action="answer_request",
        title=f"Upload the signed certificate: {credential.registration}",
        explanation=(
            "The certificate must be the one of this request's key; the portal compares them. It is public: upload no "
            "private key here. Nothing is in use before you promote it."
        ),
        button="Upload the certificate",
    )
    if isinstance(answer, HttpResponseBase):
        return _in_form(answer)
    values = answer.cleaned_data
    done = with_reason(
        page,
        request,
        "The certificate was not taken.",
        lambda: key_pairs.answer(
            credential,
            values["file"],
            sends_chain=values["sends_chain"],
            vault=clients.vault(),
            actor=actor_of(request),
        ),
    )
    if not done:
        return HttpResponseRedirect(request.get_full_path())
    page.message_user(request, "The certificate fits the key. Make it known at Microsoft, then promote it.")
    return HttpResponseRedirect(reverse("admin:consent_applicationcredential_change", args=[credential.pk]))


def _in_form(answer: HttpResponseBase, warning: str = "") -> HttpResponseBase:
    """Show a page that asks without the list of what is affected: its title says it."""
    if isinstance(answer, TemplateResponse):
        answer.template_name = "admin/consent/credential_form.html"
        answer.context_data = {**(answer.context_data or {}), "warning": warning}
    return answer


def with_reason(page: PortalModelAdmin[Any], request: HttpRequest, failed: str, work: Callable[[], object]) -> bool:
    """Do the work within the time of a page; if it fails, say why in plain words, and return False."""
    try:
        with time_budget(PAGE_SECONDS):
            work()
    except RemoteError as error:
        why = explain(error)
    except (ValueError, rotation.RotationRefused, VaultConfigurationError) as refused:
        why = str(refused)
    else:
        return True
    page.message_user(request, f"{failed} {why}{'' if why.endswith(('.', ']')) else '.'}", messages.ERROR)
    return False
