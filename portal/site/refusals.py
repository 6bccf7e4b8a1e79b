"""What staff were refused, in the trail (S-48, S-55)."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.rights import Forbidden
from portal.site.base import actor_of


class RefusalMiddleware:
    """Keep each refusal in the trail. Stands after ``AuthenticationMiddleware``.

    What a service refused stands there already, unless the page's transaction took the entry along.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        if isinstance(exception, Forbidden):
            exception.write_again()
            request.refusal = str(exception)  # type: ignore[attr-defined]  # what the page 403 says; ours, no foreign text
        elif isinstance(exception, PermissionDenied) and request.user.is_authenticated:
            name = request.resolver_match.view_name if request.resolver_match else ""
            record(
                "page.refused",
                actor=actor_of(request),
                outcome=AuditEvent.Outcome.REFUSED,
                subject={},
                details={"page": name},
            )
