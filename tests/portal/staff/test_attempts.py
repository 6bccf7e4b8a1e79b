"""Who sprays passwords is slowed down; who owns the account is not.

Covers: portal.staff.devices.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import time_machine
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.staff import attempts, devices, signing_in
from portal.staff.models import SignInTries
from portal.staff.signing_in import SignInRefused
from tests.support.authenticators import app_code
from tests.support.portal import Browser
from tests.support.sign_in import PASSWORD, Person, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46"), pytest.mark.req("S-63")]
LOGIN = "/admin/login/"


class Sprayer(Browser):
    """Somebody with many addresses and no cookies, who reads no page."""

    def __init__(self) -> None:
        super().__init__()
        self.handler.enforce_csrf_checks = False

    def guess(self, name: str, number: int, address: str) -> None:
        form = {"username": name, "password": f"guess {number}"}
        self.post(LOGIN, form, REMOTE_ADDR=address, headers={"referer": "https://portal.localhost/"})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names whose password was looked at, in order."""
    names: list[str] = []

    def counting(request: object, username: str, password: str) -> object:
        names.append(username)
        return authenticate(request, username=username, password=password)  # type: ignore[arg-type]

    monkeypatch.setattr(signing_in, "authenticate", counting)
    return names


def test_a_thousand_wrong_passwords_of_three_hundred_addresses(
    clock: time_machine.Traveller, looked_at: list[str]
) -> None:
    user, key = with_app()
    at_home = Person("192.0.2.1")
    at_home.sign_in(key)
    at_home.send(at_home.get("/admin/"), "/admin/logout/")
    looked_at.clear()

    minutes = []
    for number in range(1000):
        before = len(looked_at)
        address = f"203.0.113.{number % 250}" if number % 6 else f"198.18.0.{number % 50}"
        with pytest.raises(SignInRefused):  # as the page asks, without its thousand pages
            signing_in.check_password(RequestFactory().post(LOGIN, REMOTE_ADDR=address), "anna", f"guess {number}")
        if number % 40 == 39:
            clock.shift(60)
        minutes.append((number // 40, len(looked_at) - before))
    spent = [sum(count for minute, count in minutes if minute == one) for one in range(25)]
    assert spent[0] == attempts.FREE, "the first wrong passwords are free"
    assert max(spent[1:]) <= 1
    assert sum(spent) <= attempts.FREE + 8, spent

    incident = Incident.objects.get()
    assert incident.cause == signing_in.GUESSING
    assert "tries of a password for anna" in incident.words
    assert AuditEvent.objects.filter(action="staff.signed_in", outcome="refused").count() == sum(spent)
    assert SignInTries.objects.count() < 320, "one row for each address, account and hour"

    # The owner gets in: from the browser of before, with a code beside the password, and by what needs no password.
    assert at_home.sign_in(key)["Location"] == "/admin/"
    clock.shift(30)
    elsewhere = Person("192.0.2.200")
    page = elsewhere.password()
    assert "the next one is looked at in" in page.content.decode()
    done = elsewhere.send(page, username="anna", password=PASSWORD, code=app_code(key))
    assert done["Location"] == "/admin/"
    assert elsewhere.is_in()
    assert user.is_active


def test_the_waits_grow_and_end_with_the_right_password(settings: Settings, clock: time_machine.Traveller) -> None:
    settings.STAFF_PASSWORD_ALONE = True
    User.objects.create_superuser("anna", password=PASSWORD)
    waits = []
    for _ in range(attempts.FREE + 6):
        Person().password(password="wrong")
        row = SignInTries.objects.get(pk=attempts.of_name("anna"))
        waits.append(int((row.free_at - _now()).total_seconds() // 60))
        clock.shift(max(row.free_at - _now(), timedelta(0)))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 15, 15, 15]
    clock.shift(-1)
    assert Person().password().status_code == 200, "looked at before its time"
    clock.shift(1)
    assert Person().password().status_code == 302
    assert not SignInTries.objects.filter(pk=attempts.of_name("anna")).exists()


def _now() -> datetime:
    return timezone.now()


def test_a_name_that_no_account_has_waits_like_one_that_has(clock: time_machine.Traveller) -> None:
    with_app()
    said = []
    for name in ("anna", "nobody"):
        pages = [Person(f"192.0.2.{number}").password(name, "wrong") for number in range(7)]
        said.append([list(page.context["form"].non_field_errors()) for page in pages])
    assert said[0] == said[1]
    assert "looked at in 1 minute." in said[0][-1][0]


def test_one_address_that_tries_many_names_has_to_wait_as_well(
    clock: time_machine.Traveller, looked_at: list[str]
) -> None:
    sprayer = Sprayer()
    for number in range(60):
        sprayer.guess(f"name-{number}", number, "203.0.113.9")
    assert len(looked_at) == attempts.FREE_OF_AN_ADDRESS
    sprayer.guess("another", 1, "203.0.113.10")
    assert len(looked_at) == attempts.FREE_OF_AN_ADDRESS + 1
    for number in range(60):
        sprayer.guess(f"six-{number}", number, f"2001:db8:1:2::{number:x}")
    assert len(looked_at) == 2 * attempts.FREE_OF_AN_ADDRESS + 1, "an IPv6 network counts as one address"


def test_many_names_of_many_addresses_are_one_incident_and_a_bounded_number_of_lines(
    clock: time_machine.Traveller, settings: Settings
) -> None:
    settings.REQUEST_LIMIT_FACTOR = 1
    sprayer = Sprayer()
    for number in range(130):
        sprayer.guess(f"name-{number}", number, f"203.0.113.{number}")
    incident = Incident.objects.get()
    assert incident.cause == signing_in.GUESSING
    assert "within an hour" in incident.words
    assert AuditEvent.objects.filter(action="staff.signed_in").count() == 20


def test_the_cookie_of_a_browser_serves_one_account_and_has_waits_of_its_own(clock: time_machine.Traveller) -> None:
    anna, key = with_app()
    ben, _ = with_app("ben")
    known = Person()
    known.sign_in(key)
    request = known.get(LOGIN).wsgi_request
    from_cookie = attempts.of_device(anna.pk, devices.known(request, anna))
    assert devices.known(request, anna)
    assert devices.known(request, ben) == ""
    del known.cookies["__Host-sessionid"]
    for _ in range(8):
        known.password(password="wrong")
    assert SignInTries.objects.get(pk=from_cookie).failures == attempts.FREE
    assert not SignInTries.objects.filter(pk=attempts.of_name("anna")).exists()
    forged = Person()
    forged.cookies[devices.COOKIE] = known.cookies[devices.COOKIE].value[:-2] + "xx"
    assert devices.known(forged.get(LOGIN).wsgi_request, anna) == ""


def test_codes_after_the_right_password_are_limited_too(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    thief = Person()
    thief.password()
    for number in range(attempts.FREE + 3):
        page = thief.send(thief.get(reverse("staff_factor")), code=f"{number:06}")
    assert "looked at in 1 minute." in page.content.decode()
    assert thief.send(page, code=app_code(key)).status_code == 200, "not looked at, although right"


def test_counts_are_forgotten_after_a_day_and_names_of_nobody_do_not_fill_the_table(
    clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MOST_ROWS", 3)
    for number in range(10):
        attempts.begin(attempts.of_name(f"name-{number}"), bounded=True)
    assert SignInTries.objects.count() == 3
    clock.shift(timedelta(days=1, seconds=1))
    attempts.begin(attempts.of_name("anna"))
    assert SignInTries.objects.count() == 1
