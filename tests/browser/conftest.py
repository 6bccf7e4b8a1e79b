"""A portal in processes of its own, over TLS, beside a sandbox on another site, and a real Chromium."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.browser import axe
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
# The same engine without the windows around it needs a quarter less of a processor; it keeps no preferences.
HEADLESS = shutil.which("chromium-headless-shell") or CHROMIUM
# Without these Chromium calls home at every start, and draws in a process of its own what nobody sees; as root it needs
# --no-sandbox.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
]


@dataclass(slots=True, kw_only=True)
class RunningPortal:
    """The portal's address, its environment, and how to run its commands."""

    base: str
    environment: dict[str, str]
    password: str
    sandbox: Sandbox
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def manage(self, *arguments: str, given: str | None = None, expect: int = 0) -> str:
        """Run a management command as an operator would and return what it printed."""
        return manage(self.environment, *arguments, given=given, expect=expect)


def manage(environment: dict[str, str], *arguments: str, given: str | None = None, expect: int = 0) -> str:
    """Run a management command in this environment and return what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def demand(browser: str) -> None:
    """Skip where this browser is missing; in CI that is a failure."""
    if not browser and os.environ.get("CI"):
        pytest.fail("Chromium is missing; .ci/run installs it")
    if not browser:
        pytest.skip("Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of this folder; it goes before this process begins others."""
    demand(HEADLESS)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop running in this thread, which Django takes for an asynchronous caller.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=HEADLESS, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A database with all migrations and one superuser, and the keys that it was made with."""

    database: Path
    keys: dict[str, str]
    password: str


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Migrate once for all portals of this run, whichever worker starts them: each starts with a copy."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    database, kept = folder / "prepared.sqlite3", folder / "prepared.json"
    with (folder / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            made = _prepare(database)
            kept.write_text(json.dumps({"keys": made.keys, "password": made.password}))
    return Prepared(database, **json.loads(kept.read_text()))


def _prepare(database: Path) -> Prepared:
    keys = {name: secrets.token_urlsafe(48) for name in ("SECRET_KEY", "INTEGRITY_KEY")}
    made = Prepared(database, keys, secrets.token_urlsafe(12))
    environment = {
        **os.environ,
        **keys,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PUBLIC_BASE_URL": "https://portal.localhost",
        "DATABASE_URL": f"sqlite:///{made.database}",
        "DJANGO_SUPERUSER_PASSWORD": made.password,
    }
    manage(environment, "migrate", "--verbosity", "0")
    manage(environment, "createsuperuser", "--noinput", "--username", "admin", "--email", "admin@vendor.example")
    return made


@pytest.fixture
def running_portal(running_sandbox: Sandbox, prepared: Prepared, tmp_path: Path) -> Iterator[RunningPortal]:
    """Serve the portal over TLS on ``portal.localhost``; the sandbox's hosts are another site for the browser."""
    scenarios.load(running_sandbox.world, "minimal", running_sandbox.clouds)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copyfile(prepared.database, tmp_path / "db.sqlite3")
    environment = {
        **os.environ,
        **prepared.keys,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PUBLIC_BASE_URL": f"https://portal.localhost:{port}",
        "ALLOWED_HOSTS": "portal.localhost",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "VAULT_URL": str(tmp_path / "vault"),
        "VAULT_KEY_FILE": str(tmp_path / "vault-key"),
        "AUDIT_ANCHOR_FILE": str(tmp_path / "audit-anchors.jsonl"),
        "TEST_ENDPOINTS": str(running_sandbox.port),
        "TEST_CA_FILE": str(running_sandbox.ca_file),
        "SERVE_STATIC_FROM_SOURCE": "true",
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "DEBUG",
        "STAFF_PASSWORD_ALONE": "true",
    }
    log = tmp_path / "portal.log"
    portal = RunningPortal(
        base=f"https://portal.localhost:{port}",
        environment=environment,
        password=prepared.password,
        sandbox=running_sandbox,
        log=log,
    )
    directory = running_sandbox.directory
    with log.open("wb") as output:
        portal.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
                *("--worker-class", "gthread", "--threads", "8"),
                *("--certfile", str(directory / "server.pem"), "--keyfile", str(directory / "server.key")),
                *("--bind", f"127.0.0.1:{port}", "portal.wsgi"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, portal)
        yield portal
    finally:
        portal.process.terminate()
        portal.process.wait(15)


def _wait_for(port: int, portal: RunningPortal) -> None:
    """Wait until a worker shakes hands: gunicorn listens before it, and it looks at the vault and the rows first."""
    context = ssl.create_default_context(cafile=portal.sandbox.ca_file)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="portal.localhost"),
        ):
            return
        time.sleep(0.02)
    pytest.fail("the portal did not start: " + portal.log.read_text())


@pytest.fixture
def staff(chromium: Browser) -> Iterator[Page]:
    yield from _page(chromium)


@pytest.fixture
def partner(chromium: Browser) -> Iterator[Page]:
    """The partner's administrator: another person, another browser."""
    yield from _page(chromium)


def _page(chromium: Browser) -> Iterator[Page]:
    # The CA is made for this run; the certificate's names are still checked by the portal's own clients.
    context: BrowserContext = chromium.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    page = context.new_page()
    yield page
    context.close()


# Values of Chromium's preference ``profile.cookie_controls_mode``. Contexts like those of the other tests are incognito
# and block third-party cookies anyway; only a profile of its own can allow them.
ALLOW_THIRD_PARTY, BLOCK_THIRD_PARTY = 0, 1
PersonWith = Callable[[int], AbstractContextManager[Page]]


@pytest.fixture
def person_with(chromium: Browser, tmp_path: Path) -> PersonWith:
    """Start a browser with a profile on disk, in which third-party cookies are allowed or blocked.

    Started again, it finds the profile as it was left.
    """
    demand(CHROMIUM)

    @contextmanager
    def start(cookie_controls: int) -> Iterator[Page]:
        profile = tmp_path / "profile"
        if not profile.exists():
            (profile / "Default").mkdir(parents=True)
            preferences = {"profile": {"cookie_controls_mode": cookie_controls}}
            (profile / "Default" / "Preferences").write_text(json.dumps(preferences))
        context = chromium.browser_type.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=CHROMIUM_FLAGS, ignore_https_errors=True
        )
        context.set_default_timeout(15_000)
        yield context.new_page()
        context.close()

    return start


@pytest.fixture
def base(chromium: Browser, transactional_db: None, settings: Any) -> Iterator[str]:
    """Serve this process's own portal over http, with the rows of the test; return its address."""
    settings.SECURE_SSL_REDIRECT = False
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    server = LiveServer("localhost")  # not pytest-django's fixture, which starts before these settings
    yield server.url
    server.stop()


KEEPS_SCREENSHOTS = os.environ.get("KEEP_SCREENSHOTS") == "1"


def photograph(page: Page, name: str) -> None:
    """Store a screenshot where KEEP_SCREENSHOTS asks for it; the folder is not in the repository."""
    if KEEPS_SCREENSHOTS:
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def photograph_each_view(page: Page, name: str) -> None:
    """Store the open page in both colour schemes, on a desktop and a phone, where KEEP_SCREENSHOTS asks for it."""
    if KEEPS_SCREENSHOTS:
        for width, scheme in product(axe.WIDTHS, axe.SCHEMES):
            axe.show(page, scheme, width)
            photograph(page, f"{name}-{width}-{scheme}")
