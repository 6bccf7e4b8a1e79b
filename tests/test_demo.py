"""``make demo`` touches a folder only if it made it, only when it starts for good, and never while one runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.utils import timezone

from portal.incidents.models import Incident
from tests.sandbox.demo import environment, story
from tests.support.portal import SERVICE_ACCOUNT, Portal
from tests.support.source import ROOT


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
