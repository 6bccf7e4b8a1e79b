"""How often one address may ask (S-63): counted in a table that all processes share, refused from memory.

Every count belongs to an address, also that of a link: a link has no counter of its own, because anyone who fills it
would shut its partner out. Windows are fixed and part of the key, so a row is only ever counted up, and thrown away
when its window is over. The table knows addresses as keyed hashes only.

A request costs one upsert. What it answers is remembered, and who is over a limit is refused from memory until the
window ends: a flood does not reach the database. Once a minute and process, one request also sweeps the table.

When the database fails, or the table is full, a process counts alone for a while. The limits then hold for each process
by itself, no address is shut out, and no page fails because it could not be counted.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.loader import render_to_string
from django.utils.cache import add_never_cache_headers
from django.utils.crypto import salted_hmac

from portal.models import RequestCount
from portal.site.addresses import client_address
from portal.site.export import EXPORTS

log = logging.getLogger(__name__)

MAX_ROWS = 50_000  # beyond it no row is added until the next sweep finds fewer
MAX_REMEMBERED = 20_000  # counts that one process keeps in memory, some five megabytes
SWEEP_SECONDS = 60
ALONE_SECONDS = 30  # how long a process leaves a failing database alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one address may do in one window. REQUEST_LIMIT_FACTOR multiplies both numbers.

    Attributes:
        name: what is counted together.
        per_address: requests from one address; an IPv6 address stands for its /64, which one customer has whole.
        per_link: requests from one address for one link; 0 where the path names none.
        link: name of the path's part that names the link.
        window: seconds.
        template: the page of a refusal; without one it is a plain sentence.
        crowded: tells whether the site as a whole has too much of this open. While it has, one request a window and
            address still passes: many addresses slow all down and stop none.
    """

    name: str
    per_address: int
    per_link: int = 0
    link: str = ""
    window: int = 60
    template: str = ""
    crowded: Callable[[], bool] | None = None


# Posts of the sign-in's pages, by the names of their addresses.
_SIGN_IN = {
    "staff_sign_in",
    "staff_factor",
    "staff_first_factor",
    "staff_link",
    "staff_prove",
    "staff_directory",
}
LOGIN = Rule(name="login", per_address=30, window=300)
EXPORT = Rule(name="export", per_address=10)
_MARK = "limited_by"


def limited[V: Callable[..., Any]](rule: Rule) -> Callable[[V], V]:
    """Mark a view for ``LimitMiddleware``, as Django's own ``csrf_exempt`` does for its middleware."""

    def mark(view: V) -> V:
        setattr(view, _MARK, rule)
        return view

    return mark


class LimitMiddleware:
    """Refuse what is over its limit with 429. Stands before CSRF and sessions, so that a refusal costs little."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> HttpResponse | None:
        rule = getattr(view, _MARK, None) or _staff_rule(request)
        if rule is None:
            return None
        seconds = limiter.seconds_to_wait(rule, client_address(request), str(kwargs.get(rule.link, "")))
        return _refusal(rule, seconds) if seconds else None


def _staff_rule(request: HttpRequest) -> Rule | None:
    """Return the rule of posts of the staff's pages: looking at them is not counted."""
    if request.method != "POST" or request.resolver_match is None:
        return None
    name = request.resolver_match.view_name
    if name in _SIGN_IN:
        return LOGIN
    asked = EXPORTS.intersection(request.POST.getlist("action"))
    return EXPORT if asked and name.startswith("admin:") and name.endswith("_changelist") else None


def _refusal(rule: Rule, seconds: int) -> HttpResponse:
    """Return the fixed answer, the same for everybody."""
    if rule.template:
        vendor = {"vendor_name": settings.VENDOR_NAME, "support_email": settings.SUPPORT_EMAIL}
        response = HttpResponse(render_to_string(rule.template, vendor), status=429)
    else:
        response = HttpResponse(
            "Too many requests from your network. Wait five minutes, then try again.\n",
            status=429,
            content_type="text/plain; charset=utf-8",
        )
    response["Retry-After"] = str(seconds)
    add_never_cache_headers(response)
    return response


class Limiter:
    """The counts of this process, in front of the shared table."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin as a fresh process does."""
        self._seen: dict[str, tuple[int, int]] = {}  # key: hits, end of the window
        self._swept_at = int(time.time())
        self._alone_until = 0

    def seconds_to_wait(self, rule: Rule, address: str | None, link: str = "") -> int:
        """Count a request; return 0 when it passes, and otherwise how many seconds its window still lasts.

        Args:
            address: as of ``client_address``; all requests without a readable one share one allowance.
        """
        now = int(time.time())
        ends = now - now % rule.window + rule.window
        own = _key(rule, ends, address)
        limits = {own: rule.per_address * settings.REQUEST_LIMIT_FACTOR}
        if link:
            limits[_key(rule, ends, address, link)] = rule.per_link * settings.REQUEST_LIMIT_FACTOR
        hits = self._count_here(limits, ends, now)
        if not hits:
            return ends - now
        for key, shared in self._count_in_table(limits, ends, now).items():
            hits[key] = max(hits[key], shared)
        self._remember(hits, ends)
        over = any(hits[key] > limit for key, limit in limits.items())
        if over or (hits[own] > 1 and _is_crowded(rule)):
            return ends - now
        return 0

    def _count_here(self, limits: dict[str, int], ends: int, now: int) -> dict[str, int]:
        """Count in memory and return the hits, or nothing when one of the limits is known to be reached."""
        with self._lock:
            hits = {key: self._seen.get(key, (0, 0))[0] + 1 for key in limits}
            if any(hits[key] > limit for key, limit in limits.items()):
                return {}
            if len(self._seen) >= MAX_REMEMBERED:
                kept = [(key, seen) for key, seen in self._seen.items() if seen[1] > now]
                self._seen = dict(kept[-MAX_REMEMBERED // 2 :])
            self._seen |= {key: (count, ends) for key, count in hits.items()}
        return hits

    def _remember(self, hits: dict[str, int], ends: int) -> None:
        with self._lock:
            for key, count in hits.items():
                if count > self._seen.get(key, (0, 0))[0]:
                    self._seen[key] = count, ends

    def _count_in_table(self, keys: dict[str, int], ends: int, now: int) -> dict[str, int]:
        """Count in the shared table and return the hits of all processes; nothing while this one counts alone."""
        if now < self._alone_until:
            return {}
        table = connection.ops.quote_name(RequestCount._meta.db_table)
        ordered = sorted(keys)  # two statements never wait for each other's rows crosswise
        statement = (
            f"INSERT INTO {table} (key, hits, ends_at) VALUES {', '.join(['(%s, 1, %s)'] * len(ordered))} "  # noqa: S608
            f"ON CONFLICT (key) DO UPDATE SET hits = {table}.hits + 1 RETURNING key, hits"
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, [value for key in ordered for value in (key, ends)])
                counts = dict(cursor.fetchall())
            self._sweep(now)
        except Error as error:
            self._alone_until = now + ALONE_SECONDS
            log.warning("requests are counted by this process alone: %s", type(error).__name__)
            _drop_a_broken_connection()
            return {}
        return counts

    def _sweep(self, now: int) -> None:
        """Remove past windows, once a minute; when too many rows are left, add none for a while."""
        if 0 <= now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        RequestCount.objects.filter(ends_at__lte=now).delete()
        if RequestCount.objects.count() >= MAX_ROWS:
            self._alone_until = now + SWEEP_SECONDS
            log.warning("requests are counted by this process alone: the table is full")


def _key(rule: Rule, ends: int, address: str | None, link: str = "") -> str:
    """Return 128 bits that name rule, window, network and link only to a holder of SECRET_KEY."""
    network = address or ""
    if ":" in network:
        network = str(ipaddress.ip_network((network, 64), strict=False))
    value = "\0".join((rule.name, str(ends), network, link))
    return salted_hmac("portal.site.limits", value, algorithm="sha256").hexdigest()[:32]


def _is_crowded(rule: Rule) -> bool:
    if rule.crowded is None:
        return False
    try:
        return rule.crowded()
    except Error as error:
        log.warning("whether the site is crowded could not be read: %s", type(error).__name__)
        _drop_a_broken_connection()
        return False


def _drop_a_broken_connection() -> None:
    """Let the page that follows find a database that has come back."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


limiter = Limiter()
