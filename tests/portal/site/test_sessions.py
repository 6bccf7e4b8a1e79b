from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.site.middleware import LONGEST_IDLE, LONGEST_SESSION

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-47")]
NAME = "portal.site.middleware.StaffSessionMiddleware"


@pytest.fixture
def staff(client: Client, settings: Any) -> Client:
    if NAME not in settings.MIDDLEWARE:
        place = settings.MIDDLEWARE.index("django.contrib.auth.middleware.LoginRequiredMiddleware")
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], NAME, *settings.MIDDLEWARE[place:]]
    client.force_login(User.objects.create_superuser("anna", "anna@vendor.example", "correct horse battery"))
    return client


def is_signed_in(client: Client) -> bool:
    return client.get("/admin/password_change/").status_code == 200


def test_half_an_hour_without_a_request_ends_the_session(staff: Client) -> None:
    start = timezone.now()
    with time_machine.travel(start, tick=False) as clock:
        assert is_signed_in(staff)
        clock.shift(timedelta(seconds=LONGEST_IDLE - 61))
        assert is_signed_in(staff)
        clock.shift(timedelta(seconds=LONGEST_IDLE + 1))
        assert not is_signed_in(staff)
        assert not is_signed_in(staff)


def test_half_a_day_ends_the_session_of_a_busy_person(staff: Client) -> None:
    start = timezone.now()
    with time_machine.travel(start, tick=False) as clock:
        for _ in range(LONGEST_SESSION // 1200):
            assert is_signed_in(staff)
            clock.shift(timedelta(seconds=1200))
        clock.shift(timedelta(seconds=1))
        assert not is_signed_in(staff)


@pytest.mark.req("S-25")
def test_a_public_page_neither_keeps_a_session_alive_nor_ends_it(staff: Client) -> None:
    start = timezone.now()
    with time_machine.travel(start, tick=False) as clock:
        assert is_signed_in(staff)
        clock.shift(timedelta(seconds=LONGEST_IDLE - 10))
        staff.get("/consent/no-such-link/")
        assert "staff_seen" in staff.session
        clock.shift(timedelta(seconds=20))
        assert not is_signed_in(staff)


def test_a_second_request_in_the_same_minute_writes_nothing(staff: Client) -> None:
    is_signed_in(staff)
    with CaptureQueriesContext(connection) as queries:
        assert is_signed_in(staff)
    assert [one["sql"].split()[0] for one in queries] == ["SELECT"] * 4  # session, user, what runs, the bell


def test_a_log_out_ends_the_session_also_for_a_copy_of_its_cookie(staff: Client) -> None:
    cookie = staff.cookies["__Host-sessionid"].value
    page = staff.get("/admin/password_change/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token
    answer = staff.post(
        "/admin/logout/", {"csrfmiddlewaretoken": token[1]}, headers={"referer": "https://portal.localhost/admin/"}
    )
    assert answer.status_code == 200
    staff.cookies["__Host-sessionid"] = cookie
    assert not is_signed_in(staff)


def test_a_new_password_ends_the_sessions_of_the_old_one(staff: Client) -> None:
    assert is_signed_in(staff)
    user = User.objects.get()
    user.set_password("another horse battery")
    user.save()
    assert not is_signed_in(staff)
