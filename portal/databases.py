"""What keeps a database from working, in one sentence for an operator."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

MIGRATE = "run migrate: manage.py migrate"
_LEAST_ROOM = 256 * 1024  # bytes; SQLite needs some for the log beside its file, also to read
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def trouble(error: BaseException) -> str | None:
    """Say in one sentence what an operator must do about a database or a disk; None for any other error, such as ours.

    Args:
        error: of Django's database layer, or an OSError.
    """
    if isinstance(error, OSError):
        return _of_disk(error.errno, str(error.filename or "a file"))
    if not isinstance(error, DatabaseError | InterfaceError):
        return None
    driver = error.__cause__
    code: int | None = getattr(driver, "sqlite_errorcode", None)
    if code is not None:
        return _of_sqlite(error, code & 0xFF)  # the rest of an extended code says where it happened
    return _of_postgres(error, str(getattr(driver, "sqlstate", None) or ""))


def unapplied(alias: str) -> int:
    """Return how many migrations this database still lacks."""
    executor = MigrationExecutor(connections[alias])
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _of_sqlite(error: BaseException, code: int) -> str | None:
    file = Path(str(connections["default"].settings_dict["NAME"]))
    if code == sqlite3.SQLITE_FULL:
        return _of_disk(errno.ENOSPC, str(file))
    if code == sqlite3.SQLITE_READONLY:
        return _of_disk(errno.EROFS, str(file))
    if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and (found := _of_place(file)):
        return found
    if str(error).startswith(("no such table", "no such column")) or "has no column named" in str(error):
        return _not_migrated(error)
    return _no_answer(error) if isinstance(error, OperationalError) or code in _DAMAGED else None


def _of_place(file: Path) -> str | None:
    """Look at the disk itself: SQLite says the same of a full one, a read-only one and a broken one."""
    try:
        room = os.statvfs(file.parent)
    except OSError:
        return None
    if room.f_flag & os.ST_RDONLY or not os.access(file.parent, os.W_OK):
        return _of_disk(errno.EROFS, str(file))
    return _of_disk(errno.ENOSPC, str(file)) if room.f_bavail * room.f_frsize < _LEAST_ROOM else None


def _of_disk(number: int | None, what: str) -> str | None:
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return f"Disk full: {what} cannot be written. Free space, then try again; what was stored before is whole."
    if number == errno.EROFS:
        return f"Read-only: {what} cannot be written. Mount its disk for writing, or give the portal's user the right."
    return None


def _of_postgres(error: BaseException, state: str) -> str | None:
    if state == "53100":
        return _of_disk(errno.ENOSPC, "the database")
    if state == "25006":
        return "Read-only: the database takes no writes, as a standby does. Point DATABASE_URL to the primary server."
    if state in {"42P01", "42703"}:
        return _not_migrated(error)
    return _no_answer(error) if isinstance(error, OperationalError | InterfaceError) else None


def _not_migrated(error: BaseException) -> str:
    return f"The database lacks a table or a column; {MIGRATE}. ({_first_line(error)})"


def _no_answer(error: BaseException) -> str:
    if type(error.__cause__).__name__ == "PoolTimeout":  # of psycopg's pool, which tells only the log why
        return "No connection to the database was free in time: it is away or has too much to do. The log says more."
    # Only a driver's own words are shown: they name the server and never the password.
    words = _first_line(error) if error.__cause__ is not None else type(error).__name__
    return f"The database does not answer, check DATABASE_URL: {words}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
