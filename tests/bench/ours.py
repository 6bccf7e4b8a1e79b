"""A run that exists, worked by the commands' own code in a process of its own; settings come from the environment.

``python -m tests.bench.ours RUN IN_FLIGHT [PROCESSES] [count]`` prints what it took, from before helpers are forked
until the summary was printed. Started twice on one run, two of them share it. With ``count`` it counts the calls of
Python functions, which takes long and says the same on a busy machine as on a quiet one.
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


class _Sink:
    """A file that nobody reads, as when a command is piped away."""

    def __init__(self) -> None:
        self.lines = 0

    def write(self, text: str, /) -> None:
        self.lines += 1

    def isatty(self) -> bool:
        return False


class _Calls:
    """Counts the calls of Python functions in all threads of this process."""

    def __init__(self) -> None:
        self.number = 0
        sys.monitoring.use_tool_id(sys.monitoring.PROFILER_ID, "calls")
        sys.monitoring.register_callback(sys.monitoring.PROFILER_ID, sys.monitoring.events.PY_START, self._count)
        sys.monitoring.set_events(sys.monitoring.PROFILER_ID, sys.monitoring.events.PY_START)

    def _count(self, code: object, offset: int) -> None:
        self.number += 1

    def end(self) -> None:
        sys.monitoring.set_events(sys.monitoring.PROFILER_ID, sys.monitoring.events.NO_EVENTS)


def facts(number: str, in_flight: str, processes: str = "1", count_calls: str = "") -> dict[str, Any]:
    """Work the run and return what it took."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")
    import django

    django.setup()
    from django.db import connection

    from portal.runs import console, ledger, summaries
    from portal.runs import executor as executor_module
    from portal.runs.executor import Executor
    from portal.runs.models import Run
    from tests.bench.partners_at_microsoft import peak_memory

    statements: Counter[str] = Counter()
    place = ["between"]
    executors: list[Executor] = []

    class Counted(Executor):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            executors.append(self)

    class CountedLedger(ledger.Ledger):
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

    console.Executor = Counted  # type: ignore[attr-defined]
    executor_module.Ledger = CountedLedger  # type: ignore[attr-defined]
    run = Run.objects.get(pk=int(number))
    out = _Sink()
    changes = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    calls = _Calls() if count_calls else None
    before = _cpu()
    began = time.perf_counter()
    with connection.execute_wrapper(count):
        code = console.foreground(
            run,
            out=out,
            err=sys.stderr,
            as_json=True,
            words=console.words_of,
            concurrency=int(in_flight),
            processes=int(processes),
        )
    seconds = time.perf_counter() - began
    cpu = _cpu() - before
    if calls is not None:
        calls.end()
    executor = executors[0]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "memory": peak_memory(),
        "code": code,
        "lines": out.lines,
        "worked": executor.progress().classes.total(),
        "classes": dict(summaries.summary(run).classes),
        "calls": executor._pacer.calls,
        "throttled": executor.progress().throttled,
        "statements": dict(statements),
        "python_calls": calls.number if calls is not None else 0,
        "thread_changes": resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - changes,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts(*sys.argv[1:])) + "\n")
