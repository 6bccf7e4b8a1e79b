"""The entry of a finished run holds the digest of its results: what is changed or taken out later is found (S-57)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.runs import results, service
from portal.runs.models import Run, RunItem
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
