"""What failed in a finished run is repeated in a run of its own, and nothing else."""

from __future__ import annotations

import pytest

from portal.audit.models import AuditEvent
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.models import Run
from tests.support import builders
from tests.support.staff import Staff, told
from tests.support.work import GOOD, OURS, THEIRS, Work

pytestmark = pytest.mark.django_db
BAD = {3, 7, 8}


def work() -> Work:
    """Ten units of which three fail when they are worked for the first time."""
    return Work(
        number=10,
        answer=lambda key, attempt: THEIRS if key in BAD and attempt == 1 else GOOD,
        group=lambda key: key % 2,
    )


def test_only_the_failed_units_are_worked_again_by_a_run_that_knows_its_origin() -> None:
    done = work()
    origin, _ = done.do()
    assert set(origin.items.to_repeat().values_list("key", flat=True)) == BAD

    run, new = service.repeat_failed(origin, actor=builders.ACTOR)
    assert new
    assert service.repeat_failed(origin, actor=builders.ACTOR) == (run, False), "a second press finds the first run"
    Executor(run).work()

    run.refresh_from_db()
    assert (run.state, run.total, run.origin, run.scope) == ("done", 3, origin, origin.scope)
    assert set(run.items.values_list("key", flat=True)) == BAD
    assert not run.items.unsuccessful().exists()
    assert {key for key, times in done.worked.items() if times > 1} == BAD
    event = AuditEvent.objects.get(action="run.started", subject={"run": run.pk})
    assert (event.actor, event.details["origin"]) == (builders.ACTOR.name, origin.pk)


def test_what_is_gone_at_its_turn_is_not_worked() -> None:
    done = work()
    origin, _ = done.do()
    done.present = lambda key: key != 7
    run, _ = service.repeat_failed(origin, actor=builders.ACTOR)
    Executor(run).work()
    assert run.items.get(key=7).failure_class == "gone"
    assert not run.items.to_repeat().exists()
    with pytest.raises(service.NothingToRepeat, match="No unit"):
        service.repeat_failed(Run.objects.get(pk=run.pk), actor=builders.ACTOR)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"state": "open", "finished_at": None}, "is not over"),
        ({"state": "paused", "finished_at": None}, "is not over"),
        ({"state": "stopped"}, "is not over"),
        ({"stop_share": 0.2}, "make another plan"),
    ],
    ids=str,
)
def test_a_run_that_is_not_over_or_applied_a_plan_is_not_repeated(columns: dict[str, object], why: str) -> None:
    origin, _ = work().do()
    Run.objects.filter(pk=origin.pk).update(**columns)
    with pytest.raises(service.NothingToRepeat, match=why):
        service.repeat_failed(Run.objects.get(pk=origin.pk), actor=builders.ACTOR)


def test_the_button_asks_and_leads_to_the_new_run() -> None:
    origin, _ = work().do()
    staff, address = Staff(), f"/admin/runs/run/{origin.pk}/"
    assert f"{address}repeat-failed/" in staff.get(f"{address}change/").content.decode()
    page = staff.get(f"{address}repeat-failed/")
    assert "the 3 units of this one that failed" in page.content.decode()
    assert Run.objects.count() == 1
    staff.confirm(page)
    run = Run.objects.get(origin=origin)
    text = staff.get(f"/admin/runs/run/{run.pk}/change/").content.decode()
    assert f'href="{address}change/">Run {origin.pk}</a>' in text


def test_a_run_without_failures_offers_no_button_and_says_why() -> None:
    run, _ = Work(number=2).do()
    staff = Staff()
    assert "repeat-failed" not in staff.get(f"/admin/runs/run/{run.pk}/change/").content.decode()
    answer = staff.get(f"/admin/runs/run/{run.pk}/repeat-failed/", follow=True)
    assert "No unit of the run failed." in told(answer)


def test_a_stopped_run_of_repeats_is_covered_when_its_units_are_done() -> None:
    done = work()
    origin, _ = done.do()
    run, _ = service.repeat_failed(origin, actor=builders.ACTOR)
    done.answer = lambda key, attempt: OURS
    Executor(run).work()
    run.refresh_from_db()
    assert run.state == "stopped"
    done.answer = lambda key, attempt: GOOD
    assert service.resume(run, actor=builders.ACTOR)
    Executor(run).work()
    run.refresh_from_db()
    assert (run.state, run.total) == ("done", 3)
