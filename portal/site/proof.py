"""A fresh proof of who acts: dangerous things are done only within five minutes of the last one (S-49).

A sign-in is a proof, and so is what the page ``staff_prove`` asks for. Whoever leaves a screen open, or takes over a
session, has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

KEY = "proven_at"  # of the session: seconds since 1970
WITHIN = 300  # seconds that a proof holds for something dangerous
PROVE = "staff_prove"  # name for ``reverse`` of the page that asks for a proof
_KEPT = "kept_form"  # of the session: what was sent too late, until it is sent again
_KEPT_SECONDS = 3600
_LONGEST_KEPT = 100_000  # characters
_NOTED = "account_authentication_methods"  # of the session: where django-allauth notes how somebody signed in
_FACTORS = {"mfa", "password", "socialaccount"}  # other methods replace a factor, and are none


def note(request: HttpRequest) -> None:
    """Note that the person proved a moment ago who they are."""
    request.session[KEY] = int(time.time())


def age(request: HttpRequest) -> float | None:
    """Return how many seconds ago the last proof was; None without one."""
    proven_at = request.session.get(KEY)
    return time.time() - proven_at if isinstance(proven_at, int | float) else None


def is_fresh(request: HttpRequest, within: float = WITHIN) -> bool:
    """Tell whether the last proof is at most so many seconds old; one from the future is none (R-42)."""
    seconds = age(request)
    return seconds is not None and 0 <= seconds <= within


def factors(request: HttpRequest, within: float = WITHIN) -> frozenset[str]:
    """Return by what the person proved who they are within so many seconds, such as ``password`` and ``mfa totp``."""
    now = time.time()
    noted = request.session.get(_NOTED, [])
    fresh_ones = [one for one in noted if one.get("method") in _FACTORS and 0 <= now - one.get("at", 0) <= within]
    return frozenset(f"{one['method']} {one.get('type', '')}".strip() for one in fresh_ones)


def prove_address(address: str) -> str:
    """Return the page that asks for a proof and then leads to this address of ours."""
    return f"{reverse(PROVE)}?{urlencode({'next': address})}"


def demand(request: HttpRequest, *, keep: bool = True) -> HttpResponse | None:
    """Return None after a fresh proof; otherwise what leads to one. Nothing has been done then.

    A page that is only asked for leads there at once and comes back. What was sent is refused, and kept in the session,
    so that one button sends it again after the proof.

    Args:
        keep: False where what is sent may hold a secret, such as a key: then it is to be filled in again.
    """
    if is_fresh(request, WITHIN):
        if request.method == "POST":
            request.session.pop(_KEPT, None)
        return None
    if request.method != "POST":
        return HttpResponseRedirect(prove_address(request.get_full_path()))
    kept = keep and _keep(request)
    context = {
        **admin.site.each_context(request),
        "title": "Prove that it is you",
        "address": prove_address(reverse("admin:go_on") if kept else request.get_full_path()),
        "kept": kept,
        "minutes": WITHIN // 60,
    }
    return TemplateResponse(request, "admin/prove_first.html", context, status=403)


def _keep(request: HttpRequest) -> bool:
    """Keep what was sent until it is sent again; files and what is very long are not kept."""
    fields = {name: values for name, values in request.POST.lists() if name != "csrfmiddlewaretoken"}
    if request.FILES or sum(len(value) for values in fields.values() for value in values) > _LONGEST_KEPT:
        return False
    request.session[_KEPT] = {"path": request.get_full_path(), "fields": fields, "at": int(time.time())}
    return True


def kept_form(request: HttpRequest) -> tuple[str, list[tuple[str, str]]] | None:
    """Return address and fields of what was sent too late within the last hour, or None."""
    kept = request.session.get(_KEPT)
    if not isinstance(kept, dict) or time.time() - kept["at"] > _KEPT_SECONDS:
        return None
    return kept["path"], [(name, value) for name, values in kept["fields"].items() for value in values]


def fresh[A: Callable[..., Any]](action: A) -> A:
    """Let an action ``(page, request, …)`` of a list or a page ask for a fresh proof before everything else."""

    @wraps(action)
    def checked(page: Any, request: HttpRequest, *arguments: Any, **options: Any) -> Any:
        return demand(request) or action(page, request, *arguments, **options)

    checked.fresh = True  # type: ignore[attr-defined]  # read by the test that walks all actions
    return checked  # type: ignore[return-value]
