"""What a page of the admin does instead of doing something: ask for the decision of a second person."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse

from portal.decisions import service
from portal.decisions.kinds import CannotBeDone, Kind, Parameters
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of


def what_comes_next() -> str:
    """Return the sentence for a page that asks instead of doing."""
    if settings.STAFF_SINGLE_PERSON:
        return "Nothing is done yet by this button: you look at it once more, and confirm it."
    return "Nothing is done yet by this button: another person with the same right decides about it within a day."


class WhyForm(forms.Form):
    """The reason, which the person who decides reads."""

    why = forms.CharField(
        label="Why",
        max_length=service.LONGEST_WHY,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="The person who decides reads it. Never a secret.",
    )


def ask_second_person(
    page: PortalModelAdmin[Any], request: HttpRequest, kind: Kind, parameters: Parameters, why: str
) -> HttpResponseBase | None:
    """Ask for it, say so, and go to the page of the request; None, with a message, when it cannot be asked for."""
    try:
        decision, new = service.ask(
            kind, parameters, why=why, actor=actor_of(request), account=cast("User", request.user)
        )
    except (CannotBeDone, DecisionRefused) as reason:
        page.message_user(request, str(reason), messages.ERROR)
        return None
    if not new:
        text = f"This was asked for already by {decision.requested_by}, and waits."
        page.message_user(request, text, messages.WARNING)
    elif settings.STAFF_SINGLE_PERSON:
        page.message_user(request, "Asked for. Nothing was done yet: look at it once more, then confirm it here.")
    elif service.others_who_may(kind, decision):
        text = (
            f"Asked for. Another person decides until {decision.expires_at:%Y-%m-%d %H:%M} UTC; nothing was done yet."
        )
        page.message_user(request, text)
    else:
        text = (
            "Asked for, but no other account has the right to decide. Give a second person an account with it; nothing "
            "was done yet."
        )
        page.message_user(request, text, messages.WARNING)
    return HttpResponseRedirect(address_of(decision))


def address_of(decision: Decision) -> str:
    """Return the page of a request."""
    return reverse("admin:decisions_decision_change", args=[decision.pk])
