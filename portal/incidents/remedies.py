"""The button of a group of incidents that does the next step for everything that they concern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.apps import apps
from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import reverse

from portal.incidents.groups import Group
from portal.site.confirming import CONFIRM_LIMIT
from portal.site.extension_points import causes


@dataclass(frozen=True, slots=True, kw_only=True)
class RemedyButton:
    """A link, or with an action a form that sends rows to that action of their list, which asks first."""

    label: str
    address: str
    action: str = ""
    keys: Sequence[int] = ()


def remedy_button(site: AdminSite, request: HttpRequest, group: Group) -> RemedyButton | None:
    """Return what the app of this cause offers, as far as this person may use it; no query but for permissions."""
    known = causes().get(group.cause)
    if known is None or known.remedy is None:
        return None
    remedy, model = known.remedy, apps.get_model(known.remedy.model)
    page = site.get_model_admin(model)
    if not page.has_view_permission(request):
        return None
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    if not remedy.action:
        return RemedyButton(label=remedy.label, address=f"{address}?{remedy.query}" if remedy.query else address)
    keys = group.affected[remedy.word].keys[:CONFIRM_LIMIT]
    if not keys or remedy.action not in page.get_actions(request):
        return None
    return RemedyButton(label=remedy.label, address=address, action=remedy.action, keys=keys)
