"""A disk that is really full, and one that is really read-only (R-38): ``python -m tests.bench.full_disk``, as root.

A portal under gunicorn keeps SQLite on a tmpfs of eight megabytes. It is filled to the last byte, emptied, and mounted
read-only; pages and commands are asked each time. Ends with 1 when something does not hold. Linux only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.flood import ROOT, Site, prepare, running

SIZE = "8m"
COMMANDS = (("issue_consent_link", ""), ("check_tokens",), ("run_status",), ("clean_up",))
_FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_REFERENCE = re.compile(r"Reference code: <strong>([0-9A-F]{8})</strong>")


class Report:
    """What was asked, what came, and whether it is as it must be."""

    def __init__(self) -> None:
        self.failed = False

    def line(self, what: str, seen: str, *, holds: bool) -> None:
        self.failed |= not holds
        sys.stdout.write(f"  {what:<34}{seen}{'' if holds else '   FAILS'}\n")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write until not one byte is left."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def ask(site: Site, report: Report, log: Path, told: str) -> None:
    """Open each public page, press its button, and start each command; ``told`` is how the failure is called."""
    lines_before = len(log.read_text().splitlines())
    form: tuple[str, str] | None = None
    for what, path in (("GET live link", site.path), ("GET dead link", "/consent/" + "x" * 43 + "/")):
        status, text, cookie = site.ask("GET", path)
        if what == "GET live link" and status == 200 and (found := _FORM_TOKEN.search(text)):
            form = found[1], cookie
        page(report, log, what, status, text, told, good=200 if path == site.path else 404)
    status, text, _ = site.ask("GET", "/admin/login/")
    page(report, log, "GET admin sign-in", status, text, told, good=200)
    form = form or site.forms.get("start")
    if form:
        site.forms["start"] = form
        status, text, _ = site.ask(
            "POST",
            site.path + "start",
            body=f"csrfmiddlewaretoken={form[0]}",
            Cookie=form[1],
            Referer=f"https://portal.localhost{site.path}",
            Content_Type="application/x-www-form-urlencoded",
        )
        page(report, log, "POST start", status, text, told, good=303)
    for name, *arguments in COMMANDS:
        tenant = [site.session] if arguments else []
        ended = subprocess.run(
            [sys.executable, "manage.py", name, *tenant], cwd=ROOT, capture_output=True, text=True, check=False
        )
        words = (ended.stderr.strip() or ended.stdout.strip() or "-").splitlines()
        seen = f"rc {ended.returncode}  {words[-1][:110]}"
        good = ended.returncode == 3 and len(words) == 1 and told in words[0] if told else ended.returncode == 0
        report.line(f"manage.py {name}", seen, holds=good)
    lines = log.read_text().splitlines()[lines_before:]
    traces = sum("Traceback" in line for line in lines)
    report.line("lines of the log, traces", f"{len(lines)}, {traces}", holds=not traces)


def page(report: Report, log: Path, what: str, status: int, text: str, told: str, *, good: int) -> None:
    if status == good:
        report.line(what, str(status), holds=True)
        return
    found = _REFERENCE.search(text)
    known = bool(found) and any(found[1] in line and told in line for line in log.read_text().splitlines() if found)
    report.line(
        what,
        f"{status}, reference {found[1] if found else 'none'}, {'in' if known else 'NOT in'} the log",
        holds=bool(told) and status == 503 and known,
    )


def main() -> int:
    report = Report()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as elsewhere:
        folder, log = Path(place), Path(elsewhere) / "log"
        with small_disk(folder):
            site = prepare(folder)
            site.session = tenant_id()
            with running(site, log):
                sys.stdout.write("There is room:\n")
                ask(site, report, log, "")
                fill(folder)
                sys.stdout.write(f"Full, {os.statvfs(folder).f_bavail} blocks are left:\n")
                ask(site, report, log, "Disk full: ")
                (folder / "ballast").unlink()
                sys.stdout.write("There is room again:\n")
                ask(site, report, log, "")
                subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
                sys.stdout.write("Read-only:\n")
                ask(site, report, log, "Read-only: ")
                subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
                sys.stdout.write("Writable again:\n")
                ask(site, report, log, "")
    sys.stdout.write("something FAILS\n" if report.failed else "all holds\n")
    return int(report.failed)


def tenant_id() -> str:
    """Return the tenant id of the partner that was made."""
    from django.db import connections

    from tenants.models import PartnerTenant

    found = str(PartnerTenant.objects.get().tenant_id)
    connections.close_all()
    return found


if __name__ == "__main__":
    sys.exit(main())
