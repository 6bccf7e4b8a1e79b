"""Celery instead of the built-in queue: a real Celery worker, with a folder as its broker, advances a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portal.runs.models import Run, RunItem
from tests.support.children import ROOT, SECONDS, Bench, assert_all_once, database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


class CeleryBench:
    """A run, a broker's folder, and Celery's processes."""

    def __init__(self, work: Bench, folder: Path) -> None:
        self.work, self._folder = work, folder
        self._children: list[subprocess.Popen[bytes]] = []
        folder.mkdir()

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.celery_process", str(self._folder), *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"TEST_DATABASE_URL": database()},
        )
        self._children.append(child)
        return child

    def enqueue(self) -> None:
        assert self.start("enqueue", self.work.run.pk).wait(30) == 0

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker", self.work.book, SECONDS, self.work.number)

    def close(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()


@pytest.fixture
def celery(bench: Callable[..., Bench], tmp_path: Path) -> Iterator[CeleryBench]:
    made = CeleryBench(bench(number=600), tmp_path / "broker")
    Run.objects.update(concurrency=4)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.req("R-26")
@pytest.mark.req("R-28")
def test_a_celery_worker_advances_a_run_and_stops_politely_in_the_middle(celery: CeleryBench) -> None:
    celery.enqueue()
    first = celery.worker()
    celery.work.wait_for_calls(40)
    first.send_signal(signal.SIGTERM)
    assert first.wait(40) == 0
    assert RunItem.objects.filter(state="working").count() == 0
    assert RunItem.objects.filter(state="done").count() == len(celery.work.calls()) < 600

    celery.enqueue()  # as the sweeper does, a minute later at most
    second = celery.worker()
    celery.work.wait_for(lambda: Run.objects.get().state == "done", 60)
    assert_all_once(celery.work)
    second.send_signal(signal.SIGTERM)
    assert second.wait(40) == 0
