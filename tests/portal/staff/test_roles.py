"""Roles: the groups that carry them, who gives them, and that nobody rises by himself (S-48).

Covers: portal.staff.extension, portal.staff.receivers, portal.staff.role_pages, portal.staff.two_persons,
portal.site.refusals.
"""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import transaction
from django.test import RequestFactory
from pytest_django.fixtures import Settings

from consent import partners
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.decisions import service
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused
from portal.incidents.models import Incident
from portal.rights import Forbidden, require
from portal.site.refusals import RefusalMiddleware
from portal.staff.roles import RIGHTS, Role, RoleRefused, grant, rights_of, roles_of
from portal.staff.two_persons import MAKE_SECURITY, roles_for
from tests.support import builders, decisions
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _signed_in_without_a_factor(_two_factors: None, settings: Settings) -> None:
    """The sign-in is not the subject here."""
    settings.STAFF_PASSWORD_ALONE = True


def member(name: str, *roles: Role) -> User:
    person = User.objects.create_user(name, is_staff=True)
    grant(person, roles, actor=builders.ACTOR)
    return person


def acting(person: User) -> Actor:
    return Actor.staff(person.username, "192.0.2.7", may=person.has_perm, is_superuser=person.is_superuser)


def signed_in(person: User) -> Staff:
    return Staff.of(person)


@pytest.mark.req("S-48")
@pytest.mark.parametrize("role", Role)
def test_a_group_has_the_rights_of_its_role_and_no_other(role: Role) -> None:
    assert member("ben", role).get_all_permissions() == set(rights_of(role))


def test_migrate_puts_a_group_back_that_was_changed_by_hand() -> None:
    group = Group.objects.get(name=Role.VIEWER)
    before = set(group.permissions.values_list("pk", flat=True))
    group.permissions.add(Permission.objects.get(codename="offboard_partner"))
    group.permissions.remove(Permission.objects.get(codename="view_run"))
    Group.objects.filter(name=Role.AUDITOR).delete()
    call_command("migrate", verbosity=0)
    assert set(group.permissions.values_list("pk", flat=True)) == before
    assert Group.objects.filter(name=Role.AUDITOR).exists()


@pytest.mark.req("S-48")
@pytest.mark.parametrize("role", [role for role in Role if role is not Role.SECURITY])
def test_only_a_security_administrator_gives_roles(role: Role) -> None:
    giver, other = member("ben", role), member("eve")
    with pytest.raises(Forbidden):
        grant(other, [Role.VIEWER], actor=acting(giver))
    assert roles_of(other) == []


@pytest.mark.req("S-48", "S-55")
def test_a_security_administrator_gives_roles_to_others_and_the_trail_says_which() -> None:
    giver, other = member("ben", Role.SECURITY), member("eve", Role.VIEWER)
    assert grant(other, [Role.OPERATOR, Role.AUDITOR], actor=acting(giver))
    assert not grant(other, [Role.AUDITOR, Role.OPERATOR], actor=acting(giver))
    assert roles_of(other) == [Role.OPERATOR, Role.AUDITOR]
    event = AuditEvent.objects.filter(action="staff.roles_changed").latest("sequence")
    assert (event.actor, event.subject) == ("ben", {"staff": other.pk})
    assert event.details == {"before": ["Viewer"], "after": ["Operator", "Auditor"]}


@pytest.mark.req("S-48")
def test_nobody_changes_own_roles_not_even_downwards() -> None:
    giver = member("ben", Role.SECURITY)
    for roles in ([*Role], [Role.VIEWER], []):
        with pytest.raises(RoleRefused, match="Ask another security administrator"):
            grant(giver, roles, actor=acting(giver))
    assert roles_of(giver) == [Role.SECURITY]


@pytest.mark.req("S-48")
def test_nobody_gives_a_role_above_the_own_or_touches_who_stands_above() -> None:
    giver, other, above = member("ben", Role.OPERATOR), member("eve"), member("ada", Role.SECURITY)
    giver.user_permissions.add(Permission.objects.get(codename="grant_role"))
    with pytest.raises(RoleRefused, match="above yours"):
        grant(other, [Role.SECURITY], actor=acting(giver))
    with pytest.raises(RoleRefused, match="above yours"):
        grant(above, [Role.VIEWER], actor=acting(giver))
    superuser = User.objects.create_superuser("root")
    with pytest.raises(RoleRefused, match="superuser"):
        grant(superuser, [Role.VIEWER], actor=acting(giver))
    assert grant(other, [Role.OPERATOR], actor=acting(giver))


@pytest.mark.req("S-48")
def test_no_form_of_an_account_takes_permissions_groups_or_the_mark_of_a_superuser() -> None:
    staff, other = signed_in(member("ben", Role.SECURITY)), member("eve", Role.VIEWER)
    wanted = {"username": "eve", "is_active": "on", "is_staff": "on"}
    own = {"is_superuser": "on", "groups": [group.pk for group in Group.objects.all()]}
    own["user_permissions"] = [permission.pk for permission in Permission.objects.all()[:5]]
    for person in (other, staff.user):
        staff.post(f"/admin/auth/user/{person.pk}/change/", {**wanted, "username": person.username, **own})
    other.refresh_from_db()
    assert not other.is_superuser
    assert roles_of(other) == [Role.VIEWER]
    assert not other.user_permissions.exists()
    assert roles_of(staff.user) == [Role.SECURITY]
    assert not User.objects.filter(is_superuser=True).exists()
    assert staff.post(f"/admin/auth/group/{Group.objects.first().pk}/change/", own).status_code == 403  # type: ignore[union-attr]


@pytest.mark.req("S-48")
def test_the_password_of_somebody_above_is_not_set() -> None:
    ben = member("ben", Role.OPERATOR)
    ben.user_permissions.add(*Permission.objects.filter(codename__in=["change_user", "view_user"]))
    staff = signed_in(User.objects.get(pk=ben.pk))
    for above in (member("ada", Role.SECURITY), User.objects.create_superuser("root")):
        passwords = {"password1": "correct horse battery", "password2": "correct horse battery"}
        assert staff.post(f"/admin/auth/user/{above.pk}/password/", passwords).status_code == 403
        assert staff.post(f"/admin/auth/user/{above.pk}/change/", {"username": "eve"}).status_code == 403
    assert staff.get(f"/admin/auth/user/{member('eve', Role.VIEWER).pk}/password/").status_code == 302, "by a link only"


def test_roles_are_changed_on_the_page_of_the_account() -> None:
    staff, other = signed_in(member("ben", Role.SECURITY)), member("eve")
    page = staff.get(f"/admin/auth/user/{other.pk}/roles/")
    assert "Checks tokens" in page.content.decode()
    done = staff.confirm(page, roles=[Role.OPERATOR.value])
    assert "The roles are changed." in told(done)
    assert roles_of(other) == [Role.OPERATOR]
    own = staff.confirm(staff.get(f"/admin/auth/user/{staff.user.pk}/roles/"), roles=[role.value for role in Role])
    assert "Nobody changes their own roles" in told(own)
    assert roles_of(staff.user) == [Role.SECURITY]


@pytest.mark.req("S-48", "S-50")
def test_two_persons_decide_who_becomes_a_security_administrator() -> None:
    ben, eve, ada = member("ben", Role.SECURITY), member("eve", Role.VIEWER), member("ada", Role.SECURITY)
    with pytest.raises(RoleRefused, match="Two persons decide"):
        grant(eve, [Role.SECURITY], actor=acting(ben))
    staff, page = signed_in(ben), f"/admin/auth/user/{eve.pk}/roles/"
    without_reason = staff.confirm(staff.get(page), roles=[Role.SECURITY.value])
    assert "Say why" in told(without_reason)
    asked = staff.confirm(staff.get(page), roles=[Role.SECURITY.value], why="She follows Carl.")
    assert "Another person decides" in told(asked)
    assert roles_of(eve) == [Role.VIEWER]
    decision = Decision.objects.get()
    with pytest.raises(DecisionRefused, match="another person decides"):
        service.approve(decision, person=decisions.person(ben))
    with pytest.raises(DecisionRefused, match="not the right"):
        service.approve(decision, person=decisions.person(eve))

    service.approve(decision, person=decisions.person(ada))

    assert roles_of(eve) == [Role.SECURITY]
    event = AuditEvent.objects.filter(action="staff.roles_changed").latest("sequence")
    assert (event.actor, event.details["approved_by"], event.details["after"]) == ("ben", "ada", [Role.SECURITY.value])


@pytest.mark.req("S-50")
def test_an_approval_gives_nothing_when_the_roles_changed_or_the_giver_fell_meanwhile() -> None:
    ben, eve, ada = member("ben", Role.SECURITY), member("eve", Role.VIEWER), member("ada", Role.SECURITY)
    actor = acting(ben)
    decision, _ = service.ask(MAKE_SECURITY, roles_for(eve, [Role.SECURITY]), why="x", actor=actor, account=ben)
    grant(eve, [Role.OPERATOR], actor=acting(ada))
    with pytest.raises(DecisionRefused, match="something else now"):
        service.approve(decision, person=decisions.person(ada))
    grant(eve, [Role.VIEWER], actor=acting(ada))
    grant(ben, [Role.VIEWER], actor=acting(ada))
    with pytest.raises(DecisionRefused, match="has not the right to any more"):
        service.approve(decision, person=decisions.person(ada))
    assert roles_of(eve) == [Role.VIEWER]


def test_the_role_is_taken_away_by_one_person() -> None:
    ben, ada = member("ben", Role.SECURITY), member("ada", Role.SECURITY)
    assert grant(ada, [Role.VIEWER], actor=acting(ben))
    assert roles_of(ada) == [Role.VIEWER]


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.req("S-48", "S-55")
def test_a_refusal_names_the_right_and_who_gives_it_and_stands_in_the_trail() -> None:
    partner = builders.partner()
    with pytest.raises(Forbidden, match="the right to disable and enable a partner"):
        partners.disable(partner, actor=acting(member("ben", Role.OPERATOR)))
    partner.refresh_from_db()
    assert partner.is_active
    event = AuditEvent.objects.latest("sequence")
    assert (event.action, event.outcome, event.actor) == ("right.refused", "refused", "ben")
    assert event.details == {"needed": ["tenants.disable_partnertenant"]}


@pytest.mark.req("S-55")
def test_a_refusal_stays_in_the_trail_when_its_transaction_is_gone() -> None:
    middleware, request = RefusalMiddleware(lambda request: None), RequestFactory().get("/admin/")  # type: ignore[arg-type, return-value]
    with pytest.raises(Forbidden) as caught, transaction.atomic():
        require(Actor.staff("ben", None), "tenants.disable_partnertenant")
    assert not AuditEvent.objects.filter(action="right.refused").exists()
    for _ in range(2):
        middleware.process_exception(request, caught.value)
    assert AuditEvent.objects.filter(action="right.refused", actor="ben").count() == 1


@pytest.mark.req("S-55")
def test_a_page_that_is_refused_stands_in_the_trail() -> None:
    staff = signed_in(member("ben", Role.VIEWER))
    assert staff.get("/admin/audit/auditevent/").status_code == 403
    event = AuditEvent.objects.latest("sequence")
    assert (event.action, event.actor) == ("page.refused", "ben")
    assert event.details == {"page": "admin:audit_auditevent_changelist"}


# --- the account for emergencies --------------------------------------------------------------------------------------


@pytest.mark.req("S-48")
def test_a_superuser_who_acts_is_one_incident_and_one_who_looks_is_none() -> None:
    root = User.objects.create_superuser("root")
    signed_in(root).get("/admin/tenants/partnertenant/")
    assert not Incident.objects.filter(cause="superuser_acted").exists()
    for _ in range(2):
        partners.disable(builders.partner(), actor=acting(root))
    incident = Incident.objects.get(cause="superuser_acted")
    assert (incident.name, incident.times) == ("root", 2)
    partners.disable(builders.partner(), actor=acting(member("ben", Role.SECURITY)))
    assert Incident.objects.filter(cause="superuser_acted").count() == 1


def test_the_table_names_each_right_once_for_known_roles() -> None:
    assert all(roles and set(roles) <= set(Role) for roles in RIGHTS.values())
