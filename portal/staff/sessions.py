"""Whose sessions there are, and their end (S-47)."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from portal.audit.trail import SYSTEM, Actor, record
from portal.rights import require
from portal.site.addresses import client_address
from portal.site.logs import one_line
from portal.site.sessions import stored_key
from portal.staff.models import Method, StaffSession

_TOLD = "staff_told"
_FACTOR = "staff_factor"
_TELL_EVERY = 300  # seconds; "last seen" is that exact
_LONGEST_AGENT = 100
# Later ones also name earlier ones, so the order decides.
_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


class Why(StrEnum):
    """Why sessions ended; the words go to the audit trail."""

    SIGNED_OUT = "signed_out"
    TIME = "time"
    BY_OWNER = "by_owner"
    BY_OTHERS = "by_others"
    PASSWORD = "password_changed"
    RIGHTS = "rights_changed"
    FACTOR = "factor_changed"
    SWITCHED_OFF = "switched_off"


def keep(request: HttpRequest, user: User, method: Method | None = None) -> None:
    """Note whose session this is now, under its present key. The session has been stored already."""
    session = request.session
    if not session.session_key:
        session.save()
    method = method or method_of(request)
    now = timezone.now()
    session[_TOLD] = int(now.timestamp())
    StaffSession.objects.update_or_create(
        session_id=stored_key(session.session_key or ""),
        defaults={
            "user": user,
            "method": method or "",
            "seen_at": now,
            "address": client_address(request),
            "agent": shortened(request.headers.get("User-Agent", "")),
        },
    )


def shortened(agent: str) -> str:
    """Return browser and system out of a browser's name for itself, such as ``Firefox on Windows``; else its start."""
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return f"{browser} on {system}" if browser and system else one_line(agent)[:_LONGEST_AGENT]


def note_method(request: HttpRequest, method: Method) -> None:
    """Keep by what the person of this session was proven."""
    request.session[_FACTOR] = method.value


def method_of(request: HttpRequest) -> Method | None:
    """Return by what the person of this session was proven; None when nothing says so."""
    value = request.session.get(_FACTOR)
    return Method(value) if value in Method.values else None


def seen(request: HttpRequest) -> None:
    """Note, every five minutes, that this session is used. A session that is not known yet becomes known."""
    told = request.session.get(_TOLD, 0)
    now = timezone.now()
    if now.timestamp() - told < _TELL_EVERY:
        return
    request.session[_TOLD] = int(now.timestamp())
    row = StaffSession.objects.filter(pk=stored_key(request.session.session_key or ""))
    if not row.update(seen_at=now, address=client_address(request)):
        keep(request, request.user)  # type: ignore[arg-type]  # only of people who are signed in


def is_gone(request: HttpRequest) -> bool:
    """Whether this session was ended while its request was at work."""
    key = request.session.session_key
    return key is not None and not request.session.exists(key)


def renew(request: HttpRequest, user: User) -> None:
    """Give the session a new key, as after each change of rights or factors."""
    request.session.cycle_key()
    keep(request, user)


def current(request: HttpRequest) -> str:
    """Return the key under which the table knows the session of this request."""
    return stored_key(request.session.session_key or "")


def end(user: User, keys: Collection[str], *, actor: Actor, why: Why) -> int:
    """End these sessions of a person at once, and return how many there were."""
    rows = StaffSession.objects.of(user).filter(session_id__in=keys)
    return _end(user, list(rows.values_list("session_id", flat=True)), actor, why)


def end_all(user: User, *, why: Why, actor: Actor = SYSTEM, but: str = "") -> int:
    """End all sessions of a person at once, but the one with this key, and return how many there were."""
    keys = StaffSession.objects.of(user).exclude(session_id=but).values_list("session_id", flat=True)
    return _end(user, list(keys), actor, why)


def end_all_of_another(user: User, *, actor: Actor) -> int:
    """End every session of another person; return how many there were."""
    require(actor, "staff.end_staffsession")
    return end_all(user, why=Why.BY_OTHERS, actor=actor)


def _end(user: User, keys: list[str], actor: Actor, why: Why) -> int:
    if not keys:
        return 0
    with transaction.atomic():
        Session.objects.filter(session_key__in=keys).delete()
        record(
            "session.ended", actor=actor, subject={"staff": user.pk}, details={"why": why.value, "sessions": len(keys)}
        )
    return len(keys)
