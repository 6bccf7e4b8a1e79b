"""A registration's page: how far its set-up is, what it is at Microsoft, and its form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from consent import clients
from consent.admin.buttons import Button
from consent.applications import comparing, posture, rotation, setup
from consent.applications.comparing import Difference, Risk
from consent.applications.evidence import meaning_of, verify
from consent.applications.instructions import NOTES, Instruction, files, instruction_of
from consent.applications.manifest import read_command
from consent.applications.registrations import ChangeRefused
from consent.applications.seen import MOST_CHARACTERS, PARTS, NotReadable, not_looked_at, read_text
from consent.applications.setup import Facts, Key, Standing, Step
from consent.models import ApplicationRegistration, RegistrationEvidence
from consent.vault.base import VaultConfigurationError
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.microsoft.http import time_budget
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from portal.site.display import Tone

_PAGE_SECONDS = 25.0  # a page waits no longer
_PROMOTE = "consent.promote_applicationcredential"
STANDING_TONES = {Standing.DONE: Tone.GOOD, Standing.OPEN: Tone.WARN, Standing.UNKNOWN: Tone.QUIET}
RISK_TONES = {Risk.DANGEROUS: Tone.BAD, Risk.MEND: Tone.WARN, Risk.NOTE: Tone.QUIET}
STATE_TONES = {
    ApplicationRegistration.State.DRAFT: Tone.BUSY,
    ApplicationRegistration.State.ACTIVE: Tone.GOOD,
    ApplicationRegistration.State.RETIRED: Tone.QUIET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCard:
    """A step with what to do, and the buttons that this person may press."""

    number: int
    step: Step
    tone: Tone
    instruction: Instruction
    buttons: Sequence[Button]
    is_open: bool


class _Unrepeated(forms.Textarea):
    """Never shows again what was typed: it may hold more than the person knows."""

    def format_value(self, value: Any) -> None:
        return None


class PasteForm(forms.Form):
    """What a command printed of the registration; it is read in memory and never kept as it is."""

    told = forms.CharField(
        label="What the command printed",
        widget=_Unrepeated(attrs={"rows": 6, "spellcheck": "false", "autocomplete": "off"}),
        required=False,
        max_length=MOST_CHARACTERS,
        help_text="JSON, from { to }. Kept is only what is compared; of credentials only their ids and ends.",
    )
    file = forms.FileField(label="Or the file with it", required=False)

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        file = found.get("file")
        if file is not None:
            if file.size > MOST_CHARACTERS:
                raise forms.ValidationError(f"The file is larger than {MOST_CHARACTERS:,} bytes.")
            try:
                found["told"] = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                raise forms.ValidationError("The file is no text in UTF-8.") from None
        if not found.get("told", "").strip() and not self.errors:
            raise forms.ValidationError("Paste what the command printed, or choose the file with it.")
        return found


class PrepareForm(forms.ModelForm):  # type: ignore[type-arg]  # has no parameters at run time
    """What must be known of a registration before it exists."""

    class Meta:
        model = ApplicationRegistration
        fields = ["name", "kind", "cloud", "home_tenant_id", "permission_set", "own_set"]

    def validate_unique(self) -> None:
        """Two registrations may be called the same; nothing is saved here."""

    def validate_constraints(self) -> None:
        """Nothing is saved here."""


if TYPE_CHECKING:
    _Base = PortalModelAdmin[ApplicationRegistration]
else:
    _Base = object

_NAME = "consent_applicationregistration"


class RegistrationHub(_Base):
    """The tabs of a registration's page, for its admin class."""

    # --- addresses ---

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, name: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
            return path(route, self.admin_site.admin_view(view), name=f"{_NAME}_{name}")

        return [
            page("prepare/", "prepare", self.prepare_view),
            page("prepare/<str:file>", "prepare_file", self.prepare_file_view),
            page("<int:registration_id>/microsoft/", "microsoft", self.microsoft_view),
            page("<int:registration_id>/details/", "details", self.details_view),
            page("<int:registration_id>/files/<str:file>", "file", self.file_view),
            page("<int:registration_id>/do/<str:word>/", "do", require_POST(self.do_view)),
            *super().get_urls(),
        ]

    def _found(self, request: HttpRequest, registration_id: int, *, change: bool = False) -> ApplicationRegistration:
        registration = self.get_object(request, str(registration_id))
        if registration is None:
            raise Http404
        may = self.has_change_permission if change else self.has_view_permission
        if not may(request, registration):
            raise PermissionDenied
        return registration

    def around(self, request: HttpRequest, registration: ApplicationRegistration, current: str) -> dict[str, Any]:
        """Return the context of the frame around a tab."""
        named = (("change", "Set-up"), ("microsoft", "At Microsoft"), ("details", "Details"))
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "hub": True,
            "registration": registration,
            "state_tone": STATE_TONES[ApplicationRegistration.State(registration.state)],
            "trust_address": _trust_address(registration),
            "title": f"{registration.name}, {dict(named)[current].lower()}",
            "tabs_label": "Pages of this registration",
            "tabs": [
                {"title": title, "address": _address(name, registration.pk), "active": name == current}
                for name, title in named
            ],
            "buttons": [
                (button, _address(button.name, registration.pk)) for button in self.buttons(request, registration)
            ],
        }

    # --- tabs ---

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the checklist; a form that is sent, and a window for choosing, are the details'."""
        registration = self.get_object(request, object_id)
        if request.method == "POST" or IS_POPUP_VAR in request.GET or registration is None:
            return super().change_view(request, object_id, form_url, extra_context)
        if not self.has_view_permission(request, registration):
            raise PermissionDenied
        facts = setup.facts_of(registration)
        steps = setup.steps_of(facts)
        ahead = setup.first_open(steps)
        cloud = clients.cloud(registration.cloud)
        cards = [
            StepCard(
                number=number,
                step=step,
                tone=Tone.QUIET if step.optional and step.standing == Standing.OPEN else STANDING_TONES[step.standing],
                instruction=instruction_of(step.key, registration, cloud),
                buttons=self._buttons_of(request, facts, step.key),
                is_open=step is ahead,
            )
            for number, step in enumerate(steps, 1)
        ]
        context = {
            **self.around(request, registration, "change"),
            "cards": cards,
            "ahead": next((card for card in cards if card.is_open), None),
            "unseen": len(setup.unseen(steps)),
            "done": sum(step.standing == Standing.DONE for step in steps),
            "notes": NOTES,
        }
        return TemplateResponse(request, "admin/consent/applicationregistration/setup.html", context)

    def microsoft_view(self, request: HttpRequest, registration_id: int) -> HttpResponse:
        """Show how the registration differs at Microsoft, and take what staff paste."""
        pasted = request.method == "POST"
        registration = self._found(request, registration_id, change=pasted)
        form = PasteForm(request.POST, request.FILES) if pasted else PasteForm()
        if pasted and form.is_valid():
            try:
                found = posture.keep(
                    registration,
                    read_text(form.cleaned_data["told"]),
                    source=RegistrationEvidence.Source.PASTED,
                    actor=actor_of(request),
                )
            except NotReadable as refused:
                form.add_error("told", str(refused))
            else:
                self.message_user(request, "It was compared: " + _counted(found), _level(found))
                return HttpResponseRedirect(_address("microsoft", registration.pk))
        return self._microsoft_page(request, registration, form)

    def _microsoft_page(
        self, request: HttpRequest, registration: ApplicationRegistration, form: forms.Form
    ) -> HttpResponse:
        evidence = RegistrationEvidence.objects.filter(registration=registration).first()
        found = [] if evidence is None or not evidence.seen else comparing.differences(registration, evidence)
        owners = [] if evidence is None else evidence.seen.get("owners", [])
        may_change = self.has_change_permission(request, registration)
        context = {
            **self.around(request, registration, "microsoft"),
            "evidence": evidence,
            "differences": [(one, RISK_TONES[one.risk]) for one in found],
            "hidden": [] if evidence is None or not evidence.seen else not_looked_at(evidence.seen),
            "older": [] if evidence is None or not evidence.seen else _older(evidence),
            "owners": owners,
            "unknown_owners": any(one.key == "owner_unknown" for one in found),
            "command": read_command(registration, clients.cloud(registration.cloud)),
            "form": form if may_change else None,
            "may_change": may_change,
            "reads": clients.reads_registration(registration),
            "read_address": _do(registration.pk, "read"),
            "owners_address": _do(registration.pk, "owners"),
        }
        return TemplateResponse(request, "admin/consent/applicationregistration/microsoft.html", context)

    def details_view(self, request: HttpRequest, registration_id: int) -> HttpResponse:
        """Show the form, the wanted grants and the credentials."""
        registration = self._found(request, registration_id)
        extra = self.around(request, registration, "details")
        return super().change_view(request, str(registration_id), "", extra)

    # --- files ---

    def file_view(self, request: HttpRequest, registration_id: int, file: str) -> HttpResponse:
        """Hand out the manifest or a script."""
        return _download(self._found(request, registration_id), file)

    # --- before it exists ---

    def prepare_view(self, request: HttpRequest) -> HttpResponse:
        """Show how to make a registration at Microsoft that this portal does not know yet. Nothing is saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PrepareForm(request.GET or None)
        described = _described(form)
        context = {
            **self.admin_site.each_context(request),
            "title": "Prepare an app registration",
            "opts": self.opts,
            "form": form,
            "media": self.media,
        }
        if described is not None:
            cloud = clients.cloud(described.cloud)
            query = request.GET.urlencode()
            context |= {
                "described": described,
                "query": query,
                "add_address": f"{reverse(f'admin:{_NAME}_add')}?{urlencode(_typed(form))}",
                "instructions": [
                    instruction_of(key, described, cloud)
                    for key in (Key.PARTNER_CENTER, Key.REGISTRATION, Key.PERMISSIONS)
                ],
            }
        return TemplateResponse(request, "admin/consent/applicationregistration/prepare.html", context)

    def prepare_file_view(self, request: HttpRequest, file: str) -> HttpResponse:
        """Hand out the manifest or a script of a registration that does not exist yet."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        described = _described(PrepareForm(request.GET))
        if described is None:
            raise Http404
        return _download(described, file)

    def response_post_save_add(self, request: HttpRequest, obj: ApplicationRegistration) -> HttpResponseRedirect:
        return HttpResponseRedirect(_address("change", obj.pk))

    # --- what is done at once ---

    def _buttons_of(self, request: HttpRequest, facts: Facts, key: Key) -> list[Button]:
        registration, may = facts.registration, request.user.has_perm
        pages: dict[Key, list[tuple[str, str, str, str]]] = {
            Key.REGISTRATION: [("Compare", f"admin:{_NAME}_microsoft", "pk", "")],
            Key.PERMISSIONS: [
                ("Compare", f"admin:{_NAME}_microsoft", "pk", ""),
                ("Choose the permission set", f"admin:{_NAME}_details", "pk", ""),
            ],
            Key.PUBLISHER: [("Compare", f"admin:{_NAME}_microsoft", "pk", "")],
            Key.CREDENTIAL: [
                (
                    "See the credentials",
                    "admin:consent_applicationcredential_changelist",
                    "registration__id__exact",
                    "consent.view_applicationcredential",
                )
            ],
            Key.SIGN_IN: [
                ("Add a partner", "admin:tenants_partnertenant_add", "", "tenants.add_partnertenant"),
                ("See the partners", "admin:tenants_partnertenant_changelist", "", "tenants.view_partnertenant"),
            ],
            Key.GRANTS: [
                (
                    "Change wanted grants",
                    f"admin:{_NAME}_change_wanted_grants",
                    "pk",
                    "consent.change_applicationregistration",
                )
            ],
            Key.CUSTOMER: [
                ("See the customers", "admin:tenants_customertenant_changelist", "", "tenants.view_customertenant")
            ],
        }
        found = []
        for label, name, argument, permission in pages.get(key, ()):
            if not permission or may(permission):
                address = reverse(name, args=[registration.pk] if argument == "pk" else [])
                query = f"?{argument}={registration.pk}" if argument not in ("", "pk") else ""
                found.append(Button(label=label, address=address + query))
        if not self.has_change_permission(request, registration):
            return found
        if key in (Key.PARTNER_CENTER, Key.CREDENTIAL) and facts.credential is not None:
            found.insert(0, Button(label="Verify at Microsoft", address=_do(registration.pk, "verify"), posts=True))
        draft = registration.state == ApplicationRegistration.State.DRAFT
        ready = facts.credential is not None and (registration.credential is not None or may(_PROMOTE))
        if key == Key.ACTIVATION and draft and ready:
            found.insert(0, Button(label="Verify and activate", address=_do(registration.pk, "activate"), posts=True))
        return found

    def do_view(self, request: HttpRequest, registration_id: int, word: str) -> HttpResponse:
        """Verify, activate, read at Microsoft, or confirm owners."""
        if word not in _DONE:
            raise Http404
        registration = self._found(request, registration_id, change=True)
        try:
            with time_budget(_PAGE_SECONDS):
                page, text, level = _DONE[word](request, registration)
        except (ChangeRefused, rotation.RotationRefused, NotReadable, WrongSetup, VaultConfigurationError) as refused:
            page, text, level = _PAGES[word], str(refused), messages.ERROR
        except RemoteError as error:
            page, text, level = _PAGES[word], explain(error), messages.ERROR
        self.message_user(request, text, level)
        return HttpResponseRedirect(_address(page, registration.pk))


type _Answer = tuple[str, str, int]


def _verify(request: HttpRequest, registration: ApplicationRegistration) -> _Answer:
    evidence = verify(registration, ask=clients.ask_for_application_token, actor=actor_of(request))
    if evidence.asked_at is None:
        return "change", "There is no credential to ask Microsoft with.", messages.ERROR
    if not evidence.refusal:
        text = "Microsoft gave the application a token for Partner Center in its home tenant."
        return "change", text, messages.SUCCESS
    refusal = meaning_of(evidence.refusal)
    return "change", f"{refusal.what} {refusal.remedy}", messages.ERROR


def _activate(request: HttpRequest, registration: ApplicationRegistration) -> _Answer:
    actor = actor_of(request)
    if registration.state != ApplicationRegistration.State.DRAFT:
        raise ChangeRefused("It is no draft any more. Its state is changed on the tab Details.")
    if registration.credential is None and not request.user.has_perm(_PROMOTE):
        raise PermissionDenied
    setup.activate(
        registration,
        ask=clients.ask_for_application_token,
        promote=partial(rotation.promote, door=clients.tokens_with, actor=actor, allow_unproven=True),
        actor=actor,
    )
    return "change", "The registration is active. Connect a first partner now.", messages.SUCCESS


def _read(request: HttpRequest, registration: ApplicationRegistration) -> _Answer:
    if not clients.reads_registration(registration):
        raise NotReadable("This deployment has no identity that may read this registration.")
    found = posture.look(registration, clients.read_registration, actor=actor_of(request))
    return "microsoft", "It was read and compared: " + _counted(found), _level(found)


def _owners(request: HttpRequest, registration: ApplicationRegistration) -> _Answer:
    posture.accept_owners(registration, actor=actor_of(request), shown=request.POST.getlist("owner"))
    return "microsoft", "These owners are known from now on.", messages.SUCCESS


_DONE: dict[str, Callable[[HttpRequest, ApplicationRegistration], _Answer]] = {
    "verify": _verify,
    "activate": _activate,
    "read": _read,
    "owners": _owners,
}
_PAGES = {"verify": "change", "activate": "change", "read": "microsoft", "owners": "microsoft"}


def _address(name: str, key: int) -> str:
    return reverse(f"admin:{_NAME}_{name}", args=[key])


def _trust_address(registration: ApplicationRegistration) -> str:
    """Return the public page for security reviews of partners; a draft has none."""
    if registration.state == ApplicationRegistration.State.DRAFT:
        return ""
    return reverse("consent:trust", args=[registration.cloud, registration.application_id])


def _do(key: int, word: str) -> str:
    return reverse(f"admin:{_NAME}_do", args=[key, word])


def _counted(found: Sequence[Difference]) -> str:
    if not found:
        return "it is as it should be."
    numbers = {risk: sum(one.risk == risk for one in found) for risk in Risk}
    return f"{', '.join(f'{number} {risk.value}' for risk, number in numbers.items() if number)}."


def _level(found: Sequence[Difference]) -> int:
    return messages.WARNING if any(one.risk != Risk.NOTE for one in found) else messages.SUCCESS


def _older(evidence: RegistrationEvidence) -> list[tuple[str, datetime]]:
    """Return the parts that the last look did not show, each with the time when it was seen."""
    times = {word: evidence.looked_at(name) for name, word in PARTS.items() if name in evidence.seen}
    return [(word, at) for word, at in times.items() if at != evidence.seen_at]


def _described(form: forms.BaseModelForm[Any]) -> ApplicationRegistration | None:
    """Return the row that a form describes; it is never saved."""
    if not form.is_bound or not form.is_valid():
        return None
    described: ApplicationRegistration = form.instance
    return described


def _typed(form: forms.BaseModelForm[Any]) -> dict[str, str]:
    columns = {name: getattr(form.instance, form.instance._meta.get_field(name).attname) for name in form.fields}
    return {name: "" if value is None else str(value) for name, value in columns.items()}


def _download(described: ApplicationRegistration, file: str) -> HttpResponse:
    made = files(described, clients.cloud(described.cloud))
    if file not in made:
        raise Http404
    kind, text = made[file]
    return HttpResponse(
        text,
        content_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file}"'},
    )
