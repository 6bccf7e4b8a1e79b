import os
import secrets
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError

from consent import demo
from portal.commands import PortalCommand
from portal.demo import FOLDER, FolderRefused, note, prepare

_START_SECONDS = 30


class Command(PortalCommand):
    help = (
        "From nothing to a running portal: sandbox, SQLite, embedded vault and six example partners in the folder "
        ".demo (or DEMO_FOLDER), which is made anew; a folder that it did not make, or in which a demo runs, is left "
        "alone. Ctrl-C stops everything it started."
    )
    examples = (
        "demo",
        "demo --seconds 600",
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seconds", type=int, default=0, help="stop by itself after this time (0: at Ctrl-C)")

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        if str(FOLDER / "vault") != settings.VAULT_URL:
            raise CommandError("Start it with manage.py demo: only that sets the demo's own environment.", returncode=2)
        try:
            self.marker = prepare()
        except FolderRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        children: list[subprocess.Popen[bytes]] = []
        # SIGTERM ends the demo like Ctrl-C, so that no child survives either of them. A shell that starts something in
        # the background tells it to ignore SIGINT; here it counts all the same.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        try:
            password = self._start(children)
            address = demo.build(lambda line: self.stdout.write(f"  {line}"))
            self._explain(address, password, time.monotonic() - started)
            self._wait(children, options["seconds"])
        except KeyboardInterrupt:
            self.stdout.write("\nStopping.")
        finally:
            _stop(children)

    def _start(self, children: list[subprocess.Popen[bytes]]) -> str:
        self.stdout.write("Starting the sandbox and the portal ...")
        children.append(self._spawn([sys.executable, "manage.py", "sandbox", "--scenario", "demo"], "sandbox.log"))
        call_command("migrate", interactive=False, verbosity=0)
        password = secrets.token_urlsafe(12)
        User.objects.create_superuser("admin", password=password)
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
        # One process: the demo shows the product, and SQLite has one writer anyway.
        children.append(self._spawn([*gunicorn, "--bind", f"127.0.0.1:{port}", "portal.wsgi"], "portal.log"))
        # Works what is begun in the admin, and keeps the schedule as a deployment's worker does: without it an
        # offboarding would never end. What comes round every hour and day finds nothing to do before the example is
        # there, and comes again after an hour.
        children.append(self._spawn([sys.executable, "manage.py", "worker"], "worker.log"))
        _wait_for("sandbox", children[0], settings.TEST_SIGN_IN_PORT)
        _wait_for("portal", children[1], int(port))
        return password

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (FOLDER / log).open("wb") as output:
            # A session of its own: Ctrl-C reaches the demo only, which then stops its children in order. The marker
            # goes with it: where a child outlives the demo, the folder is still taken.
            child = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ.copy(),
                pass_fds=[self.marker.fileno()],
            )
        note(self.marker, child.pid)
        return child

    def _explain(self, address: str, password: str, seconds: float) -> None:
        sign_in = f"http://login.global.localhost:{settings.TEST_SIGN_IN_PORT}"
        lines = [
            "",
            f"Ready after {seconds:.0f} s. Open these in a browser on this machine:",
            "",
            f"  Staff:         {settings.PUBLIC_BASE_URL}/admin/   user admin, password {password}",
            f"  A partner:     {address}",
            "                 Continue, choose service@southridge.example.com, approve, accept.",
            f"  The sandbox:   {sign_in} plays Microsoft; http://control.localhost:{settings.TEST_SIGN_IN_PORT}/state",
            "",
            "  Plain http is right here: browsers treat localhost as secure. A deployment is https only.",
            "  Measured in Chromium; a browser of another family may drop Secure cookies of plain http.",
            "",
            *(f"  {story.key:<12} {story.note}" for story in demo.STORIES),
            "",
            f"Logs and data are in {FOLDER.name}/. Ctrl-C stops everything.",
        ]
        self.stdout.write("\n".join(lines))

    def _wait(self, children: list[subprocess.Popen[bytes]], seconds: int) -> None:
        until = time.monotonic() + seconds if seconds else float("inf")
        while time.monotonic() < until:
            for child in children:
                if child.poll() is not None:
                    raise CommandError(f"A process of the demo ended; see the logs in {FOLDER.name}/.")
            time.sleep(0.5)


def _wait_for(name: str, child: subprocess.Popen[bytes], port: int) -> None:
    import socket

    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise CommandError(f"The {name} did not start; see {FOLDER.name}/{name}.log.")


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in reversed(children):
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
