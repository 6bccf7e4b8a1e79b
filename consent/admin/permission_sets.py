"""Permission sets of our own: look, edit, see what it will mean, save, and invite who must consent again."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent.applications import permission_sets
from consent.models import ApplicationRegistration, OwnPermissionSet
from consent.permissions import PERMISSION_IDS, PERMISSION_SETS, Permission, PermissionSet
from consent.words.permissions import RESOURCE_NAMES, permission_groups, resource_name
from portal.fields import validate_name
from portal.site.admin import ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.dashboard import Figure
from portal.site.declared import moment_column
from portal.site.display import EMPTY, Tone, links, words
from portal.site.page_actions import page_action
from portal.site.proof import demand
from portal.text import number_are, number_of

_OWN = "own"
_SPARE_LINES = 3
_SALT = "consent.admin.permission_sets"
_EXPLANATION = (
    "Saving sends nothing and takes nothing from any partner. From then on partners are asked for the new set. Those "
    "counted below work on with what they granted, and must consent again before all of the new set works for them."
)
_MANIFEST = "Add what is new to the application in Entra first: a request for what its manifest lacks is refused."


class SetForm(forms.Form):
    """Name and note of a set."""

    name = forms.CharField(max_length=200, validators=[validate_name], help_text="For staff; partners never read it.")
    note = forms.CharField(max_length=300, required=False, help_text="For staff: what it is for.")


class LineForm(forms.Form):
    """One permission. What is right says ``permission_sets.tidy``, for all lines together."""

    resource = forms.ChoiceField(
        choices=[("", "–"), *((key, name) for key, name in RESOURCE_NAMES.items()), (_OWN, "A service of our own")],
        required=False,
        label="Service",
    )
    name = forms.CharField(
        required=False,
        label="Delegated permission",
        widget=forms.TextInput(attrs={"list": "known-permissions", "spellcheck": "false", "autocomplete": "off"}),
    )
    id = forms.CharField(
        required=False,
        label="Id of the permission",
        help_text="Empty for the permissions that the list offers: their ids are known.",
    )
    title = forms.CharField(required=False, label="What it allows", help_text="Partners read it. Empty: our own words.")
    why = forms.CharField(required=False, label="What we need it for", help_text="Partners read it as well.")
    application = forms.CharField(required=False, label="Application id of our own service")
    service = forms.CharField(required=False, label="Name of our own service")
    remove = forms.BooleanField(required=False, label="Take this permission out")

    def line(self) -> dict[str, str] | None:
        """Return the line as ``tidy`` reads it; None when it is empty or taken out."""
        given = self.cleaned_data
        texts = [value for name, value in given.items() if name != "remove"]
        if given.get("remove") or not any(texts):  # of an untouched form nothing is cleaned
            return None
        line = {name: given[name] for name in ("name", "id", "title", "why", "service")}
        return line | {"resource": given["application"] if given["resource"] == _OWN else given["resource"]}

    @staticmethod
    def initial_of(one: Permission) -> dict[str, str]:
        """Return what the form shows of a permission."""
        own = one.resource not in RESOURCE_NAMES
        known = PERMISSION_IDS.get(one.resource, {}).get(one.name) == one.id
        return {
            "resource": _OWN if own else one.resource,
            "application": one.resource if own else "",
            "service": one.service,
            "name": one.name,
            "id": "" if known else one.id,
            "title": one.title,
            "why": one.why,
        }


_Lines = forms.formset_factory(LineForm, extra=0, max_num=permission_sets.MOST + 20, absolute_max=100)


def campaign_address(registration: ApplicationRegistration) -> str:
    """Return the page that prepares a campaign of the partners that must consent again."""
    chosen = {"registration": registration.pk, "lacking_permissions": "on", "permissions_unproven": "on"}
    return f"{reverse('admin:consent_campaign_add')}?{urlencode(chosen)}"


@admin.register(OwnPermissionSet)
class OwnPermissionSetAdmin(ReadOnlyAdmin[OwnPermissionSet]):
    """Sets that staff made. Strict and extended belong to the product; a new set can begin with either."""

    empty_text = (
        "Registrations ask for the built-in sets, strict or extended. Add a set of your own for other services, such "
        "as the Partner API, or for other permissions."
    )
    export_fields = ["name", "note", "permissions", "changed_at"]
    list_display = ["name", "note", "services", "number", "users", "changed"]
    search_fields = ["name", "note"]
    fields = ("note", "asking", "changed")
    readonly_fields = ("note", "asking", "changed")
    change_form_outer_before_template = "admin/consent/permission_set.html"
    actions_detail = ["change_set"]

    changed = moment_column("changed_at", "Changed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[OwnPermissionSet]:
        return super().get_queryset(request).annotate(used_by=Count("registrations"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("consent.add_ownpermissionset")

    def has_edit_permission(self, request: HttpRequest) -> bool:
        """Who may change a set, through the page that says what it means."""
        return request.user.has_perm("consent.change_ownpermissionset")

    @admin.display(description="Services")
    def services(self, row: OwnPermissionSet) -> str:
        names = row.value.services()
        return words([resource_name(one, names) for one in row.value.resources()])

    @admin.display(description="Permissions")
    def number(self, row: OwnPermissionSet) -> int:
        return len(row.permissions)

    @admin.display(description="Registrations", ordering="used_by")
    def users(self, row: OwnPermissionSet) -> int:
        return int(row.used_by)  # type: ignore[attr-defined]  # annotated

    @admin.display(description="Asked for by")
    def asking(self, row: OwnPermissionSet) -> str:
        page = "admin:consent_applicationregistration_change"
        found = [(str(one), reverse(page, args=[one.pk])) for one in row.registrations.all()]
        return links(found) if found else "No registration asks for it."

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown = {} if row is None else {"lines": _lines_for_partners(row.value)}
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    # --- edit, see what it will mean, save ---

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Make a set; it may begin with another one, named by ``from``."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if answer := demand(request):
            return answer
        start = PERMISSION_SETS.get(request.GET.get("from", ""), PERMISSION_SETS["strict"])
        edited = self._edit(request, None, start, SetForm(request.POST or None))
        if isinstance(edited, HttpResponse):
            return edited
        given, wanted = edited
        try:
            row = permission_sets.create(name=given["name"], note=given["note"], wanted=wanted, actor=actor_of(request))
        except permission_sets.PermissionSetRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
            return HttpResponseRedirect(self._list_address())
        self.message_user(request, "The set was made. Choose it on the page of a registration.")
        return HttpResponseRedirect(_address(row))

    @page_action(description="Change the set", url_path="edit", permissions=["edit"], fresh=True)
    def change_set(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        if "_once" in request.POST:
            return self._save(request, row)
        form = SetForm(request.POST or None, initial={"name": row.name, "note": row.note})
        edited = self._edit(request, row, row.value, form)
        if isinstance(edited, HttpResponse):
            return edited
        given, wanted = edited
        try:
            permission_sets.check_clouds(row, wanted)
        except permission_sets.PermissionSetRefused as refused:
            self.message_user(request, f"{refused} Nothing was saved.", messages.ERROR)
            return HttpResponseRedirect(_address(row))
        return self._ask(request, row, given, wanted)

    def _edit(
        self, request: HttpRequest, row: OwnPermissionSet | None, start: PermissionSet, form: SetForm
    ) -> HttpResponse | tuple[dict[str, str], PermissionSet]:
        """Return the page with the form, or what a right form says."""
        posted = request.POST.copy() if request.method == "POST" else None
        if posted is not None and "_more" in posted:  # without JavaScript: the same page, with more empty lines
            posted["lines-TOTAL_FORMS"] = str(int(posted.get("lines-TOTAL_FORMS") or 0) + _SPARE_LINES)
        initial = [LineForm.initial_of(one) for one in start.permissions]
        lines = _Lines(posted, prefix="lines", initial=None if posted is not None else initial)
        if posted is None:
            lines.extra = _SPARE_LINES
        elif "_more" not in posted and form.is_valid() and lines.is_valid():
            given = [(one, line) for one in lines if (line := one.line()) is not None]
            try:
                return form.cleaned_data, permission_sets.tidy([line for _, line in given])
            except permission_sets.PermissionSetRefused as refused:
                form.add_error(None, str(refused))
                for place, text in refused.problems.items():
                    given[place][0].add_error(None, text)
        context = {
            **self.admin_site.each_context(request),
            "title": "Add a permission set" if row is None else f"Change {row}",
            "form": form,
            "lines": lines,
            "known": sorted({name for names in PERMISSION_IDS.values() for name in names}),
            "starts": [] if row is not None else [("strict", "Strict"), ("extended", "Extended")],
            "back": self._list_address() if row is None else _address(row),
            "opts": self.opts,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/consent/permission_set_edit.html", context)

    def _ask(
        self, request: HttpRequest, row: OwnPermissionSet, given: dict[str, str], wanted: PermissionSet
    ) -> HttpResponse:
        seen = permission_sets.preview(row, wanted)
        answer = self.confirm(
            request,
            OwnPermissionSet.objects.filter(pk=row.pk),
            action="change_set",
            title=f"What this change of {row} will mean",
            explanation=f"{_EXPLANATION} {_MANIFEST}" if seen.added else _EXPLANATION,
            button="Ask for this from now on",
        )
        assert isinstance(answer, TemplateResponse)  # noqa: S101  # nothing was confirmed yet: it is the page
        proposed = {**given, "permissions": wanted.to_json(), "shown": row.value.digest}
        services = row.value.services() | wanted.services()
        changes = [
            (f"{heading} on {resource_name(resource, services)}", words(scopes))
            for heading, grants in (("Adds", seen.added), ("Takes away", seen.removed))
            for resource, scopes in grants.items()
        ]
        changes += [
            (
                f"{one.registration} ({one.registration.get_cloud_display()})",
                words(
                    [
                        f"{one.again:,} of {number_of(one.partners, 'partner')} must consent again",
                        f"{one.lacking:,} lack permissions",
                        f"{one.unproven:,} not proven",
                    ]
                ),
            )
            for one in seen.concerned
        ]
        if seen.other_words:
            changes.append(("Changes words or ids only", words(["No partner must consent again for it."])))
        answer.template_name = "admin/consent/wanted_preview.html"
        answer.context_data = {
            **(answer.context_data or {}),
            "proposed": signing.dumps(proposed, salt=f"{_SALT}.{row.pk}"),
            "changes": changes or [("Changes nothing", EMPTY)],
            "figures_title": "Partners that must consent again"
            if seen.concerned
            else "No registration asks for this set yet",
            "figures": [
                Figure(
                    label=str(one.registration),
                    value=f"{one.again:,}",
                    tone=Tone.WARN if one.again else Tone.QUIET,
                )
                for one in seen.concerned
            ],
            "list_address": _address(row),
        }
        return answer

    def _save(self, request: HttpRequest, row: OwnPermissionSet) -> HttpResponseBase:
        chosen = OwnPermissionSet.objects.filter(pk=row.pk)
        if answer := self.confirm(request, chosen, action="change_set", title="", explanation="", button=""):
            return answer
        try:
            proposed = signing.loads(request.POST.get("proposed", ""), salt=f"{_SALT}.{row.pk}")
            seen = permission_sets.change(
                row,
                name=proposed["name"],
                note=proposed["note"],
                wanted=PermissionSet.from_json(proposed["permissions"]),
                shown=proposed["shown"],
                actor=actor_of(request),
            )
        except signing.BadSignature:
            self.message_user(request, "This page was changed on the way. Nothing was saved.", messages.ERROR)
            return HttpResponseRedirect(_address(row))
        except permission_sets.PermissionSetRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
            return HttpResponseRedirect(_address(row))
        self.message_user(request, "Partners are asked for the changed set from now on.")
        waiting = [one for one in seen if one.again and one.registration.state == ApplicationRegistration.State.ACTIVE]
        if not waiting:
            return HttpResponseRedirect(_address(row))
        for one in waiting[1:]:
            text = f"{number_are(one.again, 'partner')} to be invited by {one.registration} as well."
            self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(campaign_address(waiting[0].registration))


def _address(row: OwnPermissionSet) -> str:
    return reverse("admin:consent_ownpermissionset_change", args=[row.pk])


def _lines_for_partners(chosen: PermissionSet) -> list[dict[str, str]]:
    """Return each permission with what partners read of it, as the template shows it."""
    groups = permission_groups(chosen.resources(), words=chosen.words(), services=chosen.services())
    return [
        {"name": one.name, "service": group.resource, "title": one.title, "why": one.why}
        for group in groups[:-1]  # the last one belongs to each sign-in
        for one in group.permissions
    ]
