"""Nobody gets in with a password alone; each factor lets its owner in, once.

Covers: portal.staff.checks, portal.staff.extension, portal.staff.factors, portal.staff.forms,
portal.staff.library, portal.staff.middleware, portal.staff.models, portal.staff.signing_in, portal.staff.urls,
portal.staff.views.
"""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.contrib.auth import hashers
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core import checks
from django.urls import reverse
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.site import proof
from portal.staff import factors
from portal.staff.models import Method, StaffSession
from portal.staff.signing_in import PENDING_SECONDS
from tests.support import builders
from tests.support.authenticators import app_code
from tests.support.portal import Browser
from tests.support.sign_in import PASSWORD, Person, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]


def refusals() -> list[Any]:
    events = AuditEvent.objects.filter(action="staff.signed_in", outcome=AuditEvent.Outcome.REFUSED)
    return list(events.values_list("details__why", flat=True))


def test_password_and_code_of_the_app_let_in_and_the_trail_says_so(clock: time_machine.Traveller) -> None:
    user, key = with_app()
    anna = Person()
    first = anna.send(anna.get("/admin/login/?next=/admin/audit/auditevent/"), username="anna", password=PASSWORD)
    assert first["Location"] == reverse("staff_factor")
    assert not anna.is_in(), "the password alone opened a page"
    second = anna.send(anna.get(first["Location"]), code=app_code(key))
    assert second["Location"] == "/admin/audit/auditevent/"
    assert anna.is_in()
    event = AuditEvent.objects.get(action="staff.signed_in")
    assert (event.actor, event.address, event.subject) == ("anna", "198.51.100.1", {"staff": user.pk})
    assert event.details == {"by": "totp"}
    assert StaffSession.objects.get(user=user).method == Method.TOTP
    request = second.wsgi_request
    assert proof.is_fresh(request)


def test_no_route_of_the_admin_opens_to_a_password_alone() -> None:
    with_app()
    anna = Person()
    anna.password()
    for path in ("/admin/", "/admin/auth/user/", "/admin/account/", "/admin/prove/", "/admin/search/?q=x"):
        assert anna.get(path)["Location"].startswith("/admin/login/"), path


def test_a_session_without_a_factor_is_ended(settings: Settings) -> None:
    user = User.objects.create_superuser("anna")
    who = Browser()
    who.force_login(user)
    assert who.get("/admin/").status_code == 302
    assert not Session.objects.exists()
    settings.STAFF_PASSWORD_ALONE = True
    who.force_login(user)
    assert who.get("/admin/").status_code == 200


def test_a_code_is_good_once(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    assert Person().sign_in(key)["Location"] == "/admin/"
    again = Person()
    assert "This code is wrong, was used before" in again.sign_in(key).content.decode()
    assert not again.is_in()
    spaced = Person()
    spaced.password()
    code = app_code(key)
    page = spaced.send(spaced.get(reverse("staff_factor")), code=f"{code[:3]} {code[3:]}")
    assert page.status_code == 200, "the same code in another spelling got in"
    clock.shift(30)
    assert again.send(again.get(reverse("staff_factor")), code=app_code(key))["Location"] == "/admin/"
    assert refusals() == ["factor", "factor"]


def test_a_code_of_another_time_or_person_is_refused(clock: time_machine.Traveller) -> None:
    _, key = with_app()
    _, others = with_app("ben")
    for code in (app_code(key, -3), app_code(key, 3), app_code(others), "", "000000 ", "12345"):
        anna = Person()
        anna.password()
        anna.send(anna.get(reverse("staff_factor")), code=code)
        assert not anna.is_in(), code


def test_a_recovery_code_lets_in_once_and_is_counted(clock: time_machine.Traveller) -> None:
    user, _ = with_app()
    codes = factors.new_recovery_codes(user, actor=builders.ACTOR)
    assert len(set(codes)) == 10
    for code, gets_in in ((codes[3], True), (codes[3].replace("-", ""), False), (codes[4], True)):
        anna = Person()
        anna.password()
        anna.send(anna.get(reverse("staff_factor")), code=code)
        assert anna.is_in() is gets_in, code
    assert factors.recovery_codes_left(user) == 8
    factors.new_recovery_codes(user, actor=builders.ACTOR)
    with pytest.raises(factors.CodeRefused):
        factors.check_code(user, codes[5])


@pytest.mark.req("S-30")
def test_the_database_holds_no_key_of_a_factor(clock: time_machine.Traveller, settings: Settings) -> None:
    user, key = with_app()
    codes = factors.new_recovery_codes(user, actor=builders.ACTOR)
    stored = str(list(Authenticator.objects.values()))
    assert key not in stored
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    settings.INTEGRITY_KEY = "another key of the portal, for a test of ours"
    assert not factors.check_app_code(user, app_code(key))


def test_who_has_no_factor_sets_one_before_anything_else(clock: time_machine.Traveller) -> None:
    user = User.objects.create_superuser("anna", password=PASSWORD)
    anna = Person()
    asked = anna.get(anna.password()["Location"])
    assert asked["Location"] == reverse("staff_first_factor")
    page = anna.get(asked["Location"])
    key = page.context["app"].key
    assert not anna.is_in()
    wrong = anna.send(page, code=app_code(key, 5))
    assert wrong.context["app"].key == key, "a mistyped code made another key"
    done = anna.send(wrong, code=app_code(key))
    assert anna.is_in()
    assert [code in done.content.decode() for code in done.context["codes"]] == [True] * 10
    assert "codes" not in (anna.get(reverse("staff_account")).context or {})
    assert {event.action for event in AuditEvent.objects.all()} >= {"factor.added", "factor.codes_made"}
    other = Person("198.51.100.2")
    other.password()
    assert other.get(reverse("staff_first_factor"))["Location"] == reverse("staff_factor")
    assert factors.kinds(user) == {"totp", "recovery_codes"}


def test_a_key_that_a_form_carries_is_for_one_person_and_a_quarter_of_an_hour(clock: time_machine.Traveller) -> None:
    anna, ben = User.objects.create_user("anna"), User.objects.create_user("ben")
    offered = factors.offer_app(anna)
    with pytest.raises(factors.CodeRefused):
        factors.add_app(ben, offered.kept, app_code(offered.key), actor=builders.ACTOR)
    clock.shift(factors.FORM_SECONDS + 1)
    with pytest.raises(factors.CodeRefused):
        factors.add_app(anna, offered.kept, app_code(offered.key), actor=builders.ACTOR)


def test_the_step_after_the_password_lasts_ten_minutes_and_not_longer_than_the_password(
    clock: time_machine.Traveller,
) -> None:
    user, key = with_app()
    late, changed = Person(), Person()
    late.password()
    clock.shift(PENDING_SECONDS + 1)
    assert late.get(reverse("staff_factor"))["Location"] == reverse("staff_sign_in")
    changed.password()
    user.set_password("another horse battery")
    user.save()
    assert changed.get(reverse("staff_factor"))["Location"] == reverse("staff_sign_in")
    assert not late.is_in()
    assert key


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}], ids=["switched off", "no staff"])
def test_who_may_not_sign_in_reads_what_a_stranger_reads(change: dict[str, bool]) -> None:
    _, key = with_app()
    User.objects.update(**change)
    pages = [Person().password(), Person().password("nobody"), Person().password(password="wrong")]
    assert {page.status_code for page in pages} == {200}
    assert {tuple(page.context["form"].non_field_errors()) for page in pages} == {
        ("Not signed in: the name or the password is wrong.",)
    }
    assert key


def test_an_unknown_name_costs_as_many_hashes_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_app()
    counted: list[str] = []
    encode = hashers.MD5PasswordHasher.encode

    def counting(self: Any, password: str, salt: str) -> str:
        counted.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", counting)
    spent = []
    for name in ("anna", "nobody"):
        Person().password(name, "wrong")
        spent.append(len(counted))
        counted.clear()
    assert spent == [1, 1]


@pytest.mark.req("S-59")
def test_what_was_typed_as_a_name_is_kept_nowhere() -> None:
    Person().password("my password in the wrong field", "x")
    assert refusals() == ["unknown name"]
    event = AuditEvent.objects.get()
    assert "wrong field" not in f"{event.actor} {event.subject} {event.details}"


@pytest.mark.parametrize(
    "asked", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "http:///evil"]
)
def test_a_sign_in_leads_to_no_other_site(asked: str, settings: Settings) -> None:
    settings.STAFF_PASSWORD_ALONE = True
    User.objects.create_superuser("anna", password=PASSWORD)
    assert Person().password(next=asked)["Location"] == "/admin/"


def test_the_deploy_check_names_a_password_alone(settings: Settings) -> None:
    def named() -> list[Any]:
        return [one.id for one in checks.run_checks(include_deployment_checks=True) if one.id == "staff.E001"]

    assert named() == []
    settings.STAFF_PASSWORD_ALONE = True
    assert named() == ["staff.E001"]
    User.objects.create_superuser("anna", password=PASSWORD)
    anna = Person()
    assert anna.password()["Location"] == "/admin/"
    assert anna.is_in()
