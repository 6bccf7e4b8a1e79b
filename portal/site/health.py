"""Two addresses for a monitor: whether this process lives, and whether it can work (R-46). They say nothing else.

Vault and sign-in service are no part of it: without them pages still say what is known, and a restart would not help.
``doctor`` and incidents tell of those.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from django.db import DEFAULT_DB_ALIAS, Error, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.utils.cache import add_never_cache_headers

from portal.databases import MIGRATE, trouble, unapplied

log = logging.getLogger(__name__)

LIVE, READY = "/livez", "/readyz"
_KEPT_SECONDS = 1.0  # of an answer: however often somebody asks, the database is asked once a second
_WAIT_SECONDS = 2.0  # for the answer that another request already looks for


class HealthMiddleware:
    """Answers both addresses before anything reads a host name, a session or the database.

    A load balancer asks an address, with any host name and without https.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info not in {LIVE, READY}:
            return self.get_response(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if request.path_info == LIVE:
            return _answer("alive", 200)
        return _answer("ready", 200) if readiness.holds() else _answer("not ready", 503)


def _answer(word: str, status: int) -> HttpResponse:
    response = HttpResponse(f"{word}\n", status=status, content_type="text/plain; charset=utf-8")
    add_never_cache_headers(response)
    return response


class Readiness:
    """Whether the database answers and has all migrations; why not stands in the log, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._why: str | None = None
        self._is_migrated = False  # what is migrated stays so, and looking takes a tenth of a second

    def holds(self) -> bool:
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            return False
        try:
            if time.monotonic() >= self._until:
                before, self._why = self._why, self._look()
                self._until = time.monotonic() + _KEPT_SECONDS
                self._tell(before)
            return self._why is None
        finally:
            self._lock.release()

    def _look(self) -> str | None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            self._is_migrated = self._is_migrated or not unapplied(DEFAULT_DB_ALIAS)
        except Error as error:
            return trouble(error) or type(error).__name__
        return None if self._is_migrated else f"The database lacks migrations: {MIGRATE}"

    def _tell(self, before: str | None) -> None:
        if self._why is not None and self._why != before:
            log.error("Not ready: %s", self._why)
        elif self._why is None and before is not None:
            log.warning("Ready again.")


readiness = Readiness()
