"""Worker processes that a test may kill or stop: each is the portal with production settings and the test's database.

``python -m tests.support.workers`` reads one order a line and forks a worker for each; forking spares every round the
start of an interpreter. The worker writes what became of the order into the order's report.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

PATIENCE = 30.0


@dataclass(slots=True)
class Worker:
    """One forked process."""

    pid: int
    report: Path

    def kill(self) -> None:
        """End it at once, as a power cut or the kernel does."""
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.is_running, "the worker's end")

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    @property
    def waits_for_a_lock(self) -> bool:
        """Whether it is blocked by a lock on a file or directory that another process holds."""
        lines = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return any("->" in line and str(self.pid) in line for line in lines)

    def answers(self) -> list[str]:
        """Wait for its end and return one word for each thing it was asked: ``ok``, or the class of the exception."""
        until(lambda: not self.is_running, "the worker's end")
        found: list[str] = json.loads(self.report.read_text())
        return found


class Workers:
    """The process that forks workers."""

    def __init__(self, orders: IO[str], pids: IO[str], folder: Path) -> None:
        self._orders, self._pids, self._folder = orders, pids, folder
        self._numbers = count(1)

    @property
    def log(self) -> str:
        """Everything that all workers have printed and logged so far."""
        return (self._folder / "log").read_text()

    def start(self, consent_id: int, settings: Mapping[str, Any], **order: Any) -> Worker:
        """Let one worker ask for an access token of this consent.

        Args:
            settings: those of this test, which differ from the environment.
            order: ``threads``, ``times``, ``audience``, ``fresh`` (default true), and ``shift``, by how many seconds
                the worker's clock is wrong.
        """
        report = self._folder / f"report-{next(self._numbers)}"
        line = {"consent": consent_id, "report": str(report), "settings": settings, **order}
        self._orders.write(json.dumps(line) + "\n")
        self._orders.flush()
        return Worker(int(self._pids.readline()), report)


@contextmanager
def forking(environment: dict[str, str], folder: Path) -> Iterator[Workers]:
    """Run the process that forks workers; ``folder/log`` gets what they print and log."""
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            yield Workers(process.stdin, process.stdout, folder)
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


def until(done: Any, what: str, seconds: float = PATIENCE) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.002)


# --- in the forked process ----------------------------------------------------------------------------------------


def work(order: dict[str, Any]) -> list[str]:
    """Ask for tokens as a client does, in as many threads at once, so many times each."""
    from django.db import connections

    from consent import clients
    from consent.models import PartnerConsent
    from consent.tokens.service import Audience
    from consent.uses.book import By, Purpose
    from portal.audit.trail import SYSTEM
    from portal.microsoft.identifiers import new_correlation_id

    consent = PartnerConsent.objects.select_related("partner", "registration").get(pk=order["consent"])
    service = clients.tokens()
    by = By(actor=SYSTEM, purpose=Purpose.PROGRAM)
    audience = Audience(order.get("audience", "partner_center"))

    def ask(_: int) -> str:
        try:
            service.access_token(
                consent, audience, by=by, correlation_id=new_correlation_id(), fresh=order.get("fresh", True)
            )
        except Exception as error:  # noqa: BLE001  # the report is what the test looks at
            return type(error).__name__
        finally:
            connections.close_all()
        return "ok"

    asked = range(order.get("threads", 1) * order.get("times", 1))
    with ThreadPoolExecutor(order.get("threads", 1)) as pool:
        return list(pool.map(ask, asked))


def _work_as_told(order: dict[str, Any]) -> list[str]:
    import time_machine
    from django.conf import settings

    for name, value in order["settings"].items():
        setattr(settings, name, value)
    if not order.get("shift"):
        return work(order)
    with time_machine.travel(time.time() + order["shift"], tick=True):
        return work(order)


def main() -> None:
    import django

    django.setup()
    from consent import clients  # noqa: F401  # before the forks, once for all
    from consent.vault import azure  # noqa: F401

    root = logging.getLogger()  # the leak gate reads what even the libraries say (S-32, S-37)
    for logger in (root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))):
        logger.setLevel(logging.DEBUG)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            answers = _work_as_told(order)
            finished = Path(order["report"] + ".tmp")
            finished.write_text(json.dumps(answers))
            finished.rename(order["report"])
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
