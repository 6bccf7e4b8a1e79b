"""A run and the processes that work it, for tests that kill, freeze and interrupt them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from django.conf import settings
from django.db import connection

from portal.runs import service
from portal.runs.models import Run, RunItem
from tenants.models import PartnerTag
from tests.support import builders
from tests.support.work import Filed

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 0.02


def database() -> str:
    """Return the address of the test database, for a child process."""
    values = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{connection.settings_dict['NAME']}"
    name = connection.settings_dict["NAME"]
    place = f"{values['HOST']}:{values['PORT']}"
    return f"postgres://{values['USER']}:{values['PASSWORD']}@{place}/{name}"


@dataclass(frozen=True, slots=True)
class Child:
    """A process of another one; ``end`` is the file that will hold its exit code."""

    pid: int
    end: Path

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for its end and return its exit code, that of a signal negative."""
        until = time.monotonic() + seconds
        while not self.end.exists():
            assert time.monotonic() < until, f"process {self.pid} did not end in {seconds} s"
            time.sleep(0.005)
        return int(self.end.read_text())


class Forks:
    """The process that forks others (``tests.support.processes``); started when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self._process: subprocess.Popen[str] | None = None

    def start(self, *arguments: object, out: Path, err: Path, environment: dict[str, str]) -> Child:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.processes"],
                cwd=ROOT,
                env=os.environ | {"TEST_DATABASE_URL": database()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin
        assert self._process.stdout
        end = self._folder / f"end-{next(self._numbers)}"
        order = {"arguments": [*map(str, arguments)], "environment": environment}
        order |= {"out": str(out), "err": str(err), "end": str(end)}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()), end)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=30)


class Bench:
    """A run, its book of calls, and the processes that work it."""

    def __init__(self, forks: Forks, folder: Path, number: int, seconds: float) -> None:
        self._forks, self.number, self._seconds = forks, number, seconds
        self.book = folder / "book"
        self.book.touch()
        self.printed, self.errors = folder / "printed", folder / "errors"
        for each in (self.printed, self.errors):
            each.touch()
        kind = Filed(number, self.book, seconds).kind()
        self.run, _ = service.start(kind, scope={}, actor=builders.ACTOR)
        self._children: list[Child] = []

    def start(
        self,
        concurrency: int | str = 4,
        *,
        processes: int = 1,
        lease: float = 0.0,
        fault: bool = False,
        job: str = "",
    ) -> Child:
        child = self._forks.start(
            *(self.run.pk, self.book, self._seconds, self.number, concurrency, processes),
            out=self.printed,
            err=self.errors,
            environment={"RUN_LEASE": str(lease), "RUN_JOB": job} | ({"RUN_FAULT": "1"} if fault else {}),
        )
        self._children.append(child)
        return child

    def calls(self) -> list[tuple[int, int]]:
        """Return (unit, process) of every call so far."""
        return [(int(key), int(pid)) for key, pid in (line.split() for line in self.book.read_text().splitlines())]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.01)

    def wait_for_calls(self, number: int) -> None:
        self.wait_for(lambda: len(self.calls()) >= number)

    def close(self) -> None:
        for child in self._children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with its helpers, stopped ones as well
            child.wait()


def assert_all_once(bench: Bench) -> None:
    run = Run.objects.get(pk=bench.run.pk)
    assert (run.state, run.total) == ("done", bench.number)
    assert RunItem.objects.filter(run=run, state="done", failure_class="ok").count() == bench.number
    # Names are unique: a result that was written twice would have failed.
    assert PartnerTag.objects.filter(name__startswith="unit ").count() == bench.number
