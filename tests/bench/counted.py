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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def facts(number: str, threads: str, profile: str = "") -> dict[str, Any]:
    """Work the run and return what it took."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from portal.runs.executor import Executor
    from portal.runs.models import Run
    from portal.runs.pool import tune_for_batches
    from tests.bench.consents import register_posts
    from tests.bench.partners_at_microsoft import peak_memory

    register_posts()
    tune_for_batches()
    run = Run.objects.get(pk=int(number))
    executor = Executor(run, concurrency=int(threads))
    with _statements() as statements:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if profile:
            profiler = cProfile.Profile()
            profiler.runcall(executor.work)
            profiler.dump_stats(profile)
        else:
            executor.work()
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "handovers": used.ru_nvcsw - before.ru_nvcsw,
        "memory": peak_memory(),
        "worked": executor.progress().classes.total(),
        "statements": dict(statements),
    }


@contextmanager
def _statements() -> Iterator[Counter[str]]:
    """Count the statements of all threads by their first word."""
    from django.db import connection
    from django.db.backends.signals import connection_created

    found: Counter[str] = Counter()

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found[sql.split(maxsplit=1)[0]] += 1  # threads may lose one now and then; it is a measurement
        return execute(sql, params, many, context)

    def watch(connection: Any, **kwargs: Any) -> None:
        if count not in connection.execute_wrappers:  # a connection that was closed is made anew again and again
            connection.execute_wrappers.append(count)

    connection_created.connect(watch)
    try:
        with connection.execute_wrapper(count):
            yield found
    finally:
        connection_created.disconnect(watch)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts(*sys.argv[1:])) + "\n")
