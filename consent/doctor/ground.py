"""Steps on this machine: settings, database, disk, mail, worker, schedule."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from consent.doctor.case import Case
from consent.doctor.steps import Finding, failed, not_seen, notice, well
from portal.databases import unapplied
from portal.mail import MailFailed, can_send, open_mailer
from portal.runs import signs
from portal.text import number_of

_ROOM_NEEDED = 64 * 1024**2  # bytes; less and the next larger piece of work cannot be written
_ROOM_WANTED = 1024**3
_CONSOLE = "django.core.mail.backends.console.EmailBackend"
_GIGABYTE = 1024**3


def look_at_settings(case: Case) -> Iterator[Finding]:
    """Say that they were read (each is checked strictly at the start), and look at the files that they name."""
    for name in ("OUTGOING_CA_FILE", "VAULT_CREDENTIAL_FILE"):
        file = str(getattr(settings, name))
        if file and not os.access(file, os.R_OK):
            shown = "TEST_CA_FILE" if name == "OUTGOING_CA_FILE" and settings.TEST_ENDPOINTS else name
            yield failed(
                f"{shown} names {file}, which is no file that this process can read.",
                f"Put the file there, let the portal's user read it, or correct {shown}.",
            )
            return
    places = "a sandbox on this machine (TEST_ENDPOINTS)" if settings.TEST_ENDPOINTS else "Microsoft"
    yield well(f"All variables can be read. The portal is {settings.PUBLIC_BASE_URL} and talks to {places}.")


def look_at_production(case: Case) -> Iterator[Finding]:
    """Run Django's and our own checks of a deployment, without those that read the database."""
    wrong = 0
    # Checks of a test site are broken on purpose: beside a sandbox they are told, and fail nothing.
    tell = notice if settings.TEST_ENDPOINTS else failed
    # No database is named: else Django asks each for what it supports, and this step would fail when none answers.
    for message in checks.run_checks(include_deployment_checks=True, databases=()):
        if message.is_silenced():
            continue
        if message.level >= checks.ERROR:
            wrong += 1
            yield tell(f"{message.msg} ({message.id})", message.hint or "See docs/operations.md#deploy-checks.")
        elif message.level >= checks.WARNING:
            wrong += 1
            yield notice(f"{message.msg} ({message.id})", message.hint or "See docs/operations.md#deploy-checks.")
    if not wrong:
        yield well("Nothing speaks against production.")


def look_at_database(case: Case) -> Iterator[Finding]:
    """Connect, and write nothing: the statement meets no row, but a database that takes no writes refuses it."""
    connection.ensure_connection()
    if MigrationRecorder(connection).has_table():
        MigrationRecorder.Migration.objects.filter(pk=0).update(name="")
    kind = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}.get(connection.vendor, connection.vendor)
    yield well(f"{kind} answers and takes writes.")


def look_at_migrations(case: Case) -> Iterator[Finding]:
    lacking = unapplied("default")
    if lacking:
        yield failed(
            f"The database lacks {number_of(lacking, 'migration')}.", "Run migrate, then start the portal anew."
        )
    else:
        yield well("The database has all migrations.")


def look_at_disk(case: Case) -> Iterator[Finding]:
    """Look at the room where files of ours are written."""
    for what, folder in _folders().items():
        place = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
        room = shutil.disk_usage(place).free
        words = f"{what}: {room / _GIGABYTE:,.1f} GB are free in {place}."
        if room < _ROOM_NEEDED:
            yield failed(f"Disk full: {words}", "Free space on this disk; what was stored before is whole.")
        elif not os.access(place, os.W_OK):
            yield failed(
                f"{what}: {place} cannot be written.", "Mount it for writing, or give the portal's user the right."
            )
        elif room < _ROOM_WANTED:
            yield notice(words, "Free space before it is full.")
        else:
            yield well(words)


def _folders() -> dict[str, Path]:
    folders = {"Temporary files": Path(tempfile.gettempdir())}
    if connection.vendor == "sqlite":
        folders["Database"] = Path(str(connection.settings_dict["NAME"])).parent
    if not settings.VAULT_URL.startswith("https://"):
        folders["Vault"] = Path(settings.VAULT_URL)
    return folders


def look_at_mail(case: Case) -> Iterator[Finding]:
    """Connect and sign in to the mail server; nothing is sent."""
    if not can_send():
        yield not_seen(
            "There is no mail server (EMAIL_HOST): staff pass links on by hand, and alerts stay in the admin."
        )
        return
    if settings.MAILERS["default"]["BACKEND"] == _CONSOLE:
        yield notice("Mails are printed and not sent, because this portal stands beside a sandbox.", "Set EMAIL_HOST.")
        return
    try:
        with open_mailer():
            pass
    except MailFailed as error:
        yield failed(str(error), "Correct EMAIL_HOST or the variables beside it.")
        return
    yield well("The mail server lets us in. Nothing was sent.")
    if not settings.ALERT_EMAIL:
        yield notice("No address gets mail about incidents.", "Set ALERT_EMAIL.")


def look_at_worker(case: Case) -> Iterator[Finding]:
    if not signs.has_own_workers():
        yield not_seen(
            "Celery works in the background; its workers cannot be seen from here.", "Look at Celery itself."
        )
        return
    living = signs.living_workers()
    if living:
        yield well(f"{number_of(living, 'worker')} gave a sign of life in the last minute.")
    else:
        yield failed(
            "No worker gave a sign of life in the last minute: runs and scheduled jobs wait.",
            "Start the worker, or look into its log; see docs/operations.md#work-in-the-background.",
        )


def look_at_schedule(case: Case) -> Iterator[Finding]:
    found = signs.schedule()
    if not found.known:
        yield failed(
            "Nobody has kept the schedule yet: no token is checked or renewed by itself.",
            "Start one worker without the option that leaves the schedule to others.",
        )
        return
    if found.late:
        yield failed(f"Due, and not handed out: {', '.join(found.late)}.", "Start one worker that keeps the schedule.")
    if found.not_taken:
        yield failed(
            f"Handed out, and taken by no worker: {', '.join(found.not_taken)}.", "Start a worker, or one more."
        )
    if found.failed:
        yield notice(
            f"Failed when they last ran: {', '.join(found.failed)}.", "Open Activity, Schedule: the result says why."
        )
    if not (found.late or found.not_taken or found.failed):
        yield well(f"{number_of(found.known, 'job')} of the schedule came when they were due.")
