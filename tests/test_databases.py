"""A test that commits leaves the database as the migrations left it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, connection, transaction

from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.staff.roles import Role
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.databases import Migrated

pytestmark = pytest.mark.django_db(transaction=True)


def roles() -> set[tuple[str, str]]:
    return set(Group.objects.values_list("name", "permissions__codename"))


def test_all_rows_of_a_test_are_gone_and_those_of_the_migrations_are_there() -> None:
    migrated, before = Migrated(), roles()
    assert {name for name, _ in before} == {role.value for role in Role}
    Permission.objects.filter(codename="view_run").delete()
    Group.objects.create(name="Somebody's")
    User.objects.create(username="anna")
    builders.partner()
    record("command.run", actor=builders.ACTOR, subject={})

    migrated.put_back()

    assert roles() == before
    left = PartnerTenant.objects.count(), User.objects.count(), AuditEvent.objects.count()
    assert left == (0, 0, 0)


def test_the_audit_trail_cannot_be_shortened_afterwards() -> None:
    Migrated().put_back()
    record("command.run", actor=builders.ACTOR, subject={})
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_auditevent")
    assert AuditEvent.objects.count() == 1
