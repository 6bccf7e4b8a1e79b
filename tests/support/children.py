"""A run and the processes that work it, for tests that kill, freeze and interrupt them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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


class Bench:
    """A run, its book of calls, and the processes that work it."""

    def __init__(self, folder: Path, number: int, seconds: float) -> None:
        self.number, self._seconds = number, seconds
        self.book = folder / "book"
        self.book.touch()
        self.printed, self.errors = folder / "printed", folder / "errors"
        kind = Filed(number, self.book, seconds).kind()
        self.run, _ = service.start(kind, scope={}, actor=builders.ACTOR)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        concurrency: int | str = 4,
        *,
        processes: int = 1,
        lease: float = 0.0,
        fault: bool = False,
        job: str = "",
    ) -> subprocess.Popen[bytes]:
        arguments = [self.run.pk, self.book, self._seconds, self.number, concurrency, processes]
        with self.printed.open("ab") as out, self.errors.open("ab") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.support.processes", *map(str, arguments)],
                cwd=ROOT,
                env=os.environ
                | {"TEST_DATABASE_URL": database(), "RUN_LEASE": str(lease), "RUN_JOB": job}
                | ({"RUN_FAULT": "1"} if fault else {}),
                stdout=out,
                stderr=errors,
                start_new_session=True,
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
