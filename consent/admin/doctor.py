"""The doctor's page: every setting and dependency is tried while the page is being sent, so each step shows at once.

It is sent in answer to a post only: opening the page makes no call.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.template.loader import render_to_string

from consent.doctor.examining import STEPS, examine
from consent.doctor.steps import Looked, Result, summary, worst_of
from consent.models import ApplicationRegistration
from portal.audit.trail import Actor, record
from portal.microsoft.http import WEB_SECONDS, time_budget
from portal.site.base import actor_of
from portal.site.display import Tone

_SEE, _EXAMINE = "consent.view_applicationregistration", "consent.promote_applicationcredential"
_PAGE, _STEP, _END = (f"admin/consent/doctor{part}.html" for part in ("", "_step", "_end"))
TONES = {
    Result.WELL: Tone.GOOD,
    Result.NOT_SEEN: Tone.QUIET,
    Result.NOTICE: Tone.WARN,
    Result.SKIPPED: Tone.QUIET,
    Result.FAILED: Tone.BAD,
}


def doctor_page(request: HttpRequest) -> HttpResponseBase:
    """Say what would be tried; after the button was pressed, try it. Raises PermissionDenied."""
    if not request.user.has_perm(_SEE) or (request.method == "POST" and not request.user.has_perm(_EXAMINE)):
        raise PermissionDenied
    examining = request.method == "POST"
    # Where the page is cut into what is sent at once, for each step, and at the end; no name can hold these.
    steps_here, end_here = secrets.token_hex(16), secrets.token_hex(16)
    page = render_to_string(
        _PAGE,
        {
            **admin.site.each_context(request),
            "title": "Doctor",
            "subtitle": "Every setting and every dependency, tried in order",
            "opts": ApplicationRegistration._meta,
            "steps": STEPS,
            "examining": examining,
            "may_examine": request.user.has_perm(_EXAMINE),
            "steps_here": steps_here,
            "end_here": end_here,
        },
        request,
    )
    if not examining:
        return HttpResponse(page)
    actor = actor_of(request)
    record("doctor.examined", actor=actor, subject={})
    response = StreamingHttpResponse(_sent_piece_by_piece(page, steps_here, end_here, actor))
    response["X-Accel-Buffering"] = "no"  # a proxy in front would hold all steps back until the last
    return response


def _sent_piece_by_piece(page: str, steps_here: str, end_here: str, actor: Actor) -> Iterator[str]:
    before, _, rest = page.partition(steps_here)
    between, _, after = rest.partition(end_here)
    yield before
    report: list[Looked] = []
    with time_budget(WEB_SECONDS):
        for looked in examine(actor=actor):
            report.append(looked)
            yield render_to_string(_STEP, {"looked": looked, "tone": TONES[looked.result]})
    yield between
    yield render_to_string(_END, {"summary": summary(report), "tone": TONES[worst_of(report)]})
    yield after
