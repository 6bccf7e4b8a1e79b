"""Sessions can be seen and ended, and end by themselves when what they stand on changes (S-47).

Covers: portal.staff.own_account, portal.staff.receivers.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.urls import reverse

from portal.audit.models import AuditEvent
from portal.site.sessions import stored_key
from portal.staff.models import StaffSession
from portal.staff.sessions import shortened
from tests.support.authenticators import app_code
from tests.support.sign_in import PASSWORD, Person, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-47")]
COOKIE = "__Host-sessionid"


def cookie(who: Person) -> str:
    return str(who.cookies[COOKIE].value)


def replay(value: str) -> Person:
    """Somebody who has a copy of a cookie."""
    thief = Person("203.0.113.66")
    thief.cookies[COOKIE] = value
    return thief


def twice(clock: time_machine.Traveller, key: str) -> tuple[Person, Person]:
    """The same person in two browsers."""
    here, there = Person(), Person("198.51.100.2")
    here.sign_in(key)
    clock.shift(30)
    there.sign_in(key)
    return here, there


def set_and_save(name: str, value: object, *fields: str) -> Callable[[User], None]:
    def change(user: User) -> None:
        setattr(user, name, value)
        user.save(update_fields=fields or None)

    return change


CHANGES: dict[str, Callable[[User], object]] = {
    "switched off": set_and_save("is_active", False),
    "no staff any more": set_and_save("is_staff", False, "is_staff"),
    "superuser": set_and_save("is_superuser", False),
    "another password": set_and_save("password", make_password("another horse battery")),
    "into a group": lambda user: user.groups.add(Group.objects.get(name="Movers")),
    "into a group, from its side": lambda user: Group.objects.get(name="Movers").user_set.set([user]),
    "a permission more": lambda user: user.user_permissions.add(Permission.objects.all()[0]),
    "permissions set anew": lambda user: user.user_permissions.set(Permission.objects.all()[:2]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_rights_or_password_ends_all_sessions_of_the_account_and_no_other(
    change: str, clock: time_machine.Traveller
) -> None:
    user, key = with_app()
    _, others_key = with_app("ben")
    Group.objects.create(name="Movers")
    here, there = twice(clock, key)
    ben = Person()
    ben.sign_in(others_key, "ben")
    CHANGES[change](User.objects.get(pk=user.pk))
    assert [here.is_in(), there.is_in(), ben.is_in()] == [False, False, True]
    event = AuditEvent.objects.get(action="session.ended")
    assert (event.subject, event.details["sessions"]) == ({"staff": user.pk}, 2)


@pytest.mark.parametrize("leaves", [False, True], ids=["changed group", "left group"])
def test_a_change_of_a_group_ends_the_sessions_of_its_members(leaves: bool, clock: time_machine.Traveller) -> None:
    group = Group.objects.create(name="Movers")
    group.permissions.add(Permission.objects.all()[0])
    user, key = with_app()
    user.groups.add(group)
    anna = Person()
    anna.sign_in(key)
    if leaves:
        user.groups.clear()
    else:
        group.permissions.clear()
    assert not anna.is_in()


def test_what_changes_no_rights_ends_no_session(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    anna = Person()
    anna.sign_in(key)
    user.first_name = "Anna"
    user.save()
    user.groups.clear()
    assert anna.is_in()


def test_who_signs_in_gets_a_new_key_and_the_old_one_opens_nothing(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    anna = Person()
    anna.password()
    before = cookie(anna)
    anna.send(anna.get(reverse("staff_factor")), code=app_code(key))
    assert cookie(anna) != before
    assert not replay(before).is_in()


def test_a_new_password_of_ones_own_keeps_this_session_under_a_new_key(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    here, there = twice(clock, key)
    before = cookie(here)
    page = here.get("/admin/password_change/")
    new = "another horse battery"
    done = here.send(page, old_password=PASSWORD, new_password1=new, new_password2=new)
    assert done["Location"] == reverse("admin:password_change_done")
    assert here.is_in()
    assert not there.is_in()
    assert not replay(before).is_in()
    assert [session.pk for session in StaffSession.objects.of(user)] == [stored_key(cookie(here))]


def test_who_takes_away_own_rights_is_signed_out_with_a_page_and_no_fault(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    anna = Person()
    anna.sign_in(key)
    path = reverse("admin:auth_user_change", args=[user.pk])
    fields = {"username": "anna", "is_active": "on", "last_login_0": "", "last_login_1": ""}
    done = anna.send(anna.get(path), **fields)
    assert done.status_code == 302
    assert User.objects.get().is_staff is False
    assert not anna.is_in()


def test_sessions_are_shown_and_ended_by_their_owner(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    here, there = twice(clock, key)
    page = here.get(reverse("staff_account"))
    text = page.content.decode()
    assert "198.51.100.1" in text
    assert "198.51.100.2" in text
    assert text.count("This browser") == 1
    target = stored_key(cookie(there))
    here.send(page, reverse("staff_end_sessions"), session=target)
    assert [here.is_in(), there.is_in()] == [True, False]
    event = AuditEvent.objects.get(action="session.ended")
    assert (event.actor, event.details) == ("anna", {"why": "by_owner", "sessions": 1})
    assert user.pk == event.subject["staff"]


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "Safari on iPhone"),
        ("curl/8\N{RIGHT-TO-LEFT OVERRIDE}" + "x" * 300, ("curl/8\\u202e" + "x" * 300)[:100]),
    ],
)
def test_a_browsers_name_is_shortened(agent: str, said: str) -> None:
    assert shortened(agent) == said


def test_nobody_ends_the_session_of_somebody_else_by_its_key(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    _, others_key = with_app("ben")
    anna, ben = Person(), Person()
    anna.sign_in(key)
    ben.sign_in(others_key, "ben")
    anna.send(anna.get(reverse("staff_account")), reverse("staff_end_sessions"), session=stored_key(cookie(ben)))
    assert ben.is_in()


def test_all_other_sessions_end_at_once(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    here, there = twice(clock, key)
    here.send(here.get(reverse("staff_account")), reverse("staff_end_sessions"), session="")
    assert [here.is_in(), there.is_in()] == [True, False]


def test_a_change_of_factors_ends_the_other_sessions_and_renews_this_one(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    here, there = twice(clock, key)
    before = cookie(here)
    page = here.get(reverse("staff_new_app"))
    done = here.send(page, code=app_code(page.context["app"].key))
    assert done.status_code == 200
    assert len(done.context["codes"]) == 10
    assert [here.is_in(), there.is_in()] == [True, False]
    assert cookie(here) != before
    assert not replay(before).is_in()


def test_a_change_of_factors_asks_for_a_fresh_proof(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    anna = Person()
    anna.sign_in(key)
    clock.shift(timedelta(minutes=6))
    asked = anna.get(reverse("staff_new_app"))
    assert asked["Location"] == "/admin/prove/?next=%2Fadmin%2Faccount%2Fapp%2F"
    refused = anna.send(anna.get(reverse("staff_account")), reverse("staff_new_codes"))
    assert refused["Location"].startswith("/admin/prove/")
    wrong = anna.send(anna.get(asked["Location"]), code="000000")
    assert wrong.status_code == 200
    done = anna.send(anna.get(asked["Location"]), code=app_code(key))
    assert done["Location"] == reverse("staff_new_app")
    assert anna.get(done["Location"]).status_code == 200
    assert AuditEvent.objects.get(action="staff.proven_again").subject == {"staff": user.pk}


def test_the_last_factor_stays(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    anna = Person()
    anna.sign_in(key)
    page = anna.get(reverse("staff_account"))
    number = page.context["factors"][0].key
    told = anna.get(anna.send(page, reverse("staff_remove_factor", args=[number]))["Location"])
    assert "This is your only factor" in told.content.decode()
    _, others_key = with_app("ben")
    ben = Person()
    ben.sign_in(others_key, "ben")
    foreign = ben.send(ben.get(reverse("staff_account")), reverse("staff_remove_factor", args=[number]))
    assert foreign.status_code == 404
    assert user.pk


def test_a_log_out_and_an_end_by_time_leave_a_line(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    anna = Person()
    anna.sign_in(key)
    anna.send(anna.get(reverse("staff_account")), "/admin/logout/")
    clock.shift(30)
    anna.sign_in(key)
    clock.shift(timedelta(minutes=31))
    assert not anna.is_in()
    whys = AuditEvent.objects.filter(action="session.ended").order_by("sequence")
    assert list(whys.values_list("details__why", flat=True)) == ["signed_out", "time"]
    assert not Session.objects.exists()
    assert not StaffSession.objects.exists()
