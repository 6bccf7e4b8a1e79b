"""No process of the portal leaves its memory in a core file (S-38)."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from tests.support.children import database
from tests.support.source import ROOT

pytestmark = pytest.mark.req("S-38")
SECONDS = 30.0


ALLOWED = 'ulimit -S -c "$(ulimit -H -c)" && exec "$0" "$@"'
HARD = resource.getrlimit(resource.RLIMIT_CORE)[1]


def core_limits(pid: int) -> list[str]:
    """Return the soft and the hard limit of a process; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return []
    return next(line for line in lines if line.startswith("Max core file size")).split()[4:6]


def family(pid: int) -> list[int]:
    """Return a process with all its descendants."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in own for one in family(int(child)))]


@contextmanager
def started(*command: str) -> Iterator[int]:
    """Start a program as an operator may, with core files allowed."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", ALLOWED, sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DATABASE_URL": database()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_until_off(pid: int, processes: int) -> None:
    """Wait until the process has at least so many in its family, and each of them has both limits at 0."""
    until = time.monotonic() + SECONDS
    seen: dict[int, list[str]] = {}
    while time.monotonic() < until:
        seen = {one: limits for one in family(pid) if (limits := core_limits(one))}
        if len(seen) >= processes and all(limits == ["0", "0"] for limits in seen.values()):
            return
        time.sleep(0.1)
    raise AssertionError(f"core files are on: {seen}")


@pytest.mark.parametrize(
    ("command", "processes"),
    [
        (("manage.py", "worker", "--no-schedule"), 1),
        (("manage.py", "worker", "--schedule-only"), 1),
        (("-m", "gunicorn", "--no-control-socket", "--workers", "2", "--bind", "127.0.0.1:0", "portal.wsgi"), 3),
        (("-m", "celery", "-A", "portal.runs.celery", "--broker", "memory://", "worker", "--pool", "threads"), 1),
    ],
    ids=["worker", "schedule", "web", "celery"],
)
@pytest.mark.skipif(not HARD or not Path("/proc/self/limits").exists(), reason="this machine allows no core files")
@pytest.mark.django_db(transaction=True)
def test_no_process_of_the_portal_may_leave_a_core_file(command: tuple[str, ...], processes: int) -> None:
    connection.close()
    with started(*command) as pid:
        wait_until_off(pid, processes)


def test_a_command_turns_core_files_off_for_itself_and_what_it_starts() -> None:
    """Also where this machine allows none anyway: what is asked of the system is written down."""
    program = (
        "import resource, runpy, sys\n"
        "asked = []\n"
        "resource.setrlimit = lambda *limit: asked.append(limit)\n"
        "sys.argv = ['manage.py', 'check']\n"
        "try:\n    runpy.run_path('manage.py', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print(asked == [(resource.RLIMIT_CORE, (0, 0))])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "True"
