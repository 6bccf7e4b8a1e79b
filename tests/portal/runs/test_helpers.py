"""A command that works a run with helpers: together, interrupted, and killed one by one (``portal.runs.helpers``)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest

from portal.runs.helpers import shares
from portal.runs.models import Executor, Run, RunItem
from tests.support.children import Bench, assert_all_once

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


def is_running(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def helper_of(command: subprocess.Popen[bytes], bench: Bench) -> int:
    """Wait until a helper has worked some units, and return its process id."""
    bench.wait_for(lambda: Counter(each for _, each in bench.calls() if each != command.pid).total() >= 8)
    return next(each for _, each in bench.calls() if each != command.pid)


@pytest.mark.parametrize(
    ("concurrency", "processes", "expected"),
    [(64, 1, [64]), (64, 2, [32, 32]), (7, 3, [3, 2, 2]), (2, 8, [1, 1])],
)
def test_the_processes_share_the_units_at_once(concurrency: int, processes: int, expected: list[int]) -> None:
    assert shares(concurrency, processes) == expected


@pytest.mark.req("R-32")
def test_a_command_and_its_helper_work_each_unit_once_and_the_command_tells_all(bench: Callable[..., Bench]) -> None:
    work = bench(number=400)
    assert work.start(8, processes=2).wait(60) == 0

    assert_all_once(work)
    assert set(Counter(key for key, _ in work.calls()).values()) == {1}
    parts = Counter(process for _, process in work.calls())
    assert len(parts) == 2
    assert min(parts.values()) > 100
    *lines, summary = work.printed.read_text().splitlines()
    assert Counter(lines) == Counter(f"ok      unit {number}" for number in range(1, 401))
    assert summary.endswith("400 of 400: 400 ok")
    assert not any(is_running(process) for process in parts)


@pytest.mark.req("R-14")
def test_helpers_do_not_begin_while_nothing_shows_that_we_are_well(bench: Callable[..., Bench]) -> None:
    work = bench(number=100)
    command = work.start(16, processes=3, fault=True)
    assert command.wait(30) == 3

    assert len(work.calls()) <= 5
    assert {process for _, process in work.calls()} == {command.pid}
    run = Run.objects.get()
    assert run.state == "stopped"
    assert run.items.filter(state="working").count() == 0


@pytest.mark.req("R-28")
@pytest.mark.req("R-33")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_command_and_helpers_politely(bench: Callable[..., Bench], number: signal.Signals) -> None:
    work = bench(number=600)
    command = work.start(8, processes=2)
    helper = helper_of(command, work)
    if number is signal.SIGINT:
        os.killpg(command.pid, number)  # a terminal sends it to every process
    else:
        command.send_signal(number)
    assert command.wait(30) == 128 + number

    assert not is_running(helper)
    assert Executor.objects.living().count() == 0
    assert RunItem.objects.filter(state="working").count() == 0
    assert RunItem.objects.filter(state="done").count() == len(work.calls()) < 600

    assert work.start(8, processes=2).wait(60) == 0
    assert_all_once(work)
    assert len(work.calls()) == 600


@pytest.mark.req("R-28")
def test_a_second_signal_ends_the_helpers_as_well(bench: Callable[..., Bench]) -> None:
    work = bench(number=400)
    command = work.start(8, processes=2)
    helper = helper_of(command, work)
    os.kill(helper, signal.SIGSTOP)  # so that it cannot stop politely
    command.send_signal(signal.SIGTERM)
    work.wait_for(lambda: not Executor.objects.living().filter(process=command.pid).exists())
    command.send_signal(signal.SIGTERM)
    assert command.wait(10) == 128 + signal.SIGTERM
    work.wait_for(lambda: not is_running(helper))


@pytest.mark.req("R-26")
def test_the_units_of_a_helper_that_was_killed_are_worked_by_the_command(bench: Callable[..., Bench]) -> None:
    work = bench(number=400)
    command = work.start(8, processes=2)
    os.kill(helper_of(command, work), signal.SIGKILL)
    assert command.wait(60) == 0

    assert_all_once(work)
    repeated = len(work.calls()) - 400
    assert repeated <= 60  # what the helper had at work or not yet written


@pytest.mark.slow
@pytest.mark.req("R-26")
def test_helpers_of_a_command_that_was_killed_stop_and_the_run_goes_on(bench: Callable[..., Bench]) -> None:
    work = bench(number=1000)
    command = work.start(8, processes=3)
    helper_of(command, work)
    command.kill()
    command.wait(10)
    helpers = {process for _, process in work.calls()} - {command.pid}
    work.wait_for(lambda: not any(is_running(process) for process in helpers))
    assert len(work.calls()) < 1000

    assert work.start(8, processes=2).wait(60) == 0
    assert_all_once(work)
