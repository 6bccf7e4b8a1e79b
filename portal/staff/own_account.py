"""The page of the own account: factors, recovery codes, sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from portal.site import proof
from portal.site.base import actor_of
from portal.staff import factors, sessions, views
from portal.staff.models import StaffSession
from portal.staff.sessions import Why

type View = Callable[..., HttpResponseBase]


def proven_lately(view: View) -> View:
    """Ask for a fresh proof before a change of factors, and come back to where it began."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if proof.is_fresh(request):
            return view(request, *args, **kwargs)
        back = request.get_full_path() if request.method == "GET" else reverse("staff_account")
        return HttpResponseRedirect(f"{reverse('staff_prove')}?{urlencode({'next': back})}")

    return checked


def account(request: HttpRequest) -> HttpResponseBase:
    """Show how the person signs in, and where the person is signed in."""
    user: Any = request.user
    return views.page(
        request,
        "account",
        title="Your account",
        has_permission=True,
        factors=factors.of(user),
        codes_left=factors.recovery_codes_left(user),
        identities=list(user.identities.all()),
        sessions=list(StaffSession.objects.of(user)),
        current=sessions.current(request),
    )


@sensitive_post_parameters()
@proven_lately
def new_app(request: HttpRequest) -> HttpResponseBase:
    """Add an authenticator app, or put another one in the place of the former."""
    return _new_factor(request, "new_app", "Add an authenticator app")


@sensitive_post_parameters()
@proven_lately
def new_passkey(request: HttpRequest) -> HttpResponseBase:
    """Add a passkey."""
    return _new_factor(request, "new_passkey", "Add a passkey")


def _new_factor(request: HttpRequest, template: str, title: str) -> HttpResponseBase:
    user: Any = request.user
    had_codes = factors.recovery_codes_left(user) > 0
    problem, method = views.add_factor(request, user, actor_of(request))
    if method is None:
        return views.new_factor_page(request, user, template, problem, title=title)
    _changed(request, f"{method.label.capitalize()} was added.")
    if had_codes:
        return HttpResponseRedirect(reverse("staff_account"))
    return _show_new_codes(request)


@require_POST
@proven_lately
def new_codes(request: HttpRequest) -> HttpResponseBase:
    """Make new recovery codes, and show them once."""
    if not factors.has_any(request.user):  # type: ignore[arg-type]  # who is signed in
        raise Http404
    _changed(request, "")
    return _show_new_codes(request)


def _show_new_codes(request: HttpRequest) -> HttpResponseBase:
    user: Any = request.user
    codes = factors.new_recovery_codes(user, actor=actor_of(request))
    return views.page(request, "codes", title="Recovery codes", codes=codes, next=reverse("staff_account"))


@require_POST
@proven_lately
def remove_factor(request: HttpRequest, key: int) -> HttpResponseBase:
    """Remove a factor; not the last one, where the account needs one."""
    user: Any = request.user
    may_be_last = settings.STAFF_PASSWORD_ALONE or user.identities.exists()
    try:
        factors.remove(user, key, actor=actor_of(request), may_be_last=may_be_last)
    except Authenticator.DoesNotExist:
        raise Http404 from None
    except factors.LastFactor:
        messages.error(request, "This is your only factor: nobody signs in without one. Add another one first.")
    else:
        _changed(request, "The factor was removed.")
    return HttpResponseRedirect(reverse("staff_account"))


def _changed(request: HttpRequest, said: str) -> None:
    """End the other sessions after a change of factors, and give this one a new key."""
    user: Any = request.user
    ended = sessions.end_all(user, why=Why.FACTOR, actor=actor_of(request), but=sessions.current(request))
    sessions.renew(request, user)
    if said or ended:
        messages.success(request, " ".join([said, "Your other sessions ended." if ended else ""]).strip())


@require_POST
def end_sessions(request: HttpRequest) -> HttpResponseBase:
    """End one of the own sessions, or all but this one."""
    user: Any = request.user
    if key := request.POST.get("session", ""):
        ended = sessions.end(user, [key], actor=actor_of(request), why=Why.BY_OWNER)
    else:
        ended = sessions.end_all(user, why=Why.BY_OWNER, actor=actor_of(request), but=sessions.current(request))
    messages.success(request, "1 session was ended." if ended == 1 else f"{ended} sessions were ended.")
    return HttpResponseRedirect(reverse("staff_account"))
