"""The database of a test process: migrated once for all of them, and put back as it was after a test that commits."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from portal.audit import triggers

type Rows = dict[str, list[tuple[Any, ...]]]


class OwnDatabase:
    """This process's copy of one migrated database: the first process makes that, the last one removes it.

    Args:
        shared: a folder of all processes of this run.
        worker: the name of this process.
    """

    def __init__(self, shared: Path, worker: str) -> None:
        creation: Any = connection.creation
        self._creation = creation
        if connection.vendor == "sqlite":
            connection.settings_dict["TEST"]["NAME"] = str(shared / "migrated.sqlite3")
        self._migrated, self._worker = creation._get_test_db_name(), worker
        self._users, self._lock = shared / "migrated.users", shared / "migrated.lock"

    def open(self) -> None:
        """Make the copy. The first process migrates before."""
        with self._locked():
            if not self._users.exists():
                self._creation.create_test_db(verbosity=0, autoclobber=True)
                connection.close()  # SQLite then moves its journal into the file
                self._users.write_text("0")
            self._users.write_text(str(int(self._users.read_text()) + 1))
        self.copy()

    def copy(self) -> None:
        """Take a new copy in place of the one there is, if any: after a test that took the schema apart."""
        connection.close()
        connection.settings_dict["NAME"] = self._migrated
        own = self._creation.get_test_db_clone_settings(self._worker)["NAME"]
        if connection.vendor == "sqlite":
            for end in ("-wal", "-shm"):  # what was written to the old copy belongs to no new one
                Path(f"{own}{end}").unlink(missing_ok=True)
        with self._locked():
            self._creation.clone_test_db(self._worker, verbosity=0, autoclobber=True)
        connection.settings_dict["NAME"] = own

    def close(self) -> None:
        """Remove the copy."""
        connection.close()
        self._creation._destroy_test_db(connection.settings_dict["NAME"], 0)
        with self._locked():
            left = int(self._users.read_text()) - 1
            self._users.write_text(str(left))
            if not left:
                self._creation._destroy_test_db(self._migrated, 0)
                self._users.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def filled(tables: Iterable[str]) -> set[str]:
    """Return which of these tables have rows; one query."""
    asked = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM \"{name}\")" for name in tables)  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(asked)
        return {name for (name,) in cursor.fetchall()}


class Migrated:
    """What the migrations left: the rows of few tables, such as permissions and roles."""

    def __init__(self) -> None:
        names = connection.introspection.django_table_names(only_existing=True)
        self._tables = sorted(names)
        self._rows: Rows = {name: self._read(name) for name in filled(self._tables)}

    def put_back(self, *_: Any, **__: Any) -> list[str]:
        """Empty all tables but for these rows. Return no statements, as ``sql_flush`` does where nothing is to do.

        Django would empty each table and have all apps make their content types and permissions anew, which takes a
        quarter of a second. The triggers that forbid it step aside for that moment, and are there again.
        """
        with connection.schema_editor() as editor:
            triggers.drop(None, editor)
        with transaction.atomic():
            for name in filled(self._tables) | self._rows.keys():
                kept = self._rows.get(name, [])
                if kept and self._read(name) == kept:
                    continue
                with connection.cursor() as cursor:
                    cursor.execute(f'DELETE FROM "{name}"')  # noqa: S608  # the names are Django's
                    if kept:
                        places = ", ".join(["%s"] * len(kept[0]))
                        cursor.executemany(f'INSERT INTO "{name}" VALUES ({places})', kept)  # noqa: S608
                        ContentType.objects.clear_cache()
        with connection.schema_editor() as editor:
            triggers.create(None, editor)
        return []

    def _read(self, name: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT * FROM "{name}" ORDER BY 1')  # noqa: S608
            return [tuple(row) for row in cursor.fetchall()]
