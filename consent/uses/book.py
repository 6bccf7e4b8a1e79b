"""Write down each access token that is given out, cheaply.

What happens alone is written before the token leaves. What happens in a run is counted in memory, a row for each
partner and service, and written with the run's results, a quarter of a second later at most: a crash loses no more.
Notes are taken in any thread; the thread that owns the database writes them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import transaction
from django.utils import timezone

from consent.models import TokenUse
from portal.audit.trail import Actor
from portal.bulk import insert_all, update_each

Purpose = TokenUse.Purpose
_LONGEST_NAME = 150
_REMEMBERED = 30_000  # partners and services of runs


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who uses a token, and what for.

    Attributes:
        run: number of the run that does it; its uses are counted together.
    """

    actor: Actor
    purpose: TokenUse.Purpose
    run: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One token that is given out.

    Attributes:
        partner: its key; the same of ``registration`` and ``customer``.
        of_customer: whether it is for a customer's tenant.
        cached: whether it was in memory; else it was issued just now.
    """

    by: By
    partner: int
    registration: int
    audience: str
    customer: int | None = None
    of_customer: bool = False
    cached: bool = False
    correlation_id: str = ""


type _Key = tuple[int, int, int, str]


@dataclass(slots=True)
class _Count:
    """What one process counted of a run for one partner, registration and service."""

    by: By
    at: datetime
    last_at: datetime
    issued: int = 0
    cached: int = 0
    of_customers: int = 0
    row: int | None = None


class Book:
    """The ledger of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone: list[tuple[datetime, Use]] = []
        self._runs: dict[_Key, _Count] = {}
        self._changed: dict[int, set[_Key]] = {}  # of each run, what is not written yet

    def note(self, use: Use) -> None:
        """Take a note; ``write`` writes it."""
        now = timezone.now()
        with self._lock:
            if use.by.run is None:
                self._alone.append((now, use))
                return
            key = use.by.run, use.partner, use.registration, use.audience
            count = self._runs.get(key)
            if count is None:
                count = self._runs[key] = _Count(use.by, now, now)
                self._forget_the_oldest()
            self._changed.setdefault(use.by.run, set()).add(key)
            count.last_at = now
            count.issued += not use.cached
            count.cached += use.cached
            count.of_customers += use.of_customer

    def write(self) -> None:
        """Write what happened alone; no statement when nothing did."""
        with self._lock:
            noted, self._alone = self._alone, []
        if not noted:
            return
        try:
            TokenUse.objects.bulk_create([_row(at, use) for at, use in noted])
        except BaseException:
            with self._lock:  # nothing is lost: whoever writes next tries again
                self._alone = noted + self._alone
            raise

    def write_run(self, run: int) -> None:
        """Write what was counted of a run since the last time, in the caller's transaction; two statements at most.

        What is rolled back is written the next time.
        """
        with self._lock:
            changed = self._changed.pop(run, set())
            if not changed:
                return
            rows = {key: _counted(key, self._runs[key]) for key in changed}
        new = {key: row for key, row in rows.items() if row.pk is None}
        try:
            if new:
                insert_all(list(new.values()))
            if old := [row for key, row in rows.items() if key not in new]:
                update_each(old, ["last_at", "issued", "cached", "of_customers"])
        finally:
            # Until the commit they count as not written; then only those are that changed meanwhile.
            self._change_again(run, rows)
        transaction.on_commit(partial(self._committed, run, rows))

    def _change_again(self, run: int, rows: dict[_Key, TokenUse]) -> None:
        with self._lock:
            self._changed.setdefault(run, set()).update(rows)

    def _committed(self, run: int, rows: dict[_Key, TokenUse]) -> None:
        with self._lock:
            for key, row in rows.items():
                count = self._runs[key]
                count.row = row.pk
                if (count.issued, count.cached) == (row.issued, row.cached):
                    self._changed[run].discard(key)
            if not self._changed[run]:
                del self._changed[run]

    def _forget_the_oldest(self) -> None:
        """Keep the memory flat: what is written and was begun long ago gets another row if it is used again."""
        while len(self._runs) > _REMEMBERED:
            oldest = next(iter(self._runs))
            if oldest in self._changed.get(oldest[0], ()):
                return
            del self._runs[oldest]


def _row(at: datetime, use: Use) -> TokenUse:
    return TokenUse(
        at=at,
        last_at=at,
        partner_id=use.partner,
        registration_id=use.registration,
        audience=use.audience,
        customer_id=use.customer,
        correlation_id=use.correlation_id,
        issued=not use.cached,
        cached=use.cached,
        of_customers=use.of_customer,
        **_who(use.by),
    )


def _counted(key: _Key, count: _Count) -> TokenUse:
    run, partner, registration, audience = key
    return TokenUse(
        pk=count.row,
        at=count.at,
        last_at=count.last_at,
        partner_id=partner,
        registration_id=registration,
        audience=audience,
        run=run,
        issued=count.issued,
        cached=count.cached,
        of_customers=count.of_customers,
        **_who(count.by),
    )


def _who(by: By) -> dict[str, str | None]:
    return {
        "purpose": by.purpose,
        "actor_kind": by.actor.kind,
        "actor": by.actor.name[:_LONGEST_NAME],
        "address": by.actor.address,
    }
