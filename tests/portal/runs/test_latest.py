"""What is under way with a thing, or was last done with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.runs import listing, registry, service
from portal.runs.executor import Executor
from portal.runs.latest import Latest, Stage, latest
from portal.runs.models import RunItem
from tests.support import builders
from tests.support.work import GOOD, THEIRS, Work

pytestmark = pytest.mark.django_db


@pytest.fixture
def work() -> Iterator[Work]:
    known = dict(registry.kinds())
    yield Work(number=3, answer=lambda key, attempt: THEIRS if key == 2 else GOOD)
    registry.kinds().clear()
    registry.kinds().update(known)


def about(work: Work, *keys: int) -> dict[int, Latest]:
    return latest(work.kind(), {key: f"name {key}" for key in keys}, "things")


def test_what_was_never_asked_for_is_not_there(work: Work) -> None:
    assert about(work, 1, 2) == {}


def test_a_run_that_has_no_units_yet_is_known_by_its_selection(work: Work) -> None:
    run = work.start(scope={"things": ["name 1", "name 2"]})
    found = about(work, 1, 3)
    assert set(found) == {1}
    assert (found[1].stage, found[1].run, found[1].under_way) == (Stage.WAITING, run.pk, True)
    assert found[1].worked_by_nobody
    service.pause(run, actor=builders.ACTOR, reason="Wait.")
    assert (about(work, 1)[1].stage, about(work, 1)[1].message) == (Stage.HELD, "Wait.")


def test_the_newest_unit_says_how_it_ended(work: Work) -> None:
    work.do(scope={"things": ["name 1"]})
    found = about(work, 1, 2)
    assert (found[1].stage, found[1].good, found[1].under_way) == (Stage.DONE, True, False)
    assert (found[2].good, found[2].message, found[2].owner) == (False, "The partner must consent.", "partner")

    again = work.start(scope={"things": ["name 2"]})
    found = about(work, 1, 2)
    assert (found[1].stage, found[2].stage) == (Stage.DONE, Stage.WAITING)
    listing.list_units(again, work.kind())
    executor = service.enter(again, timedelta(seconds=15))
    RunItem.objects.filter(run=again, key=2).update(state="working", executor=executor)
    found = about(work, 2)
    assert (found[2].stage, found[2].run, found[2].worked_by_nobody) == (Stage.WORKING, again.pk, False)
    service.leave(executor)
    Executor(again).work()
    assert about(work, 2)[2].stage is Stage.DONE


def test_a_unit_of_a_cancelled_run_was_held(work: Work) -> None:
    run = work.start()
    listing.list_units(run, work.kind())
    service.cancel(run, actor=builders.ACTOR)
    assert (about(work, 1)[1].stage, about(work, 1)[1].message) == (Stage.HELD, "Cancelled")


def test_it_costs_the_same_for_any_number(work: Work) -> None:
    work.do()
    with CaptureQueriesContext(connection) as queries:
        about(work, 1, 2, 3)
    assert len(queries) <= 4
