"""Database triggers that refuse to change or remove audit rows, for SQLite and PostgreSQL (S-56)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.apps.registry import Apps
from django.db import connection
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper

TABLE = "audit_auditevent"
_MESSAGE = "audit events are append only"
_RAISE = f"RAISE EXCEPTION '{_MESSAGE}'"
_EXECUTE = "EXECUTE FUNCTION audit_append_only()"
_IN_ITS_WAY = f"SELECT 1 FROM {TABLE} WHERE id = NEW.id OR sequence = NEW.sequence"  # noqa: S608  # ours

BODY = f" BEGIN {_RAISE}; END "

SQLITE = {
    "audit_no_update": (
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
    ),
    "audit_no_delete": (
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
    ),
    # INSERT OR REPLACE removes the row in its way without a delete trigger.
    "audit_no_replace": (
        f"CREATE TRIGGER audit_no_replace BEFORE INSERT ON {TABLE} WHEN EXISTS ({_IN_ITS_WAY}) "
        f"BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
    ),
}
"""Name and text of each trigger, as SQLite keeps it."""

# Bits of pg_trigger.tgtype: for each row 1, before 2, insert 4, delete 8, update 16, truncate 32.
POSTGRESQL = {"audit_no_change": 1 + 2 + 8 + 16, "audit_no_truncate": 2 + 32}
"""Name and kind of each trigger, as PostgreSQL keeps it. All call one function, and run always (``A``)."""
FUNCTION = "audit_append_only"

_CREATE = {
    "sqlite": list(SQLITE.values()),
    "postgresql": [
        f"CREATE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $${BODY}$$",
        f"CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON {TABLE} FOR EACH ROW {_EXECUTE}",
        f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {TABLE} FOR EACH STATEMENT {_EXECUTE}",
        # Also for a session that calls itself a replica (session_replication_role), where others do not run.
        *(f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER {name}" for name in POSTGRESQL),
    ],
}
_DROP = {
    "sqlite": [f"DROP TRIGGER IF EXISTS {name}" for name in SQLITE],
    "postgresql": [
        *(f"DROP TRIGGER IF EXISTS {name} ON {TABLE}" for name in POSTGRESQL),
        f"DROP FUNCTION IF EXISTS {FUNCTION}",
    ],
}


@contextmanager
def removal_allowed(cursor: CursorWrapper) -> Iterator[None]:
    """Switch the trigger that refuses removals off, and on again. Call it in a transaction: no other one sees it off.

    On PostgreSQL only the owner of the table may do that.
    """
    if connection.vendor == "sqlite":
        off, on = "DROP TRIGGER audit_no_delete", SQLITE["audit_no_delete"]
    else:
        off = f"ALTER TABLE {TABLE} DISABLE TRIGGER audit_no_change"
        on = f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER audit_no_change"
    cursor.execute(off)
    yield
    cursor.execute(on)


def create(apps: Apps | None, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the triggers (migration step)."""
    for statement in _CREATE[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def drop(apps: Apps | None, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the triggers (reverse migration step)."""
    for statement in _DROP[schema_editor.connection.vendor]:
        schema_editor.execute(statement)
