"""The portal at work on the moved clock: rows, the schedule, one worker, and how old everything becomes."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import Min
from django.test import override_settings

from consent.models import CustomerConsent, PartnerConsent
from consent.selection import DAY_HOURS, WEEK_HOURS, Selection
from consent.tokens import health
from consent.tokens.versions import record_id, token_fingerprint
from consent.vault.base import GENERATION_TAG, RECORD_TAG
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.microsoft.secret import Secret
from portal.runs import executor, schedule, summaries
from portal.runs.executor import Executor
from portal.runs.models import Run
from portal.runs.pool import Pool
from portal.runs.registry import jobs, kinds
from portal.runs.tasks import SLICE_SECONDS
from tenants.models import CustomerTenant, PartnerTenant
from tests.bench.simulation.clock import MovedClock, replaced
from tests.bench.simulation.microsoft import (
    PRINCIPAL,
    SCOPES,
    Microsoft,
    SimulatedVault,
    Weather,
    instead_of_clients,
)
from tests.support import builders

_HOUR = 3600.0
_IDLE_SECONDS = 5.0  # a look every half a second, while all units wait, would show nothing more
JOBS = ("keep_alive", "customer_sync", "consent_verify", "incidents", "clean_up", "old_runs", "sweep")
"""Those that concern tokens, syncs and reads, and what is removed; the others call nobody, or once a day."""


class Age(StrEnum):
    """What grows old."""

    CHECK = "token check"
    TOKEN = "stored token"  # no password
    VERIFY = "verify"
    SYNC = "customer sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """How old something may become, in hours: usually, and beside it after Microsoft was away."""

    usual: float
    after_away: float


def promises(away_hours: float) -> Mapping[Age, Promise]:
    """Return what docs/operations.md promises, with an hour for the schedule's grid and one for the work of it."""
    check, day, week = float(settings.TOKEN_CHECK_HOURS), 24.0, 7 * 24.0
    return {
        Age.CHECK: Promise(usual=check, after_away=check + away_hours + 1),
        Age.TOKEN: Promise(usual=settings.TOKEN_RENEW_DAYS * 24, after_away=settings.TOKEN_RENEW_DAYS * 24),
        Age.VERIFY: Promise(usual=week + 2, after_away=week + away_hours + 2),
        Age.SYNC: Promise(usual=day + 2, after_away=day + away_hours + 2),
    }


@dataclass(slots=True)
class Oldest:
    """The greatest age of one thing, in hours, by how Microsoft was within that age."""

    hours: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    at: dict[bool, float] = field(default_factory=dict)

    def saw(self, hours: float, now: float, *, was_away: bool) -> None:
        if hours > self.hours[was_away]:
            self.hours[was_away], self.at[was_away] = hours, now


def late(oldest: Mapping[Age, Oldest], away_hours: float) -> list[str]:
    """Return in words what became older than it may."""
    found = []
    for age, promise in promises(away_hours).items():
        for was_away, most in ((False, promise.usual), (True, promise.after_away)):
            hours = oldest[age].hours[was_away]
            if hours > most:
                when = "after Microsoft was away" if was_away else "on usual and slow days"
                found.append(f"{age} {when}: {hours:.1f} h old, and {most:.1f} h are promised")
    return found


@dataclass(slots=True)
class Books:
    """What the simulation counted.

    Attributes:
        ended: results of units by kind and class.
        runs: by kind and state, when they were last seen.
        failed_jobs: jobs of the schedule that failed, by name.
        longest_run: seconds of the longest slice of a run, by kind.
        rows: at the end, by table.
        looks: how often ages were looked at.
    """

    oldest: dict[Age, Oldest] = field(default_factory=lambda: {age: Oldest() for age in Age})
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_jobs: Counter[str] = field(default_factory=Counter)
    longest_run: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    looks: int = 0

    def late(self, away_hours: float) -> list[str]:
        """Return in words what became older than it may, and which jobs failed."""
        failed = [f"the job {name} failed {number} times" for name, number in self.failed_jobs.items()]
        return failed + late(self.oldest, away_hours)


class _WaitingPool(Pool[Any]):
    """The pool of the one thread that also owns the moved clock: nobody else ends a unit while it waits."""

    def collect(self, seconds: float, *, together: float = 0.0) -> list[Any]:
        found = super().collect(0)
        if not found and seconds > 0:
            time.sleep(max(seconds, _IDLE_SECONDS))
        return found


class SimulatedPortal:
    """A portal with so many connected partners, each with so many customers that have our consent."""

    def __init__(self, clock: MovedClock, weather: Weather, *, partners: int, customers: int, at_once: int) -> None:
        self.clock, self.books = clock, Books()
        self.microsoft = Microsoft(clock, weather, at_once=at_once)
        self.vault = SimulatedVault(self.microsoft)
        self._fill(partners, customers)

    # --- rows -----------------------------------------------------------------------------------------------------

    def _fill(self, partners: int, customers: int) -> None:
        """Make rows as they are after weeks of this schedule: each thing was last done when it was due."""
        registration, now = builders.registration(), self.clock.now()
        builders.grant(registration, *SCOPES)
        made = PartnerTenant.objects.bulk_create([builders.unsaved_partner() for _ in range(partners)])
        hours = 0.85 * settings.TOKEN_CHECK_HOURS
        consents = []
        for number, partner in enumerate(made):
            checked = now - timedelta(hours=hours * (number + 1) / partners)
            consents.append(
                builders.unsaved_consent(
                    partner,
                    registration,
                    last_success_at=checked,
                    last_try_at=checked,
                    mfa_checked_at=checked,
                    last_class="ok",
                    next_try_at=checked + timedelta(hours=hours),
                    stored_at=now - timedelta(hours=settings.TOKEN_SAVE_AFTER_HOURS * number / partners),
                )
            )
        for hour in range(DAY_HOURS):
            own = Selection(hour=hour).partners().values("pk")
            PartnerTenant.objects.filter(pk__in=own).update(customers_synced_at=self._last_time(hour, DAY_HOURS))
        consents = PartnerConsent.objects.bulk_create(consents)
        for consent in consents:
            token = Secret(secrets.token_urlsafe(24))
            consent.fingerprint = token_fingerprint(token)
            tags = {RECORD_TAG: record_id(consent), GENERATION_TAG: "1"}
            self.vault.put(consent.secret_name, consent.secret_version, token, tags)
        PartnerConsent.objects.bulk_update(consents, ["fingerprint"])
        health.watch()
        self._fill_customers(made, customers, registration, now)

    def _fill_customers(self, partners: list[PartnerTenant], number: int, registration: Any, now: datetime) -> None:
        rows = []
        for index in range(number * len(partners)):
            tenant = builders.guid()
            rows.append(
                CustomerTenant(
                    partner=partners[index % len(partners)],
                    tenant_id=tenant,
                    partner_center_id=tenant,
                    company_name=f"Customer {index}",
                    domain=f"customer{index}.example.com",
                    relationship="reseller",
                    first_seen_at=now,
                    last_seen_at=now,
                )
            )
        CustomerTenant.objects.bulk_create(rows, batch_size=500)
        wanted = {GRAPH_APPLICATION_ID: sorted(SCOPES)}
        lately = now - timedelta(days=3)  # neither today nor missed: each is then chosen by its own hour only
        CustomerConsent.objects.bulk_create(
            [
                CustomerConsent(
                    customer=row,
                    registration=registration,
                    state=CustomerConsent.State.GRANTED,
                    actual_grants=wanted,
                    service_principal_id=PRINCIPAL,
                    verified_at=lately,
                    tried_at=lately,
                )
                for row in rows
            ],
            batch_size=500,
        )
        chosen = {
            hour: list(Selection(week_hour=hour).customer_consents().values_list("pk", flat=True))
            for hour in range(WEEK_HOURS)
        }
        for hour, keys in chosen.items():
            read_at = self._last_time(hour, WEEK_HOURS)
            CustomerConsent.objects.filter(pk__in=keys).update(verified_at=read_at, tried_at=read_at)

    def _last_time(self, hour: int, cycle: int) -> datetime:
        """Return when this hour of the day, or of the week, last came."""
        now = int(self.clock.seconds // _HOUR)
        return datetime.fromtimestamp((now - 1 - (now - 1 - hour) % cycle) * _HOUR, UTC)

    # --- hours ----------------------------------------------------------------------------------------------------

    def live(self, hours: float, *, step_seconds: float = 600.0) -> Books:
        """Let so many hours pass.

        Args:
            step_seconds: how often the scheduler looks; in truth every five seconds.
        """
        with self._as_set_up():
            end = self.clock.seconds + hours * _HOUR
            while self.clock.seconds < end:
                step = (self.clock.seconds // step_seconds + 1) * step_seconds
                self._tick()
                self.clock.wait_until(step)
                self._look()
            self._count()
        return self.books

    @contextmanager
    def _as_set_up(self) -> Iterator[None]:
        of_product = dict(kinds())
        known = {name: job for name, job in jobs().items() if name in JOBS}
        for name, kind in of_product.items():
            kinds()[name] = replace(kind, prepare=lambda: ())
        dummy = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}}
        try:
            with (
                replaced(schedule, jobs=lambda: known),
                replaced(executor, Pool=_WaitingPool),
                override_settings(TASKS=dummy),
                instead_of_clients(self.microsoft, self.vault),
            ):
                yield
        finally:
            kinds().update(of_product)

    def _tick(self) -> None:
        """Be the scheduler, and then a worker that does one thing after the other."""
        for name in schedule.tick():
            if schedule.run_job.func(name).startswith("failed"):
                self.books.failed_jobs[name] += 1
        self._look()
        while (run := Run.objects.abandoned().order_by("pk").first()) is not None:
            began, self.microsoft.kind = self.clock.seconds, run.kind
            Executor(run, concurrency=1, seconds=SLICE_SECONDS).work()
            run.refresh_from_db()
            self._note(run, self.clock.seconds - began)
            self._look()
            if run.state == Run.State.OPEN and self.clock.seconds == began:
                break  # it waits for a time that has not come

    def _note(self, run: Run, seconds: float) -> None:
        self.books.longest_run[run.kind] = max(self.books.longest_run.get(run.kind, 0.0), seconds)
        if run.state == Run.State.DONE:
            for name, number in summaries.summary(run).classes.items():
                self.books.ended[run.kind, name] += number

    # --- ages -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Note how old the oldest of each thing is at this moment."""
        self.books.looks += 1
        now = self.clock.seconds
        of_tokens = PartnerConsent.objects.aggregate(checked=Min("last_success_at"), stored=Min("stored_at"))
        oldest = {
            Age.CHECK: of_tokens["checked"],
            Age.TOKEN: of_tokens["stored"],
            Age.VERIFY: CustomerConsent.objects.aggregate(at=Min("verified_at"))["at"],
            Age.SYNC: PartnerTenant.objects.aggregate(at=Min("customers_synced_at"))["at"],
        }
        away = self.microsoft.weather.away
        for age, at in oldest.items():
            if at is not None:
                was_away = at.timestamp() < away[1] and now > away[0]
                self.books.oldest[age].saw((now - at.timestamp()) / _HOUR, now, was_away=was_away)

    def _count(self) -> None:
        for model in apps.get_models():
            if model._meta.app_label in _COUNTED and (number := model._default_manager.count()):
                self.books.rows[model._meta.db_table] = number
        self.books.runs = Counter(Run.objects.values_list("kind", "state"))


_COUNTED = {"audit", "consent", "incidents", "runs", "tenants"}
