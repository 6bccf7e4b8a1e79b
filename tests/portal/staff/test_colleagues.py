"""What one member of staff may do with the account of another, and who may."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse

from portal.audit.models import AuditEvent
from portal.decisions.models import Decision
from portal.incidents.models import Incident
from portal.staff.accounts import FIRST_ROLE, RECOVERED, AccountRefused, make_link
from portal.staff.models import StaffLink
from tests.support import builders, decisions
from tests.support.sign_in import PASSWORD, Person
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db]
SEES, MAKES = "auth.view_user", "staff.make_stafflink"


@pytest.fixture(autouse=True)
def _password_alone(settings: Any) -> None:
    settings.STAFF_PASSWORD_ALONE = True
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


def change_page(decision: Decision) -> str:
    return reverse("admin:decisions_decision_change", args=[decision.pk])


def approve_page(decision: Decision) -> str:
    return reverse("admin:decisions_decision_approve_request", args=[decision.pk])


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
def test_the_first_link_for_a_colleague_is_shown_once_and_takes_one_person() -> None:
    ben = User.objects.create_user("ben", is_staff=True)
    admin = Staff(SEES, MAKES)
    page = admin.confirm(admin.get(button("one_time_link", ben)))
    address = page.context["address"]
    assert address in page.content.decode()
    assert StaffLink.objects.get().kind == StaffLink.Kind.FIRST
    assert not Incident.objects.exists()
    second = admin.confirm(admin.get(button("one_time_link", ben)))
    assert second.context["address"] != address
    assert Person().get(address).status_code == 404, "the newer link is the only one"


@pytest.mark.req("S-46")
@pytest.mark.req("S-50")
def test_a_link_to_an_account_in_use_takes_two_persons_and_its_owner_is_told(mailoutbox: list[Any]) -> None:
    ben = User.objects.create_user("ben", "ben@vendor.example", PASSWORD, is_staff=True)
    admin, other = Staff(SEES, MAKES), Staff(SEES, MAKES)
    with pytest.raises(AccountRefused, match="Two persons decide"):
        make_link(ben, by=admin.user, actor=builders.staff(admin.user.username))

    asked = admin.confirm(admin.get(button("one_time_link", ben)), why="He lost his phone.")
    assert "Another person decides" in told(asked)
    own = approve_page(Decision.objects.get())
    assert "another person decides" in told(admin.confirm(admin.get(own)))
    assert not StaffLink.objects.exists()
    assert not mailoutbox
    other.confirm(other.get(own))
    assert (
        "makes the link now, on the page of the account"
        in admin.get(change_page(Decision.objects.get())).content.decode()
    )
    page = other.get(button("one_time_link", ben))
    assert "why" in page.context["form"].fields, "the approval is of who asked, and of nobody else"

    made = admin.confirm(admin.get(button("one_time_link", ben)))

    address = made.context["address"]
    assert StaffLink.objects.get().kind == StaffLink.Kind.RECOVERY
    assert Decision.objects.get(state=Decision.State.DONE).what == "Make a one-time link for the account of ben"
    (mail,) = mailoutbox
    assert (mail.to, address in mail.body) == (["ben@vendor.example"], False)
    assert f"{admin.user.username} made a link" in mail.body
    incident = Incident.objects.get(cause=RECOVERED)
    assert incident.words.startswith(f"{admin.user.username} made a link")
    event = AuditEvent.objects.get(action="staff.link_made")
    assert (event.actor, event.details["approved_by"]) == (admin.user.username, other.user.username)
    assert AuditEvent.objects.get(action="staff.link_told").outcome == AuditEvent.Outcome.DONE
    asked_anew = admin.get(button("one_time_link", ben))
    assert "why" in asked_anew.context["form"].fields, "an approval makes one link"


@pytest.mark.req("S-50")
def test_a_first_link_to_a_security_administrator_takes_two_persons() -> None:
    ben = User.objects.create_user("ben", is_staff=True)
    ben.groups.add(Group.objects.get_or_create(name=FIRST_ROLE)[0])
    admin = Staff(SEES, MAKES)
    assert "why" in admin.get(button("one_time_link", ben)).context["form"].fields
    with pytest.raises(AccountRefused, match="Two persons decide"):
        make_link(ben, by=admin.user, actor=builders.staff(admin.user.username))
    assert not StaffLink.objects.exists()


@pytest.mark.req("S-46")
def test_an_owner_without_an_address_is_told_by_the_incident_and_the_trail_says_so(mailoutbox: list[Any]) -> None:
    ben = User.objects.create_user("ben", password=PASSWORD, is_staff=True)
    make_link(ben, by=ben, actor=builders.staff("ada"), approved=decisions.approval())
    assert not mailoutbox
    event = AuditEvent.objects.get(action="staff.link_told")
    assert (event.outcome, event.details) == (AuditEvent.Outcome.FAILED, {"why": "no address"})
    assert Incident.objects.filter(cause=RECOVERED).exists()


@pytest.mark.req("S-46")
def test_nobody_becomes_a_superuser_by_a_link() -> None:
    root = User.objects.create_superuser("root")
    gone = User.objects.create_user("gone", is_staff=True, is_active=False)
    admin = Staff(SEES, MAKES)
    for person, why in ((root, "Only a superuser"), (gone, "switched off")):
        assert why in told(admin.get(button("one_time_link", person), follow=True))
        with pytest.raises(AccountRefused, match=why):
            make_link(person, by=admin.user, actor=builders.staff("ada"), approved=decisions.approval())
    assert not StaffLink.objects.exists()


@pytest.mark.req("S-46")
def test_nobody_sets_the_password_of_somebody_else() -> None:
    ben = User.objects.create_user("ben", is_staff=True)
    admin = Staff(SEES, "auth.change_user")
    passwords = {"password1": "correct horse battery", "password2": "correct horse battery"}
    page = admin.post(f"/admin/auth/user/{ben.pk}/password/", passwords, follow=True)
    assert "one-time link" in told(page)
    ben.refresh_from_db()
    assert not ben.has_usable_password()


@pytest.mark.req("S-55")
def test_a_changed_account_is_in_the_trail_without_what_is_personal() -> None:
    ben = User.objects.create_user("ben", "ben@vendor.example", is_staff=True)
    admin = Staff()
    values = {"username": "ben", "email": "b@vendor.example", "is_staff": "on"}
    admin.post(f"/admin/auth/user/{ben.pk}/change/", values)
    event = AuditEvent.objects.get(action="staff.changed")
    assert (event.subject, event.details) == (
        {"staff": ben.pk},
        {"before": {"is_active": True}, "after": {"is_active": False}, "also_changed": ["email"]},
    )
