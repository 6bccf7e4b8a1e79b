"""A stopped run is forgotten only when its work is done, and goes on by itself when its cause may pass (R-14)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import LATER
from portal.runs import schedule, service, stops
from portal.runs.executor import Executor
from portal.runs.kinds import Kind, Outcome
from portal.runs.listening import Ending
from portal.runs.models import Run
from tests.support import builders
from tests.support.commands import run as command
from tests.support.work import GOOD, OURS, Work, classes

pytestmark = pytest.mark.django_db
AWAY = Outcome(
    failure_class="temporary",
    message=f"The sign-in service has a fault. {LATER}",
    owner="nobody",
    systemic=True,
    retry_after=0.0,
)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.runs.ledger._FIRST_WAIT", 0.0)
    monkeypatch.setattr("portal.runs.ledger._LONGEST_WAIT", 0.0)


class Parts(Work):
    """Units of which a scope chooses some, as a plan, a partner or a customer does."""

    repeats = False
    __slots__ = ()

    def units(self, scope: Any, after: int, limit: int) -> Any:
        chosen = scope.get("keys")
        return [unit for unit in Work.units(self, scope, after, limit) if chosen is None or unit.key in chosen]

    def kind(self, **more: Any) -> Kind:
        return Work.kind(self, repeats=self.repeats, **more)


class Repeated(Parts):
    repeats = True
    __slots__ = ()


def run_again(stopped: Run) -> Ending:
    assert service.resume(stopped, actor=builders.ACTOR)
    return Executor(stopped).work()


def open_abouts() -> list[str]:
    return sorted(Incident.objects.open().values_list("about", flat=True))


# --- whose incident it is -----------------------------------------------------------------------------------------


@pytest.mark.req("R-14")
def test_another_run_of_the_kind_that_ends_well_does_not_hide_a_stopped_one() -> None:
    work = Parts(answer=lambda key, attempt: OURS)
    first, _ = work.do(scope={"keys": [1, 2, 3]})
    second, _ = work.do(scope={"keys": [4, 5]})
    assert open_abouts() == [f"run:{first.pk}", f"run:{second.pk}"]

    work.answer = lambda key, attempt: GOOD
    work.do(scope={"keys": [6, 7]})
    assert len(open_abouts()) == 2
    assert run_again(second) is Ending.DONE
    assert open_abouts() == [f"run:{first.pk}"]
    assert f"run {first.pk} on its page" in Incident.objects.open().get().words


@pytest.mark.req("R-14")
def test_a_run_over_the_same_things_settles_a_stopped_one() -> None:
    work = Parts(answer=lambda key, attempt: OURS)
    work.do(scope={"keys": [1, 2, 3]})
    work.answer = lambda key, attempt: GOOD
    work.do(scope={"keys": [1, 3]})
    assert len(open_abouts()) == 1
    work.do(scope={"keys": [2, 9]})
    assert open_abouts() == []


@pytest.mark.req("R-14")
def test_a_kind_that_comes_back_by_itself_has_one_incident_until_all_its_units_had_their_turn() -> None:
    work = Repeated(answer=lambda key, attempt: OURS)
    work.do(scope={"due": 1})
    work.do(scope={"due": 2})
    assert [(each.about, each.times) for each in Incident.objects.open()] == [("test", 2)]
    work.answer = lambda key, attempt: GOOD
    work.do(scope={"keys": [1]})
    assert open_abouts() == ["test"], "one partner's check says nothing about the others"
    work.do(scope={"due": 3})
    assert open_abouts() == []


def test_what_would_not_be_listed_any_more_holds_no_incident_open() -> None:
    work = Repeated(number=6, answer=lambda key, attempt: OURS)
    work.do()
    work.answer = lambda key, attempt: GOOD
    work.number = 4  # two partners were offboarded meanwhile
    work.do(scope={"due": 1})
    assert open_abouts() == []


def test_whoever_cancels_a_stopped_run_has_decided() -> None:
    work = Parts(answer=lambda key, attempt: AWAY)
    stopped, _ = work.do()
    assert open_abouts() == [f"run:{stopped.pk}"]
    assert command("run_cancel", stopped.pk).code == 0
    stopped.refresh_from_db()
    assert (stopped.state, stopped.resume_at, open_abouts()) == ("cancelled", None, [])


# --- who lets it go on --------------------------------------------------------------------------------------------


def come(stopped: Run) -> None:
    Run.objects.filter(pk=stopped.pk).update(resume_at=Now() - timedelta(seconds=1))


@pytest.mark.req("R-14")
def test_a_cause_that_passes_is_tried_again_by_the_workers_and_visibly() -> None:
    work = Parts(number=8, answer=lambda key, attempt: AWAY)
    stopped, ending = work.do()
    assert ending is Ending.STOPPED
    assert stopped.resume_at is not None
    assert timedelta(minutes=4) < stopped.resume_at - timezone.now() <= timedelta(minutes=5)
    words = Incident.objects.open().get().words
    assert f"The workers resume run {stopped.pk} by themselves at {stopped.resume_at:%H:%M} UTC, try 1 of 3" in words
    assert "sooner: Resume on its page." in words
    assert "Then resume" not in words
    assert "by themselves" in command("run_status", stopped.pk).out
    assert schedule.sweep() == "0 runs handed to the workers"

    come(stopped)
    work.answer = lambda key, attempt: GOOD
    assert schedule.sweep() == "1 run handed to the workers, 1 of them resumed"
    stopped.refresh_from_db()
    assert (stopped.state, stopped.resumes) == ("open", 1)
    assert not Run.objects.to_resume().exists()
    assert AuditEvent.objects.get(action="run.resumed").actor == "portal"
    assert Executor(stopped).work() is Ending.DONE
    assert (classes(stopped), open_abouts()) == ({"ok": 8}, [])


@pytest.mark.req("R-14")
def test_it_is_tried_a_few_times_only_and_then_a_person_is_named() -> None:
    work = Parts(number=8, answer=lambda key, attempt: AWAY)
    stopped, _ = work.do()
    waits = []
    for _ in range(3):
        assert stopped.resume_at is not None
        waits.append(stopped.resume_at - timezone.now())
        come(stopped)
        schedule.sweep()
        stopped.refresh_from_db()
        assert Executor(stopped).work() is Ending.STOPPED
        stopped.refresh_from_db()
    assert waits[0] < timedelta(minutes=6) < waits[1] < timedelta(minutes=16) < waits[2]
    assert (stopped.resume_at, stopped.resumes) == (None, 3)
    words = Incident.objects.open().get().words
    assert f"resumed it 3 times in vain and do not try again: resume run {stopped.pk}" in words
    assert LATER not in words, "nobody tries again"
    assert schedule.sweep() == "0 runs handed to the workers"
    assert run_again(stopped) is Ending.STOPPED
    stopped.refresh_from_db()
    assert stopped.resume_at is not None, "a person let it go on, so the portal tries anew"


@pytest.mark.req("R-14")
def test_what_a_person_must_repair_is_not_tried_again() -> None:
    stopped, _ = Parts(answer=lambda key, attempt: OURS).do()
    assert stopped.resume_at is None
    words = Incident.objects.open().get().words
    assert f"When the cause is gone, resume run {stopped.pk} on its page." in words


def test_a_run_is_not_resumed_after_its_deadline() -> None:
    begun = Parts(answer=lambda key, attempt: AWAY).start(deadline=timezone.now() + timedelta(minutes=2))
    Executor(begun).work()
    begun.refresh_from_db()
    assert (begun.state, begun.resume_at) == ("stopped", None)


def test_a_run_whose_work_others_did_or_do_is_left() -> None:
    work = Parts(number=8, answer=lambda key, attempt: AWAY)
    stopped, _ = work.do()
    other = work.start()  # the same work, begun anew
    assert other != stopped
    come(stopped)
    assert schedule.sweep() == "1 run handed to the workers"  # the other one
    stopped.refresh_from_db()
    assert (stopped.state, stopped.resume_at) == ("stopped", None)

    work.answer = lambda key, attempt: GOOD
    Executor(other).work()
    come(stopped)
    assert schedule.sweep() == "0 runs handed to the workers"
    stopped.refresh_from_db()
    assert (stopped.state, stopped.resume_at) == ("stopped", None)


def test_a_stopped_run_of_an_app_that_is_gone_holds_up_no_other() -> None:
    stopped, _ = Parts(answer=lambda key, attempt: AWAY).do()
    come(stopped)
    Run.objects.update(kind="gone")
    assert schedule.sweep() == "0 runs handed to the workers"
    assert not Run.objects.to_resume().exists()


# --- what the schedule left ---------------------------------------------------------------------------------------


def cut_off(work: Work, scope: dict[str, Any], **arguments: Any) -> Run:
    """Return a run of the schedule that was stopped and that nobody resumes by itself any more."""
    stopped, ending = work.do(scope=scope, **{"actor": builders.BY_CLOCK} | arguments)
    assert ending is Ending.STOPPED
    Run.objects.filter(pk=stopped.pk).update(resume_at=None, resumes=3, finished_at=Now() - timedelta(minutes=5))
    stopped.refresh_from_db()
    return stopped


@pytest.mark.req("R-14")
def test_what_the_schedule_left_is_taken_up_once_another_run_shows_that_the_cause_is_gone() -> None:
    work = Repeated(answer=lambda key, attempt: AWAY)
    stopped = cut_off(work, {"keys": [1, 2, 3]})
    of_person = cut_off(work, {"keys": [4]}, actor=builders.ACTOR)
    assert "once another run of this kind ended well" in stops.after_stop(stopped)
    assert "do not try again" in stops.after_stop(of_person)
    assert service.left_behind(work.kind()) == []

    work.answer = lambda key, attempt: GOOD
    work.do(scope={"keys": []})
    assert service.left_behind(work.kind()) == [], "a run without units shows nothing"
    work.do(scope={"keys": [9]})
    assert service.left_behind(work.kind()) == [stopped]

    assert run_again(stopped) is Ending.DONE
    assert service.left_behind(work.kind()) == []


def test_what_the_schedule_left_is_taken_up_for_a_day_and_when_only_its_time_was_over() -> None:
    work = Repeated(number=2)
    paused = work.start(scope={"keys": [1]}, actor=builders.BY_CLOCK, deadline=timezone.now() - timedelta(seconds=1))
    assert Executor(paused).work() is Ending.PAUSED
    by_person = work.start(scope={"keys": [2]}, actor=builders.BY_CLOCK)
    assert service.pause(by_person, actor=builders.ACTOR)
    assert service.left_behind(work.kind()) == [paused]
    Run.objects.update(created_at=Now() - timedelta(days=1, minutes=1))
    assert service.left_behind(work.kind()) == []
