"""``make demo`` as a person meets it: one command, then a browser over plain http on this machine."""

from __future__ import annotations

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
from tests.browser.running_demo import running_demo
from tests.sandbox.demo.environment import MARKER

pytestmark = pytest.mark.browser
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
        alone = ("--why", "The demo has one person.", "--emergency")
        subprocess.run(
            [sys.executable, "manage.py", "offboard_partner", tenant, "--yes", "--background", *alone],
            cwd=ROOT,
            env=environment,
            check=True,
        )
        until = time.monotonic() + _SCHEDULE_SECONDS
        while (state := database.execute("select state from consent_offboarding").fetchone()) != ("done",):
            assert time.monotonic() < until, state
            time.sleep(1)


def _has_life(folder: Path) -> None:
    """What the first page shows is there: a run at work, all states, incidents of three owners, thirty days."""
    with closing(sqlite3.connect(f"file:{folder / 'db.sqlite3'}?mode=ro", uri=True)) as database:

        def words(query: str) -> set[str]:
            return {row[0] for row in database.execute(query)}

        assert words("select state from runs_run") >= {"open", "done"}
        assert words("select owner from incidents_incident where settled_at is null") >= {"us", "partner", "microsoft"}
        states = {"unknown", "absent", "waiting", "partial", "granted", "differs", "blocked", "failed"}
        assert words("select state from consent_customerconsent") == states
        assert words("select cloud from tenants_partnertenant") == {"global", "china", "usgov"}
        assert words("select name from consent_applicationregistration") >= {"Example Control Panel", "Example Backup"}
        assert len(words("select day from consent_dailyfigures")) == 30
        soon = "select 1 from consent_partnerconsent where forecast_at < datetime('now', '+14 days')"
        assert database.execute(soon).fetchone()


def test_the_demo_starts_serves_the_thread_and_stops_everything(chromium: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with running_demo(folder) as demo:
        page = chromium.new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)

        page.goto(demo.sandbox)
        expect(page.locator("h1")).to_have_text("The local Microsoft")
        expect(page.locator("main")).to_contain_text("service@southridge.example.com")
        assert refused == []

        page.goto(demo.link)
        page.click("form[action$=start] button")
        page.get_by_label("service@southridge.example.com").check()
        page.click("#next")
        page.click("#approve-mfa")
        page.click("#accept")
        expect(page.locator("h1")).to_contain_text("connected")

        page.goto(demo.staff)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", demo.password)
        page.click("button[type=submit], input[type=submit]")
        page.goto(f"{demo.staff}tenants/partnertenant/")
        for state in ("Connected", "Needs attention", "Disabled"):
            expect(page.locator("#result_list")).to_contain_text(state)
        photograph(page, "20-demo-partners")
        page.goto(f"{demo.staff}consent/consentflow/")
        expect(page.locator("#result_list")).to_contain_text("Consented, no token yet")
        page.close()
        _has_life(folder)
        _offboard(folder)
        demo.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # while it stops
    assert demo.process.returncode == 0
    assert "Traceback" not in demo.output.read_text()
    assert _alive(f"DEMO_FOLDER={folder}") == []


@pytest.mark.release
def test_over_https_a_browser_goes_the_same_way(tmp_path: Path, chromium: Browser) -> None:
    """For WebKit, which drops Secure cookies over http; the demo's own authority is enough, and HSTS is off."""
    with running_demo(tmp_path / "demo", "--https") as demo:
        assert demo.link.startswith("https://localhost:")
        page = chromium.new_page(ignore_https_errors=True)
        answer = page.goto(demo.link)
        assert answer is not None
        assert "strict-transport-security" not in answer.headers
        page.click("form[action$=start] button")
        assert page.url.startswith("https://login.global.localhost:")
        page.get_by_label("service@southridge.example.com").check()
        page.click("#next")
        page.click("#approve-mfa")
        page.click("#accept")
        expect(page.locator("h1")).to_contain_text("connected")
        page.close()
