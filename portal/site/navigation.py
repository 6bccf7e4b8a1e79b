"""The ten entries of the admin's navigation, and the tabs below each: jobs before tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from django.apps import apps
from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import reverse

from portal.site.extension_points import ListEntry, extensions


class Section(StrEnum):
    """One entry, in order; the value is the name of its icon."""

    OVERVIEW = "overview"
    PARTNERS = "partners"
    CUSTOMERS = "customers"
    INVITATIONS = "invitations"
    PLANS = "plans"
    ACTIVITY = "activity"
    INCIDENTS = "incidents"
    APPLICATIONS = "applications"
    AUDIT = "audit"
    SETTINGS = "settings"


# Lists of models that have no app of ours to declare them.
_OWN = (
    ListEntry(section=Section.AUDIT, title="Audit", model="audit.auditevent"),
    ListEntry(section=Section.SETTINGS, title="Staff", model="auth.user"),
    ListEntry(section=Section.SETTINGS, title="Roles", model="auth.group"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where something leads, and whether the person is there."""

    title: str
    address: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry with the lists of its section that the person may see."""

    title: str
    icon: str
    address: str
    active: bool
    lists: list[Link] = field(default_factory=list)


def navigation(site: AdminSite, request: HttpRequest) -> list[Entry]:
    """Return what the person may see; no query but for the permissions."""
    index = reverse("admin:index")
    entries = [
        Entry(title="Overview", icon=Section.OVERVIEW, address=index, active=request.path == index),
    ]
    declared = [*(one for extension in extensions() for one in extension.lists), *_OWN]
    for section in Section:
        lists = _visible(site, request, [one for one in declared if one.section == section])
        if shown := [one for one in lists if one.title]:
            active = any(one.active for one in lists)
            title = section.name.capitalize()
            entries.append(Entry(title=title, icon=section, address=shown[0].address, active=active, lists=shown))
    return entries


def _visible(site: AdminSite, request: HttpRequest, declared: list[ListEntry]) -> list[Link]:
    addresses: dict[ListEntry, str] = {}
    for one in declared:
        model = apps.get_model(one.model)
        if site.is_registered(model) and site.get_model_admin(model).has_view_permission(request):
            addresses[one] = reverse(one.page or f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    # A page may stand below the list of its model: the nearest is where the person is.
    here = max((address for address in addresses.values() if request.path.startswith(address)), key=len, default="")
    return [Link(title=one.title, address=address, active=address == here) for one, address in addresses.items()]
