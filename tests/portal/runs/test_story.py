"""The log tells operators what runs, jobs and incidents did, in one line each, without the queue's own chatter."""

from __future__ import annotations

import json
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from portal.incidents.models import Incident
from portal.runs import schedule, service
from portal.runs.executor import Executor
from portal.runs.models import ScheduledJob
from portal.runs.registry import Job
from portal.site.logs import JsonFormatter, logging_config
from tests.support import builders
from tests.support.work import GOOD, OURS, THEIRS, Work, alone_on_the_schedule

pytestmark = pytest.mark.django_db


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == name]


def test_a_run_has_a_line_for_its_start_its_stop_its_resume_and_its_end(
    caplog: pytest.LogCaptureFixture, django_capture_on_commit_callbacks: Any
) -> None:
    caplog.set_level("INFO")
    work = Work(number=30, answer=lambda key, attempt: OURS)
    with django_capture_on_commit_callbacks(execute=True):
        run, _ = work.do()
        work.answer = lambda key, attempt: THEIRS if key == 3 else GOOD
        service.resume(run, actor=builders.ACTOR)
        Executor(run).work()

    started, stopped, resumed, ended = lines(caplog, "portal.runs.service")
    name = f"Test work, run {run.pk}: "
    assert started == f"{name}started by {builders.ACTOR.name}"
    # All are listed already, or the next look would have found that there are no more.
    assert re.match(rf"{name}stopped: Our secret expired\. 0 of (30|the 30 listed) in ", stopped)
    assert resumed == f"{name}resumed by {builders.ACTOR.name}."
    assert ended.startswith(f"{name}ended. 30 of 30 in ")
    assert ended.endswith(" s: 1 needs_consent, 29 ok")
    record = next(each for each in caplog.records if each.getMessage() == stopped)
    assert (record.levelname, vars(record)["run"], vars(record)["kind"]) == ("WARNING", run.pk, "test")
    opened, settled = (each for each in caplog.records if each.name == "portal.incidents.service")
    assert (opened.getMessage(), vars(opened)["words"]) == ("incident", Incident.objects.get().words)
    assert (settled.getMessage(), vars(settled)["cause"]) == ("incident settled", "run_stopped")


def test_a_job_has_a_line_for_its_start_and_its_end_and_one_when_it_is_repeated(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    alone_on_the_schedule(
        monkeypatch, Job(name="test_job", label="Test job", every=timedelta(hours=1), work=lambda times: "2 removed")
    )
    schedule.tick()
    ScheduledJob.objects.update(owner="a process", repeat_at=Now() - timedelta(seconds=1))
    schedule.tick()
    schedule.run_job.func("test_job")
    cut_off, begins, ends = lines(caplog, "portal.runs.schedule")
    assert cut_off.startswith("job test_job: cut off, because its process ended in the middle; repeated at ")
    assert begins == "job test_job begins"
    assert ends.startswith("job test_job ends: 2 removed (begun again once")


def test_the_queue_is_quiet_and_its_faults_are_not() -> None:
    loggers = logging_config(json=True, level="INFO")["loggers"]
    assert loggers["dj_queue"]["level"] == "WARNING"


def test_records_and_lists_stand_in_a_line_as_json_and_stay_clean() -> None:
    record = logging.makeLogRecord(
        {
            "name": "portal",
            "msg": "said",
            "classes": {"ok": 3, "needs_consent": 1},
            "names": ["a", "b\nc"],
            "deep": {"client_secret": "hush", "text": "code=0.AXcAabcdefghijklmnopqrstuvwxyz0123456789"},
        }
    )
    line = json.loads(JsonFormatter().format(record))
    assert line["classes"] == {"ok": 3, "needs_consent": 1}
    assert line["names"] == ["a", "b\\u000ac"]
    assert line["deep"]["client_secret"] == "[redacted]"
    assert "0.AXc" not in line["deep"]["text"]
