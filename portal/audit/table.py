"""Whether the table of the audit trail and its triggers are as the portal made them (S-56, S-57).

A trail is not only damaged in its rows: who drops a trigger can change it, a trigger or rule of somebody else can
swallow new entries, and a table without its constraints takes two entries of one number.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from django.db.backends.utils import CursorWrapper

from portal.audit.findings import Damage, Finding
from portal.audit.models import AuditEvent
from portal.audit.triggers import BODY, FUNCTION, POSTGRESQL, SQLITE, TABLE

_ALWAYS = "A"


def unreadable() -> Finding | None:
    """Return why the trail cannot be read at all: its table is not there, or has other columns."""
    with connection.cursor() as cursor:
        if TABLE not in connection.introspection.table_names(cursor):
            return _replaced("it is not there, or is no table")
        there = {column.name for column in connection.introspection.get_table_description(cursor, TABLE)}
    wanted = {str(field.column) for field in AuditEvent._meta.concrete_fields}
    if there != wanted:
        return _replaced(f"columns are missing or were added ({', '.join(sorted(there ^ wanted))})")
    return None


def faults() -> list[Finding]:
    """Return what is otherwise than the portal made it; a few statements about the catalogue, none about the rows."""
    with connection.cursor() as cursor:
        found = [_replaced(what) for what in _of_constraints(cursor)]
        triggers = _of_sqlite if connection.vendor == "sqlite" else _of_postgresql
        return found + [_trigger(what) for what in triggers(cursor)]


def identity() -> str:
    """Return by what the database itself tells this table from a copy of it; empty on SQLite, which has no such thing.

    A restored database has another one: a restore is to be noticed as well.
    """
    if connection.vendor == "sqlite":
        return ""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT d.oid, to_regclass(%s)::oid FROM pg_database d WHERE d.datname = current_database()", [TABLE]
        )
        database, table = cursor.fetchone()
    return f"{database}:{table}"


def _replaced(what: str) -> Finding:
    return Finding(damage=Damage.REPLACED, words=f"The table of the trail is not as the portal made it: {what}.")


def _trigger(what: str) -> Finding:
    return Finding(
        damage=Damage.TRIGGERS, words=f"The trail is not guarded as the portal made it: {what}. Rows can be changed."
    )


def _of_constraints(cursor: CursorWrapper) -> Iterator[str]:
    constraints = connection.introspection.get_constraints(cursor, TABLE).values()
    if not any(one["unique"] and one["columns"] == ["sequence"] for one in constraints):
        yield "two entries could have one number"
    if not any(one["primary_key"] for one in constraints):
        yield "it has no primary key"


def _of_sqlite(cursor: CursorWrapper) -> Iterator[str]:
    cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s", [TABLE])
    there = dict(cursor.fetchall())
    yield from _missing_and_foreign(set(there), set(SQLITE))
    for name, text in SQLITE.items():
        if name in there and there[name] != text:
            yield f"the trigger {name} is another one"


def _of_postgresql(cursor: CursorWrapper) -> Iterator[str]:
    cursor.execute(
        "SELECT t.tgname, t.tgenabled::text, t.tgtype, t.tgqual IS NULL AND t.tgattr::text = '', p.proname, p.prosrc, "
        "l.lanname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang "
        "WHERE t.tgrelid = to_regclass(%s) AND NOT t.tgisinternal",
        [TABLE],
    )
    there = {name: rest for name, *rest in cursor.fetchall()}
    yield from _missing_and_foreign(set(there), set(POSTGRESQL))
    for name, kind in POSTGRESQL.items():
        if name not in there:
            continue
        enabled, *rest = there[name]
        if rest != [kind, True, FUNCTION, BODY, "plpgsql"]:
            yield f"the trigger {name} is another one"
        elif enabled != _ALWAYS:
            yield f"the trigger {name} is switched off"
    cursor.execute(
        "SELECT c.relkind::text <> 'r' OR c.relpersistence::text <> 'p', c.relrowsecurity, "
        "EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid), "
        "EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid) "
        "FROM pg_class c WHERE c.oid = to_regclass(%s)",
        [TABLE],
    )
    other, hidden, rules, family = cursor.fetchone()
    if other:
        yield "it is no ordinary table"
    if hidden:
        yield "a policy may hide rows"
    if rules:
        yield "a rule changes what is written"
    if family:
        yield "it shares rows with another table"


def _missing_and_foreign(there: set[str], wanted: set[str]) -> Iterator[str]:
    if missing := wanted - there:
        yield f"the trigger {', '.join(sorted(missing))} is missing"
    if foreign := there - wanted:
        yield f"there is a trigger that is not ours: {', '.join(sorted(foreign))}"
