"""What runs just now stands at the top of every page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.runs import service
from portal.runs.kinds import OK
from portal.runs.models import Run, RunItem
from portal.runs.panels import running_lines, runs_panel, time_left
from portal.site.display import Tone
from tests.support import builders
from tests.support.staff import Staff
from tests.support.work import Work

HALF_A_MINUTE = timedelta(seconds=30)


@pytest.mark.parametrize(
    ("units", "recent", "said"),
    [
        (0, 10, ""),
        (10, 0, ""),
        (1, 300, "about 1 s left"),
        (600, 450, "about 40 s left"),
        (1800, 300, "about 3 min left"),
        (300_000, 300, "about 8 h left"),
    ],
)
def test_the_time_left_follows_the_pace_of_the_last_while(units: int, recent: int, said: str) -> None:
    assert time_left(units, recent, HALF_A_MINUTE) == said


def half_done(number: int = 0) -> Run:
    run = Work().start()
    Run.objects.filter(pk=run.pk).update(total=4, listed_at=timezone.now(), scope_hash=f"{number:064}")
    for key in (1, 2):
        RunItem.objects.create(
            run=run,
            key=key,
            group=key,
            label=f"unit {key}",
            turn=0,
            state=RunItem.State.DONE,
            failure_class=OK,
            correlation_id=builders.guid(),
            finished_at=timezone.now(),
        )
    run.refresh_from_db()
    return run


@pytest.mark.django_db
def test_every_page_says_what_runs_and_leads_there() -> None:
    staff = Staff()
    assert b"data-poll" not in staff.get("/admin/password_change/").content
    run = half_done()
    for address in ("/admin/password_change/", "/admin/running/"):
        page = staff.get(address).content.decode()
        assert "2 of 4, about 30 s left" in page, address
        assert f"/admin/runs/run/{run.pk}/change/" in page, address
    service.pause(run, actor=builders.ACTOR)
    assert "2 of 4" not in staff.get("/admin/running/").content.decode()


@pytest.mark.django_db
def test_what_runs_is_one_query_or_two_and_only_for_who_may_see_runs() -> None:
    request = RequestFactory().get("/")
    request.user = Staff().user
    with CaptureQueriesContext(connection) as captured:
        assert running_lines(request) == []
    assert len([one for one in captured if "runs_run" in one["sql"]]) == 1
    for number in range(3):
        half_done(number)
    for staff, lines, queries in ((Staff(), 3, 2), (Staff("tenants.view_partnertenant"), 0, 0)):
        request.user = staff.user
        staff.user.has_perm("runs.view_run")  # a person's permissions are read once
        with CaptureQueriesContext(connection) as captured:
            assert len(running_lines(request)) == lines
        assert len(captured) == queries


@pytest.mark.django_db
def test_a_run_that_ends_between_the_two_queries_is_left_out() -> None:
    run, request = half_done(), RequestFactory().get("/")
    request.user = Staff().user

    def ended_meanwhile(execute: Any, sql: str, *arguments: Any) -> Any:
        if "runs_runitem" in sql:
            Run.objects.filter(pk=run.pk).update(state="done", finished_at=timezone.now())
        return execute(sql, *arguments)

    with connection.execute_wrapper(ended_meanwhile):
        assert running_lines(request) == []


@pytest.mark.django_db
def test_the_first_page_shows_open_runs_before_the_last_ones_and_its_head_asks_no_more() -> None:
    run = half_done()
    for state in ("done", "stopped"):
        over = Run.objects.create(
            kind=run.kind,
            scope_hash=f"{state:064}",
            state=state,
            actor="anna",
            total=1,
            listed_at=timezone.now(),
            finished_at=timezone.now() - timedelta(hours=2),
            reason="The vault is shut." if state == "stopped" else "",
        )
    request = RequestFactory().get("/")
    request.user = Staff().user
    with CaptureQueriesContext(connection) as captured:
        panel, lines = runs_panel(request), running_lines(request)
    assert len(captured) == 1
    assert panel is not None
    assert [row.tone for row in panel.rows] == [Tone.BUSY, Tone.BAD, Tone.GOOD]
    assert panel.rows[0].label == lines[0].label
    assert panel.rows[1].label.endswith("stopped for a cause on our side, 1 unit")
    assert panel.rows[1].detail == "Finished 2 hours ago, by anna. The vault is shut."
    assert panel.rows[1].link == f"/admin/runs/run/{over.pk}/change/"
    request = RequestFactory().get("/")
    request.user = Staff("tenants.view_partnertenant").user
    assert runs_panel(request) is None
