"""The bulk token check against its floor and against the way of Microsoft's samples, in one run.

``python -m tests.bench.checks [--partners 1000] [--latency 0.1] [--in-flight 64,128] [--rounds 3] [--processes 1]
[--database URL] [--due] [--count]``. Every measured program runs in a process of its own, against one sandbox that
answers each call so much later; floor and ours take turns, and the ratio is the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.figures import Figure, note
from tests.bench.partners_at_microsoft import Gate, PartnersAtMicrosoft, partners_at_microsoft

_SAMPLES_PARTNERS = 20
_MOST_TIMES = {(64, 1): 1.10, (128, 2): 1.35}  # the floor, by units in flight and processes
_MOST_BUSY = 3.0  # ms of a processor for each partner
HEAD = f"{'':<34}{'seconds':>9}{'a partner':>11}{'ratio':>7}{'CPU':>7}{'memory':>9}"


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def row(name: str, seconds: float, partners: int, ratio: float | None, facts: dict[str, Any]) -> None:
    shown = "" if ratio is None else f"{ratio:.2f}"
    each = 1000 * seconds / partners
    memory = facts["memory"] / 1024
    say(f"{name:<34}{seconds:>8.2f}s{each:>9.1f}ms{shown:>7}{facts['cpu']:>6.1f}s{memory:>6.0f} MB")


def middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(found, key=lambda facts: facts["seconds"])[len(found) // 2]


def compare(place: PartnersAtMicrosoft, file: Path, gate: Gate, options: argparse.Namespace, in_flight: int) -> None:
    floors: list[dict[str, Any]] = []
    ours: dict[int, list[dict[str, Any]]] = {number: [] for number in map(int, options.processes.split(","))}
    number = len(place.partners)
    for _ in range(options.rounds):
        floors.append(measured_portal.facts_of(measured_portal.started("floor", file, in_flight, number)))
        for processes, found in ours.items():
            if options.due:
                measured_portal.make_due()
            gate.counters()
            facts = measured_portal.check_all(in_flight, processes)
            if set(facts["classes"]) != {"ok"}:
                raise RuntimeError(f"not all were checked: {facts['classes']}")
            calls = sum(gate.counters().values())
            found.append(facts | {"ratio": facts["seconds"] / floors[-1]["seconds"], "calls": calls / number})
    floor = middle(floors)
    row(f"floor, {in_flight} in flight", floor["seconds"], number, 1.0, floor)
    for processes, found in ours.items():
        best, ratios = middle(found), [facts["ratio"] for facts in found]
        label = f"ours, {in_flight} in flight" + (f", {processes} processes" if processes > 1 else "")
        row(label, best["seconds"], number, statistics.median(ratios), best)
        processor = statistics.median(1000 * facts["cpu"] / number for facts in found)
        changes = statistics.median(facts["thread_changes"] / number for facts in found)
        say(
            f"    {processor:.2f} ms of processor a partner, of the floor {1000 * floor['cpu'] / number:.2f}; "
            f"{changes:.0f} voluntary changes of threads"
        )
        if goal := _MOST_TIMES.get((in_flight, processes)):
            busy = 1000 * best["cpu"] / number
            note(Figure(name=f"bulk check, {label}: times the floor", value=statistics.median(ratios), goal=goal))
            note(Figure(name=f"bulk check, {label}: processor", value=busy, goal=_MOST_BUSY, unit="ms a partner"))
        statements, hundreds = best["statements"], number / 100
        say(
            f"    ratios {', '.join(f'{one:.2f}' for one in ratios)}; {best['calls']:.2f} calls a partner"
            + (
                f"; for 100 partners {statements['between'] / hundreds:.1f} statements between the batches, and "
                f"{statements['batches written'] / hundreds:.1f} batches with "
                f"{statements['batches'] / hundreds:.1f} statements"
                if processes == 1  # helpers do not count theirs
                else ""
            )
        )


def count(options: argparse.Namespace) -> None:
    """Say what load does not blur: calls of Python functions for each partner."""
    for in_flight in map(int, options.in_flight.split(",")):
        facts = measured_portal.check_all(in_flight, count_calls=True)
        say(f"{facts['python_calls'] / facts['worked']:.0f} Python calls a partner, {in_flight} in flight")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=1000)
    parser.add_argument("--latency", default="0.1", help="seconds of each call; several with commas")
    parser.add_argument("--in-flight", default="64,128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", default="1", help="of the command; several with commas")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    parser.add_argument("--due", action="store_true", help="let every token be renewed and saved on the way")
    parser.add_argument("--count", action="store_true", help="only count the calls of Python functions")
    parser.add_argument("--no-samples", action="store_true", help="leave the samples' way out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), options.partners) as (place, gate):
        folder = Path(name)
        file = folder / "partners"
        place.save(file)
        measured_portal.open_connected_portal(place, folder, options.database)
        kind = "PostgreSQL" if options.database else "SQLite"
        say(f"{options.partners} partners, {kind}, {os.cpu_count()} cores, rate limits lifted")
        for latency in map(float, options.latency.split(",")):
            gate.switch(latency=latency)
            say(f"\n{1000 * latency:.0f} ms for each call")
            if options.count:
                count(options)
                continue
            say(HEAD)
            if not options.no_samples:
                few = min(_SAMPLES_PARTNERS, options.partners)
                found = measured_portal.facts_of(measured_portal.started("samples", file, few))
                row(f"samples' way, one by one ({few})", found["seconds"], few, None, found)
            for in_flight in map(int, options.in_flight.split(",")):
                compare(place, file, gate, options, in_flight)
    return 0


if __name__ == "__main__":
    sys.exit(main())
