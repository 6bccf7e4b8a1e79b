"""Ninety days of the schedule in minutes: ``python -m tests.bench.ninety_days``.

The portal's own schedule, runs, limits, due rules and clean-up work on a clock that only waiting moves, with a real
SQLite database and a Microsoft that is slow and refuses for a day, and away for six hours of another. It says how old
each thing became at most, against what docs/operations.md promises. It ends with 1 when a token, a sync or a read was
late.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say

START = datetime(2026, 12, 1, tzinfo=UTC)


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Print rows below each other, the first column to the left."""
    lines = [head, *([str(one) for one in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        first, *others = (
            text.ljust(width) if not place else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        say("    " + "  ".join([first, *others]))


def ages(oldest: Any, away_hours: float) -> None:
    from tests.bench.simulation.portal import promises

    say("\nhow old the oldest became, in hours")
    rows = []
    for age, promise in promises(away_hours).items():
        hours = oldest[age].hours
        rows.append([age, f"{hours[False]:.1f}", promise.usual, f"{hours[True]:.1f}", promise.after_away])
    table(["", "usual, slow", "promised", "away within", "promised"], rows)


def tell_what_was_late(found: list[str]) -> bool:
    say()
    for words in found:
        say(f"LATE: {words}")
    if not found:
        say("nothing was late")
    return not found


def report(portal: Any, days: int, away_hours: int) -> bool:
    """Print what the simulation saw; tell whether nothing was late."""
    from tests.bench.simulation.microsoft import Service

    books, microsoft = portal.books, portal.microsoft
    ages(books.oldest, away_hours)
    say("\nunits by kind of work and result")
    table(
        ["", "result", "units"],
        [[kind, result, f"{number:,}"] for (kind, result), number in sorted(books.ended.items())],
    )
    say("\nruns by kind and state at the end")
    table(["", "state", "runs"], [[kind, state, number] for (kind, state), number in sorted(books.runs.items())])
    say("\nlongest slice of a run, in seconds of the moved clock")
    table(["", "seconds"], [[kind, f"{seconds:.0f}"] for kind, seconds in sorted(books.longest_run.items())])
    say("\ncalls")
    how = ("ok", "429", "no answer")
    kinds = sorted({kind for kind, _, _ in microsoft.calls})
    table(
        ["", "service", *how, "a day"],
        [
            [kind, service, *(f"{number:,}" for number in numbers), f"{sum(numbers) / days:,.0f}"]
            for kind in kinds
            for service in Service
            if any(numbers := [microsoft.calls[kind, service, each] for each in how])
        ],
    )
    say("\nmost calls in one second")
    table(["", "calls"], [[service, number] for service, number in microsoft.peak.items()])
    partners = max(books.rows.get("consent_partnerconsent", 1), 1)
    say(f"\nversions written into the vault: {microsoft.written:,}, {microsoft.written / partners:.1f} a partner")
    say("\nrows at the end")
    table(["", "rows"], [[name, f"{number:,}"] for name, number in sorted(books.rows.items())])
    return tell_what_was_late(books.late(away_hours))


def rows_at_work(options: argparse.Namespace, folder: Path) -> bool:
    """Let the portal work real rows."""
    from consent.jobs import _CONCURRENCY
    from tests.bench.simulation.clock import moved
    from tests.bench.simulation.microsoft import Weather
    from tests.bench.simulation.portal import SimulatedPortal

    began = time.perf_counter()
    with moved(START) as clock:
        weather = Weather.after(clock.seconds, **of_weather(options))
        portal = SimulatedPortal(
            clock, weather, partners=options.partners, customers=options.customers, at_once=_CONCURRENCY
        )
        days = 0
        while days < options.days and time.perf_counter() - began < options.minutes * 60:
            portal.live(24, step_seconds=options.step * 60)
            days += 1
            so_far = "; ".join(portal.books.late(options.away_hours)) or "nothing was late"
            sys.stderr.write(f"day {days}: {so_far}\n")
    say(f"\nreal rows: {options.partners} partners with {options.customers} customers each, {days} days")
    good = report(portal, days, options.away_hours)
    size = sum(file.stat().st_size for file in folder.glob("db.sqlite3*"))
    say(f"database {size / 2**20:.0f} MB")
    return good


def full_size(options: argparse.Namespace) -> bool:
    """Count the units of a vendor of full size."""
    from consent.jobs import _CONCURRENCY
    from tests.bench.simulation.full_size import FullSize, Vendor
    from tests.bench.simulation.microsoft import Weather

    vendor = Vendor(partners=options.full_partners, customers=options.full_customers, at_once=_CONCURRENCY)
    start = START.timestamp()
    simulated = FullSize(vendor, Weather.after(start, **of_weather(options)), start)
    simulated.live(options.days)
    say(
        f"\nunits counted: {vendor.partners:,} partners, {vendor.customers:,} customers, {vendor.workers} worker, "
        f"{options.days} days"
    )
    ages(simulated.oldest, options.away_hours)
    say("\ncalls, and most in a second over a minute")
    table(
        ["", "a day", "a second", "limit"],
        [
            [service, f"{number / options.days:,.0f}", f"{simulated.peak[service]:.0f}", simulated.limit(service)]
            for service, number in simulated.calls.items()
        ],
    )
    say("\nlongest run, in minutes")
    longest = sorted(simulated.longest.items())
    table(["", "Microsoft", "minutes"], [[kind, sky, f"{seconds / 60:.0f}"] for (kind, sky), seconds in longest])
    year = simulated.written / vendor.partners / options.days * 365
    say(f"\nworked in {simulated.busy / options.days / 14.4:.0f} % of all minutes")
    say(f"{year:.0f} versions a partner and year")
    return tell_what_was_late(simulated.late(options.away_hours))


def of_weather(options: argparse.Namespace) -> dict[str, int]:
    return {"slow_day": options.slow_day, "away_day": options.away_day, "away_hours": options.away_hours}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=200)
    parser.add_argument("--customers", type=int, default=20, help="of each partner")
    parser.add_argument("--full-partners", type=int, default=10_000)
    parser.add_argument("--full-customers", type=int, default=1_000_000, help="of all partners together")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--slow-day", type=int, default=30)
    parser.add_argument("--away-day", type=int, default=60)
    parser.add_argument("--away-hours", type=int, default=6)
    parser.add_argument("--step", type=int, default=10, help="minutes between two looks of the scheduler")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long, and say what was seen")
    parser.add_argument("--only", choices=["rows", "full"], help="real rows, or the units of the full size")
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured_portal.open_portal(folder, "", VAULT_URL=str(folder / "vault"))
        slow, away = options.slow_day, options.away_day
        say(f"Microsoft is slow on day {slow}, and away for {options.away_hours} hours on day {away}")
        if options.only != "rows":
            good &= full_size(options)
        if options.only != "full":
            good &= rows_at_work(options, folder)
        say(f"{time.process_time():.0f} s of a processor")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
