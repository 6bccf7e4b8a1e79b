"""Processes that apply a plan are killed from outside; whoever goes on does nothing twice (R-20, R-26).

``APPLY_KILL_CUSTOMERS=5000`` is the long form of the first test; it prints what it counted (``-s``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection
from pytest_django.fixtures import Settings

from consent.models import ConsentPlan, ConsentPlanItem, CustomerConsent
from consent.runs.apply_plan import start_apply
from portal.incidents.models import Incident
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.models import Executor, Run, RunItem
from tests.conftest import make_portal, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.children import ROOT, database
from tests.support.customer_tenants import WANTED, booked, holds
from tests.support.plans import first_customers, holds_already, more_customers, plan_for, requests
from tests.support.portal import Portal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]
CUSTOMERS = int(os.environ.get("APPLY_KILL_CUSTOMERS", "60"))
CONCURRENCY = 8


@pytest.fixture
def portal(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Iterator[Portal]:
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    sandbox.world.ledger.clear()
    yield make_portal(sandbox)
    sandbox.world.faults.clear()
    sandbox.faults.release()


@pytest.fixture
def processes(sandbox: Sandbox, portal: Portal) -> Iterator[Callable[[Run], subprocess.Popen[bytes]]]:
    """Start a process that works a run, as a person would: ``manage.py run_resume``."""
    children: list[subprocess.Popen[bytes]] = []

    def start(run: Run) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "DATABASE_URL": database(),
            "TEST_ENDPOINTS": str(sandbox.port),
            "TEST_CA_FILE": str(sandbox.ca_file),
            "VAULT_URL": django_settings.VAULT_URL,
            "VAULT_KEY_FILE": django_settings.VAULT_KEY_FILE,
            "PARTNER_RATE": "1000",  # one partner has them all; its own limit is not what this is about
            "CALL_RATE": "10000",
        }
        command = ["manage.py", "run_resume", str(run.pk), "--concurrency", str(CONCURRENCY)]
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def finish(child: subprocess.Popen[bytes], seconds: float = 60.0) -> str:
    """Wait for the end of a process that ends well; return what it printed."""
    out, _ = child.communicate(timeout=seconds)
    assert child.returncode == 0, out.decode()
    return out.decode()


def kill(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait(10)


@pytest.mark.req("R-20")
@pytest.mark.req("R-26")
def test_killed_at_two_fifths_every_customer_is_handled_once(
    portal: Portal, processes: Callable[[Run], subprocess.Popen[bytes]]
) -> None:
    world = portal.sandbox.world
    world.ledger = type(world.ledger)(maxlen=None)
    first_customers(portal, 3)
    more_customers(portal, CUSTOMERS - 3)
    run, _ = start_apply(plan_for(portal), actor=builders.ACTOR)
    lines = len(world.ledger)

    first = processes(run)
    until(lambda: world.counters["partner_center create consent 201"] >= 0.4 * CUSTOMERS, 60 + CUSTOMERS)
    kill(first)
    time.sleep(0.2)  # what was on its way has arrived
    posted, finished = len(requests(portal)), RunItem.objects.filter(state="done").count()
    second = processes(run)
    out = finish(second, 120 + CUSTOMERS)

    # One effect for each customer, and one result.
    assert len(requests(portal)) == CUSTOMERS
    effects = Counter(line["status"] for line in booked(portal, "create consent"))
    assert effects == {201: CUSTOMERS}
    assert not any(line.get("repeated") for line in booked(portal, "create consent"))
    assert all(holds(portal, item.customer) == WANTED for item in ConsentPlanItem.objects.select_related("customer"))
    assert set(ConsentPlanItem.objects.values_list("result", flat=True)) == {"done"}
    assert CustomerConsent.objects.filter(state="granted").count() == CUSTOMERS
    assert (ConsentPlan.objects.get().state, Run.objects.get().state) == ("done", "done")
    assert f"{CUSTOMERS} of {CUSTOMERS}" in out
    assert Executor.objects.count() == 2

    # What was done again: the units that were in flight, or whose result was not written yet; each looks, no POST.
    calls = Counter(line["correlation"] for line in list(world.ledger)[lines:] if line.get("correlation"))
    per_unit = Counter(calls[item.correlation_id] for item in RunItem.objects.all())
    normal = per_unit.most_common(1)[0][0]
    repeated = sum(max(number - normal, 0) * units for number, units in per_unit.items())
    total = sum(number * units for number, units in per_unit.items())
    print(  # noqa: T201
        f"{CUSTOMERS} customers, killed with {posted} posted and {finished} finished; {total} requests, {repeated} of "
        f"them repeated ({repeated / total:.2%}), 0 POSTs repeated"
    )
    again = sum(units for number, units in per_unit.items() if number > normal)
    assert again <= max(0.01 * CUSTOMERS, 3 * CONCURRENCY)
    if CUSTOMERS >= 1000:
        assert repeated < 0.01 * total


@pytest.mark.req("R-20")
@pytest.mark.req("R-26")
@pytest.mark.parametrize(
    ("held", "before"),
    [
        ("DELETE", {"Directory.Read.All"}),
        pytest.param("POST", {"Directory.Read.All"}, marks=pytest.mark.slow),
        pytest.param("POST", set(), marks=pytest.mark.slow),
    ],
    ids=["after the DELETE", "after the POST of a reset", "after a POST"],
)
def test_killed_with_the_request_done_and_unanswered_the_next_process_puts_it_right(
    portal: Portal, processes: Callable[[Run], subprocess.Popen[bytes]], held: str, before: set[str]
) -> None:
    customer = first_customers(portal)[0]
    if before:
        holds_already(portal, customer, before)
    run, _ = start_apply(plan_for(portal), actor=builders.ACTOR, reset=True)
    sandbox = portal.sandbox
    sandbox.world.faults.append(Fault(service="partnercenter", method=held, path="applicationconsents", hold=True))

    first = processes(run)
    until(lambda: sandbox.faults.holding == 1)
    kill(first)
    item = ConsentPlanItem.objects.get()
    assert item.phase == {"DELETE": "removing", "POST": "removed" if before else "posting"}[held]
    assert item.result == ""
    assert holds(portal, customer) == (set() if held == "DELETE" else WANTED)
    if held == "DELETE":
        assert item.snapshot == {GRAPH_APPLICATION_ID: sorted(before)}
    sandbox.faults.release()
    finish(processes(run))

    assert holds(portal, customer) == WANTED
    assert requests(portal) == (["DELETE", "POST"] if before else ["POST"])  # each once
    assert ConsentPlanItem.objects.get().result == "done"
    assert CustomerConsent.objects.get().state == "granted"
    assert not Incident.objects.exists()


@pytest.mark.req("R-36")
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no connection to lose")
def test_a_lost_database_connection_repeats_no_effect(
    portal: Portal, processes: Callable[[Run], subprocess.Popen[bytes]]
) -> None:
    first_customers(portal, 3)
    more_customers(portal, 27)
    run, _ = start_apply(plan_for(portal), actor=builders.ACTOR, waves=())
    child = processes(run)
    for part in (6, 15):
        until(lambda part=part: len(requests(portal)) >= part)  # type: ignore[misc]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    finish(child)
    assert set(ConsentPlanItem.objects.values_list("result", flat=True)) == {"done"}
    assert len(requests(portal)) == 30
    assert {line["status"] for line in booked(portal, "create consent")} == {201}
