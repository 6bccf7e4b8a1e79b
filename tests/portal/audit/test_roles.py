"""PostgreSQL: the role of the application can add to the trail and read it, and no more (S-56).

Covers: portal.audit.rights.
"""

# ruff: noqa: S608  # the statements are ours

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from django.db import DatabaseError, connection, transaction

from portal.audit import rights
from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.audit.walking import first_broken_sequence
from portal.incidents.models import Incident
from tests.support import builders
from tests.support.audit_table import TABLE, sql
from tests.support.source import ROOT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite knows no roles"),
]


@pytest.fixture
def roles() -> Iterator[tuple[str, str]]:
    """Run the script with role names of this test's own; the tables belong to whom they did afterwards."""
    mark = secrets.token_hex(4)
    owner, app = f"owner_{mark}", f"app_{mark}"
    script = (ROOT / "docs/postgresql-roles.sql").read_text()
    script = script.replace("portal_owner", owner).replace("portal_app", app)
    with connection.cursor() as cursor:
        for _ in range(2):  # it may be run again
            cursor.execute(script)
        cursor.execute("SELECT current_user")
        administrator = cursor.fetchone()[0]
    yield owner, app
    with connection.cursor() as cursor:
        cursor.execute("RESET SESSION AUTHORIZATION")
        cursor.execute(f'REASSIGN OWNED BY {owner} TO "{administrator}"')
        for role in (app, owner):
            cursor.execute(f"DROP OWNED BY {role}")
            cursor.execute(f"DROP ROLE {role}")


def become(role: str) -> None:
    """Go on as somebody who signed in as this role."""
    sql(f"SET SESSION AUTHORIZATION {role}")


@pytest.mark.req("S-56")
def test_the_application_works_and_the_trail_is_safe_from_it(roles: tuple[str, str]) -> None:
    owner, app = roles
    record("test.done", actor=builders.ACTOR, subject={})
    become(app)
    partner = builders.partner()
    record("test.done", actor=builders.ACTOR, subject={"partner": partner.pk})
    Incident.objects.create(
        cause="test", owner="us", words="x", first_seen_at=partner.created_at, last_seen_at=partner.created_at
    )
    assert first_broken_sequence() is None
    assert rights.too_many() == []
    for attempt in (
        f"UPDATE {TABLE} SET action = 'x'",
        f"DELETE FROM {TABLE}",
        f"TRUNCATE {TABLE}",
        f"DROP TABLE {TABLE}",
        f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL",
        f"ALTER TABLE {TABLE} RENAME TO other",
        f"DROP TRIGGER audit_no_change ON {TABLE}",
        f"CREATE TRIGGER quiet BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION audit_append_only()",
        f"CREATE RULE quiet AS ON INSERT TO {TABLE} DO INSTEAD NOTHING",
        "CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        "DROP FUNCTION audit_append_only",
        "SET session_replication_role = replica",
        "CREATE TABLE public.mine (a int)",
        f"CREATE SCHEMA {app}",
        f"SET ROLE {owner}",
        "DELETE FROM django_migrations",
    ):
        with pytest.raises(DatabaseError, match=r"permission denied|must be owner"), transaction.atomic():
            sql(attempt)
    assert AuditEvent.objects.count() == 2


@pytest.mark.req("S-56")
def test_what_a_role_may_do_too_much_is_told(roles: tuple[str, str]) -> None:
    owner, app = roles
    assert "it is a superuser" in rights.too_many()
    become(owner)
    assert any("owns the table" in words for words in rights.too_many())
    sql("RESET SESSION AUTHORIZATION")
    for grant, words in (
        (f"GRANT UPDATE (actor) ON {TABLE} TO {app}", "it may change entries"),
        (f"GRANT TRUNCATE ON {TABLE} TO {app}", "it may remove entries"),
        (f"GRANT TRIGGER ON {TABLE} TO {app}", "it may add triggers"),
        (f"GRANT CREATE ON SCHEMA public TO {app}", "it may make tables that stand before the trail"),
        (f"GRANT {owner} TO {app}", "it owns the table or may become its owner, and could drop the triggers"),
    ):
        sql(grant)
        become(app)
        assert words in rights.too_many()
        sql("RESET SESSION AUTHORIZATION")


@pytest.mark.req("S-56")
def test_a_member_of_the_owner_is_refused_by_the_script(roles: tuple[str, str]) -> None:
    owner, app = roles
    sql(f"GRANT {owner} TO {app}")
    script = (ROOT / "docs/postgresql-roles.sql").read_text()
    with pytest.raises(DatabaseError, match="Revoke that first"), connection.cursor() as cursor:
        cursor.execute(script.replace("portal_owner", owner).replace("portal_app", app))
