"""How the audit trail grows in a year, and how long a day of it takes to verify (S-57).

``python -m tests.bench.audit_growth [--partners 10000] [--customers 1000000] [--sample 4000] [--database URL]`` writes
a sample of each kind of entry by the portal's own function into an empty database, measures what it takes with its
indexes, and multiplies by how often the default schedule and the people of a vendor of that size write it. Hand-outs
of tokens to programs are not counted: they depend on the programs (``--handed-out``, a day). What happens once, such
as the consent in each of the customers, is a column of its own. It ends with 1 when a year takes more than 2 GB, or the
check of a day takes more than a minute.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say

_GIGABYTE = 1024**3
_MOST, _LONGEST = 2 * _GIGABYTE, 60.0
_BATCH = 8  # renewed tokens that a run of the schedule (16 at once) saves together
_DIGEST = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of entry as the portal writes it: how often in a year, and how often once, when all is brought in."""

    action: str
    year: float
    once: float = 0
    subject: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    correlated: bool = True
    outcome: str = "done"


def kinds(partners: int, customers: int, handed_out: int) -> Sequence[Kind]:
    day = 365
    of_partner = {"partner": 4711, "consent": 4711}
    of_customer = {"customer_consent": 471_100, "customer": 471_100, "registration": 1}
    grants = {"00000003-0000-0000-c000-000000000000": ["Directory.Read.All", "User.Read.All"]}
    return [
        Kind(action="run.started", year=72 * day, details={"kind": "consent_verify", "scope": {"week_hour": 101}}),
        Kind(
            action="run.finished",
            year=72 * day,
            subject={"run": 90_000},
            details={
                "kind": "consent_verify",
                "total": 5952,
                "classes": {"ok": 5900, "throttled": 52},
                "digest": _DIGEST,
            },
        ),
        Kind(  # each daily check saves the rotated token
            action="tokens.stored",
            year=partners / _BATCH * day,
            details={"generations": {str(4711 + number): 371 for number in range(_BATCH)}},
            correlated=False,
        ),
        Kind(  # one partner in two hundred turns a day
            action="token.checked",
            year=partners / 200 * day,
            subject=of_partner,
            details={
                "state": {"before": "connected", "after": "needs_consent"},
                "last_code": {"before": "", "after": "x"},
            },
        ),
        Kind(  # one in ten has a customer more or less
            action="partner.customers_synced",
            year=partners / 10 * day,
            once=partners,
            subject={"partner": 4711},
            details={"listed": 101, "created": 1, "missing": 0, "odd": 0},
        ),
        Kind(
            action="partner.relationships_synced",
            year=partners / 10 * day,
            once=partners,
            subject={"partner": 4711},
            details={"relationships": 120, "assignments": 130, "created": 1, "missing": 0, "odd": 0},
        ),
        Kind(action="callback.refused", year=200 * day, details={"why": "unknown_state"}),
        Kind(  # twenty members of staff, a hundred things a day each: sign-ins, readings of the trail, changes
            action="partner.changed",
            year=2000 * day,
            subject={"partner": 4711},
            details={"before": {"name": "Northwind Cloud"}, "after": {"name": "Northwind Cloud GmbH"}},
            correlated=False,
        ),
        Kind(action="upkeep.done", year=20 * day, details={"expired_flows": 3, "old_attempts": 12, "old_reads": 900}),
        # The consent of each customer, once: what is about to be sent, and what was read back.
        Kind(
            action="customer_consent.create",
            year=customers / 50,
            once=customers,
            subject=of_customer,
            details={"request_id": str(uuid.UUID(int=7)), "grants": grants},
            outcome="intent",
        ),
        Kind(
            action="customer_consent.observed",
            year=customers / 50,
            once=customers,
            subject=of_customer,
            details={"state": "granted", "service_principal": str(uuid.UUID(int=9))},
        ),
        Kind(action="link.issued", year=partners / 10, once=partners * 6, subject={"partner": 4711, "link": 9000}),
        Kind(
            action="token.handed_out",
            year=handed_out * day,
            subject=of_partner,
            details={"audience": "graph", "customer": str(uuid.UUID(int=3)), "to": "stdout"},
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=10_000)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--handed-out", type=int, default=0, help="tokens given to programs a day")
    parser.add_argument("--sample", type=int, default=4000, help="entries of each kind that are measured")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vault = {"VAULT_URL": str(folder / "vault"), "VAULT_KEY_FILE": str(folder / "key")}
        measured_portal.open_portal(folder, options.database, LOG_LEVEL="ERROR", **vault)
        return measure(kinds(options.partners, options.customers, options.handed_out), options)


def measure(all_kinds: Sequence[Kind], options: argparse.Namespace) -> int:
    from django.db import connection

    from portal.audit.models import AuditEvent
    from portal.audit.trail import Actor, Entry, record_all
    from portal.audit.walking import first_broken_sequence

    def size() -> int:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("VACUUM ANALYZE audit_auditevent")
                cursor.execute("SELECT pg_total_relation_size('audit_auditevent')")
                return int(cursor.fetchone()[0])
            cursor.execute("PRAGMA page_count")
            pages = cursor.fetchone()[0]
            cursor.execute("PRAGMA page_size")
            return int(pages * cursor.fetchone()[0])

    say(f"{connection.vendor}: {options.partners:,} partners, {options.customers:,} customers")
    say(f"{'entry':<32}{'bytes':>7}{'a year':>12}{'once':>12}{'MB a year':>11}{'MB once':>10}")
    year = once = entries = entries_once = 0.0
    actor = Actor.staff("operator@vendor.example", "203.0.113.7")
    for kind in (one for one in all_kinds if one.year):
        before = size()
        for start in range(0, options.sample, 20):
            record_all(
                [
                    Entry(
                        kind.action,
                        actor,
                        AuditEvent.Outcome(kind.outcome),
                        subject={name: value + start + number for name, value in kind.subject.items()},
                        details=kind.details,
                        correlation_id=str(uuid.uuid4()) if kind.correlated else "",
                    )
                    for number in range(20)
                ]
            )
        each = (size() - before) / options.sample
        year, once = year + each * kind.year, once + each * kind.once
        entries, entries_once = entries + kind.year, entries_once + kind.once
        say(
            f"{kind.action:<32}{each:>7.0f}{kind.year:>12,.0f}{kind.once:>12,.0f}"
            f"{each * kind.year / 1024**2:>11,.0f}{each * kind.once / 1024**2:>10,.0f}"
        )
    say(f"{'all':<39}{entries:>12,.0f}{entries_once:>12,.0f}{year / 1024**2:>11,.0f}{once / 1024**2:>10,.0f}")

    began = time.perf_counter()
    broken, number = first_broken_sequence(), AuditEvent.objects.count()
    rate = number / (time.perf_counter() - began)
    units = options.partners * 2 + options.customers / 7
    by_digest = units / _digested_a_second()
    day = entries / 365 / rate + by_digest
    say(f"{number:,} entries verified at {rate:,.0f} a second, broken: {broken}")
    say(f"a day: {entries / 365:,.0f} entries, and {units:,.0f} results of runs in {by_digest:.0f} s: {day:.0f} s")
    missed = [words for words, holds in (("2 GB", year < _MOST), ("a minute", day < _LONGEST)) if not holds]
    say(f"missed: {', '.join(missed)}" if missed else "both goals are met")
    return 1 if missed or broken else 0


def _digested_a_second(number: int = 20_000) -> float:
    """Return how many results of runs are digested in a second."""
    from django.utils import timezone

    from portal.runs.models import Run, RunItem
    from portal.runs.results import digest_of

    run = Run.objects.create(kind="bench", scope_hash="x", actor_kind="system", actor="portal")
    RunItem.objects.bulk_create(
        [
            RunItem(
                run=run,
                key=key,
                group=key % 500,
                label=f"Customer {key}",
                turn=0,
                state=RunItem.State.DONE,
                failure_class="ok",
                correlation_id=str(uuid.uuid4()),
                finished_at=timezone.now(),
            )
            for key in range(number)
        ],
        batch_size=2000,
    )
    began = time.perf_counter()
    digest_of(run.pk)
    return number / (time.perf_counter() - began)


if __name__ == "__main__":
    raise SystemExit(main())
