"""Waves: few units first, and no more of them while too many fail."""

from __future__ import annotations

import pytest

from portal.incidents.models import Incident
from portal.runs import listing, service, waves
from portal.runs.executor import Executor
from portal.runs.kinds import GONE, SKIPPED, Kind, Outcome, Unit
from portal.runs.listening import Ending, Listener, Progress
from portal.runs.models import Run, RunItem
from tests.support import builders
from tests.support.work import GOOD, THEIRS, Work, classes

pytestmark = pytest.mark.django_db(transaction=True)


class Impatient(Listener):
    def progressed(self, progress: Progress) -> None:
        RunItem.objects.filter(state="waiting").update(not_before=None)


HARMLESS = frozenset({"ok", GONE, SKIPPED, "held"})


def wave_of(key: int) -> int:
    return 0 if key == 1 else 1 if key < 5 else 2


class Waved(Work):
    """Units 1 to 20: one, then three, then the others."""

    __slots__ = ()

    def units(self, scope: object, after: int, limit: int) -> list[Unit]:
        keys = range(after + 1, min(after + limit, self.number) + 1)
        return [Unit(key=key, group=key, label=f"unit {key}", rank=-key, wave=wave_of(key)) for key in keys]


def start(work: Work, stop_share: float | None = 0.2, **more: object) -> tuple[Run, Kind]:
    kind = work.kind(harmless=HARMLESS, unfinished=frozenset({"broken"}), **more)
    run, _ = service.start(kind, scope={}, actor=builders.ACTOR, concurrency=4, stop_share=stop_share)
    return run, kind


def go(run: Run) -> Ending:
    ending = Executor(run).work()
    run.refresh_from_db()
    return ending


def test_a_wave_begins_when_every_unit_of_the_one_before_has_its_result() -> None:
    work = Waved()
    run, _ = start(work)
    assert go(run) is Ending.DONE
    order = [wave_of(key) for key, _ in work.written]
    assert order == sorted(order)
    assert (run.wave, classes(run)) == (2, {"ok": 20})


def test_a_wave_in_which_too_many_fail_halts_the_run_with_one_incident() -> None:
    work = Waved(answer=lambda key, attempt: THEIRS if key in {2, 3} else GOOD)
    run, _ = start(work)

    assert go(run) is Ending.PAUSED

    assert set(work.worked) == {1, 2, 3, 4}
    assert run.reason == "Too many failed in wave 2: 2 of 3 (2 needs_consent, 1 ok)."
    incident = Incident.objects.open().get(cause="run_halted")
    assert (incident.about, incident.owner) == (f"run:{run.pk}", "us")

    assert service.resume(run, actor=builders.ACTOR)
    assert not Incident.objects.open().exists()
    assert go(run) is Ending.DONE  # what failed before the decision does not count again
    assert classes(run) == {"needs_consent": 2, "ok": 18}
    assert set(work.worked.values()) == {1}


@pytest.mark.parametrize(("share", "ending"), [(0.7, Ending.DONE), (0.6, Ending.PAUSED), (None, Ending.DONE)])
def test_the_share_decides(share: float | None, ending: Ending) -> None:
    run, _ = start(Waved(answer=lambda key, attempt: THEIRS if key in {2, 3} else GOOD), share)
    assert go(run) is ending


def test_what_is_nobodys_failure_does_not_count() -> None:
    held = Outcome(failure_class="held", message="Not ready.", owner="partner")
    run, _ = start(Waved(answer=lambda key, attempt: held), 0.0)
    assert go(run) is Ending.DONE


def test_a_long_wave_is_judged_before_its_end() -> None:
    work = Waved(number=400, answer=lambda key, attempt: THEIRS if key > 4 else GOOD)
    run, _ = start(work)
    assert go(run) is Ending.PAUSED
    assert waves.FEWEST <= sum(work.worked.values()) < 100


def test_a_unit_left_unfinished_halts_at_once_and_is_worked_again_after_a_resume() -> None:
    broken = Outcome(failure_class="broken", message="Half done.", owner="us")
    work = Waved(number=400, answer=lambda key, attempt: broken if key == 390 and attempt == 1 else GOOD)
    run, _ = start(work, 1.0)

    assert go(run) is Ending.PAUSED
    assert sum(work.worked.values()) < 100
    assert service.resume(run, actor=builders.ACTOR)
    assert go(run) is Ending.DONE

    assert classes(run) == {"ok": 400}
    assert work.worked[390] == 2
    assert {number for key, number in work.worked.items() if key != 390} == {1}


def test_of_two_that_judge_at_once_one_opens_the_wave() -> None:
    work = Waved()
    run, kind = start(work)
    while listing.list_units(run, kind):
        pass
    RunItem.objects.filter(wave=0).update(state="done", failure_class="ok", finished_at="2026-01-01T00:00:00Z")
    second = Run.objects.get()
    assert waves.judge(run, kind)
    assert not waves.judge(second, kind)  # it reads again, and the wave is not over
    assert (run.wave, second.wave) == (1, 1)


def test_a_unit_that_is_pending_comes_again_as_often_as_it_says_and_costs_no_retry() -> None:
    pending = Outcome(failure_class="waiting", pending=True, retry_after=0.01)
    work = Work(number=2, answer=lambda key, attempt: pending if key == 1 and attempt < 8 else GOOD)

    run, ending = work.do(Impatient())
    assert ending is Ending.DONE
    assert work.worked == {1: 8, 2: 1}
    assert classes(run) == {"ok": 2}
    assert work.released == [1] * 7


def test_whoever_follows_a_run_is_told_each_state_in_its_transaction() -> None:
    told: list[str] = []
    work = Waved(answer=lambda key, attempt: THEIRS if key == 1 and attempt == 1 else GOOD)
    run, _ = start(work, follow=lambda scope, state: told.append(state))
    go(run)
    service.resume(run, actor=builders.ACTOR)
    go(run)
    assert told == ["paused", "open", "done"]
