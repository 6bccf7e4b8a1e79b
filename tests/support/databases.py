"""The database of a test process: migrated once for all of them, and put back as it was after a test that commits."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from portal.audit import triggers

type Rows = dict[str, list[tuple[Any, ...]]]


@contextmanager
def migrated_once(shared: Path, worker: str) -> Iterator[None]:
    """Let this process have a copy of one migrated database: the first process makes it, the last one removes it.

    Args:
        shared: a folder of all processes of this run.
        worker: the name of this process.
    """
    creation: Any = connection.creation
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(shared / "migrated.sqlite3")
    migrated, users = creation._get_test_db_name(), shared / "migrated.users"
    with _locked(shared):
        if not users.exists():
            creation.create_test_db(verbosity=0, autoclobber=True)
            users.write_text("0")
        users.write_text(str(int(users.read_text()) + 1))
        connection.close()
        connection.settings_dict["NAME"] = migrated
        creation.clone_test_db(worker, verbosity=0, autoclobber=True)
    own = creation.get_test_db_clone_settings(worker)["NAME"]
    connection.settings_dict["NAME"] = own
    yield
    connection.close()
    creation._destroy_test_db(own, 0)
    with _locked(shared):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if not left:
            creation._destroy_test_db(migrated, 0)
            users.unlink()


@contextmanager
def _locked(shared: Path) -> Iterator[None]:
    with (shared / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Migrated:
    """What the migrations left: the rows of few tables, such as permissions and roles."""

    def __init__(self) -> None:
        names = connection.introspection.django_table_names(only_existing=True)
        self._tables = {name: connection.ops.quote_name(name) for name in names}
        self._rows = {name: self._read(name) for name in self._filled()}

    def put_back(self, *_: Any, **__: Any) -> list[str]:
        """Empty all tables but for these rows. Return no statements, as ``sql_flush`` does where nothing is to do.

        Django would empty each table and have all apps make their content types and permissions anew, which takes a
        quarter of a second. The triggers that forbid it step aside for that moment, and are there again.
        """
        with connection.schema_editor() as editor:
            triggers.drop(None, editor)
        with transaction.atomic():
            for name in self._filled() | self._rows.keys():
                kept = self._rows.get(name, [])
                if kept and self._read(name) == kept:
                    continue
                with connection.cursor() as cursor:
                    cursor.execute(f"DELETE FROM {self._tables[name]}")  # noqa: S608  # the names are Django's
                    if kept:
                        places = ", ".join(["%s"] * len(kept[0]))
                        cursor.executemany(f"INSERT INTO {self._tables[name]} VALUES ({places})", kept)  # noqa: S608
                        ContentType.objects.clear_cache()
        with connection.schema_editor() as editor:
            triggers.create(None, editor)
        return []

    def _filled(self) -> set[str]:
        asked = " UNION ALL ".join(
            f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {quoted})"  # noqa: S608
            for name, quoted in self._tables.items()
        )
        with connection.cursor() as cursor:
            cursor.execute(asked)
            return {name for (name,) in cursor.fetchall()}

    def _read(self, name: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self._tables[name]} ORDER BY 1")  # noqa: S608
            return [tuple(row) for row in cursor.fetchall()]
