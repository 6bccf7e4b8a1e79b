"""``make demo`` as a person meets it: one command, then a browser over plain http on this machine."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ROOT, photograph
from tests.sandbox.demo.environment import MARKER

pytestmark = pytest.mark.browser
_START_SECONDS = 60  # the promise of README
_SCHEDULE_SECONDS = 90  # the schedule looks at offboardings every minute


def _alive(command: str) -> list[str]:
    """Return the processes of this machine whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if command in path.read_bytes().decode(errors="replace"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def _offboard(folder: Path) -> None:
    """Offboard a partner without customers, and wait until the demo's worker has ended it by the schedule."""
    worker = (folder / MARKER).read_text().split()[-1]
    entries = Path(f"/proc/{worker}/environ").read_bytes().decode().split("\0")
    environment = dict(entry.partition("=")[::2] for entry in entries if entry)
    assert environment["SECRET_KEY"] == "", "keys are in files of the folder, not in /proc"
    with closing(sqlite3.connect(f"file:{folder / 'db.sqlite3'}?mode=ro", uri=True)) as database:
        partner = "select tenant_id from tenants_partnertenant where name like 'Southridge%'"
        (tenant,) = database.execute(partner).fetchone()
        subprocess.run(
            [sys.executable, "manage.py", "offboard_partner", tenant, "--yes", "--background"],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        until = time.monotonic() + _SCHEDULE_SECONDS
        while (state := database.execute("select state from consent_offboarding").fetchone()) != ("done",):
            assert time.monotonic() < until, state
            time.sleep(1)


def test_the_demo_starts_serves_the_thread_and_stops_everything(chromium: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TEST_", "DJANGO_"))}
    output = tmp_path / "output"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "tests.sandbox.demo", "--seconds", "300"],
            cwd=ROOT,
            env=environment | {"DEMO_FOLDER": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        started = time.monotonic()
        while "Ctrl-C stops everything" not in output.read_text():
            assert demo.poll() is None, output.read_text()
            assert time.monotonic() - started < _START_SECONDS, output.read_text()
            time.sleep(0.2)
        said = output.read_text()
        link = re.search(r"A partner:\s+(\S+)", said)
        password = re.search(r"password (\S+)", said)
        staff_page = re.search(r"Staff:\s+(\S+)", said)
        assert link
        assert password
        assert staff_page
        page = chromium.new_page()

        page.goto(link[1])
        page.click("form[action$=start] button")
        page.get_by_label("service@southridge.example.com").check()
        page.click("#next")
        page.click("#approve-mfa")
        page.click("#accept")
        expect(page.locator("h1")).to_contain_text("connected")

        page.goto(staff_page[1])
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", password[1])
        page.click("button[type=submit], input[type=submit]")
        page.goto(f"{staff_page[1]}tenants/partnertenant/")
        for state in ("Connected", "Needs attention", "Disabled"):
            expect(page.locator("#result_list")).to_contain_text(state)
        photograph(page, "20-demo-partners")
        page.goto(f"{staff_page[1]}consent/consentflow/")
        expect(page.locator("#result_list")).to_contain_text("Consented, no token yet")
        page.close()
        _offboard(folder)
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(20)
    assert demo.returncode == 0
    assert _alive(f"DEMO_FOLDER={folder}") == []
