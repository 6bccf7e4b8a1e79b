"""The way in (S-46): a password that is looked at, then a factor, then the session.

Nobody is signed in before the last step. In between the browser's session only says whose password was right, for ten
minutes. Every refusal says the same, so that an answer tells nothing about which accounts exist.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from portal.audit.trail import Actor, Outcome, record
from portal.incidents.service import report
from portal.microsoft.diagnosis import Owner
from portal.site import proof
from portal.site.addresses import client_address
from portal.site.limits import Rule, limiter
from portal.site.middleware import begin_session
from portal.staff import attempts, devices, factors, passkeys, sessions
from portal.staff.attempts import TooEarly, Try
from portal.staff.models import Method

log = logging.getLogger(__name__)

GUESSING = "passwords_guessed"
MANY_OF_ONE = 10  # wrong passwords of one account in a row
MANY_TURNED_AWAY = 50  # tries for one account that were not looked at
MANY_OF_ALL = 100  # wrong passwords in an hour
PENDING_SECONDS = 600
BACKEND = "django.contrib.auth.backends.ModelBackend"
_PENDING = "staff_pending"
# Of names that no account has, the trail keeps one line for each address and hour, and twenty in all.
_UNKNOWN = Rule(name="sign-in of nobody", per_address=1, window=3600)
_NO_PASSKEY = Rule(name="passkey refused", per_address=1, window=3600)
_UNKNOWN_IN_ALL = Rule(name="sign-in of nobody, all", per_address=20, window=3600)


class SignInRefused(Exception):
    """Nobody is signed in. ``until`` is when the next try is looked at, None for at once."""

    def __init__(self, until: datetime | None = None) -> None:
        super().__init__("refused")
        self.until = until


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Somebody whose password was right, or who holds a one-time link, and who owes a factor.

    Attributes:
        may_set_factor: the account has none yet, so the next step sets one.
        next: where the sign-in was to lead, as it was asked for.
    """

    user: User
    may_set_factor: bool
    next: str


# --- the password -----------------------------------------------------------------------------------------------------


def check_password(request: HttpRequest, name: str, password: str, code: str = "") -> tuple[User, Method | None]:
    """Return whose name and password these are, and the factor that was proven with them, if one was.

    Args:
        code: of the account's authenticator app. A right one lets the password be looked at whatever others tried.

    Raises:
        SignInRefused: wrong, or not looked at.
    """
    address = client_address(request)
    user = User.objects.filter(username=name, is_active=True, is_staff=True).first()
    proven = bool(code and user and factors.check_app_code(user, code))
    device = devices.known(request, user) if user else ""
    own_budget = bool(device) or proven
    key = attempts.of_device(user.pk, device or "code") if user and own_budget else attempts.of_name(name)
    of_address = None
    try:
        if not own_budget:
            attempts.look(key)  # first, so that the address is not blamed for a try that is not looked at
            of_address = attempts.begin(attempts.of_address(address), free=attempts.FREE_OF_AN_ADDRESS)
        counted = attempts.begin(key, waits=not proven, bounded=user is None)
    except TooEarly as early:
        if user and early.turned_away and early.turned_away % MANY_TURNED_AWAY == 0:
            _report(f"{early.turned_away} tries of a password for {user.get_username()} came too early")
        raise SignInRefused(early.until) from None
    found = authenticate(request, username=name, password=password)  # hashes for an unknown name as well
    if user is None or found != user:
        _note_wrong(user, counted, address, known_browser=bool(device))
        raise SignInRefused(counted_until(counted))
    attempts.forgive(counted.key)
    if of_address:
        attempts.give_back(of_address.key)
    return user, Method.TOTP if proven else None


def counted_until(counted: Try) -> datetime | None:
    """Return when the next try is looked at after this wrong one, None for at once."""
    wait = attempts.wait_after(counted.failures)
    return timezone.now() + wait if wait else None


def check_code(request: HttpRequest, user: User, code: str) -> Method:
    """Return which factor this code is, of somebody whose password was right.

    Raises:
        SignInRefused: wrong, or not looked at.
    """
    try:
        counted = attempts.begin(attempts.of_factor(user.pk))
    except TooEarly as early:
        raise SignInRefused(early.until) from None
    try:
        method = factors.check_code(user, code)
    except factors.CodeRefused:
        actor = Actor.staff(user.get_username(), client_address(request))
        details = {"why": "factor", "in_a_row": counted.failures}
        record("staff.signed_in", actor=actor, outcome=Outcome.REFUSED, subject={"staff": user.pk}, details=details)
        raise SignInRefused(counted_until(counted)) from None
    attempts.forgive(counted.key)
    return method


def check_passkey(request: HttpRequest, kept: str, answer: str, user: User | None = None) -> User:
    """Return whose passkey this answer is of, among all people or of the one who is asked.

    Raises:
        SignInRefused: of nobody who may sign in. The trail keeps a line for each address and hour.
    """
    try:
        found = passkeys.check(kept, answer, user)
        if found.is_active and found.is_staff:
            return found
    except passkeys.PasskeyRefused:
        pass
    address = client_address(request)
    if not limiter.seconds_to_wait(_NO_PASSKEY, address):
        _record_refused(address, {"staff": user.pk} if user else {}, {"why": "passkey"})
    raise SignInRefused


def _note_wrong(user: User | None, counted: Try, address: str | None, *, known_browser: bool) -> None:
    """Write the line of the trail, and report when somebody guesses. Never the name that was typed: it may be a
    password in the wrong field."""
    everybody = attempts.begin(attempts.of_everybody(timezone.now()), waits=False)
    if user is None:
        details: dict[str, Any] = {"why": "unknown name"}
        if not limiter.seconds_to_wait(_UNKNOWN, address) and not limiter.seconds_to_wait(_UNKNOWN_IN_ALL, None):
            _record_refused(address, {}, details)
    else:
        details = {
            "why": "password",
            "in_a_row": counted.failures,
            "not_looked_at": counted.turned_away,
            "known_browser": known_browser,
        }
        _record_refused(address, {"staff": user.pk}, details)
    if user is not None and counted.failures == MANY_OF_ONE and not known_browser:
        _report(f"{MANY_OF_ONE} wrong passwords in a row were tried for the account {user.get_username()}")
    elif everybody.failures == MANY_OF_ALL:
        _report(f"{MANY_OF_ALL} wrong passwords were tried within an hour")


def _record_refused(address: str | None, subject: dict[str, int], details: dict[str, Any]) -> None:
    log.warning("sign-in refused", extra={"why": details["why"], **subject})
    record("staff.signed_in", actor=Actor.visitor(address), outcome=Outcome.REFUSED, subject=subject, details=details)


def _report(what: str) -> None:
    report(
        GUESSING,
        owner=Owner.US,
        words=(
            f"{what}. From then on fewer than one try a minute is looked at; browsers that were used before, passkeys "
            "and codes of the app are not slowed down. See in the audit trail from where they came, keep those "
            "addresses away at your proxy, and ask the people whether it was them."
        ),
    )


# --- between password and factor --------------------------------------------------------------------------------------


def remember(request: HttpRequest, user: User, following: str) -> None:
    """Keep whose password was right until the factor is proven."""
    request.session.cycle_key()  # whoever knew the browser's session before does not share this step
    request.session[_PENDING] = {
        "user": user.pk,
        "since": int(timezone.now().timestamp()),
        "password": user.get_session_auth_hash(),
        "next": following,
    }


def pending(request: HttpRequest) -> Pending | None:
    """Return who owes a factor in this browser; None when nobody does, or the password is from too long ago."""
    kept = request.session.get(_PENDING)
    if not isinstance(kept, dict) or timezone.now().timestamp() - kept["since"] > PENDING_SECONDS:
        return None
    user = User.objects.filter(pk=kept["user"], is_active=True, is_staff=True).first()
    if user is None or not constant_time_compare(kept["password"], user.get_session_auth_hash()):
        return None
    return Pending(user=user, may_set_factor=not factors.has_any(user), next=kept["next"])


def needs_factor(user: User) -> bool:
    """Whether the right password is not enough: always, but for accounts without a factor where it was allowed."""
    return not settings.STAFF_PASSWORD_ALONE or factors.has_any(user)


# --- the session ------------------------------------------------------------------------------------------------------


# By what a session was proven, in the words of django-allauth, which other rooms read.
_NOTED = "account_authentication_methods"
_WORDS: Mapping[Method, Mapping[str, str]] = {
    Method.PASSWORD: {"method": Method.PASSWORD.value},
    Method.TOTP: {"method": "mfa", "type": "totp"},
    Method.PASSKEY: {"method": "mfa", "type": "webauthn"},
    Method.RECOVERY_CODE: {"method": "mfa", "type": "recovery_codes"},
    Method.DIRECTORY: {"method": "socialaccount"},
}
_MOST_NOTED = 10


def _note(request: HttpRequest, *methods: Method) -> None:
    now = timezone.now().timestamp()
    noted = [*request.session.get(_NOTED, []), *({**_WORDS[method], "at": now} for method in methods)]
    request.session[_NOTED] = noted[-_MOST_NOTED:]
    proof.note(request)


def finish(request: HttpRequest, user: User, method: Method) -> None:
    """Sign a person in: a new session, proven just now, and a line in the trail."""
    request.session.pop(_PENDING, None)
    request.session.pop(_NOTED, None)
    login(request, user, backend=BACKEND)
    sessions.note_method(request, method)
    begin_session(request)
    _note(request, *((Method.PASSWORD, method) if method in {Method.TOTP, Method.RECOVERY_CODE} else (method,)))
    sessions.keep(request, user, method)
    record(
        "staff.signed_in",
        actor=Actor.staff(user.get_username(), client_address(request)),
        subject={"staff": user.pk},
        details={"by": method.value},
    )


def prove_again(request: HttpRequest, user: User, method: Method) -> None:
    """Note that the person of this session proved it again just now."""
    _note(request, method)
    record(
        "staff.proven_again",
        actor=Actor.staff(user.get_username(), client_address(request)),
        subject={"staff": user.pk},
        details={"by": method.value},
    )
