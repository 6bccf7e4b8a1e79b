"""The entry of a finished run holds the digest of its results: what is changed or taken out later is found (S-57)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs import results, service, summaries
from portal.runs.executor import Executor
from portal.runs.models import Run, RunItem
from tests.support import builders
from tests.support.commands import run as command
from tests.support.work import GOOD, THEIRS, Work

pytestmark = pytest.mark.django_db


def finished(number: int = 5) -> Run:
    run, _ = Work(number=number, answer=lambda key, attempt: THEIRS if key == 3 else GOOD, group=lambda key: key).do()
    return run


@pytest.mark.req("S-55")
@pytest.mark.req("S-57")
def test_a_run_leaves_one_entry_for_its_results_and_all_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_PIECE", 2)
    run = finished()
    entry = AuditEvent.objects.get(action="run.finished")
    assert entry.details["total"] == 5
    assert entry.details["classes"]["ok"] == 4
    assert entry.details["digest"] == results.digest_of(run.pk)
    assert results.watch(whole=True) == []


@pytest.mark.req("S-57")
@pytest.mark.parametrize(
    "column", ["failure_class", "code", "owner", "correlation_id", "finished_at", "gone", "added", "run"]
)
def test_a_result_that_was_changed_taken_out_or_added_is_found(column: str) -> None:
    run = finished()
    items = RunItem.objects.filter(run=run, key=3)
    if column == "gone":
        items.delete()
    elif column == "added":
        RunItem.objects.create(run=run, key=99, group=1, label="x", turn=0, correlation_id="x")
    elif column == "run":
        Run.objects.filter(pk=run.pk).delete()
    elif column == "finished_at":
        items.update(finished_at=timezone.now() - timedelta(days=1))
    else:
        items.update(**{column: "ok" if column == "failure_class" else "x"})
    ran = command("verify_audit_trail")
    assert ran.code == 1
    assert ("is gone, although" if column == "run" else f"The results of run {run.pk} are others") in ran.err
    assert Incident.objects.open().get().cause == "run_results_changed"


def test_runs_that_were_kept_long_enough_are_gone_without_a_finding() -> None:
    run = finished()
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - results.KEPT_FOR - timedelta(days=1))
    assert service.remove_old() == 1
    assert results.changed() != [], "its entry is young: it went before its time"
    with time_machine.travel(timezone.now() + results.KEPT_FOR + timedelta(days=1)):
        assert results.changed(whole=True) == []


def test_the_daily_look_is_for_runs_of_two_days_and_the_command_for_all() -> None:
    run = finished()
    RunItem.objects.filter(run=run, key=3).update(code="x")
    assert len(results.changed()) == 1
    with time_machine.travel(timezone.now() + timedelta(days=3)):
        assert results.changed() == []
        assert len(results.changed(whole=True)) == 1


# --- units that were well, and well the next time ----------------------------------------------------------------


def weekly(*, failing: int = 0) -> Run:
    """Work the same four units again, as the schedule does."""
    work = Work(number=4, answer=lambda key, attempt: THEIRS if key == failing else GOOD)
    kind = work.kind(repeats=True)
    run, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=1)
    Executor(run).work()
    return run


def kept(run: Run) -> list[int]:
    return sorted(run.items.values_list("key", flat=True))


@pytest.mark.req("S-57")
def test_rows_of_units_that_were_well_twice_go_and_the_rest_is_still_sealed() -> None:
    with time_machine.travel(timezone.now() - timedelta(days=20)):
        first = weekly(failing=2)
    old = timezone.now() - results.WELL_KEPT_FOR - timedelta(hours=1)
    Run.objects.filter(pk=first.pk).update(finished_at=old)
    assert results.forget_well() == 0, "the newest row of each unit stays"
    assert kept(first) == [1, 2, 3, 4]

    Run.objects.filter(pk=first.pk).update(forgotten=None)
    second = weekly()
    assert results.forget_well() == 3
    assert (kept(first), kept(second)) == ([2], [1, 2, 3, 4]), "a failure stays"
    first.refresh_from_db()
    assert summaries.summary(first).classes == {"ok": 3, "needs_consent": 1}
    assert summaries.summary(first).done == first.total == 4
    entry = AuditEvent.objects.get(action="run.units_forgotten")
    assert (entry.subject, entry.details["forgotten"]) == ({"run": first.pk}, 3)
    assert results.forget_well() == 0, "once"
    assert results.watch(whole=True) == []

    first.items.update(code="x")
    assert "are others than when it ended" in results.watch(whole=True)[0].words


def test_the_last_good_result_before_a_failure_stays() -> None:
    """Three failures one after the other let a unit be skipped; with a good result between them they do not."""
    runs = [weekly(failing=failing) for failing in (0, 0, 2, 0)]
    old = timezone.now() - timedelta(days=30)
    Run.objects.update(finished_at=old)
    assert results.forget_well() == 4 + 3 + 3
    assert [kept(run) for run in runs] == [[], [2], [2], [1, 2, 3, 4]]


@pytest.mark.req("S-57")
def test_a_run_whose_results_were_changed_keeps_its_rows_as_evidence() -> None:
    first = weekly()
    weekly()
    Run.objects.filter(pk=first.pk).update(finished_at=timezone.now() - timedelta(days=30))
    first.items.filter(key=3).update(code="x")
    assert results.forget_well() == 0
    assert kept(first) == [1, 2, 3, 4]
    assert len(results.changed()) == 1


def test_runs_that_people_asked_for_keep_all_their_rows() -> None:
    run = finished()
    finished()
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=30))
    assert results.forget_well() == 0
    assert run.items.count() == 5
