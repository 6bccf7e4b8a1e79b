"""A passkey signs its owner in without a password; every bent answer is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.urls import reverse
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.staff import passkeys
from portal.staff.models import Method, StaffSession
from portal.staff.passkeys import CEREMONY_SECONDS, PasskeyRefused
from tests.support import builders
from tests.support.authenticators import PRESENT, VERIFIED, Passkey
from tests.support.sign_in import PASSWORD, Person, options, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]


def with_passkey(name: str = "anna") -> tuple[User, Passkey]:
    user = User.objects.create_superuser(name, password=PASSWORD)
    held, offered = Passkey(), passkeys.offer(user)
    passkeys.add(user, offered.kept, held.made(offered.options), "laptop", actor=builders.ACTOR)
    return user, held


def test_a_passkey_alone_signs_in_and_leaves_no_session_behind_before(clock: time_machine.Traveller) -> None:
    user, held = with_passkey()
    anna = Person()
    page = anna.get("/admin/login/")
    assert "__Host-sessionid" not in anna.cookies
    done = anna.send(page, answer=held.used(options(page)))
    assert done["Location"] == "/admin/"
    assert anna.is_in()
    assert StaffSession.objects.get().method == Method.PASSKEY
    assert AuditEvent.objects.get(action="staff.signed_in").details == {"by": "passkey"}
    assert user.pk


def test_a_passkey_is_the_second_step_as_well(clock: time_machine.Traveller) -> None:
    _, held = with_passkey()
    anna = Person()
    page = anna.get(anna.password()["Location"])
    assert anna.send(page, answer=held.used(options(page)))["Location"] == "/admin/"
    assert anna.is_in()


def test_the_first_factor_may_be_a_passkey_and_its_page_alone_may_make_one(clock: time_machine.Traveller) -> None:
    User.objects.create_superuser("anna", password=PASSWORD)
    anna, held = Person(), Passkey()
    anna.password()
    page = anna.get(reverse("staff_first_factor"))
    assert "publickey-credentials-create=(self)" in page["Permissions-Policy"]
    assert "publickey-credentials-create=()" in anna.get("/admin/login/")["Permissions-Policy"]
    asked = json.loads(options(page))
    assert asked["rp"]["id"] == "portal.localhost"
    assert asked["authenticatorSelection"]["userVerification"] == "required"
    done = anna.send(page, answer=held.made(options(page)), name="laptop")
    assert len(done.context["codes"]) == 10
    assert "Passkey: laptop" in anna.get(reverse("staff_account")).content.decode()


BENT: dict[str, dict[str, Any]] = {
    "another site": {"origin": "https://portal.localhost.evil.example"},
    "a site below ours": {"origin": "https://evil.portal.localhost"},
    "another port": {"origin": "https://portal.localhost:8443"},
    "plain http": {"origin": "http://portal.localhost"},
    "another host's key": {"host": "evil.example"},
    "nobody there": {"flags": VERIFIED},
    "no finger, face or PIN": {"flags": PRESENT},
}


@pytest.mark.parametrize("bent", BENT)
def test_an_answer_of_elsewhere_or_without_its_owner_is_refused(bent: str, clock: time_machine.Traveller) -> None:
    _, held = with_passkey()
    other = replace(held, **BENT[bent])
    asked = passkeys.ask()
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, other.used(asked.options))
    user = User.objects.create_user("ben")
    offered = passkeys.offer(user)
    with pytest.raises(PasskeyRefused):
        passkeys.add(user, offered.kept, other.made(offered.options), "x", actor=builders.ACTOR)


def test_an_answer_serves_once_for_one_question_and_half_an_hour(clock: time_machine.Traveller) -> None:
    user, held = with_passkey()
    asked, another = passkeys.ask(), passkeys.ask()
    answer = held.used(asked.options)
    with pytest.raises(PasskeyRefused):
        passkeys.check(another.kept, answer)
    assert passkeys.check(asked.kept, answer) == user
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, answer)
    old = passkeys.ask()
    clock.shift(CEREMONY_SECONDS + 1)
    with pytest.raises(PasskeyRefused):
        passkeys.check(old.kept, held.used(old.options))


def test_a_passkey_is_nobody_elses(clock: time_machine.Traveller) -> None:
    anna, held = with_passkey()
    ben, bens = with_passkey("ben")
    asked = passkeys.ask(ben)
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, held.used(asked.options), ben)
    asked = passkeys.ask()
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, replace(bens, user=held.user).used(asked.options))
    asked = passkeys.ask(anna)
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, held.used(asked.options))  # asked of anna, answered to anybody
    forged = Passkey(number=held.number, user=held.user)
    asked = passkeys.ask()
    with pytest.raises(PasskeyRefused):
        passkeys.check(asked.kept, forged.used(asked.options))


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "{}", '{"response": 1}', '{"response": {"userHandle": "AA"}}', "x" * 30_000, "\ud800"]
)
def test_rubbish_is_refused_with_a_page(answer: str, clock: time_machine.Traveller) -> None:
    with_passkey()
    anna = Person()
    page = anna.send(anna.get("/admin/login/"), answer=answer.encode(errors="replace").decode())
    assert page.status_code == 200
    assert "This passkey was not accepted" in page.content.decode()


def test_who_was_switched_off_does_not_sign_in(clock: time_machine.Traveller) -> None:
    _, held = with_passkey()
    User.objects.update(is_active=False)
    anna = Person()
    page = anna.get("/admin/login/")
    assert anna.send(page, answer=held.used(options(page))).status_code == 200
    assert not anna.is_in()


def test_the_address_of_staff_pages_comes_from_the_settings(settings: Settings) -> None:
    assert passkeys.origin() == "https://portal.localhost"
    settings.ADMIN_HOST = "staff.vendor.example:8443"
    assert passkeys.origin() == "https://staff.vendor.example:8443"
    user, _ = with_app()
    assert json.loads(passkeys.offer(user).options)["rp"]["id"] == "staff.vendor.example"
