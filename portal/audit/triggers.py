"""Database triggers that refuse to change or remove audit rows, for SQLite and PostgreSQL (S-56)."""

from __future__ import annotations

from django.apps.registry import Apps
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

TABLE = "audit_auditevent"
_MESSAGE = "audit events are append only"
_RAISE = f"RAISE EXCEPTION '{_MESSAGE}'"
_EXECUTE = "EXECUTE FUNCTION audit_append_only()"
_IN_ITS_WAY = f"SELECT 1 FROM {TABLE} WHERE id = NEW.id OR sequence = NEW.sequence"  # noqa: S608  # ours

_CREATE = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END",
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END",
        # INSERT OR REPLACE removes the row in its way without a delete trigger.
        (
            f"CREATE TRIGGER audit_no_replace BEFORE INSERT ON {TABLE} WHEN EXISTS ({_IN_ITS_WAY}) "
            f"BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
        ),
    ],
    "postgresql": [
        f"CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_RAISE}; END $$",
        f"CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON {TABLE} FOR EACH ROW {_EXECUTE}",
        f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {TABLE} FOR EACH STATEMENT {_EXECUTE}",
    ],
}
_DROP = {
    "sqlite": [f"DROP TRIGGER IF EXISTS audit_no_{change}" for change in ("update", "delete", "replace")],
    "postgresql": [
        f"DROP TRIGGER IF EXISTS audit_no_change ON {TABLE}",
        f"DROP TRIGGER IF EXISTS audit_no_truncate ON {TABLE}",
        "DROP FUNCTION IF EXISTS audit_append_only",
    ],
}


def create(apps: Apps | None, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the triggers (migration step)."""
    for statement in _CREATE[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def drop(apps: Apps | None, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the triggers (reverse migration step)."""
    for statement in _DROP[schema_editor.connection.vendor]:
        schema_editor.execute(statement)
