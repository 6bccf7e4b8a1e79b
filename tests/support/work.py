"""A kind of work for tests: numbered units whose outcome the test decides, and books of what was called and written."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from portal.runs import registry, schedule, service, summaries
from portal.runs.executor import Executor
from portal.runs.kinds import Context, Done, Kind, Outcome, Unit
from portal.runs.listening import Ending, Listener
from portal.runs.models import Run, RunItem
from portal.runs.registry import Job
from tenants.models import PartnerTag
from tests.support import builders

GOOD = Outcome()
OURS = Outcome(failure_class="our_credential", message="Our secret expired.", owner="us", systemic=True)
THEIRS = Outcome(failure_class="needs_consent", message="The partner must consent.", owner="partner")


@dataclass(slots=True)
class Work:
    """What a run of the test's kind does.

    Attributes:
        answer: the outcome of a unit, by its key and how often it was worked.
        group: of a unit, by its key.
        worked: how often each unit was worked.
        written: results in the order in which they were written.
    """

    number: int = 20
    answer: Callable[[int, int], Outcome] = lambda key, attempt: GOOD
    group: Callable[[int], int] = lambda key: key
    present: Callable[[int], bool] = lambda key: True
    worked: Counter[int] = field(default_factory=Counter)
    written: list[tuple[int, str]] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    guard: Any = field(default_factory=threading.Lock)

    def kind(self, **more: Any) -> Kind:
        kind = Kind(
            name="test",
            label="Test work",
            units=self.units,
            load=self.load,
            work=self.work,
            write=self.write,
            release=lambda subjects, context: self.released.extend(subjects),
            **more,
        )
        registry.kinds()[kind.name] = kind
        return kind

    def units(self, scope: Mapping[str, Any], after: int, limit: int) -> Sequence[Unit]:
        keys = range(after + 1, min(after + limit, self.number) + 1)
        return [Unit(key=key, group=self.group(key), label=f"unit {key}") for key in keys]

    def load(self, keys: Sequence[int], context: Context) -> Mapping[int, Any]:
        return {key: key for key in keys if self.present(key)}

    def work(self, key: int, subject: int, context: Context) -> Outcome:
        with self.guard:
            self.worked[key] += 1
            attempt = self.worked[key]
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.answer(key, attempt)
        finally:
            with self.guard:
                self.at_once -= 1

    def write(self, done: Sequence[Done], context: Context) -> None:
        self.written += [(each.key, each.outcome.failure_class) for each in done]

    def start(self, **arguments: Any) -> Run:
        defaults: dict[str, Any] = {"scope": {}, "actor": builders.ACTOR, "concurrency": 8}
        run, _ = service.start(self.kind(), **defaults | arguments)
        return run

    def do(self, listener: Listener | None = None, **arguments: Any) -> tuple[Run, Ending]:
        run = self.start(**arguments)
        ending = Executor(run, listener=listener).work()
        run.refresh_from_db()
        return run, ending


def classes(run: Run) -> dict[str, int]:
    return dict(summaries.summary(run).classes)


class Filed(Work):
    """The same work for other processes: each call is a line in a file, each result a row with a unique name."""

    def __init__(self, number: int, book: Path, seconds: float, *, fault: bool = False) -> None:
        super().__init__(number=number)
        self._book, self._seconds, self._fault = book, seconds, fault

    __slots__ = ("_book", "_fault", "_seconds")

    def work(self, key: int, subject: int, context: Context) -> Outcome:
        line = f"{key} {os.getpid()}\n".encode()
        book = os.open(self._book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(book, line)
        os.close(book)
        until = time.monotonic() + self._seconds
        while time.monotonic() < until and not context.halted():
            time.sleep(0.005)
        return OURS if self._fault else GOOD

    def write(self, done: Sequence[Done], context: Context) -> None:
        PartnerTag.objects.bulk_create([PartnerTag(name=f"unit {each.key}") for each in done])


def item(run: Run, key: int) -> RunItem:
    return RunItem.objects.get(run=run, key=key)


def alone_on_the_schedule(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """Let the schedule know this job and no other."""
    monkeypatch.setattr(schedule, "jobs", lambda: {job.name: job})
