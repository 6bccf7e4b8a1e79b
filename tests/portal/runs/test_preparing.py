"""What all units of a run share is fetched once and before them, by one of many threads, and by each process itself."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from consent import clients
from portal.microsoft.http import time_budget, turn_of
from portal.runs import listing, service
from portal.runs.executor import Executor
from portal.runs.kinds import Context, Outcome
from portal.runs.listening import Ending, Listener
from portal.runs.models import RunItem
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.support import builders
from tests.support.children import ROOT
from tests.support.connected import connect
from tests.support.token_checks import check
from tests.support.work import GOOD, Work, classes

pytestmark = pytest.mark.django_db


@pytest.mark.req("R-45")
def test_one_of_many_threads_fetches_what_they_share(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    connect(portal, 12)
    clients.reset()  # as a process that has just begun
    sandbox.world.switches["latency"] = 0.05  # so that all threads want it at the same time
    seen = len(sandbox.world.ledger)

    run, _ = check()

    assert classes(run) == {"ok": 12}
    lines = list(sandbox.world.ledger)[seen:]
    shared = Counter(line["operation"] for line in lines if line.get("grant") == "client_credentials")
    assert shared == {"token": 1}
    reads = Counter((line["operation"], line["status"]) for line in lines if line["service"] == "vault")
    assert reads["get", 200] == 12 + 2  # each partner's token, the application's credential, and which vault it is
    assert Counter(line["operation"] for line in lines)["keys"] == 1


def half_worked(work: Work) -> Any:
    """Return a run of which some units are done, so that we are known to be well."""
    run = work.start()

    class Stops(Listener):
        def finished(self, item: RunItem, outcome: Outcome) -> None:
            executor.stop()

    executor = Executor(run, concurrency=1, listener=Stops())
    assert executor.work() is Ending.INTERRUPTED
    return run


@pytest.mark.req("R-14")
@pytest.mark.parametrize("works", [True, False])
def test_only_a_process_that_is_prepared_begins_with_all_threads(works: bool) -> None:
    work = Work(number=200)
    run = half_worked(work)
    at_once: list[int] = []

    def slow_first(key: int, attempt: int) -> Outcome:
        at_once.append(work.at_once)
        if len(at_once) <= 16:
            time.sleep(0.2)
        return GOOD

    def prepare() -> None:
        if not works:
            raise LookupError("a secret that must not be logged")

    work.answer = slow_first
    work.kind(prepare=lambda: [prepare])
    assert Executor(run, concurrency=16).work() is Ending.DONE
    assert (max(at_once[:6]) > 5) is works
    assert classes(run) == {"ok": 200}


def test_what_was_raised_while_preparing_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def prepare() -> None:
        raise LookupError("a secret that must not be logged")

    work = Work(number=3)
    run = work.start()
    work.kind(prepare=lambda: [prepare])
    with caplog.at_level("DEBUG"):
        assert Executor(run).work() is Ending.DONE
    assert "not prepared: LookupError" in caplog.text
    assert "must not be logged" not in caplog.text


@pytest.mark.req("R-13")
def test_who_waits_for_another_thread_waits_no_longer_than_its_own_time() -> None:
    lock = threading.Lock()
    began = time.monotonic()
    with lock, time_budget(0.1), pytest.raises(TimeoutError), turn_of(lock):
        pytest.fail("it was not its turn")
    assert time.monotonic() - began < 0.1 + 2  # within the limit and two seconds
    with turn_of(lock):
        assert lock.locked()
    assert not lock.locked()


class Claims(Work):
    """The same work, with a book of how many units were claimed at a time."""

    def __init__(self, number: int, *, looks: bool) -> None:
        super().__init__(number=number)
        self.sizes: list[int] = []
        self.executor: Executor
        self._looks = looks

    __slots__ = ("_looks", "executor", "sizes")

    def load(self, keys: Sequence[int], context: Context) -> Mapping[int, Any]:
        self.sizes.append(len(keys))
        if self._looks:
            self.executor.look_soon()
        return super().load(keys, context)


@pytest.mark.parametrize(("looks", "third"), [(True, 32), (False, 18)])
def test_one_of_several_executors_claims_little_near_the_end(looks: bool, third: int) -> None:
    work = Claims(number=200, looks=looks)
    run, _ = service.start(work.kind(), scope={}, actor=builders.ACTOR, concurrency=8)
    while listing.list_units(run, work.kind()):
        pass
    work.executor = Executor(run, processes=2)
    assert work.executor.work() is Ending.DONE

    # At most a quarter of what is left: half of it is the other's. A look at the rows corrects what the other took.
    assert work.sizes[:3] == [32, 32, third]
    assert work.sizes[-1] <= 8
    assert classes(run) == {"ok": 200}


def test_a_forked_process_shares_no_connection_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import django, os; django.setup(); from consent import clients; mine = clients.session(); child = os.fork()\n"
        "if not child: os._exit(0 if clients.session() is not mine else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": "", "HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=False, timeout=60)
    assert ran.returncode == 0
