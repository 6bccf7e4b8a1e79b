"""Confirmations: a page names what an action will touch, and its button works once (S-54)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from django.contrib import messages
from django.contrib.admin import helpers
from django.core import signing
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse

from portal.models import SpentForm
from portal.site.base import Part

CONFIRM_LIMIT = 2_000  # rows named in one confirmation, below DATA_UPLOAD_MAX_NUMBER_FIELDS
MANY = 20  # rows from which on a dangerous action asks for their number
_SHOWN_ROWS = 100
_FORM_LIFETIME = 3600  # seconds between seeing a confirmation and pressing its button
_SALT = "portal.site.confirm"


class Confirming[M: Model](Part[M]):
    """Asks before it acts."""

    def confirm(
        self,
        request: HttpRequest,
        queryset: QuerySet[M],
        *,
        action: str,
        title: str,
        explanation: str,
        button: str,
        dangerous: bool = False,
        counts: Mapping[str, int] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> HttpResponseBase | None:
        """Return the page that names what an action will touch, or None once its button was pressed.

        Works in a list action and in one of ``actions_detail``. The rows of the page are the rows that the
        button sends, whatever the filters match by then. Each page runs once: a second press returns to the list with
        a message. Use it as ``if answer := self.confirm(...): return answer``.

        Args:
            action: name of the method; binds the button to this action and person.
            explanation: what will happen, in a sentence or two.
            dangerous: the button is red; for many rows their number has to be typed.
            counts: how many of what will be touched are in which state, in words.
            left_out: how many chosen ones are left out, by the reason.
        """
        if request.method == "POST" and "_once" in request.POST and not self._mistyped(request, dangerous):
            if self._spend(request, action):
                return None
            self.message_user(
                request, "This was already done, or the page was too old. Nothing was repeated.", "warning"
            )
            return HttpResponseRedirect(request.get_full_path() if "action" in request.POST else self._list_address())
        keys = list(queryset.values_list("pk", flat=True)[: CONFIRM_LIMIT + 1])
        if len(keys) > CONFIRM_LIMIT:
            self.message_user(request, f"Select at most {CONFIRM_LIMIT:,} rows.", messages.ERROR)
            return HttpResponseRedirect(self._list_address())
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "explanation": explanation,
            "button": button,
            "dangerous": dangerous,
            "action": action,
            "keys": keys,
            "shown": queryset.filter(pk__in=keys[:_SHOWN_ROWS]),
            "hidden_count": max(len(keys) - _SHOWN_ROWS, 0),
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "once": signing.dumps([secrets.token_hex(16), action, request.user.pk], salt=_SALT),
            "opts": self.opts,
            "list_address": self._list_address(),
            "counts": counts or {},
            "left_out": left_out or {},
            "word": str(len(keys)) if dangerous and len(keys) >= MANY else "",
            "media": self.media,
        }
        return TemplateResponse(request, "admin/confirm_action.html", context)

    def _mistyped(self, request: HttpRequest, dangerous: bool) -> bool:
        """Tell whether a number had to be typed and was not; then the page is shown again."""
        number = len(request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))
        if not dangerous or number < MANY or request.POST.get("_word", "").strip() == str(number):
            return False
        self.message_user(request, f"Type {number} to go on. Nothing was done.", messages.ERROR)
        return True

    def _spend(self, request: HttpRequest, action: str) -> bool:
        try:
            number, named, person = signing.loads(request.POST["_once"], salt=_SALT, max_age=_FORM_LIFETIME)
        except (signing.BadSignature, ValueError):
            return False
        if (named, person) != (action, request.user.pk):
            return False
        return SpentForm.objects.spend(number, seconds=_FORM_LIFETIME)
