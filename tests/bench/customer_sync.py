"""One partner with 100,000 customers and as many relationships, mirrored in flat memory.

``python -m tests.bench.customer_sync [--customers 1000,100000] [--partners 1] [--database URL]``. For each number a
fresh sandbox, an empty database and, for each of two syncs, a fresh process: the first sync finds everything new, the
second nothing. It prints time, processor time, statements, answers and the most memory of that process, and ends with 1
when one list took 50 MB more than another. Several partners share the customers, and are worked side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.figures import Figure, note
from tests.bench.partners_at_microsoft import partners_at_microsoft

MOST_GROWTH = 50  # MB
MOST_SECONDS = 0.9  # for a thousand customers


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def work(run: int, partners: int) -> int:
    """Work the run in this process, so many partners at once, and print what it took."""
    import django

    django.setup()
    from django.db.backends.signals import connection_created

    from portal.runs import summaries
    from portal.runs.executor import Executor
    from portal.runs.models import Run

    statements = [0]

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements[0] += 1
        return execute(sql, params, many, context)

    def watch(connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(watch)
    row = Run.objects.get(pk=run)
    began, processor = time.perf_counter(), time.process_time()
    Executor(row, concurrency=partners).work()
    facts = {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - processor,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "statements": statements[0],
        "classes": dict(summaries.summary(row).classes),
    }
    say(json.dumps(facts))
    return 0


def measure(customers: int, partners: int, database: str) -> int:
    """Sync so many customers twice, and print the facts of each."""
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), partners) as (place, gate):
        measured_portal.open_connected_portal(place, Path(name), database)
        from consent.runs.customer_sync import CUSTOMER_SYNC
        from portal.audit.trail import Actor
        from portal.runs import service
        from tenants.models import CustomerTenant, GdapAccessAssignment, GdapRelationship

        gate.add_customers(customers)
        for _ in ("all new", "all known"):
            gate.counters()
            run, _new = service.start(CUSTOMER_SYNC, scope={}, actor=Actor.command("bench"), concurrency=partners)
            working = measured_portal.started("customer_sync", "--work", run.pk, "--partners", partners)
            facts = measured_portal.facts_of(working)
            facts["rows"] = [
                CustomerTenant.objects.count(),
                GdapRelationship.objects.count(),
                GdapAccessAssignment.objects.count(),
            ]
            facts["ready"] = CustomerTenant.objects.filter(readiness="ready").count()
            facts["calls"] = gate.counters()
            say(json.dumps(facts))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", default="1000,100000", help="numbers to measure, separated by commas")
    parser.add_argument("--partners", type=int, default=1, help="partners that share the customers")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied; else SQLite")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.partners)
    if options.one:
        return measure(options.one, options.partners, options.database)
    say(f"{'PostgreSQL' if options.database else 'SQLite'}, {os.cpu_count()} cores")
    memory = []
    for number in map(int, options.customers.split(",")):
        command = [sys.executable, "-m", "tests.bench.customer_sync", "--one", str(number)]
        more = ["--partners", str(options.partners), "--database", options.database]
        answer = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True).stdout
        for what, line in zip(("all new", "all known"), answer.strip().splitlines()[-2:], strict=True):
            facts = json.loads(line)
            if facts["rows"] != [number] * 3 or facts["ready"] != number:
                raise RuntimeError(f"not all were mirrored: {facts}")
            calls = sum(facts["calls"].values())
            say(
                f"{number:>8,} customers, {what:<9} {facts['seconds']:>7.1f} s "
                f"{facts['processor'] / number * 1_000_000:>6.0f} ms of a processor for 1,000 "
                f"{facts['statements']:>7,} statements {calls:>8,} answers {facts['memory']:>5.0f} MB"
            )
            memory.append(facts["memory"])
            name = f"customer sync, {number:,} customers, {what}"
            note(Figure(name=name, value=1000 * facts["seconds"] / number, goal=MOST_SECONDS, unit="s for 1,000"))
    growth = max(memory) - min(memory)
    note(Figure(name="customer sync, growth of memory", value=growth, goal=MOST_GROWTH, unit="MB"))
    say(f"{'holds' if growth < MOST_GROWTH else 'FAILS'}: memory grew by {growth:.0f} MB")
    return 0 if growth < MOST_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
