"""How many database connections a busy worker holds.

``python -m tests.bench.connections URL [--units 3000] [--at-once 64]`` empties this PostgreSQL database, gives a worker
two runs whose units read, write and wait as those of a sync do, and looks twenty times a second at what the server
says. It ends with 1 when the worker ever held more than 20.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from tests.bench import measured_portal
from tests.bench.checks import say

_MOST = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="URL of a PostgreSQL database, which is emptied")
    parser.add_argument("--units", type=int, default=3000, help="of each of two runs")
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vault = {"VAULT_URL": str(folder / "vault"), "VAULT_KEY_FILE": str(folder / "key")}
        measured_portal.open_portal(folder, options.database, **vault)
        keys = _begin(options.units, options.at_once)
        seen: Counter[int] = Counter()
        threading.Thread(target=_watch, args=(options.database, keys, seen), daemon=True).start()
        from django.core.management import call_command

        call_command("worker")
    looks = sorted(seen.elements())
    say(f"two runs of {options.units} units, {options.at_once} at once each; {len(looks)} looks")
    say(f"connections of the worker: {looks[len(looks) // 2]} in the middle, {looks[-1]} at most")
    return 1 if looks[-1] > _MOST else 0


def _begin(units: int, at_once: int) -> list[int]:
    """Start two runs of a kind that uses the database; return their numbers."""
    from django.db import transaction

    from portal.audit.trail import Actor
    from portal.runs import registry, service, tasks
    from portal.runs.kinds import Context, Done, Kind, Outcome, Unit
    from tenants.models import PartnerTag

    def listed(scope: Mapping[str, Any], after: int, limit: int) -> Sequence[Unit]:
        return [Unit(key=key, group=key, label="x") for key in range(after + 1, min(after + limit, units) + 1)]

    def work(key: int, subject: int, context: Context) -> Outcome:
        for part in range(3):
            PartnerTag.objects.filter(name="x").exists()
            context.sleep(0.02)  # as a call takes
            with transaction.atomic():
                PartnerTag.objects.create(name=f"{context.run_id} {key} {part}")
        return Outcome()

    def write(done: Sequence[Done], context: Context) -> None:
        """Write nothing more."""

    kind = Kind(
        name="bench",
        label="Bench",
        units=listed,
        load=lambda keys, context: {key: key for key in keys},
        work=work,
        write=write,
        uses_database=True,
    )
    registry.kinds()[kind.name] = kind
    keys = []
    for number in range(2):
        run, _ = service.start(kind, scope={"n": number}, actor=Actor.command("bench"), concurrency=at_once)
        tasks.enqueue(run)
        keys.append(run.pk)
    return keys


def _watch(database: str, keys: Sequence[int], seen: Counter[int]) -> None:
    """Count the other connections until both runs are done, then let the worker end."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    left = "SELECT count(*) FROM runs_run WHERE id = ANY(%s) AND state = 'open'"
    with psycopg.connect(database, autocommit=True) as own:
        while own.execute(left, [list(keys)]).fetchone() != (0,):
            if (row := own.execute(count).fetchone()) is not None:
                seen[row[0]] += 1
            time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main())
