"""One, two and four workers on one PostgreSQL: ``python -m tests.bench.workers --database postgres://...``.

The same token checks, in as many runs as there are places for four workers, are worked by one worker process, by two
and by four, in turn and several times; then by Celery's workers. Each call takes 100 ms and each run has few threads,
so that the work waits for Microsoft and not for the cores. It prints the partners a second, the ratio to one worker
of the same round, and what the workers took of a processor; and it counts at Microsoft that no token was redeemed
twice. It ends with 1 when one was, or when two workers are less than 1.6 times as fast as one, or four less than 2.4
times.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import measured_portal
from tests.bench.checks import say
from tests.bench.partners_at_microsoft import Gate, partners_at_microsoft

ROOT = Path(__file__).parents[2]
RUNS = 8  # two at once for each of four workers
LEAST = {1: 1.0, 2: 1.6, 4: 2.4}  # times as fast as one; the issue of two cores is the processor
_START_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Return what these processes took of a processor until now."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def connections() -> int:
    """Return how many connections the database has, without this one."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def new_runs(threads: int) -> list[int]:
    """Make runs of the token check that share all partners evenly; return their keys."""
    from consent.models import PartnerConsent
    from consent.runs.token_check import TOKEN_CHECK
    from consent.selection import Selection
    from portal.audit.trail import Actor
    from portal.runs import service

    keys = list(PartnerConsent.objects.order_by("pk").values_list("pk", flat=True))
    made = []
    for number in range(RUNS):
        scope = Selection(tokens=tuple(keys[number::RUNS])).to_json()
        run, _ = service.start(TOKEN_CHECK, scope=scope, actor=Actor.command("bench"), concurrency=threads)
        made.append(run.pk)
    return made


def by_queue(keys: Sequence[int], folder: Path) -> None:
    from portal.runs import tasks
    from portal.runs.models import Run

    for run in Run.objects.filter(pk__in=keys):
        tasks.enqueue(run)


def by_celery(keys: Sequence[int], folder: Path) -> None:
    subprocess.run(_celery(folder, "enqueue", *keys), cwd=ROOT, check=True, env=_with_celery())


def _celery(folder: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.bench.workers", "--celery", str(folder), *map(str, arguments)]


def _with_celery() -> dict[str, str]:
    return os.environ | {"CELERY_BROKER_URL": "filesystem://"}


@contextmanager
def workers(number: int, celery: Path | None) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run so many workers until the block ends; they are ready when it begins."""
    command, environment = [sys.executable, "manage.py", "worker", "--no-schedule"], dict(os.environ)
    if celery is not None:
        command, environment = _celery(celery, "worker"), _with_celery()
    with tempfile.TemporaryFile() as log:
        started = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log) for _ in range(number)]
        try:
            _wait_until_idle(started)
            yield started
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(60)


def _wait_until_idle(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until the start is over: for two seconds hardly anything was computed."""
    until, before = time.monotonic() + _START_SECONDS, -1.0
    while time.monotonic() < until:
        if any(process.poll() is not None for process in processes):
            raise RuntimeError("a worker ended")
        now = processor_seconds(processes)
        if now > 0.5 * len(processes) and now - before < 0.1 * len(processes):
            return
        before = now
        time.sleep(2)
    raise RuntimeError("the workers did not start in time")


def measure(gate: Gate, number: int, threads: int, partners: int, celery: Path | None) -> dict[str, Any]:
    """Let so many workers check all partners once; return what it took."""
    from portal.runs.models import Run, RunItem

    hand_out: Callable[[Sequence[int], Path], None] = by_queue if celery is None else by_celery
    with workers(number, celery) as processes:
        keys = new_runs(threads)
        gate.calls_of_partners()
        used = processor_seconds(processes)
        hand_out(keys, celery or Path())
        began, most = time.monotonic(), 0
        while Run.objects.open().filter(pk__in=keys).exists():
            most = max(most, connections())
            time.sleep(0.1)
        runs = Run.objects.filter(pk__in=keys)
        first = min(run.started_at for run in runs if run.started_at)
        last = max(run.finished_at for run in runs if run.finished_at)
        used = processor_seconds(processes) - used
        waited = time.monotonic() - began
    redeemed = gate.calls_of_partners()
    good = RunItem.objects.filter(run__in=keys, failure_class="ok").count()
    return {
        "seconds": (last - first).total_seconds(),
        "waited": waited,
        "cpu": used,
        "connections": most,
        "twice": sum(1 for times in redeemed.values() if times > 1),
        "redeemed": len(redeemed),
        "good": good == partners,
    }


def rounds(gate: Gate, options: argparse.Namespace, celery: Path | None) -> bool:
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in map(int, options.workers.split(","))}
    ratios: dict[int, list[float]] = {number: [] for number in found}
    for _ in range(options.rounds):
        one = 0.0
        for number in found:
            facts = measure(gate, number, options.threads, options.partners, celery)
            found[number].append(facts)
            one = one or facts["seconds"]
            ratios[number].append(one / facts["seconds"])
    say(f"\n{'Celery' if celery else 'the built-in queue'}")
    say(f"    {'workers':>7}  {'partners/s':>10}  {'times one':>9}  {'CPU a partner':>13}  {'connections':>11}  twice")
    well = True
    for number, all_facts in found.items():
        middle = sorted(all_facts, key=lambda facts: facts["seconds"])[len(all_facts) // 2]
        ratio, twice = statistics.median(ratios[number]), sum(facts["twice"] for facts in all_facts)
        say(
            f"    {number:>7}  {options.partners / middle['seconds']:>10.1f}  {ratio:>9.2f}  "
            f"{1000 * middle['cpu'] / options.partners:>10.1f} ms  {middle['connections']:>11}  {twice:>5}"
        )
        complete = all(facts["good"] and facts["redeemed"] == options.partners for facts in all_facts)
        well &= complete and not twice and ratio >= LEAST.get(number, 1.0)
    return well


def celery_process(folder: str, what: str, *keys: str) -> int:
    """Be one of Celery's workers with a folder as its broker, or hand runs to them."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from portal.runs.celery import app

    app.conf.broker_transport_options = {
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": f"{folder}/control",
    }
    if what == "enqueue":
        by_queue([int(key) for key in keys], Path(folder))
        return 0
    options = ["--pool", "threads", "--concurrency", "2", "--loglevel", "ERROR"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database, which is emptied")
    parser.add_argument("--partners", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2, help="units at once of each run")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds of each call")
    parser.add_argument("--workers", default="1,2,4", help="how many, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-celery", action="store_true")
    parser.add_argument("--celery", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.celery:
        return celery_process(*options.celery)
    if not options.database.startswith("postgres"):
        parser.error("several workers are measured on PostgreSQL: name a database that may be emptied")
    with tempfile.TemporaryDirectory() as name, partners_at_microsoft(Path(name), options.partners) as (place, gate):
        folder = Path(name)
        measured_portal.open_connected_portal(place, folder, options.database)
        gate.switch(latency=options.latency)
        say(
            f"{options.partners} partners in {RUNS} runs, {options.threads} units at once in each, two runs at once in "
            f"each worker, {1000 * options.latency:.0f} ms a call, {os.cpu_count()} cores"
        )
        good = rounds(gate, options, None)
        if not options.no_celery:
            (broker := folder / "broker").mkdir()
            good &= rounds(gate, options, broker)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
