"""``make demo`` as a person meets it: one command, then a browser over plain http on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ROOT, photograph

pytestmark = pytest.mark.browser
_START_SECONDS = 60  # the promise of README


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


def test_the_demo_starts_serves_the_thread_and_stops_everything(chromium: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TEST_", "DJANGO_"))}
    output = tmp_path / "output"
    with output.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--seconds", "150"],
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
        page.close()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(20)
    assert demo.returncode == 0
    assert _alive(f"DEMO_FOLDER={folder}") == []
