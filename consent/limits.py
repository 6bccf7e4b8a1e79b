"""How often the public pages may be asked (S-63). A callback names no link; its address's limit holds for each link."""

from __future__ import annotations

import time

from django.conf import settings
from django.db.models.functions import Now

from consent.models import ConsentFlow
from portal.site.limits import Rule

_BELIEVED_SECONDS = 5.0
_PAGE = "consent/throttled.html"


class TooManyOpenFlows:
    """Tells whether OPEN_FLOW_LIMIT flows are at Microsoft; one answer is believed for a few seconds."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Ask the database at the next call."""
        self._asked_at = float("-inf")
        self._answer = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at >= _BELIEVED_SECONDS:
            limit = settings.OPEN_FLOW_LIMIT
            at_microsoft = ConsentFlow.objects.filter(outcome=ConsentFlow.Outcome.OPEN, expires_at__gt=Now())
            self._answer, self._asked_at = at_microsoft[:limit].count() >= limit, now
        return self._answer


too_many_open_flows = TooManyOpenFlows()

LANDING = Rule(name="landing", per_address=120, per_link=60, link="token", template=_PAGE)
START = Rule(name="start", per_address=20, per_link=10, link="token", template=_PAGE, crowded=too_many_open_flows)
CALLBACK = Rule(name="callback", per_address=60, template=_PAGE)
