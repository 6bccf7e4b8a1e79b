"""The proof: while a process checks tokens in 64 threads and two others ask for them, one command stops all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection

from consent.containment.service import Scope, contain
from portal.runs.models import Run
from tests.support import builders
from tests.support.children import database
from tests.support.connected import connect
from tests.support.custody import redemptions
from tests.support.portal import Portal
from tests.support.source import ROOT
from tests.support.workers import forking, until

PARTNERS = 160
_CALLS = {"entra", "partner_center", "graph"}
OF_A_TEST = ("VAULT_URL", "VAULT_KEY_FILE", "TOKEN_SAVE_AFTER_HOURS")

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


def environment(portal: Portal) -> dict[str, str]:
    """Return what makes a process the portal of this test, with production settings."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "DATABASE_URL": database(),
        "TEST_ENDPOINTS": str(portal.sandbox.port),
        "TEST_CA_FILE": str(portal.sandbox.ca_file),
        **{name: str(getattr(django_settings, name)) for name in OF_A_TEST},
    }


@contextmanager
def checking(portal: Portal, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Check all tokens in 64 threads of one process."""
    command = [sys.executable, "manage.py", "check_tokens", "--concurrency", "64"]
    with (folder / "checks").open("wb") as out:
        child = subprocess.Popen(command, cwd=ROOT, env=environment(portal), stdout=out, stderr=out)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.mark.req("S-80")
def test_no_token_is_redeemed_or_used_later_than_a_second_after_the_stop(portal: Portal, tmp_path: Path) -> None:
    consents = connect(portal, PARTNERS)
    connection.close()  # SQLite: the children write as well
    portal.sandbox.world.switches["latency"] = 0.05
    settings = {name: getattr(django_settings, name) for name in OF_A_TEST}
    with checking(portal, tmp_path) as checks, forking(environment(portal), tmp_path) as workers:
        fresh = workers.start(consents[0].pk, settings, threads=4, times=100_000)
        cached = workers.start(consents[1].pk, settings, threads=4, times=100_000, fresh=False)
        until(lambda: len({line.get("home") for line in redemptions(portal)}) > 40, "the load")
        called_at = portal.sandbox.world.now()
        contain(Scope(), reason="a stranger", actor=builders.ACTOR)
        stopped_at = portal.sandbox.world.now()
        code = checks.wait(20)
        time.sleep(max(stopped_at + 2.5 - portal.sandbox.world.now(), 0))
        for worker in (fresh, cached):
            worker.kill()

    ledger = list(portal.sandbox.world.ledger)
    late = [line for line in ledger if line["at"] > stopped_at + 1 and line["service"] in _CALLS]
    load = [line for line in ledger if called_at - 2 < line["at"] <= called_at and line["service"] in _CALLS]
    assert len(load) > 40, "there was no load"
    assert late == []
    assert code == 1
    assert "Paused. Emergency stop of everything" in (tmp_path / "checks").read_text()
    run = Run.objects.get(kind="token_check")
    assert (run.state, run.held) == (Run.State.PAUSED, True)
    assert set(run.items.filter(state="done").values_list("failure_class", flat=True)) == {"ok"}
