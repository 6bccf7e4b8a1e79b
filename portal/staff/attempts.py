"""How often passwords may be tried (S-46): growing waits for each account and each address, kept in the database.

Whoever sprays passwords must not lock their owner out. So an account has one budget for browsers that it never used,
and each browser that it signed in from before has its own (``devices``). A right code of the account's authenticator
app passes the waits as well, and a passkey needs no password at all.

A try is counted before the password is looked at, so simultaneous tries are all counted, and given back when it was
right. A try that comes too early is not looked at: no password is hashed, whether or not the account exists.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from portal.staff.models import SignInTries

FREE = 5  # wrong passwords in a row before the first wait
FREE_OF_AN_ADDRESS = 20  # many people may sit behind one
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(minutes=15)
FORGOTTEN_AFTER = timedelta(days=1)  # without a try that was looked at
MOST_ROWS = 50_000  # beyond it names that no account has get no row of their own
_SIMULTANEOUS = 20


class TooEarly(Exception):
    """This try was not looked at.

    Args:
        until: when the next one is.
        turned_away: how many were not looked at since the first wrong one.
    """

    def __init__(self, until: datetime, turned_away: int) -> None:
        super().__init__("too many wrong passwords")
        self.until, self.turned_away = until, turned_away


@dataclass(frozen=True, slots=True)
class Try:
    """A try that may be looked at, counted as a wrong one already.

    Attributes:
        failures: how many wrong ones in a row this makes.
        turned_away: how many were not looked at meanwhile.
    """

    key: str
    failures: int
    turned_away: int = 0


def of_name(name: str) -> str:
    """Return the key of an account's tries from browsers that it never used; of no account just as well."""
    return _key("name", name)


def of_device(user_id: int, device: str) -> str:
    """Return the key of an account's tries from a browser that it used before."""
    return _key("device", str(user_id), device)


def of_factor(user_id: int) -> str:
    """Return the key of an account's tries of a code after the right password."""
    return _key("factor", str(user_id))


def of_address(address: str | None) -> str:
    """Return the key of an address; an IPv6 address stands for its /64, which one customer has whole."""
    network = address or ""
    if ":" in network:
        network = str(ipaddress.ip_network((network, 64), strict=False))
    return _key("address", network)


def of_everybody(now: datetime) -> str:
    """Return the key of all wrong passwords of this hour."""
    return _key("everybody", f"{now:%Y-%m-%d %H}")


def _key(*parts: str) -> str:
    return salted_hmac("portal.staff.attempts", "\0".join(parts), algorithm="sha256").hexdigest()[:32]


def wait_after(failures: int, free: int = FREE) -> timedelta:
    """Return how long nothing is looked at after so many wrong ones in a row."""
    if failures < free:
        return timedelta(0)
    doubled: timedelta = FIRST_WAIT * 2 ** min(failures - free, 10)
    return min(doubled, LONGEST_WAIT)


def begin(key: str, *, free: int = FREE, waits: bool = True, bounded: bool = False) -> Try:
    """Count a try as a wrong one, and return it.

    Args:
        waits: False only counts.
        bounded: the key is anybody's to choose; no row is made for it while the table is full.

    Raises:
        TooEarly: it must not be looked at.
    """
    now = timezone.now()
    for _ in range(_SIMULTANEOUS):
        row = SignInTries.objects.filter(pk=key, forget_at__gt=now).first()
        failures = row.failures + 1 if row else 1
        wait = wait_after(failures, free) if waits else timedelta(0)
        values = {"failures": failures, "free_at": now + wait, "forget_at": now + FORGOTTEN_AFTER}
        if row is None:
            SignInTries.objects.filter(forget_at__lte=now).delete()
            if bounded and SignInTries.objects.count() >= MOST_ROWS:
                return Try(key, failures)
            try:
                with transaction.atomic():
                    SignInTries.objects.create(key=key, **values)
            except IntegrityError:
                continue  # somebody else's try came in between
            return Try(key, failures)
        if waits and row.free_at > now:
            raise _turned_away(row)
        if SignInTries.objects.filter(pk=key, failures=row.failures, free_at=row.free_at).update(**values):
            return Try(key, failures, row.turned_away)
    if not waits:
        return Try(key, 0)  # so many at once: the others were counted
    raise TooEarly(now + FIRST_WAIT, 0)


def look(key: str) -> None:
    """Look whether a try would be looked at now, without counting it. Raises TooEarly."""
    row = SignInTries.objects.filter(pk=key, free_at__gt=timezone.now()).first()
    if row is not None:
        raise _turned_away(row)


def _turned_away(row: SignInTries) -> TooEarly:
    SignInTries.objects.filter(pk=row.pk).update(turned_away=F("turned_away") + 1)
    return TooEarly(row.free_at, row.turned_away + 1)


def forgive(key: str) -> None:
    """The try was right: the waits of this account or browser begin anew."""
    SignInTries.objects.filter(pk=key).delete()


def give_back(key: str) -> None:
    """The try was right: take only this one back. An address is not cleared by whoever has one account behind it."""
    SignInTries.objects.filter(pk=key, failures__gt=0).update(failures=F("failures") - 1, free_at=timezone.now())
