"""Changing the wanted grants in three steps: edit, see what it will mean, save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core import signing
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from consent.customers import wanted
from consent.customers.consents import wanted_grants
from consent.grants import Grants
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem
from consent.permissions import can_read_back
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from portal.site.dashboard import Figure
from portal.site.display import Tone, words

Action = ConsentPlanItem.Action
ACTION_TONES = {
    Action.CREATE: Tone.BUSY,
    Action.WIDEN: Tone.BUSY,
    Action.NARROW: Tone.WARN,
    Action.REMOVE: Tone.WARN,
    Action.NOTHING: Tone.GOOD,
    Action.BLOCKED: Tone.BAD,
}
CHANGING = [one for one in Action if one not in {Action.NOTHING, Action.BLOCKED}]
RESET_LABEL = "Only by DELETE and POST"
_EXPLANATION = (
    "Saving sends nothing to any customer. From then on the customers counted below differ from what we want, until a "
    "plan brings it to them. Plans that were made before, and are not applied yet, are held back."
)
_BLIND = (
    "With these grants we cannot read back what a customer holds: Microsoft Graph wants Directory.Read.All for that, "
    "or Application.Read.All and DelegatedPermissionGrant.Read.All. Every customer would end as unknown."
)


class WantedForm(forms.Form):
    """The whole set as text; what is not on the allow list is refused here already (S-52)."""

    grants = forms.CharField(
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        label="Wanted grants",
        help_text=(
            "One resource a line: its application id, a colon, and its delegated permissions. For example "
            "00000003-0000-0000-c000-000000000000: User.Read.All, Directory.Read.All"
        ),
    )

    def clean_grants(self) -> Grants:
        try:
            return wanted.parse(self.cleaned_data["grants"])
        except wanted.WantedRefused as refused:
            raise ValidationError(str(refused)) from None


def items_address(plan: ConsentPlan) -> str:
    """Return the list of a plan's items."""
    return f"{reverse('admin:consent_consentplanitem_changelist')}?plan__id__exact={plan.pk}"


def figures_of(counts: Mapping[str, int], address: str = "") -> list[Figure]:
    """Return the counts of a plan as figures; ``address`` is the list of its items, to which each leads."""
    link = f"{address}&action__exact=" if address else ""
    figures = [
        Figure(
            label=str(action.label),
            value=f"{counts[action]:,}",
            tone=ACTION_TONES[action] if counts[action] else Tone.QUIET,
            link=link and f"{link}{action.value}",
        )
        for action in Action
        if counts[action] or action != Action.REMOVE
    ]
    if counts["needs_reset"]:
        reset = f"{address}&needs_reset__exact=1" if address else ""
        figures.append(Figure(label=RESET_LABEL, value=f"{counts['needs_reset']:,}", tone=Tone.WARN, link=reset))
    return figures


def change_page(
    page: PortalModelAdmin[ApplicationRegistration], request: HttpRequest, registration: ApplicationRegistration
) -> HttpResponseBase:
    """Serve all three steps; the set that the second one shows is the set that the third one saves."""
    back = reverse("admin:consent_applicationregistration_change", args=[registration.pk])
    if "_once" in request.POST:
        return _save(page, request, registration, back)
    before = wanted_grants(registration)
    form = WantedForm(request.POST if request.method == "POST" else None, initial={"grants": "\n".join(before.lines())})
    if form.is_valid():
        seen = wanted.preview(registration, form.cleaned_data["grants"])
        if seen.outside:
            form.add_error("grants", f"Not on CONSENT_GRANT_ALLOW_LIST: {'; '.join(seen.outside.lines())}")
        elif not seen.added and not seen.removed:
            form.add_error("grants", "These are the grants that are wanted already.")
        else:
            return _ask(page, request, registration, seen, back)
    context = {
        **page.admin_site.each_context(request),
        "title": "Change wanted grants",
        "form": form,
        "registration": registration,
        "allowed": words(settings.CONSENT_GRANT_ALLOW_LIST),
        "back": back,
        "opts": page.opts,
        "media": page.media,
    }
    return TemplateResponse(request, "admin/consent/wanted_edit.html", context)


def _ask(
    page: PortalModelAdmin[ApplicationRegistration],
    request: HttpRequest,
    registration: ApplicationRegistration,
    seen: wanted.Preview,
    back: str,
) -> HttpResponseBase:
    answer = page.confirm(
        request,
        ApplicationRegistration.objects.filter(pk=registration.pk),
        action="change_wanted_grants",
        title="What this change will mean",
        explanation=_EXPLANATION if can_read_back(seen.grants) else f"{_EXPLANATION} {_BLIND}",
        button="Want this from now on",
        dangerous=bool(seen.removed),
    )
    assert isinstance(answer, TemplateResponse)  # noqa: S101  # nothing was confirmed yet: it is the page
    proposed = {"grants": seen.grants.to_json(), "shown": wanted_grants(registration).digest}
    answer.template_name = "admin/consent/wanted_preview.html"
    answer.context_data = {
        **(answer.context_data or {}),
        "proposed": signing.dumps(proposed, salt=_salt(registration)),
        "changes": [
            (f"{heading} {resource}", words(scopes))
            for heading, grants in (("Adds on", seen.added), ("Takes away on", seen.removed))
            for resource, scopes in grants.items()
        ],
        "figures_title": "What a plan for all customers would show then",
        "figures": figures_of(seen.counts),
        "list_address": back,
    }
    return answer


def _save(
    page: PortalModelAdmin[ApplicationRegistration],
    request: HttpRequest,
    registration: ApplicationRegistration,
    back: str,
) -> HttpResponseBase:
    chosen = ApplicationRegistration.objects.filter(pk=registration.pk)
    if answer := page.confirm(request, chosen, action="change_wanted_grants", title="", explanation="", button=""):
        return answer
    try:
        proposed: dict[str, Any] = signing.loads(request.POST.get("proposed", ""), salt=_salt(registration))
        version = wanted.change(registration, proposed["grants"], actor=actor_of(request), shown_hash=proposed["shown"])
    except signing.BadSignature:
        page.message_user(request, "This page was changed on the way. Nothing was saved.", messages.ERROR)
    except wanted.WantedRefused as refused:
        page.message_user(request, str(refused), messages.ERROR)
    else:
        page.message_user(
            request,
            f"Version {version.number} is what we want from now on. Customers change when a plan is made and applied.",
        )
    return HttpResponseRedirect(back)


def _salt(registration: ApplicationRegistration) -> str:
    """Bind what a page proposes to its registration."""
    return f"consent.admin.wanted.{registration.pk}"
