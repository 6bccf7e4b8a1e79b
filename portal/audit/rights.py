"""What the database role of this process may do to the audit trail, besides reading and adding (S-56)."""

from __future__ import annotations

from django.db import connection

from portal.audit.triggers import TABLE

_RIGHTS = {
    "it is a superuser": "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
    "it owns the table or may become its owner, and could drop the triggers": (
        "SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass(%s)"
    ),
    "it may change entries": "SELECT has_any_column_privilege(current_user, to_regclass(%s)::oid, 'UPDATE')",
    "it may remove entries": "SELECT has_table_privilege(current_user, to_regclass(%s)::oid, 'DELETE, TRUNCATE')",
    "it may add triggers": "SELECT has_table_privilege(current_user, to_regclass(%s)::oid, 'TRIGGER')",
    "it may make tables that stand before the trail": (
        "SELECT has_schema_privilege(current_user, current_schema(), 'CREATE') "
        "OR has_database_privilege(current_user, current_database(), 'CREATE')"
    ),
}


def too_many() -> list[str]:
    """Return what this role may do that the application never needs, in words; empty when the trail is safe from it.

    On SQLite there are no roles: who can write the file can do all of it.
    """
    if connection.vendor != "postgresql":
        return ["SQLite knows no roles: who can write the file of the database can change the trail"]
    found = []
    with connection.cursor() as cursor:
        for words, question in _RIGHTS.items():
            cursor.execute(question, [TABLE] if "%s" in question else None)
            row = cursor.fetchone()
            if row and row[0]:
                found.append(words)
    return found
