"""What several pages of invitations share: limits of sending, and saying how far a partner came."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from consent.models import CampaignPartner, ConsentFlow, ConsentLink
from consent.words import PROBLEMS, Problem, Who
from portal.site.display import EMPTY, Tone

MAILS_AT_ONCE = 50
MAIL_SECONDS = 20.0  # a page waits no longer; what is left is sent the next time, or by the command

_Link, _Partner = ConsentLink.Progress, CampaignPartner.Progress
LINK_TONES = {
    _Link.OPEN: Tone.QUIET,
    _Link.STARTED: Tone.BUSY,
    _Link.FAILED: Tone.BAD,
    _Link.MFA_MISSING: Tone.WARN,
    _Link.WAITING: Tone.WARN,
    _Link.DONE: Tone.GOOD,
    _Link.REVOKED: Tone.QUIET,
    _Link.EXPIRED: Tone.WARN,
    _Link.OFF: Tone.QUIET,
}
PARTNER_TONES = {
    _Partner.INVITED: Tone.QUIET,
    _Partner.SEND_FAILED: Tone.BAD,
    _Partner.INTERRUPTED: Tone.WARN,
    _Partner.SENT: Tone.BUSY,
    _Partner.STARTED: Tone.BUSY,
    _Partner.FAILED: Tone.BAD,
    _Partner.MFA_MISSING: Tone.WARN,
    _Partner.WAITING: Tone.WARN,
    _Partner.CONNECTED: Tone.GOOD,
}
_WHO = {
    Who.US: "we do",
    Who.YOU: "the partner",
    Who.YOU_UNLESS_CONNECTED: "the partner, unless it is connected",
    Who.YOUR_ADMINISTRATOR: "an administrator of the partner",
    Who.MICROSOFT: "Microsoft; waiting is enough",
    Who.NOBODY: "nobody; waiting is enough",
}


def why(outcome: str | None, problem: str) -> str:
    """Say how the latest attempt ended; of a refusal, quote the heading that the partner read."""
    if not outcome:
        return EMPTY
    return f"“{PROBLEMS[Problem(problem)].heading}”" if problem else ConsentFlow.Outcome(outcome).label


def who_acts(problem: str) -> str:
    """Say to staff who must act; the page behind the link said it to the partner."""
    return _WHO[PROBLEMS[Problem(problem)].who]


class ProgressFilter(admin.SimpleListFilter):
    """Rows by their annotated ``progress``."""

    title = "progress"
    parameter_name = "progress"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(model_admin.model.Progress.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(Q(progress=self.value())) if self.value() else queryset
