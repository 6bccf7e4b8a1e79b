"""One executor of the portal on a run that exists, in a process of its own; the settings come from the environment.

``python -m tests.bench.ours RUN IN_FLIGHT`` prints what it took. Started twice on one run, two of them share it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from typing import Any


def main(number: str, in_flight: str) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from django.db import connection

    from portal.runs import service
    from portal.runs.executor import Executor
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
    connection.ensure_connection()
    before = resource.getrusage(resource.RUSAGE_SELF)
    executor = Counted(run, concurrency=int(in_flight))
    began = time.perf_counter()
    with connection.execute_wrapper(count):
        ending = executor.work()
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
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
