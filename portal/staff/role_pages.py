"""The pages on which roles are given: a part of the admin of accounts, and the read-only list of roles."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from portal.decisions.asking import ask_second_person
from portal.decisions.service import LONGEST_WHY
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.declared import needs
from portal.site.display import EMPTY
from portal.site.page_actions import page_action
from portal.staff.roles import (
    GRANT,
    PURPOSES,
    Role,
    RoleRefused,
    grant,
    needs_second_person,
    roles_of,
    why_not_granted,
    why_not_managed,
)
from portal.staff.two_persons import MAKE_SECURITY, roles_for


class RolesForm(forms.Form):
    """The roles that a person shall have."""

    roles = forms.MultipleChoiceField(
        choices=[(role.value, f"{role}: {PURPOSES[role]}") for role in Role],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Without a role the person can sign in and sees nothing.",
    )
    why = forms.CharField(
        required=False,
        max_length=LONGEST_WHY,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=(
            "Needed where somebody becomes a security administrator: a second person decides about that, and reads it."
        ),
    )


class RolesOfStaff(PortalModelAdmin[User]):
    """Gives the page of an account its roles. Permissions and the mark of a superuser are on no form (S-48)."""

    has_grant_permission = needs(GRANT)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        may = super().has_change_permission(request, obj)
        return may and (obj is None or not why_not_managed(obj, by=request.user))  # type: ignore[arg-type]

    @admin.display(description="Roles")
    def shown_roles(self, person: User) -> str:
        if person.is_superuser:
            return "Superuser, for emergencies: everything"
        return ", ".join(roles_of(person)) or EMPTY

    @page_action(description="Change roles", url_path="roles", permissions=["view", "grant"], fresh=True)
    def change_roles(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Tick the roles of a person, and give them."""
        person = self.get_object(request, object_id)
        if person is None:
            raise Http404
        page = HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))
        rows: QuerySet[Any] = User.objects.filter(pk=person.pk)
        filled = ask(
            self,
            request,
            rows,
            RolesForm,
            {"roles": [role.value for role in roles_of(person)]},
            action="change_roles",
            title=f"Roles of {person.get_username()}",
            explanation=(
                "The person has the rights of all ticked roles, and of none else, from the next page on. You cannot "
                "change your own roles, and give no role above yours. Two persons decide who becomes a security "
                "administrator."
            ),
            button="Change the roles",
        )
        if not isinstance(filled, RolesForm):
            return filled
        roles = [Role(name) for name in filled.cleaned_data["roles"]]
        if needs_second_person(person, roles):
            if refused := why_not_granted(person, roles, actor=actor_of(request)):
                self.message_user(request, refused, messages.ERROR)
                return page
            parameters = roles_for(person, roles)
            return ask_second_person(self, request, MAKE_SECURITY, parameters, filled.cleaned_data["why"]) or page
        try:
            changed = grant(person, roles, actor=actor_of(request))
        except RoleRefused as refused:
            self.message_user(request, str(refused), messages.ERROR)
        else:
            words = "The roles are changed." if changed else "Nothing was changed: these are the person's roles."
            self.message_user(request, words, messages.SUCCESS if changed else messages.WARNING)
        return page


class RolesAdmin(ReadOnlyAdmin[Group]):
    """The groups as they are: the rights of a role are part of the product, and its members change on their pages."""

    list_display = ["name"]
    search_fields = ["name"]
    fields = ["name", "purpose", "rights", "members"]
    readonly_fields = ["purpose", "rights", "members"]
    export_fields = ["name"]
    empty_text = "Roles are made by migrate."

    @admin.display(description="What for")
    def purpose(self, group: Group) -> str:
        return PURPOSES[Role(group.name)] if group.name in set(Role) else "A group of your own; it is no role."

    @admin.display(description="Rights")
    def rights(self, group: Group) -> str:
        return "; ".join(group.permissions.order_by("name").values_list("name", flat=True)) or EMPTY

    @admin.display(description="Members")
    def members(self, group: Group) -> str:
        return ", ".join(group.user_set.order_by("username").values_list("username", flat=True)) or EMPTY
