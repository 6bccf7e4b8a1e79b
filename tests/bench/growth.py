"""What a year at full size brings: the database, the vault, and the calls of a day (S-57).

``python -m tests.bench.growth [--partners 10000] [--customers 1000000] [--sample 20000] [--database URL]`` writes a
sample of each kind of row into an empty database, of the audit trail by the portal's own function. What the schedule
rewrites is rewritten, with a vacuum whenever a fifth is dead, as autovacuum does by default. It measures what a row
takes with its indexes, and multiplies by what the default schedule and the people of a vendor of that size write, and
by how long it is kept. Hand-outs of tokens to programs are not counted: they depend on the programs (``--handed-out``,
a day). It ends with 1 when a goal is missed: 10 GB of database after a year, 2 GB of trail a year, a minute to check a
day of it, 60 versions of a partner's token.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say

_GIGABYTE = 1024**3
_MEGABYTE = 1024**2
_MOST, _MOST_AUDIT, _LONGEST, _MOST_VERSIONS = 10 * _GIGABYTE, 2 * _GIGABYTE, 60.0, 60.0
_CHECKS_A_DAY = 24 / (
    24 * 0.85 + 0.5
)  # of a partner: 80 to 90 % of a day after the last one, as the hourly job finds it
_FAILING = 0.01  # of the units of a day
_PARTS = 20
_BATCH = 4  # renewed tokens that a run of the schedule (16 at once) saves together
_DIGEST = "0" * 64
_FORGOTTEN = {"kind": "consent_verify", "forgotten": 5900, "digest": _DIGEST}


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
        Kind(
            action="run.units_forgotten", year=72 * day, subject={"run": 90_000}, details=_FORGOTTEN, correlated=False
        ),
        Kind(  # the weekly ones of a run of the schedule
            action="tokens.stored",
            year=partners * versions_a_year() / _BATCH,
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


# --- the other tables ---------------------------------------------------------------------------------------------


def measure_tables(all_tables: Sequence[Any], sample: int) -> float:
    """Print what each table takes, and return the bytes of all after a year."""

    from tests.bench.many_rows import fill

    say(f"\n{'table':<32}{'bytes':>7}{'a day':>12}{'kept':>6}{'after a year':>14}{'MB':>9}")
    year = 0.0
    for table in all_tables:
        name, number = table.model._meta.db_table, min(sample, int(table.after_a_year))
        before = _size(name)
        if table.day:  # rows come in turn, and each is rewritten in the first hours of its life
            for part in range(_PARTS):
                first, last = (1 + number * at // _PARTS for at in (part, part + 1))
                fill(table.model, map(table.rows, range(first, last)))
                for columns in table.rewritten:
                    _rewrite(name, columns, f"id BETWEEN {table.first + first} AND {table.first + last - 1}")
                    _size(name)
        else:  # all are there, and are rewritten in turn
            fill(table.model, map(table.rows, range(1, number + 1)))
            for columns in table.rewritten:
                for part in range(5):  # autovacuum comes when a fifth is dead
                    _rewrite(name, columns, f"id % 5 = {part}")
                    _size(name)
        each = (_size(name) - before) / number
        year += each * table.after_a_year
        kept = f"{table.kept}" if table.day and table.kept < 365 else "-"
        say(
            f"{name:<32}{each:>7.0f}{table.day:>12,.0f}{kept:>6}{table.after_a_year:>14,.0f}"
            f"{each * table.after_a_year / _MEGABYTE:>9,.0f}"
        )
    return year


def _rewrite(table: str, columns: Mapping[str, str], which: str) -> None:
    from django.db import connection

    written = ", ".join(f"{column} = {value}" for column, value in columns.items())
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {written} WHERE {which}")  # noqa: S608


def _size(table: str) -> int:
    """Return the bytes of a table with its indexes, after a vacuum; of SQLite those of the whole file."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"VACUUM ANALYZE {table}")
            cursor.execute(f"SELECT pg_total_relation_size('{table}')")
            return int(cursor.fetchone()[0])
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return int(cursor.fetchone()[0])


# --- vault and calls ----------------------------------------------------------------------------------------------


@cache
def versions_a_year() -> float:
    """Return how many versions a partner's entry gets in a year, by the portal's own rules, on a clock of its own."""
    from unittest import mock

    from django.conf import settings
    from django.utils import timezone

    from consent.models import PartnerConsent
    from consent.tokens import health
    from consent.tokens.renewal import rotation
    from tenants.models import PartnerTenant

    rule = rotation(min(timedelta(hours=settings.TOKEN_SAVE_AFTER_HOURS), health.renew_after()))
    partner = PartnerTenant(tenant_id=str(uuid.UUID(int=1)))
    began, saved, partners = timezone.now(), 0, 20
    for _ in range(partners):
        consent, now = PartnerConsent(partner=partner, stored_at=began), began
        while now < began + timedelta(days=365):
            with mock.patch.object(timezone, "now", return_value=now):
                if rule.renews(consent, partner.tenant):
                    consent.stored_at, saved = now, saved + 1
            now = health.try_after_success(consent, now) + timedelta(minutes=30)  # the hourly job finds it
    return saved / partners


def measure_vault(partners: int, folder: Path) -> float:
    """Print what the vault holds after a year; return the versions of a partner."""
    from django.conf import settings

    from consent.vault.base import SecretName
    from consent.vault.keys import KeyRing
    from consent.vault.local import LocalVault
    from portal.microsoft.secret import Secret

    versions = versions_a_year()
    vault = LocalVault(folder / "measured", KeyRing([b"0" * 32]))
    for number in range(50):
        tags = {"record": f"consent-{number}", "generation": "1"}
        vault.write(SecretName(f"rt-{number:032x}"), Secret("x" * 1500), tags=tags, expires_at=None)
    each = sum(path.stat().st_blocks * 512 for path in (folder / "measured").rglob("*")) / 50
    kept = 1 + versions * settings.VAULT_OLD_KEPT_DAYS / 365
    say(f"\nversions of a partner's token in a year: {versions:.1f}")
    say(f"Key Vault: {partners * versions:,.0f} in all; 450 of an entry after {450 / versions:.1f} years")
    held = partners * kept
    say(f"embedded: {kept:.1f} files of a partner are kept, {held:,.0f} in all, {held * each / _MEGABYTE:,.0f} MB")
    return versions


def calls(partners: int, customers: int) -> None:
    """Print the calls of a day by service."""
    from tenants.gdap import BATCH
    from tenants.partner_center import PAGE_SIZE
    from tests.bench.growing_tables import CHECKS_A_DAY

    checks, reads, saved = partners * CHECKS_A_DAY, customers / 7, partners * versions_a_year() / 365
    each = customers / partners
    graph = math.ceil(each * 1.2 / 300) + math.ceil(each * 1.2 / BATCH) + 1
    pages = math.ceil(versions_a_year() / 25)
    rows = {
        "checks": (checks, checks, 0, checks),
        "saved tokens (write, read back, off)": (0, 0, 0, 3 * saved),
        "customer sync": (2 * partners, partners * math.ceil(each / PAGE_SIZE), partners * graph, 2 * partners),
        "check of customer consents": (reads, 0, reads, reads),
        "comparison of the vault, what changed": (0, 0, 0, saved * (pages + 1)),
        "comparison of the vault, a seventh of all": (0, 0, 0, (partners / 25 + partners * (pages + 1)) / 7),
    }
    rows["all"] = tuple(sum(values) for values in zip(*rows.values(), strict=True))
    say(f"\n{'calls a day':<46}{'sign-in':>10}{'Partner C.':>11}{'Graph':>10}{'vault':>10}")
    for name, numbers in rows.items():
        say(f"{name:<46}{numbers[0]:>10,.0f}{numbers[1]:>11,.0f}{numbers[2]:>10,.0f}{numbers[3]:>10,.0f}")
    say(f"{'mean a second':<46}" + "".join(f"{number / 86_400:>10.2f}" for number in rows["all"]))


# --- the trail, and all together ------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=10_000)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--handed-out", type=int, default=0, help="tokens given to programs a day")
    parser.add_argument("--sample", type=int, default=20_000, help="rows of each table that are measured")
    parser.add_argument("--entries", type=int, default=2_000, help="entries of each kind that are measured")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vault = {"VAULT_URL": str(folder / "vault"), "VAULT_KEY_FILE": str(folder / "key")}
        measured_portal.open_portal(folder, options.database, LOG_LEVEL="ERROR", **vault)
        trail, trail_once, day, broken = measure_trail(options)
        from tests.bench.growing_tables import tables

        rest = measure_tables(tables(options.partners, options.customers), options.sample)
        versions = measure_vault(options.partners, folder)
        calls(options.partners, options.customers)
    year = trail + trail_once + rest
    say(f"\nthe database after a year: {year / _GIGABYTE:.1f} GB, {(trail + trail_once) / _GIGABYTE:.1f} of it trail")
    goals = {
        "10 GB of database": year < _MOST,
        "2 GB of trail a year": trail < _MOST_AUDIT,
        "a minute to check a day": day < _LONGEST,
        "60 versions": versions < _MOST_VERSIONS,
    }
    missed = [words for words, holds in goals.items() if not holds]
    say(f"missed: {', '.join(missed)}" if missed else "all goals are met")
    return 1 if missed or broken else 0


def measure_trail(options: argparse.Namespace) -> tuple[float, float, float, Any]:
    """Print what each kind of entry takes.

    Returns:
        Bytes of a year and those that come once, seconds to check a day, and the first broken entry.
    """
    from django.db import connection

    from portal.audit.models import AuditEvent
    from portal.audit.trail import Actor, Entry, record_all
    from portal.audit.walking import first_broken_sequence

    say(f"{connection.vendor}: {options.partners:,} partners, {options.customers:,} customers")
    say(f"{'entry':<32}{'bytes':>7}{'a year':>12}{'once':>12}{'MB a year':>11}{'MB once':>10}")
    year = once = entries = entries_once = 0.0
    actor = Actor.staff("operator@vendor.example", "203.0.113.7")
    for kind in (one for one in kinds(options.partners, options.customers, options.handed_out) if one.year):
        before = _size("audit_auditevent")
        for start in range(0, options.entries, 20):
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
        each = (_size("audit_auditevent") - before) / options.entries
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
    units = options.partners * 2.2 + options.customers / 7
    by_digest = units / _digested_a_second()
    day = entries / 365 / rate + by_digest
    say(f"{number:,} entries verified at {rate:,.0f} a second, broken: {broken}")
    say(f"a day: {entries / 365:,.0f} entries, and {units:,.0f} results of runs in {by_digest:.0f} s: {day:.0f} s")
    return year, once, day, broken


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
