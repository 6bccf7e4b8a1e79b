"""The schedule at full size as arithmetic: the rows of a million customers would take days, so units are counted.

What is due when, how many units a run works at once, which limits stand, when a stopped run is tried again, and when a
token is due next: these are the product's constants and functions. What this module adds is a run as a number of units
that goes down by a minute's worth. ``portal`` beside it works real rows of a smaller vendor; both have to agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil

from django.conf import settings

from consent.models import PartnerConsent
from consent.selection import WEEK_HOURS
from consent.tokens import health
from portal.runs.models import RESUMED_AFTER
from tenants.gdap import BATCH
from tests.bench.simulation.microsoft import (
    BURST_EVERY,
    BURST_SECONDS,
    PAGE,
    RELATIONSHIPS,
    TIMES_SLOWER,
    Service,
    Sky,
    Weather,
)
from tests.bench.simulation.portal import Age, Oldest, late

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_DAY_HOURS = 24
_VAULT_RATE = 300  # its default; the settings of a bench lift it
_RUNS_AT_ONCE = 2  # of one worker; see TASKS in the settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How large a vendor is, and what works for it.

    Attributes:
        customers: of all partners together.
        at_once: units that a run of the schedule works at once.
    """

    partners: int = 10_000
    customers: int = 1_000_000
    workers: int = 1
    at_once: int = 16

    def calls(self) -> Mapping[str, Mapping[Service, float]]:
        """Return the calls of one unit, by kind of work."""
        customers = self.customers / self.partners
        return {
            "token_check": {Service.VAULT: 1, Service.SIGN_IN: 1, Service.PARTNER_CENTER: 1},
            "customer_sync": {
                Service.VAULT: 2,
                Service.SIGN_IN: 2,
                Service.PARTNER_CENTER: ceil(customers / PAGE),
                Service.GRAPH: 1 + ceil(customers / RELATIONSHIPS) + ceil(customers / BATCH),
            },
            "consent_verify": {Service.VAULT: 1, Service.SIGN_IN: 1, Service.GRAPH: 1},
        }


@dataclass(slots=True)
class Work:
    """A run as a number of units.

    Attributes:
        of: what its units make young, when all are done.
        tries: how often it was resumed by itself.
        resume_at: when a stopped one is tried again; None when nobody does it by itself.
    """

    kind: str
    units: float
    began: float
    of: list[int]
    tries: int = 0
    stopped: bool = False
    resume_at: float | None = None


@dataclass(slots=True)
class FullSize:
    """A vendor's schedule.

    Attributes:
        calls: made, by service.
        peak: most calls a second over a minute, by service.
        longest: seconds from the hand-out of a run to its end, by kind; on usual and slow days.
        busy: minutes in which anything was worked.
        written: versions that the vault took.
    """

    vendor: Vendor
    weather: Weather
    start: float
    oldest: dict[Age, Oldest] = field(default_factory=lambda: {age: Oldest() for age in Age})
    calls: Counter[Service] = field(default_factory=Counter)
    peak: dict[Service, float] = field(default_factory=dict)
    longest: dict[tuple[str, Sky], float] = field(default_factory=dict)
    busy: int = 0
    written: int = 0
    _works: list[Work] = field(default_factory=list)
    _checked: list[float] = field(default_factory=list)
    _stored: list[float] = field(default_factory=list)
    _due: list[float] = field(default_factory=list)
    _ages: dict[Age, list[float]] = field(default_factory=dict)

    def live(self, days: int) -> None:
        """Let so many days pass, minute by minute."""
        number, hours = self.vendor.partners, 0.85 * settings.TOKEN_CHECK_HOURS
        self._checked = [self.start - hours * _HOUR * each / number for each in range(number)]
        self._due = [at + hours * _HOUR for at in self._checked]
        self._stored = [self.start - settings.TOKEN_SAVE_AFTER_HOURS * _HOUR * each / number for each in range(number)]
        first = int(self.start // _HOUR)
        for age, cycle in ((Age.SYNC, _DAY_HOURS), (Age.VERIFY, WEEK_HOURS)):
            self._ages[age] = [(first - 1 - (first - 1 - own) % cycle) * _HOUR for own in range(cycle)]
        for minute in range(int(days * _DAY / _MINUTE)):
            now = self.start + minute * _MINUTE
            if not now % _HOUR:
                self._look(now)
                self._hand_out(now)
            self._work(now)

    @staticmethod
    def limit(service: Service) -> float:
        """Return how many calls a second the portal makes to this service at most, all processes together."""
        return float(_VAULT_RATE if service is Service.VAULT else settings.CALL_RATE)

    def late(self, away_hours: float) -> list[str]:
        """Return in words what became older than it may."""
        return late(self.oldest, away_hours)

    # --- what is due ----------------------------------------------------------------------------------------------

    def _hand_out(self, now: float) -> None:
        hour = int(now // _HOUR)
        due = [token for token, at in enumerate(self._due) if at <= now]
        self._works = [one for one in self._works if one.kind != "token_check" or not one.stopped]  # it covers these
        if due and not any(one.kind == "token_check" for one in self._works):
            self._begin("token_check", len(due), now, due)
        self._begin("customer_sync", self.vendor.partners / _DAY_HOURS, now, [hour % _DAY_HOURS])
        tried = self._ages[Age.VERIFY]
        missed = [own for own in range(WEEK_HOURS) if tried[own] < now - 8 * _DAY and own != hour % WEEK_HOURS]
        chosen = [hour % WEEK_HOURS, *missed]
        self._begin("consent_verify", len(chosen) * self.vendor.customers / WEEK_HOURS, now, chosen)

    def _begin(self, kind: str, units: float, now: float, of: list[int]) -> None:
        self._works.append(Work(kind=kind, units=units, began=now, of=of))

    # --- work -----------------------------------------------------------------------------------------------------

    def _work(self, now: float) -> None:
        for one in self._works:
            if one.stopped and one.resume_at is not None and one.resume_at <= now:
                one.stopped, one.resume_at, one.tries = False, None, one.tries + 1
        open_ones = [one for one in self._works if not one.stopped][: _RUNS_AT_ONCE * self.vendor.workers]
        if not open_ones:
            return
        self.busy += 1
        sky = self.weather.at(now)
        if sky is Sky.AWAY:
            for one in open_ones:
                one.stopped = True
                if one.tries < len(RESUMED_AFTER):
                    one.resume_at = now + RESUMED_AFTER[one.tries].total_seconds()
            return
        made: Counter[Service] = Counter()
        for one in open_ones:
            self._advance(one, now, sky, len(open_ones), made)
        for service, number in made.items():
            self.calls[service] += round(number)
            self.peak[service] = max(self.peak.get(service, 0.0), number / _MINUTE)

    def _advance(self, one: Work, now: float, sky: Sky, sharing: int, made: Counter[Service]) -> None:
        calls = self.vendor.calls()[one.kind]
        latency = self.weather.latency * (TIMES_SLOWER if sky is Sky.SLOW else 1.0)
        by_latency = self.vendor.at_once / (sum(calls.values()) * latency)
        by_limits = min(self.limit(service) / number / sharing for service, number in calls.items())
        answered = 1.0
        if sky is Sky.SLOW:
            answered = (1 - BURST_SECONDS / BURST_EVERY) * (1 - self.weather.refused) ** sum(calls.values())
        units = min(min(by_latency, by_limits) * answered * _MINUTE, one.units)
        one.units -= units
        for service, number in calls.items():
            made[service] += units * number  # type: ignore[assignment]
        if one.units < 1e-6:
            self._end(one, now + _MINUTE, sky)

    def _end(self, one: Work, now: float, sky: Sky) -> None:
        self._works.remove(one)
        if not one.tries:
            place = one.kind, sky
            self.longest[place] = max(self.longest.get(place, 0.0), now - one.began)
        if one.kind == "token_check":
            for token in one.of:
                self._check(token, now)
        else:
            ages = self._ages[Age.SYNC if one.kind == "customer_sync" else Age.VERIFY]
            for own in one.of:
                ages[own] = now
        for other in self._works:  # what stopped is tried again when another of its kind ended well
            if other.kind == one.kind and other.stopped and other.resume_at is None:
                other.resume_at = now

    def _check(self, token: int, now: float) -> None:
        if now - self._stored[token] >= settings.TOKEN_SAVE_AFTER_HOURS * _HOUR:
            self._stored[token] = now
            self.written += 1
            self.calls[Service.VAULT] += 3  # written, read back, and the version before switched off
        self._checked[token] = now
        at = datetime.fromtimestamp(now, UTC)
        _CONSENT.stored_at = at - timedelta(seconds=now - self._stored[token])
        self._due[token] = health.try_after_success(_CONSENT, at).timestamp()

    # --- ages -----------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        away = self.weather.away
        for age, at in (
            (Age.CHECK, min(self._checked)),
            (Age.TOKEN, min(self._stored)),
            (Age.SYNC, min(self._ages[Age.SYNC])),
            (Age.VERIFY, min(self._ages[Age.VERIFY])),
        ):
            self.oldest[age].saw((now - at) / _HOUR, now, was_away=at < away[1] and now > away[0])


_CONSENT = PartnerConsent()
