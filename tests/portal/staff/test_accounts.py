"""The first account, and the way back: a link that works once and for an hour, made on the server."""

from __future__ import annotations

from io import StringIO
from urllib.parse import urlsplit

import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.urls import reverse

from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.site.logs import redact
from portal.staff.accounts import FIRST_ROLE, RECOVERED
from portal.staff.models import LINK_LIFETIME, StaffLink
from tests.support.authenticators import app_code
from tests.support.sign_in import PASSWORD, Person, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]
NEW = "a long sentence of mine"


def command(name: str, *arguments: str) -> str:
    """Run a command and return the path of the link that it prints."""
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    address = out.getvalue().strip()
    assert address.startswith("https://portal.localhost/admin/login/link/")
    return urlsplit(address).path


def walk_through(who: Person, path: str) -> str:
    """Set password and authenticator app behind a link; return the app's key."""
    set_up = who.send(who.get(path), new_password1=NEW, new_password2=NEW)
    assert set_up["Location"] == reverse("staff_first_factor"), set_up.content.decode()
    page = who.get(set_up["Location"])
    key = str(page.context["app"].key)
    assert who.send(page, code=app_code(key)).status_code == 200
    return key


def test_the_first_administrator_sets_password_and_factor_behind_a_link(
    clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    path = command("create_staff", "anna", "--superuser")
    user = User.objects.get()
    assert (user.username, user.is_superuser, user.has_usable_password()) == ("anna", True, False)
    token = path.split("/")[-2]
    assert token not in str(list(StaffLink.objects.values()))
    anna = Person()
    key = walk_through(anna, path)
    assert anna.is_in()
    assert Person().get(path).status_code == 404, "it worked twice"
    clock.shift(30)
    again = Person()
    again.send(again.get("/admin/login/"), username="anna", password=NEW)
    assert again.send(again.get(reverse("staff_factor")), code=app_code(key))["Location"] == "/admin/"
    actions = list(AuditEvent.objects.order_by("sequence").values_list("action", flat=True))
    assert actions[:3] == ["staff.created", "staff.link_used", "factor.added"]
    assert token not in str(list(AuditEvent.objects.values()))
    assert token not in redact(caplog.text)


def test_a_link_ends_after_an_hour_and_a_newer_one_replaces_it(clock: time_machine.Traveller) -> None:
    first = command("create_staff", "anna")
    second = command("recover_staff", "anna")
    assert Person().get(first).status_code == 404
    assert Person().get(second).status_code == 200
    clock.shift(LINK_LIFETIME.total_seconds())
    page = Person().get(second)
    assert page.status_code == 404
    assert "works once and for an hour" in page.content.decode()
    assert Person().get("/admin/login/link/nothing/").status_code == 404


def test_looking_at_a_link_changes_nothing_and_a_weak_password_is_refused(clock: time_machine.Traveller) -> None:
    path = command("create_staff", "anna")
    anna = Person()
    for first, second in (("short", "short"), (NEW, f"{NEW}!"), ("anna-anna-anna-anna", "anna-anna-anna-ann")):
        page = anna.send(anna.get(path), new_password1=first, new_password2=second)
        assert page.context["form"].errors, first
    assert StaffLink.objects.get().used_at is None


def test_a_role_may_be_given_and_an_unknown_one_is_named(clock: time_machine.Traveller) -> None:
    Group.objects.create(name="Operators")
    Group.objects.get_or_create(name=FIRST_ROLE)
    command("create_staff", "ben", "--role", "Operators")
    command("create_staff", "dora")
    command("create_staff", "emergency", "--superuser")
    made = {user.username: (user.is_superuser, [one.name for one in user.groups.all()]) for user in User.objects.all()}
    assert made == {"ben": (False, ["Operators"]), "dora": (False, [FIRST_ROLE]), "emergency": (True, [])}
    for arguments, told in (
        (("carl", "--role", "Nobodies"), "The roles are: .*Operators"),
        (("ben",), "already exists"),
        (("a name", "--role", "Operators"), "Enter a valid username"),
    ):
        with pytest.raises(CommandError, match=told) as ended:
            call_command("create_staff", *arguments)
        assert ended.value.returncode == 2
    assert User.objects.count() == 3


def test_recovery_opens_an_account_again_loudly(clock: time_machine.Traveller) -> None:
    user, old_key = with_app()
    here = Person()
    here.sign_in(old_key)
    User.objects.update(is_active=False)
    path = command("recover_staff", "anna")
    incident = Incident.objects.get(cause=RECOVERED)
    assert incident.name == "anna"
    assert "recover_staff" in incident.words
    event = AuditEvent.objects.get(action="staff.recovery_begun")
    assert (event.actor_kind, event.subject, event.details["was_active"]) == ("command", {"staff": user.pk}, False)
    anna = Person()
    new_key = walk_through(anna, path)
    assert anna.is_in()
    assert not here.is_in()
    clock.shift(60)
    for key, password, gets_in in ((old_key, PASSWORD, False), (old_key, NEW, False), (new_key, NEW, True)):
        who = Person()
        first = who.send(who.get("/admin/login/"), username="anna", password=password)
        if first.status_code == 302:
            who.send(who.get(first["Location"]), code=app_code(key))
        assert who.is_in() is gets_in
    with pytest.raises(CommandError, match="There is no account nobody") as ended:
        call_command("recover_staff", "nobody")
    assert ended.value.returncode == 2
