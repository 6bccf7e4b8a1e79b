"""The way to the organisation's sign-in service and back."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_GET, require_POST

from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.errors import RemoteError
from portal.site.addresses import client_address
from portal.site.limits import Rule, limiter
from portal.staff import devices, directory, signing_in, views
from portal.staff.directory_words import NO_ANSWER, REFUSALS
from portal.staff.models import Method
from portal.staff.oidc import DirectoryRefused, Flaw

log = logging.getLogger(__name__)
# The trail keeps one line for each reason, address and hour, and so many in all.
_ONE_OF_A_KIND = Rule(name="directory refused", per_address=1, window=3600)
_IN_ALL = Rule(name="directory refused, all", per_address=60, window=3600)


@login_not_required
@require_POST
def begin(request: HttpRequest) -> HttpResponseBase:
    """Send the browser to the sign-in service, to sign in or, when somebody is signed in, to prove it again."""
    user: Any = request.user
    proves = user if user.is_authenticated and "again" in request.POST else None
    try:
        trip = directory.begin(views.following(request), proves=proves)
    except RemoteError as error:
        return _no_answer(request, error)
    response = HttpResponseRedirect(trip.address)
    response.set_cookie(
        directory.COOKIE,
        trip.binder.reveal(),
        max_age=directory.TRIP_SECONDS,
        secure=True,
        httponly=True,
        samesite="Lax",
    )
    add_never_cache_headers(response)
    return response


@login_not_required
@require_GET
def callback(request: HttpRequest) -> HttpResponseBase:
    """Take the answer of the sign-in service."""
    try:
        arrival = directory.come_back(request.GET.dict(), request.COOKIES.get(directory.COOKIE, ""))
        user = directory.account_of(arrival, signed_in=request.user.pk, address=client_address(request))
    except DirectoryRefused as refused:
        return _refuse(request, refused.flaw)
    except RemoteError as error:
        return _no_answer(request, error)
    response = HttpResponseRedirect(arrival.next)
    response.delete_cookie(directory.COOKIE)
    if arrival.proves is not None:
        signing_in.prove_again(request, user, Method.DIRECTORY)
        return response
    signing_in.finish(request, user, Method.DIRECTORY)
    devices.remember(request, response, user)
    return response


def _refuse(request: HttpRequest, flaw: Flaw) -> HttpResponse:
    address = client_address(request)
    log.warning("sign-in by the organisation's service refused: %s", flaw.value)
    kind = Rule(name=f"{_ONE_OF_A_KIND.name} {flaw}", per_address=1, window=_ONE_OF_A_KIND.window)
    if not limiter.seconds_to_wait(kind, address) and not limiter.seconds_to_wait(_IN_ALL, None):
        record(
            "staff.signed_in",
            actor=Actor.visitor(address),
            outcome=Outcome.REFUSED,
            subject={},
            details={"why": flaw.value, "by": Method.DIRECTORY.value},
        )
    response = views.page(request, "refused", title="You are not signed in", words=REFUSALS[flaw], flaw=flaw.value)
    response.status_code = 403
    return response


def _no_answer(request: HttpRequest, error: RemoteError) -> HttpResponse:
    log.warning("no sign-in by the organisation's service: %s", error)
    response = views.page(
        request,
        "refused",
        title="You are not signed in",
        words=NO_ANSWER,
        flaw=error.code,
    )
    response.status_code = 503
    return response
