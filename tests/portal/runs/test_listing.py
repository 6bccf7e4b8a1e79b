"""A run is worked while it is still being listed, whoever lists it, and says so."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from portal.runs import listing, service, waves
from portal.runs.executor import Executor
from portal.runs.kinds import Outcome, Unit
from portal.runs.listening import Ending
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import Run
from tests.support import builders
from tests.support.commands import run as run_command
from tests.support.staff import Staff
from tests.support.work import GOOD, THEIRS, Work, classes

pytestmark = pytest.mark.django_db
PATIENCE = 10.0


@dataclass(slots=True)
class Listed(Work):
    """Work with a book of its pages: from which key on each was asked for."""

    rank: Any = lambda key: 0
    wave: Any = lambda key: 0
    pages: list[int] = field(default_factory=list)

    def units(self, scope: Mapping[str, Any], after: int, limit: int) -> Sequence[Unit]:
        self.pages.append(after)
        keys = range(after + 1, min(after + limit, self.number) + 1)
        return [Unit(key=key, group=key, label=f"unit {key}", rank=self.rank(key), wave=self.wave(key)) for key in keys]


@pytest.mark.req("R-29")
def test_the_first_unit_is_worked_before_the_list_is_whole() -> None:
    worked = threading.Event()
    in_time: list[bool] = []

    def answer(key: int, attempt: int) -> Outcome:
        worked.set()
        return GOOD

    class Slow(Listed):
        __slots__ = ()

        def units(self, scope: Mapping[str, Any], after: int, limit: int) -> Sequence[Unit]:
            if after:
                in_time.append(worked.wait(PATIENCE))
            return Listed.units(self, scope, after, limit)

    work = Slow(number=1200, answer=answer)
    run, ending = work.do()

    assert ending is Ending.DONE
    assert in_time[0]
    assert (run.total, classes(run)) == (1200, {"ok": 1200})
    assert set(work.worked.values()) == {1}


def test_what_matters_more_and_is_listed_later_is_not_worked_last() -> None:
    order: list[int] = []

    def answer(key: int, attempt: int) -> Outcome:
        order.append(key)
        return GOOD

    Listed(number=300, rank=lambda key: -key, answer=answer).do(concurrency=2)
    # Of the first page no more than a few: those that were claimed before the second one was listed.
    assert order.index(300) <= 10


@pytest.mark.req("R-27")
def test_one_executor_lists_and_another_goes_on_where_it_was_when_units_run_out() -> None:
    work = Listed(number=250)
    run = work.start()
    listing.list_units(run, work.kind())
    # An older one, which has not given up its lease: it was killed, or its database is slow.
    ExecutorRow.objects.create(run=run, host="elsewhere", process=1, lease_until=Now() + timedelta(seconds=60))
    begun: list[int] = []

    class Watched(Listed):
        __slots__ = ()

        def units(self, scope: Mapping[str, Any], after: int, limit: int) -> Sequence[Unit]:
            begun.append(run.items.filter(state="waiting").count())
            return Listed.units(self, scope, after, limit)

    other = Watched(number=250)
    other.kind()
    assert Executor(Run.objects.get()).work() is Ending.DONE

    assert begun[0] == 0  # it left listing to the older one until nothing was left to take
    assert other.pages == [100, 250]
    run.refresh_from_db()
    assert (run.total, classes(run)) == (250, {"ok": 250})
    assert set(other.worked.values()) == {1}


def test_no_wave_is_judged_before_the_list_is_whole() -> None:
    work = Listed(number=150, wave=lambda key: int(key > 10))
    kind = work.kind()
    run, _ = service.start(kind, scope={}, actor=builders.ACTOR, stop_share=0.1)
    listing.list_units(run, kind)
    first = run.items.filter(wave=0)
    first.filter(key=1).update(state="done", failure_class=THEIRS.failure_class, finished_at=Now())
    first.exclude(key=1).update(state="done", failure_class="ok", finished_at=Now())

    assert not waves.judge(run, kind)  # more of this wave may come
    assert (run.wave, run.state) == (0, "open")
    while listing.list_units(run, kind):
        pass
    assert waves.judge(run, kind)
    assert (run.wave, run.state) == (1, "open")


def test_pages_and_commands_say_that_the_total_is_not_known_yet() -> None:
    work, staff = Work(number=250), Staff()
    run = work.start()
    listing.list_units(run, work.kind())
    said = "0 of 100 (still listing)"
    address = f"/admin/runs/run/{run.pk}/change/"

    for page in (address, "/admin/runs/run/", "/admin/running/"):
        assert said in staff.get(page).content.decode(), page
    bar = staff.get(address).content.decode().partition("<progress")[2].partition(">")[0]
    assert "value" not in bar  # how much of the whole it is cannot be said
    assert said in run_command("run_status", run.pk).out
    assert '"listed": false' in run_command("run_status", run.pk, "--json").out

    service.cancel(run, actor=builders.ACTOR)
    assert "0 of the 100 listed" in staff.get(address).content.decode()
