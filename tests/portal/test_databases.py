"""A disk that is full or read-only, and a database that is not there: one plain page, one plain sentence (R-38).

SQLite itself refuses here, by a limit on its pages and by a connection that may only read. What only a real disk shows
is in ``tests/bench/full_disk.py``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connection

from consent.models import ConsentFlow
from portal.databases import trouble
from portal.site import limits
from tests.support.children import database
from tests.support.database_down import no_database
from tests.support.manage import assert_one_line, manage
from tests.support.portal import Browser, Portal
from tests.support.source import ROOT

pytestmark = [pytest.mark.req("R-38"), pytest.mark.django_db(transaction=True)]
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_REFERENCE = re.compile(r"Reference code: <strong>([0-9A-F]{8})</strong>")
sqlite_only = pytest.mark.skipif(
    "TEST_DATABASE_URL" in os.environ and not os.environ["TEST_DATABASE_URL"].startswith("sqlite"),
    reason="the disk is the server's",
)


@contextmanager
def each_connection(**options: str) -> Iterator[None]:
    """Open every connection with these options from now on."""
    before = dict(connection.settings_dict["OPTIONS"])
    connection.close()
    connection.settings_dict["OPTIONS"] = before | options
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"] = before


@contextmanager
def full_disk() -> Iterator[None]:
    """The file may not grow, and each write wants a megabyte more."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # or what other tests deleted would be room
    command = connection.settings_dict["OPTIONS"]["init_command"]
    with each_connection(init_command=f"{command} PRAGMA max_page_count = 1"), connection.execute_wrapper(_grow):
        yield


def _grow(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    if sql.startswith(("INSERT", "UPDATE")):
        execute("CREATE TABLE no_room AS SELECT zeroblob(1000000)", None, False, context)
    return execute(sql, params, many, context)


@contextmanager
def read_only() -> Iterator[None]:
    if connection.vendor == "sqlite":
        command = connection.settings_dict["OPTIONS"]["init_command"]
        options = {"init_command": f"{command} PRAGMA query_only = ON"}
    else:
        options = {"options": "-c default_transaction_read_only=on"}
    with each_connection(**options):
        yield


TROUBLES: list[Any] = [
    pytest.param(full_disk, "Disk full: ", marks=sqlite_only, id="full"),
    pytest.param(read_only, "Read-only: ", id="read-only"),
]
Trouble = Callable[[], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def _counts_anew() -> Iterator[None]:
    limits.limiter.forget()
    yield
    limits.limiter.forget()


@pytest.fixture
def who() -> Browser:
    made = Browser()
    made.raise_request_exception = False
    return made


def assert_plain_page(page: Any, caplog: pytest.LogCaptureFixture, told: str) -> None:
    text = page.content.decode()
    assert page.status_code == 503
    found = _REFERENCE.search(text)
    assert found, text
    assert "reload this page" in text
    assert "no-store" in page["Cache-Control"]
    assert page["Retry-After"] == "60"
    lines = [record for record in caplog.records if getattr(record, "reference", "") == found[1]]
    assert len(lines) == 1
    assert told in lines[0].getMessage()


@pytest.mark.parametrize(("trouble_of", "told"), TROUBLES)
def test_a_page_that_only_reads_works_and_one_that_writes_says_503_until_there_is_room(
    portal: Portal, who: Browser, caplog: pytest.LogCaptureFixture, trouble_of: Trouble, told: str
) -> None:
    User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery")
    path = portal.link()
    with trouble_of():
        landing = who.get(path)
        assert landing.status_code == 200
        form = _TOKEN.search(landing.content.decode())
        assert form
        posted = {"csrfmiddlewaretoken": form[1]}
        referer = {"referer": "https://portal.localhost" + path}
        assert_plain_page(who.post(f"{path}start", posted, headers=referer), caplog, told)
        sign_in = who.get("/admin/login/")
        form = _TOKEN.search(sign_in.content.decode())
        assert form
        login = {"csrfmiddlewaretoken": form[1], "username": "anna", "password": "correct horse battery"}
        referer = {"referer": "https://portal.localhost/admin/login/"}
        assert_plain_page(who.post("/admin/login/", login, headers=referer), caplog, told)
    assert ConsentFlow.objects.count() == 0
    assert portal.onboard(who).status_code == 200


@pytest.mark.req("R-37")
def test_every_public_page_says_503_while_the_database_cannot_be_opened(
    portal: Portal, who: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    path = portal.link()
    assert who.get(path).status_code == 200
    with no_database():
        for address in (path, "/consent/nothing/", "/consent/result/nothing", "/admin/login/?next=/admin/"):
            caplog.clear()
            page = who.get(address)
            if address.startswith("/admin/"):
                assert page.status_code in {200, 503}
            else:
                assert_plain_page(page, caplog, "The database does not answer")
    assert who.get(path).status_code == 200


def test_the_log_has_no_trace_of_what_is_no_fault_of_ours(portal: Portal, capfd: pytest.CaptureFixture[str]) -> None:
    """Also because a full disk is not made better by forty lines for each request."""
    program = (
        "import django; django.setup()\n"
        "from django.test import Client\n"
        "from django.db import connection\n"
        "connection.settings_dict |= {'NAME': '/nonexistent/db', 'HOST': '127.0.0.1', 'PORT': '1'}\n"
        "who = Client(headers={'host': 'portal.localhost'}, raise_request_exception=False)\n"
        "print(who.get('/consent/nothing/', secure=True).status_code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DATABASE_URL": database()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "503\n"
    assert "no page could be made: The database does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trouble_of", "told"), TROUBLES)
@pytest.mark.parametrize("command", ["issue_consent_link", "check_tokens", "sync_customers"])
def test_a_command_names_the_disk_and_not_the_address(
    portal: Portal, trouble_of: Trouble, told: str, command: str
) -> None:
    portal.onboard()
    arguments = [portal.partner.tenant_id] if command == "issue_consent_link" else []
    with trouble_of(), pytest.raises(CommandError) as ended:
        call_command(command, *arguments, stdout=StringIO(), stderr=StringIO())
    assert ended.value.returncode == 3
    assert str(ended.value).startswith(told)
    assert "DATABASE_URL" not in str(ended.value) or connection.vendor == "postgresql"


@pytest.mark.parametrize("command", [("verify_audit_trail",), ("check_tokens",), ("run_status",), ("keep_alive",)])
def test_a_command_before_the_first_migrate_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert_one_line(manage(*command, DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3"), "run migrate", 3)


# --- the sentences ----------------------------------------------------------------------------------------------------


def raised(error: Exception, cause: BaseException | None) -> Exception:
    error.__cause__ = cause
    return error


def sqlite_error(code: int, words: str) -> Exception:
    cause = sqlite3.OperationalError(words)
    cause.sqlite_errorcode = code
    return raised(OperationalError(words), cause)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (raised(OperationalError("x"), psycopg.errors.DiskFull("x")), "Disk full: the database"),
        (
            raised(InterfaceError("connection is closed"), psycopg.InterfaceError("x")),
            "does not answer, check DATABASE",
        ),
        (
            raised(OperationalError("x\nsecond line"), psycopg.OperationalError("x")),
            "does not answer, check DATABASE_URL: x",
        ),
        (raised(OperationalError("x"), psycopg_pool.PoolTimeout("x")), "No connection to the database was free"),
        (raised(ProgrammingError('relation "a" does not exist'), psycopg.errors.UndefinedTable("x")), "run migrate"),
        (raised(ProgrammingError("x"), psycopg.errors.UndefinedColumn("x")), "run migrate"),
        (OperationalError("postgres://portal:secret@db"), "check DATABASE_URL: OperationalError"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/token"), "Disk full: /data/token cannot be written."),
        (OSError(errno.EROFS, "Read-only file system", "/data/token"), "Read-only: /data/token cannot be written."),
        (raised(ProgrammingError("syntax error"), psycopg.errors.SyntaxError("x")), None),
        (DatabaseError("Save with update_fields did not affect any rows."), None),
        (OSError(errno.ENOENT, "No such file", "/data/token"), None),
        (ValueError("anything else"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_trouble_has_its_sentence_and_a_fault_of_ours_has_none(error: Exception, told: str | None) -> None:
    sentence = trouble(error)
    assert (sentence is None) == (told is None)
    assert told is None or told in str(sentence)
    assert "second line" not in str(sentence)
    assert "secret" not in str(sentence)


@sqlite_only
@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full", "Disk full: "),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "attempt to write a readonly database", "Read-only: "),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error", "does not answer, check DATABASE_URL: disk I/O error"),
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file", "does not answer"),
        (sqlite3.SQLITE_BUSY, "database is locked", "does not answer, check DATABASE_URL: database is locked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sqlites_codes_have_their_sentences(code: int, words: str, told: str) -> None:
    assert told in str(trouble(sqlite_error(code, words)))


@sqlite_only
def test_where_sqlite_says_the_same_of_each_disk_the_disk_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error")
    room = os.statvfs(str(ROOT))

    class Full:
        f_flag, f_frsize, f_bavail = room.f_flag & ~os.ST_RDONLY, 4096, 1

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    assert str(trouble(error)).startswith("Disk full: ")
    Full.f_flag, Full.f_bavail = os.ST_RDONLY, 1_000_000
    assert str(trouble(error)).startswith("Read-only: ")


@pytest.mark.parametrize("status", [400, 403, 404, 503])
def test_a_refused_request_leaves_a_line_and_no_trace(status: int) -> None:
    from portal.site.logs import cleaned

    def line(name: str, **extra: Any) -> logging.LogRecord:
        error = RuntimeError("refused")
        trace = (RuntimeError, error, None)
        return cleaned(logging.getLogger(name).makeRecord(name, 40, "f", 1, "words", (), trace, extra=extra))

    assert line("django.request", status_code=status).exc_text is None
    assert line("django.security.DisallowedModelAdminLookup", status_code=400).exc_text is None
    assert "refused" in str(line("django.request", status_code=500).exc_text)
    assert "refused" in str(line("consent.sign_in.flow").exc_text)


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "value"), [("jit", "off"), ("max_parallel_workers_per_gather", "0")])
def test_postgresql_compiles_no_statement_and_divides_none(name: str, value: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL's own")
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        assert cursor.fetchone() == (value,)
