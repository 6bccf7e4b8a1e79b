"""The page for what no view caught: a fault of ours, or a database that cannot be used just now (R-37)."""

from __future__ import annotations

import logging
import secrets
import sys

from django.http import HttpRequest, HttpResponse
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
