"""A minute of flood on the public pages, while a member of staff works (R-48, S-63): ``python -m tests.bench.flood``.

A real gunicorn with two processes and SQLite on loopback. Ten flooding addresses send four fifths of the requests, and
ninety quiet ones the rest, all of them 127.x.x.x addresses of this machine. Ends with 1 when something does not hold.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

HOST = "portal.localhost"
ROOT = Path(__file__).resolve().parents[2]
FLOODING = [f"127.0.1.{number}" for number in range(1, 11)]
QUIET = [f"127.0.2.{number}" for number in range(1, 91)]
REQUESTS, SECONDS = 10_000, 60
PAGES = ("landing", "start", "callback")
ADMIN_PAGE = "/admin/consent/consentflow/"
MOST_SECONDS = 2.0  # R-48, p95 of the admin page
MOST_GROWTH = 40_000  # kB of one worker
_FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass(slots=True)
class Site:
    """The portal under test."""

    port: int
    path: str
    session: str
    database: Path
    tables: dict[str, str]
    master: int = 0
    forms: dict[str, tuple[str, str]] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, *, address: str = "127.0.0.1", body: str | None = None, **headers: str
    ) -> tuple[int, str, str]:
        """Send one request from that address, on a connection of its own; return status, body and first cookie."""
        sent = {"Host": HOST, "X-Forwarded-Proto": "https", "Connection": "close"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=(address, 0))) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, text, (response.getheader("Set-Cookie") or "").partition(";")[0]

    def fetch_form(self, address: str) -> None:
        """Open the page as a browser does, for the token of its form."""
        _, text, cookie = self.ask("GET", self.path, address=address)
        token = _FORM_TOKEN.search(text)
        if token is None:
            raise RuntimeError(f"the landing page has no form: {text[:200]}")
        self.forms[address] = cookie, token[1]

    def attack(self, page: str, address: str) -> int:
        """Send one request of the flood; each is as valid as somebody with a leaked link can make it."""
        if page == "landing":
            return self.ask("GET", self.path, address=address)[0]
        if page == "start":
            cookie, token = self.forms[address]
            form = urlencode({"csrfmiddlewaretoken": token})
            return self.ask(
                "POST", f"{self.path}start", address=address, body=form, Cookie=cookie, Origin=f"https://{HOST}"
            )[0]
        form = urlencode({"state": secrets.token_urlsafe(32), "code": "0." + "x" * 800})
        origin = "https://login.microsoftonline.com"
        return self.ask("POST", "/consent/callback/global", address=address, body=form, Origin=origin)[0]

    def admin_seconds(self) -> float:
        """Return how long a page of the admin took."""
        began = time.perf_counter()
        status, _, _ = self.ask("GET", ADMIN_PAGE, Cookie=self.session)
        if status != 200:
            raise RuntimeError(f"the admin page answered {status}")
        return time.perf_counter() - began

    def rows(self) -> dict[str, int]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return {
                what: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608
                for what, table in self.tables.items()
            }

    def memory(self) -> list[int]:
        """Return the resident kilobytes of each worker."""
        children = Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()
        status = [Path(f"/proc/{child}/status").read_text() for child in children]
        return [int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) for text in status]


def prepare(folder: Path) -> Site:
    """Make a portal with one open link and one signed-in member of staff."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    os.environ.update(
        {
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "INTEGRITY_KEY": secrets.token_urlsafe(48),
            "PUBLIC_BASE_URL": f"https://{HOST}",
            "STAFF_PASSWORD_ALONE": "true",
            "BEHIND_TLS_PROXY": "true",
            "TRUSTED_PROXIES": "0",
            "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
            "VAULT_URL": str(folder / "vault"),
            "VAULT_KEY_FILE": str(folder / "vault-key"),
            "AUDIT_ANCHOR_FILE": str(folder / "audit-anchors.jsonl"),
            "SERVE_STATIC_FROM_SOURCE": "true",
            "WEB_CONCURRENCY": "2",
        }
    )
    os.environ |= dict.fromkeys(("ADMIN_HOST", "ALLOWED_HOSTS", "TEST_ENDPOINTS", "REQUEST_LIMIT_FACTOR"), "")
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connections
    from django.test import Client

    from consent.invitations import links
    from consent.models import ConsentFlow
    from portal.audit.models import AuditEvent
    from portal.models import RequestCount
    from tests.support import builders

    call_command("migrate", verbosity=0)
    _, address = links.issue(builders.partner(), builders.registration(), actor=builders.ACTOR)
    staff = Client()
    staff.force_login(User.objects.create_superuser("anna"))
    name = settings.SESSION_COOKIE_NAME
    connections.close_all()
    tables = {"flows": ConsentFlow, "limits": RequestCount, "audit": AuditEvent}
    return Site(
        port=port,
        path=address.reveal().removeprefix(settings.PUBLIC_BASE_URL),
        session=f"{name}={staff.cookies[name].value}",
        database=folder / "db.sqlite3",
        tables={what: model._meta.db_table for what, model in tables.items()},
    )


@contextmanager
def running(site: Site, log: Path) -> Iterator[None]:
    """Run the portal as ``make run`` does, with two processes."""
    command = ["-m", "gunicorn", "--no-control-socket", "--worker-class", "gthread", "--threads", "8"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *command, "--bind", f"127.0.0.1:{site.port}", "portal.wsgi"], cwd=ROOT, stderr=stderr
        )
    site.master = process.pid
    try:
        for _ in range(100):
            time.sleep(0.2)
            try:
                site.ask("GET", "/admin/login/")
            except ConnectionRefusedError:
                continue
            break
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def plan() -> Iterator[tuple[str, str]]:
    """Yield page and address of each request: every fifth from the quiet addresses in turn, the others at random."""
    for number in range(REQUESTS):
        turn, rest = divmod(number, 5)
        if rest:
            yield random.choice(PAGES), random.choice(FLOODING)
        else:
            yield PAGES[turn // len(QUIET) % len(PAGES)], QUIET[turn % len(QUIET)]


def flood(site: Site) -> tuple[Counter[tuple[str, str, int]], list[float], float]:
    """Send the flood evenly over the minute; return answers by group, page and status, the admin's times, the time."""
    work = enumerate(plan())
    answers: Counter[tuple[str, str, int]] = Counter()
    lock, over = threading.Lock(), threading.Event()
    admin: list[float] = []
    began = time.monotonic()

    def send() -> None:
        while True:
            with lock:
                number, (page, address) = next(work, (-1, ("", "")))
            if number < 0:
                return
            time.sleep(max(0.0, began + number * SECONDS / REQUESTS - time.monotonic()))
            status = site.attack(page, address)
            with lock:
                answers["flood" if address in FLOODING else "quiet", page, status] += 1

    def look() -> None:
        while not over.is_set():
            admin.append(site.admin_seconds())
            over.wait(max(0.0, 1 - admin[-1]))

    with ThreadPoolExecutor(33) as pool:
        looking = pool.submit(look)
        for one in [pool.submit(send) for _ in range(32)]:
            one.result()
        took = time.monotonic() - began
        over.set()
        looking.result()
    return answers, admin, took


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cpv-flood-") as name:
        site = prepare(Path(name))
        log = Path(name) / "gunicorn.log"
        with running(site, log):
            for address in FLOODING + QUIET:
                site.fetch_form(address)
            calm = [site.admin_seconds() for _ in range(10)]
            rows, memory = site.rows(), site.memory()
            answers, admin, took = flood(site)
            rows_after, memory_after = site.rows(), site.memory()
        tracebacks = log.read_text().count("Traceback")
    return report(calm, answers, admin, took, rows, rows_after, memory, memory_after, tracebacks)


def report(
    calm: list[float],
    answers: Counter[tuple[str, str, int]],
    admin: list[float],
    took: float,
    rows: dict[str, int],
    rows_after: dict[str, int],
    memory: list[int],
    memory_after: list[int],
    tracebacks: int,
) -> int:
    """Print what was measured; return 0 when all of it holds."""
    from consent.limits import START

    windows = int(took // START.window) + 2
    addresses = len(FLOODING + QUIET)
    most_flows = addresses * START.per_link * windows
    most_limits = addresses * 5 * (windows + 1)  # landing and start with their link, callback; swept once a minute
    admin.sort()
    p95 = admin[int(len(admin) * 0.95)]
    say(f"{answers.total()} requests in {took:.1f} s")
    for (group, page, status), number in sorted(answers.items()):
        say(f"  {group:6} {page:9} {status}  {number:6}")
    say(f"admin page before: max {max(calm) * 1000:.0f} ms")
    say(
        f"admin page during: {len(admin)} times, p50 {admin[len(admin) // 2] * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, "
        f"max {admin[-1] * 1000:.0f} ms"
    )
    for what, before in rows.items():
        say(f"rows of {what}: {before} before, {rows_after[what]} after")
    say(f"memory of the workers, kB: {memory} before, {memory_after} after")
    refused = sum(number for (group, _, status), number in answers.items() if (group, status) == ("quiet", 429))
    holds = {
        f"p95 of the admin page is under {MOST_SECONDS:.0f} s": p95 < MOST_SECONDS,
        f"at most {most_flows} flows": rows_after["flows"] <= most_flows,
        f"at most {most_limits} rows of limits": rows_after["limits"] <= most_limits,
        f"no worker grew by {MOST_GROWTH} kB": all(
            after - before < MOST_GROWTH for before, after in zip(sorted(memory), sorted(memory_after), strict=True)
        ),
        "no quiet address was refused": refused == 0,
        "no page failed": tracebacks == 0 and not any(status >= 500 for _, _, status in answers),
    }
    for what, held in holds.items():
        say(f"{'holds' if held else 'FAILS'}: {what}")
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
