"""``make demo`` touches a folder only if it made it, only when it starts for good, and never while one runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.utils import timezone

from consent import clients
from consent.models import Containment, TokenUse
from consent.runs import resuming
from portal.decisions.models import Decision
from portal.incidents.models import Incident
from portal.runs.executor import Executor
from portal.runs.models import Run
from tenants.models import PartnerTenant
from tests.sandbox.demo import environment, story
from tests.sandbox.demo.processes import make_accounts
from tests.support.connected import connect
from tests.support.portal import SERVICE_ACCOUNT, Browser, Portal
from tests.support.source import ROOT
from tests.support.staff import Staff, told
from tests.support.workers import until


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with this folder; without ``--help`` it would start a whole demo where it is not refused."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("TEST_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, "-m", "tests.sandbox.demo", *arguments],
        cwd=ROOT,
        env=others | {"DEMO_FOLDER": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder as a demo leaves it, with something in it."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / environment.MARKER).write_text("4711\n")
    (folder / "db.sqlite3").write_text("rows")
    return folder


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--secnods", "3"], 2)])
def test_help_and_a_typo_leave_the_folder_alone(prepared: Path, arguments: list[str], code: int) -> None:
    done = run(prepared, *arguments)
    assert done.returncode == code, done.stderr
    assert (prepared / "db.sqlite3").read_text() == "rows"


def test_a_folder_that_the_demo_did_not_make_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("keep me")

    done = run(tmp_path / "letters", "--seconds", "1")

    assert done.returncode == 2
    assert "did not make" in done.stderr
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mine.txt"]


def test_a_second_demo_leaves_the_running_one_alone(prepared: Path) -> None:
    with (prepared / environment.MARKER).open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(prepared, "--seconds", "1")

    assert done.returncode == 2
    assert f"A demo is running in {prepared} (processes 4711)." in done.stderr
    assert (prepared / "db.sqlite3").read_text() == "rows"


def test_what_the_demo_made_is_emptied_and_its_keys_leave_the_environment(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prepared / "vault").mkdir()
    (prepared / "vault" / "secret").touch()
    outside = prepared.parent / "outside"
    outside.mkdir()
    (outside / "mine.txt").touch()
    (prepared / "link").symlink_to(outside)
    monkeypatch.setattr(environment, "FOLDER", prepared)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    mask = os.umask(0o022)
    try:
        environment.set_environment()
        secret = os.environ["SECRET_KEY"]
        with environment.prepare():
            assert sorted(path.name for path in prepared.iterdir()) == [
                "integrity_key",
                environment.MARKER,
                "secret_key",
            ]
            assert (prepared / "secret_key").read_text() == secret
            assert {path.stat().st_mode & 0o777 for path in prepared.glob("*_key")} == {0o600}
            assert secret not in os.environ.values(), "children would show it in /proc"
            assert os.environ["SECRET_KEY_FILE"] == str(prepared / "secret_key")
            assert (prepared / environment.MARKER).read_text() == f"{os.getpid()}\n"
    finally:
        os.umask(mask)
    assert (outside / "mine.txt").exists()


def test_what_the_demo_tells_of_a_revoked_partner_is_true(portal: Portal) -> None:
    """It cannot wait ten minutes between two refusals, so nothing that it shows says that it did."""
    began = timezone.now()
    portal.onboard()
    account = next(user for _, user in portal.sandbox.world.users_of("global") if user.upn == SERVICE_ACCOUNT)
    account.sessions_revoked_at = portal.sandbox.world.now() + 1
    said: list[str] = []

    story._check_all(said.append)

    assert "token works" not in said[0]
    consent = portal.consent()
    assert consent.state == "needs_consent"
    assert consent.first_denied_at is not None
    assert consent.first_denied_at >= began, "the time that is shown is the real one"
    words = Incident.objects.get(cause="token_needs_consent").words
    assert "ten minutes" not in words
    assert "and again when it was checked once more" in words


# --- the drill of docs/runbook-breach.md ----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.req("S-80")
def test_the_drill_of_the_runbook_ends_as_it_says(portal: Portal) -> None:
    """Each step of *The drill*, by the pages, with the two accounts of the demo."""
    portal.connect()
    connect(portal, 1)
    admin, colleague = (Staff.of(person) for person in make_accounts("a password of the demo"))
    partner, link, stranger = portal.partner, portal.link(), Browser()
    assert stranger.get(link).status_code == 200
    asked = admin.choose("tenants_partnertenant", "check_partners", *PartnerTenant.objects.values_list("pk", flat=True))
    admin.confirm(asked)
    check = Run.objects.get()

    # 3. Stop, and look around.
    add = "/admin/consent/containment/add/"
    stopped = {"reason": "the drill", "registration": "", "partner": ""}
    assert admin.post(add, stopped, headers={"referer": f"https://portal.localhost{add}"}).status_code == 302
    until(lambda: clients.gate().stop_of_all(), "the stop")
    one = Containment.objects.get()
    for who in (admin, colleague):
        assert "Emergency stop of everything." in who.get("/admin/").content.decode()
    held = colleague.get(f"/admin/runs/run/{check.pk}/change/").content.decode()
    assert "Emergency stop of everything" in held.partition("<h1")[2]
    assert "paused all connections" in stranger.get(link).content.decode()
    answer = admin.post(f"/admin/tenants/partnertenant/{partner.pk}/ask/check/", follow=True)
    assert "no token is used" in told(answer)
    invited = {"partner": partner.pk, "registration": portal.registration.pk, "kind": "sign_in", "days": 5}
    assert "no link is made" in admin.post("/admin/consent/consentlink/add/", invited).content.decode()

    # 4. Who used what.
    led = colleague.choose("tenants_partnertenant", "see_uses", partner.pk)
    assert "Partner Center" in colleague.get(led["Location"]).content.decode()
    uses = TokenUse.objects.filter(partner=partner).values_list("pk", flat=True)
    exported = colleague.choose("consent_tokenuse", "export_csv", *uses)
    assert partner.name in b"".join(exported.streaming_content).decode()

    # 5. Without an identity that may, a person is told how.
    page = f"/admin/consent/containment/{one.pk}"
    assert "Entra admin center" in told(admin.confirm(admin.get(f"{page}/deactivate/")))

    # 6. Two persons let it go.
    admin.confirm(admin.get(f"{page}/ask-to-resume/"), why="The drill is over.")
    request = f"/admin/decisions/decision/{Decision.objects.get().pk}/approve/"
    assert "another person decides" in told(admin.confirm(admin.get(request)))
    assert "wave 1" in told(colleague.confirm(colleague.get(request)))
    waves = 0
    while Containment.objects.get().state != Containment.State.OVER:
        one.refresh_from_db()
        waves += 1
        last = one.released_to or 0
        until(lambda last=last: clients.gate().stop(last, portal.registration.pk) is None, "the release")
        assert one.run is not None
        Executor(one.run).work()
        resuming.advance(one)
    assert waves == 2
    until(lambda: not clients.gate().standing(), "the end")
    check.refresh_from_db()
    assert check.state == Run.State.OPEN
    Executor(check).work()
    check.refresh_from_db()
    assert check.state == Run.State.DONE
    assert stranger.get(link).status_code == 200
    assert "Emergency stop of everything." not in colleague.get("/admin/").content.decode()
