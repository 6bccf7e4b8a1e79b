"""How workers of the built-in queue share what is there."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from dj_queue.config import load_backend_config
from dj_queue.models import ReadyExecution
from dj_queue.runtime.worker import Worker

from portal.runs import tasks
from tests.support.work import Work

pytestmark = pytest.mark.django_db(transaction=True)


class Busy:
    """Two threads that work a long run each, as soon as they have one."""

    in_flight = 0

    @property
    def idle_capacity(self) -> int:
        return 2 - self.in_flight

    def submit(self, *job: Any) -> Future[None]:
        self.in_flight += 1
        return Future()

    def shutdown(self, timeout: float, *, on_drained: Any = None) -> bool:
        return True


def worker(name: str) -> Any:
    known = load_backend_config("default")
    [described] = known.workers
    return Worker(  # type: ignore[no-untyped-call]
        described, name=name, pool=Busy(), backend_config=known, heartbeat_interval=60
    )


def test_a_worker_takes_no_message_that_another_could_begin_at_once() -> None:
    run = Work(number=1).start()
    for _ in range(3):
        tasks.enqueue(run)
    first, second = worker("first"), worker("second")
    try:
        assert [len(first.poll_once()), len(first.poll_once())] == [2, 0]
        assert ReadyExecution.objects.count() == 1, "the third lies behind a long run"
        assert len(second.poll_once()) == 1
    finally:
        first.stop()
        second.stop()
