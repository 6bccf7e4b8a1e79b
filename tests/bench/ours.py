"""A run that exists, worked as a command works it, in a process of its own; the settings come from the environment.

``python -m tests.bench.ours RUN IN_FLIGHT [PROCESSES]`` prints what it took, from before helpers are forked until the
last of them ended. Started twice on one run, two of them share it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from typing import Any


def _cpu() -> float:
    """Return the seconds of processor that this process and its ended helpers used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(number: str, in_flight: str, processes: str = "1") -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from django.db import connection

    from portal.runs import service
    from portal.runs.crew import Crew, Gathering, shares
    from portal.runs.executor import Executor
    from portal.runs.listening import Listener
    from portal.runs.models import Run
    from tests.bench.town import peak_memory

    statements: Counter[str] = Counter()
    place = ["between"]

    class Counted(Executor):
        def _write(self, *args: Any) -> set[int]:
            place[0] = "batches"
            try:
                statements["batches written"] += 1
                return super()._write(*args)
            finally:
                place[0] = "between"

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements[place[0]] += 1
        return execute(sql, params, many, context)

    run = Run.objects.get(pk=int(number))
    before = _cpu()
    began = time.perf_counter()
    own, *others = shares(int(in_flight), int(processes))
    crew = Crew(run, others)
    connection.ensure_connection()
    executor = Counted(run, concurrency=own, listener=Gathering(Listener(), crew), processes=crew.size)
    with connection.execute_wrapper(count):
        crew.join(executor)
        ending = executor.work()
        crew.disband()
    seconds = time.perf_counter() - began
    cpu = _cpu() - before
    facts = {
        "seconds": seconds,
        "cpu": cpu,
        "memory": peak_memory(),
        "ending": ending.value,
        "worked": sum(executor._classes.values()),
        "classes": dict(service.summary(run).classes),
        "calls": executor._pacer.calls,
        "throttled": executor._pacer.throttled(),
        "statements": dict(statements),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
