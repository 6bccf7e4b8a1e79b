"""Start the sandbox, the portal and a worker, let the story happen, and stop everything again."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command

from portal.audit.trail import Actor
from portal.commands import Pipe
from portal.staff.roles import Role, grant
from tests.sandbox.demo import environment, story
from tests.sandbox.demo.environment import FOLDER, note, prepare

_START_SECONDS = 30
_OUT = Pipe(sys.stdout)


_OVER_HTTP = (
    "  Plain http is right here for Chromium and Firefox. Safari (WebKit) drops every Secure cookie over http, and",
    "  each button is answered with 403 there: start with make demo HTTPS=1. A deployment is https only.",
)
_OVER_TLS = (
    "  The browser warns of an unknown authority: the certificate was made for this demo, and nobody vouches for it.",
    "  Choose Advanced and go on: once here, and once at login.global.localhost. Or let the browser trust",
    f"  {FOLDER.name}/sandbox/ca.pem, as long as the demo runs. No browser remembers https for localhost: HSTS is off.",
)


class _Signals:
    """The first signal ends the demo; those after it change nothing, so that stopping is never cut off.

    SIGTERM ends it like Ctrl-C, so that no child survives either of them. A shell that starts something in the
    background makes it ignore SIGINT; here it counts all the same.
    """

    def __init__(self) -> None:
        self._came = self._held = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        first, self._came = not self._came, True
        if first and not self._held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put the end off until the block is done: a child that was just started must be known before it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        self._came = True


class DemoFailed(Exception):
    """A process did not start or ended by itself; the text names the log that says why."""


def run(seconds: int) -> None:
    """Run the demo for this time, or until a signal comes where it is 0.

    Raises:
        FolderRefused: the folder is not the demo's, or a demo runs in it.
        DemoFailed: a process did not start or ended by itself.
    """
    started = time.monotonic()
    marker = prepare()
    children: list[subprocess.Popen[bytes]] = []
    signals = _Signals()

    def begin(command: list[str], log: str) -> None:
        with signals.held():
            children.append(_spawn(command, log, marker))

    try:
        password = _start(begin, children)
        address = story.build(lambda line: _say(f"  {line}"))
        _explain(address, password, time.monotonic() - started)
        _wait(children, seconds)
    except KeyboardInterrupt:
        _say("\nStopping.")
    finally:
        signals.ignore()
        _stop(children)


def _start(begin: Callable[[list[str], str], None], children: Sequence[subprocess.Popen[bytes]]) -> str:
    _say("Starting the sandbox and the portal ...")
    sandbox = [sys.executable, "-m", "tests.sandbox", "--scenario", "demo"]
    begin(["env", f"TEST_SIGN_IN_PORT={environment.control_port}", *sandbox], "sandbox.log")
    call_command("migrate", interactive=False, verbosity=0)
    password = secrets.token_urlsafe(12)
    make_accounts(password)
    base = settings.PUBLIC_BASE_URL
    port = base.rpartition(":")[2]
    gunicorn = [
        sys.executable,
        "-m",
        "gunicorn",
        "--worker-class",
        "gthread",
        "--threads",
        "8",
        "--no-control-socket",
    ]
    if base.startswith("https:"):
        _wait_for("sandbox", children[0], environment.control_port)
        folder = FOLDER / "sandbox"
        while not (folder / "server.key").exists():  # the sandbox listens before it makes its certificate
            time.sleep(0.1)
        gunicorn += ["--certfile", str(folder / "server.pem"), "--keyfile", str(folder / "server.key")]
    # One process: the demo shows the product, and SQLite has one writer anyway.
    begin([*gunicorn, "--bind", f"127.0.0.1:{port}", "portal.wsgi"], "portal.log")
    # Works what is begun in the admin, and keeps the schedule as a deployment's worker does: without it an
    # offboarding would never end. What comes round every hour and day finds nothing to do before the example is
    # there, and comes again after an hour.
    begin([sys.executable, "manage.py", "worker"], "worker.log")
    _wait_for("sandbox", children[0], environment.control_port)
    _wait_for("portal", children[1], int(port))
    return password


def make_accounts(password: str) -> list[User]:
    """Make two members of staff with each role, for what two persons decide; a superuser is for emergencies only."""
    made = [User.objects.create_user(name, password=password, is_staff=True) for name in ("admin", "colleague")]
    for person in made:
        grant(person, Role, actor=Actor.command("demo"))
    return made


def _spawn(command: list[str], log: str, marker: IO[str]) -> subprocess.Popen[bytes]:
    with (FOLDER / log).open("wb") as output:
        # A session of its own: Ctrl-C reaches the demo only, which then stops its children in order. The marker
        # goes with it: where a child outlives the demo, the folder is still taken.
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ.copy(),
            pass_fds=[marker.fileno()],
        )
    note(marker, child.pid)
    return child


def _explain(address: str, password: str, seconds: float) -> None:
    over_tls = settings.PUBLIC_BASE_URL.startswith("https:")
    lines = [
        "",
        f"Ready after {seconds:.0f} s. Open these in a browser on this machine:",
        "",
        f"  Staff:         {settings.PUBLIC_BASE_URL}/admin/   user admin, password {password}",
        "                 A second person, for what two decide: user colleague, the same password.",
        f"  A partner:     {address}",
        "                 Continue, choose service@southridge.example.com, approve, accept.",
        f"  The sandbox:   http://control.localhost:{environment.control_port}/   plays Microsoft",
        "",
        *(_OVER_TLS if over_tls else _OVER_HTTP),
        "",
        *(f"  {one.key:<12} {one.note}" for one in story.STORIES),
        "",
        f"Logs and data are in {FOLDER.name}/. Ctrl-C stops everything.",
    ]
    _say("\n".join(lines))


def _wait(children: list[subprocess.Popen[bytes]], seconds: int) -> None:
    until = time.monotonic() + seconds if seconds else float("inf")
    while time.monotonic() < until:
        for child in children:
            if child.poll() is not None:
                raise DemoFailed(f"A process of the demo ended; see the logs in {FOLDER.name}/.")
        time.sleep(0.5)


def _wait_for(name: str, child: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise DemoFailed(f"The {name} did not start; see {FOLDER.name}/{name}.log.")


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in reversed(children):
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _say(line: str) -> None:
    _OUT.write(f"{line}\n")
    _OUT.flush()
