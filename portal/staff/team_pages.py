"""The pages of teams, and the teams on the page of an account."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from portal.fields import validate_name
from portal.models import Team
from portal.site.admin import PortalModelAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.declared import column, needs
from portal.site.display import EMPTY
from portal.site.page_actions import page_action
from portal.site.sight import limit_kinds
from portal.staff import teams
from portal.staff.roles import GRANT, RoleRefused


class TeamForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """A name, and what the team is limited to: one field for each kind that an app declares."""

    name = forms.CharField(max_length=100, validators=[validate_name])

    class Meta:
        model = Team
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen: dict[str, list[int]] = {}
        if self.instance.pk:
            self.fields["name"].disabled = True
            self.initial["name"] = str(self.instance)
            for limit in self.instance.limits.all():
                chosen.setdefault(limit.kind, []).append(limit.key)
        for word, kind in limit_kinds().items():
            self.fields[word] = forms.ModelMultipleChoiceField(
                kind.model._default_manager.all(),
                label=kind.title,
                required=False,
                widget=forms.CheckboxSelectMultiple,
                initial=chosen.get(word, []),
            )

    def limits(self) -> dict[str, list[int]]:
        """Return the chosen keys by kind."""
        return {word: [row.pk for row in self.cleaned_data[word]] for word in limit_kinds()}

    def clean(self) -> None:
        super().clean()
        if not any(self.cleaned_data.get(word) for word in limit_kinds()):
            raise forms.ValidationError("Choose at least one: without a limit the members would see no partner.")


class TeamsAdmin(PortalModelAdmin[Team]):
    """Teams. A person joins one on the page of the account."""

    form = TeamForm
    list_display = ["name", "limited_to", "members"]
    list_select_related = ["group"]
    search_fields = ["group__name"]
    export_fields = ["group__name"]
    empty_text = "A team sees some partners only. Who is in no team sees all of them."

    name = column("Team", str, ordering="group__name")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("limits", "group__user_set")

    def get_fieldsets(self, request: HttpRequest, obj: Team | None = None) -> Any:
        return [(None, {"fields": ["name", *limit_kinds()], "description": _DESCRIPTION})]

    def get_form(self, request: HttpRequest, obj: Team | None = None, change: bool = False, **kwargs: Any) -> Any:
        return TeamForm

    @admin.display(description="Limited to")
    def limited_to(self, team: Team) -> str:
        kinds = limit_kinds()
        found: dict[str, int] = {}
        for limit in team.limits.all():
            found[limit.kind] = found.get(limit.kind, 0) + 1
        return "; ".join(f"{kinds[word].title.lower()}: {number}" for word, number in found.items()) or EMPTY

    @admin.display(description="Members")
    def members(self, team: Team) -> str:
        return ", ".join(sorted(person.get_username() for person in team.group.user_set.all())) or EMPTY

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        if change:
            teams.change(obj, form.limits(), actor=actor_of(request))
            return
        made = teams.make(form.cleaned_data["name"], form.limits(), actor=actor_of(request))
        obj.pk, obj.group = made.pk, made.group


_DESCRIPTION = (
    "Members see the partners that fit: of several tags or several applications one is enough; where both are chosen, "
    "both must fit. Everything else of other partners is hidden from them, and no action reaches it."
)


class TeamsForm(forms.Form):
    """The teams that a person shall be in."""

    teams = forms.ModelMultipleChoiceField(
        Team.objects.select_related("group"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Who is in no team sees all partners.",
    )


class TeamsOfStaff(PortalModelAdmin[User]):
    """Gives the page of an account its teams."""

    has_grant_permission = needs(GRANT)

    @page_action(description="Change teams", url_path="teams", permissions=["view", "grant"], fresh=True)
    def change_teams(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Tick the teams of a person."""
        person = self.get_object(request, object_id)
        if person is None:
            raise Http404
        filled = ask(
            self,
            request,
            User.objects.filter(pk=person.pk),
            TeamsForm,
            {"teams": list(Team.objects.filter(group__user=person.pk))},
            action="change_teams",
            title=f"Teams of {person.get_username()}",
            explanation=(
                "From the next page on the person sees the partners of these teams only, in every list, page and file."
            ),
            button="Change the teams",
        )
        if not isinstance(filled, TeamsForm):
            return filled
        try:
            changed = teams.put_into(person, list(filled.cleaned_data["teams"]), actor=actor_of(request))
        except RoleRefused as refused:
            self.message_user(request, str(refused), "error")
        else:
            words = "The teams are changed." if changed else "Nothing was changed: these are the person's teams."
            self.message_user(request, words, "success" if changed else "warning")
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))
