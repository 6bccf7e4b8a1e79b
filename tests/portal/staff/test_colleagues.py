"""What one member of staff may do with the account of another, and who may."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.staff.accounts import RECOVERED
from portal.staff.models import StaffLink
from tests.support.sign_in import PASSWORD, Person
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db]
SEES = "auth.view_user"


@pytest.fixture(autouse=True)
def _password_alone(settings: Any) -> None:
    settings.STAFF_PASSWORD_ALONE = True


def button(name: str, person: User) -> str:
    return reverse(f"admin:auth_user_{name}", args=[person.pk])


@pytest.mark.req("S-47")
def test_an_administrator_sees_and_ends_the_sessions_of_a_person() -> None:
    ben = User.objects.create_user("ben", password=PASSWORD, is_staff=True)
    his = Person("192.0.2.44")
    his.password("ben")
    assert his.is_in()
    admin = Staff(SEES, "staff.end_staffsession")
    page = admin.get(button("end_sessions_of", ben))
    assert "192.0.2.44" in page.content.decode()
    assert his.is_in(), "looking at them ended them"
    done = admin.confirm(page)
    assert "1 session of ben ended." in told(done)
    assert not his.is_in()
    event = AuditEvent.objects.get(action="session.ended")
    assert (event.actor, event.subject, event.details["why"]) == (admin.user.username, {"staff": ben.pk}, "by_others")


@pytest.mark.parametrize("name", ["end_sessions_of", "one_time_link"])
def test_who_lacks_the_right_ends_and_makes_nothing(name: str) -> None:
    ben = User.objects.create_user("ben", is_staff=True)
    viewer = Staff(SEES)
    assert viewer.get(button(name, ben)).status_code == 403
    assert viewer.post(button(name, ben)).status_code == 403
    assert not StaffLink.objects.exists()


@pytest.mark.req("S-46")
def test_a_link_for_a_colleague_is_shown_once_and_told_where_it_opens_an_account_in_use() -> None:
    ben = User.objects.create_user("ben", is_staff=True)
    admin = Staff(SEES, "staff.make_stafflink")
    page = admin.confirm(admin.get(button("one_time_link", ben)))
    address = page.context["address"]
    assert address in page.content.decode()
    assert StaffLink.objects.get().kind == StaffLink.Kind.FIRST
    assert not Incident.objects.exists()
    ben.set_password(PASSWORD)
    ben.save()
    second = admin.confirm(admin.get(button("one_time_link", ben)))
    assert second.context["address"] != address
    incident = Incident.objects.get(cause=RECOVERED)
    assert incident.words.startswith(f"{admin.user.username} made a link")
    assert AuditEvent.objects.filter(action="staff.link_made", actor=admin.user.username).count() == 2
    assert Person().get(address).status_code == 404, "the newer link is the only one"


@pytest.mark.req("S-46")
def test_nobody_becomes_a_superuser_by_a_link() -> None:
    root = User.objects.create_superuser("root")
    gone = User.objects.create_user("gone", is_staff=True, is_active=False)
    admin = Staff(SEES, "staff.make_stafflink")
    for person, why in ((root, "Only a superuser"), (gone, "switched off")):
        page = admin.confirm(admin.get(button("one_time_link", person)))
        assert why in told(page)
    assert not StaffLink.objects.exists()
