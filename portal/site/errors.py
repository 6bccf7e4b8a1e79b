"""Pages for what reaches no view, or leaves one: a refused form (S-21), a fault of ours, a failing database (R-37)."""

from __future__ import annotations

import logging
import secrets
import sys

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.cache import add_never_cache_headers
from django.views.decorators.csrf import requires_csrf_token
from django.views.defaults import server_error as our_fault

from portal.databases import trouble

log = logging.getLogger(__name__)
RETRY_SECONDS = 60


@requires_csrf_token
def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 503 with a reference code when the database or its disk is the cause, otherwise 500.

    Django calls this while it handles the exception, wherever in the stack that arose. The page reads nothing, and the
    log line with the same code says what to repair: a record in the database is what cannot be had.
    """
    error = sys.exception()
    sentence = trouble(error) if error is not None else None
    if sentence is None:
        return our_fault(request)
    reference = secrets.token_hex(4).upper()
    log.error("no page could be made: %s", sentence, extra={"reference": reference})
    response = HttpResponse(render_to_string("503.html", {"reference": reference}), status=503)
    response["Retry-After"] = str(RETRY_SECONDS)
    add_never_cache_headers(response)
    return response


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form without its CSRF value, and name the cause that can be seen from here.

    Over http WebKit keeps no cookie that is ``Secure``, so allowing cookies cannot help there.
    """
    kept = settings.CSRF_COOKIE_NAME in request.COOKIES
    cause = {"kept": kept, "over_http": not kept and not request.is_secure()}
    return render(request, "403_csrf.html", cause, status=403)
