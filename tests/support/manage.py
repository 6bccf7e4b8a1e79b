"""Run manage.py in a process of its own, with settings that are good but for what a test changes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from tests.support.source import ROOT, variables

SECRET = "canary-" + secrets.token_hex(24)
GOOD = {
    "SECRET_KEY": SECRET,
    "INTEGRITY_KEY": secrets.token_urlsafe(48),
    "PUBLIC_BASE_URL": "https://portal.example.com",
}


def manage(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py in a process of its own."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= dict.fromkeys(variables(), "") | GOOD | {"LOG_FORMAT": "console"} | changes
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_line(ended: subprocess.CompletedProcess[str], told: str, code: int | None = None) -> None:
    assert ended.returncode == code if code else ended.returncode != 0
    assert "Traceback" not in ended.stderr + ended.stdout
    assert SECRET not in ended.stderr + ended.stdout
    assert told in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
