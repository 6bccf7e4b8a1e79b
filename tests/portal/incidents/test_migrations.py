"""Those who could note and put off incidents by the permission to settle them still can after the update."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User

pytestmark = pytest.mark.django_db
NEW = ["note_incident", "snooze_incident"]
OF_INCIDENTS = Permission.objects.filter(content_type__app_label="incidents")
give = import_module("portal.incidents.migrations.0004_own_permissions").give_to_those_who_may_settle


def test_who_may_settle_gets_both_new_permissions_and_others_get_none() -> None:
    group, other = Group.objects.create(name="Operators"), Group.objects.create(name="Readers")
    anna = User.objects.create_user("anna")
    old = OF_INCIDENTS.all().get(codename="settle_incident")
    group.permissions.add(old)
    anna.user_permissions.add(old)
    OF_INCIDENTS.all().filter(codename__in=NEW).delete()  # as before the update
    give(apps, None)
    for holder in (group.permissions, anna.user_permissions):
        assert sorted(holder.values_list("codename", flat=True)) == sorted([*NEW, "settle_incident"])
    assert not other.permissions.exists()


def test_a_new_database_has_nothing_to_give() -> None:
    OF_INCIDENTS.all().delete()
    give(apps, None)
    assert not OF_INCIDENTS.all().exists()
