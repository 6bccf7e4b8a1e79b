"""Work a run in this process and print what it took as JSON; settings come from the environment.

``python -m tests.bench.counted RUN THREADS [PROFILE]``. Processor seconds, statements and hand-overs are of this
process alone, from after its imports to the end of the run. With PROFILE, a file, cProfile writes there what one thread
did; then THREADS must be 1, which works each unit in the thread that is measured.
"""

from __future__ import annotations

import cProfile
import json
import os
import resource
import sys
import time
from collections import Counter
from typing import Any


def main(number: str, threads: str, profile: str = "") -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from django.db.backends.signals import connection_created

    from portal.runs.executor import Executor
    from portal.runs.models import Run
    from portal.runs.pool import tune_for_batches
    from tests.bench.consents import register_posts
    from tests.bench.partners_at_microsoft import peak_memory

    register_posts()
    statements: Counter[str] = Counter()

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements[sql.split(maxsplit=1)[0]] += 1  # threads may lose one now and then; it is a measurement
        return execute(sql, params, many, context)

    def watch(connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(count)

    connection_created.connect(watch)
    tune_for_batches()
    run = Run.objects.get(pk=int(number))
    executor = Executor(run, concurrency=int(threads))
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(executor.work)
        profiler.dump_stats(profile)
    else:
        executor.work()
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "handovers": used.ru_nvcsw - before.ru_nvcsw,
        "memory": peak_memory(),
        "worked": executor.progress().classes.total(),
        "statements": dict(statements),
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
