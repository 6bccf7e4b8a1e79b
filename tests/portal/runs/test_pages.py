"""The pages of runs: what people see, who may steer, and that lists stay cheap.

Covers: portal.runs.admin, portal.runs.extension, portal.runs.progress.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.runs.token_check import TOKEN_CHECK
from portal.audit.models import AuditEvent
from portal.runs import schedule, service
from portal.runs.models import Executor, Run, ScheduledJob
from tests.support import builders
from tests.support.staff import Staff, told
from tests.support.work import GOOD, THEIRS, Work

pytestmark = pytest.mark.django_db
ADDRESS = "/admin/runs/run/"


@pytest.fixture
def staff() -> Staff:
    return Staff()


def finished_run(number: int = 12) -> Run:
    run, _ = Work(number=number, answer=lambda key, attempt: THEIRS if key % 4 == 0 else GOOD).do()
    return run


def test_the_list_shows_progress_and_costs_the_same_for_many_runs(staff: Staff) -> None:
    staff.get(ADDRESS)
    counts = []
    for _ in range(2):
        for _ in range(3):
            finished_run(4)
        with CaptureQueriesContext(connection) as queries:
            page = staff.get(ADDRESS).content.decode()
        counts.append(len(queries))
    assert "4 of 4 (100%)" in page
    assert counts[0] == counts[1]


def test_a_run_shows_counts_causes_and_who_must_act(staff: Staff) -> None:
    run = finished_run()
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert "12 of 12" in page
    assert " in all</span>" in page
    assert "3 × The partner must consent." in page
    assert "Who must act: The partner" in page
    assert f"{run.pk}/progress/" not in page  # a finished run does not change any more


def test_an_open_run_renews_its_progress_without_scripts_of_its_own(staff: Staff) -> None:
    run = Work().start()
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert f'data-poll="{ADDRESS}{run.pk}/progress/?shown=' in page
    part = staff.get(f"{ADDRESS}{run.pk}/progress/")
    assert part.status_code == 200
    assert part.content.decode().lstrip().startswith('<section class="card"')
    assert "no process works it just now" in part.content.decode()
    assert staff.get(f"{ADDRESS}999999/progress/").status_code == 404


def test_the_page_of_a_large_run_costs_as_many_queries_as_that_of_a_small_one(staff: Staff) -> None:
    staff.get(ADDRESS)
    counts = []
    for number in (4, 400):
        run = finished_run(number)
        with CaptureQueriesContext(connection) as queries:
            staff.get(f"{ADDRESS}{run.pk}/progress/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("name", "state", "action"),
    [("pause", "paused", "run.paused"), ("cancel", "cancelled", "run.cancelled")],
)
def test_steering_asks_first_and_is_written_down(staff: Staff, name: str, state: str, action: str) -> None:
    run = Work().start()
    address = f"{ADDRESS}{run.pk}/{name}/"
    page = staff.get(address)
    assert page.status_code == 200
    run.refresh_from_db()
    assert run.state == "open"

    assert f"The run is {state}." in told(staff.confirm(page))
    run.refresh_from_db()
    assert run.state == state
    assert AuditEvent.objects.get(action=action).actor == staff.user.username
    again = staff.get(address, follow=True)
    assert f"Nothing was changed: the run is {state}." in told(again)
    assert "_once" not in again.content.decode()


BUTTONS = ("pause", "resume", "cancel")


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("open", ("pause", "resume", "cancel")),
        ("paused", ("resume", "cancel")),
        ("stopped", ("resume",)),
        ("done", ()),
        ("cancelled", ()),
    ],
)
def test_the_buttons_of_a_run_fit_its_state(staff: Staff, state: str, offered: tuple[str, ...]) -> None:
    run = Work().start()
    over = None if state in {"open", "paused"} else timezone.now()
    Run.objects.filter(pk=run.pk).update(state=state, finished_at=over)
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert tuple(name for name in BUTTONS if f"{ADDRESS}{run.pk}/{name}/" in page) == offered
    for name in BUTTONS:
        asked = staff.get(f"{ADDRESS}{run.pk}/{name}/", follow=True)
        assert ("_once" in asked.content.decode()) == (name in offered), name
        assert name in offered or "Nothing was changed" in told(asked)


def test_a_run_that_is_worked_is_not_resumed(staff: Staff) -> None:
    run = Work().start()
    until = timezone.now() + timedelta(seconds=20)
    Executor.objects.create(run=run, host="worker", process=1, lease_until=until)
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert f"{ADDRESS}{run.pk}/pause/" in page
    assert f"{ADDRESS}{run.pk}/resume/" not in page


def test_the_page_is_loaded_again_when_its_table_is_out_of_date(staff: Staff) -> None:
    work = Work()
    run = work.start()
    address = staff.get(f"{ADDRESS}{run.pk}/change/").context["run_progress"].address
    assert staff.get(address).status_code == 200
    service.pause(run, actor=builders.ACTOR)
    assert staff.get(address).status_code == 205  # the page loads itself again


def test_a_paused_run_is_resumed_and_handed_to_the_workers(staff: Staff) -> None:
    run = Work().start()
    service.pause(run, actor=builders.ACTOR)
    address = f"{ADDRESS}{run.pk}/resume/"
    staff.confirm(staff.get(address))
    run.refresh_from_db()
    assert run.state == "open"


def test_who_may_only_look_may_not_steer() -> None:
    reader, stranger = Staff("runs.view_run", "runs.view_runitem"), Staff("runs.view_executor")
    run = Work().start()
    assert reader.get(f"{ADDRESS}{run.pk}/change/").status_code == 200
    assert reader.get(f"{ADDRESS}{run.pk}/cancel/").status_code == 403
    assert stranger.get(f"{ADDRESS}{run.pk}/progress/").status_code in {403, 404}


@pytest.mark.parametrize("query", ["", "?result=not_ok", "?result=needs_consent", "?state__exact=done", "?q=unit"])
def test_units_are_filtered_searched_and_exported(staff: Staff, query: str) -> None:
    run = finished_run()
    page = staff.get(f"/admin/runs/runitem/{query}")
    assert page.status_code == 200
    assert "The partner must consent." in page.content.decode()
    assert staff.get(f"/admin/runs/runitem/?run__id__exact={run.pk}").status_code == 200


def test_the_schedule_is_listed(staff: Staff) -> None:
    schedule.tick()
    page = staff.get("/admin/runs/scheduledjob/").content.decode()
    assert "Checking and renewing tokens" in page


def test_a_list_that_knows_no_guids_finds_nothing_for_one(staff: Staff) -> None:
    finished_run()
    page = staff.get(ADDRESS, {"q": "5ba494e1-6fe5-4297-9754-5929ffb90003"})
    assert page.status_code == 200
    assert not page.context["cl"].result_list


# --- scope and options in words, results, repeats -----------------------------------------------------------------


def test_a_run_says_scope_and_options_in_the_words_of_its_kind(staff: Staff) -> None:
    run, _ = service.start(
        TOKEN_CHECK,
        scope={"hour": 3, "due": True, "partner": [builders.partner(name="Harbour").tenant_id]},
        options={"renew": True, "force": False},
        actor=builders.ACTOR,
    )
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert f"<h1>Token check, run {run.pk}</h1>" in page
    assert "Partners whose hour of the day is 3" in page
    assert "Tokens whose next try has come" in page
    assert ">Partner: Harbour</a>" in page
    assert "Every token is renewed, however young the stored one is" in page
    assert "Force" not in page
    assert "Renew: yes" not in page


def test_a_run_shows_its_latest_results_and_leads_to_all_of_them(staff: Staff) -> None:
    run = finished_run()
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert "Latest results" in page
    assert ">unit 12</a>" in page
    results = f"/admin/runs/runitem/?run__id__exact={run.pk}"
    assert f'href="{results}&amp;result=not_ok"' in page
    shown = staff.get(f"{results}&result=not_ok").content.decode()
    assert f"<h1>Results of run {run.pk}</h1>" in shown
    assert f'href="{ADDRESS}{run.pk}/change/">Run {run.pk}</a>' in shown
    assert 'value="export_csv"' in shown


def test_the_live_part_shows_the_same_with_and_without_scripts(staff: Staff) -> None:
    run = Work().start()
    page = staff.get(f"{ADDRESS}{run.pk}/change/")
    part = staff.get(page.context["run_progress"].address).content.decode().strip()
    clock = re.compile(r"\d+:\d\d:\d\d so far")
    assert clock.sub("", part) in clock.sub("", page.content.decode())
    assert "<noscript>" in part


def test_the_page_is_loaded_again_when_other_buttons_fit(staff: Staff) -> None:
    run = Work().start()
    address = staff.get(f"{ADDRESS}{run.pk}/change/").context["run_progress"].address
    until = timezone.now() + timedelta(seconds=20)
    Executor.objects.create(run=run, host="worker", process=1, lease_until=until)
    assert staff.get(address).status_code == 205  # "Resume" fits no longer


def test_a_run_leads_to_the_runs_that_repeat_what_failed_in_it(staff: Staff) -> None:
    run = finished_run()
    new, _ = service.repeat_failed(run, actor=builders.ACTOR)
    page = staff.get(f"{ADDRESS}{run.pk}/change/").content.decode()
    assert f'href="{ADDRESS}{new.pk}/change/">Run {new.pk}: open</a>' in page


def test_a_job_is_begun_from_its_own_page(staff: Staff) -> None:
    schedule.tick()
    ScheduledJob.objects.update(repeat_at=None)
    page = f"/admin/runs/scheduledjob/{quote('old_runs')}/"
    assert [button.title for button, _ in staff.get(f"{page}change/").context["buttons"]] == ["Run now"]
    after = staff.confirm(staff.get(f"{page}run-now/"))
    assert "1 job left to the workers." in told(after)
    assert AuditEvent.objects.get(action="job.started").actor == staff.user.username
    assert Staff("runs.view_scheduledjob").get(f"{page}run-now/").status_code == 403
