"""A team sees its partners: in lists, pages, search, files and services, and in nothing of the others (S-48).

Covers: portal.staff.team_pages, portal.site.limit_kinds, portal.site.sight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from consent import partners
from consent.customers import plans
from consent.invitations import campaigns, links
from consent.models import ApplicationRegistration, Campaign, CustomerConsent, PartnerConsent
from consent.runs import on_request
from consent.selection import EVERYTHING
from consent.two_persons import REMOVE, RETIRE_KEY, removal_of
from portal.audit.models import AuditEvent
from portal.audit.trail import Actor
from portal.decisions import service
from portal.decisions.records import DecisionRefused
from portal.incidents import service as incidents
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.models import Team
from portal.rights import Forbidden, limits_of
from portal.runs import schedule
from portal.site.extension_points import extensions
from portal.site.sight import sights, visible
from portal.staff import teams
from portal.staff.roles import Role, RoleRefused, grant
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant
from tests.support import builders, decisions
from tests.support.decisions import account, person
from tests.support.staff import Staff, asked, told

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _signed_in_without_a_factor(_two_factors: None, settings: Settings) -> None:
    """The sign-in is not the subject here."""
    settings.STAFF_PASSWORD_ALONE = True


@dataclass
class Two:
    """Two partners, each with a customer, a token and a consent; the team sees one of them."""

    own: PartnerTenant
    other: PartnerTenant
    registration: ApplicationRegistration
    tag: PartnerTag


@pytest.fixture
def two() -> Two:
    registration, tag = builders.registration(), PartnerTag.objects.create(name="Europe")
    builders.grant(registration, "User.Read.All")
    for name in ("Ours", "Theirs"):
        partner = builders.partner(name=name)
        builders.consent(partner, registration)
        builders.customer_consent(builders.customer(partner, company_name=f"Customer of {name}"), registration)
        incidents.report(
            "mfa_missing", about=f"partner:{partner.pk}", name=name, owner=Owner.PARTNER, words="No MFA.",
            subject={"partner": partner.pk},
        )  # fmt: skip
    own, other = (PartnerTenant.objects.get(name=name) for name in ("Ours", "Theirs"))
    own.tags.add(tag)
    return Two(own=own, other=other, registration=registration, tag=tag)


def member(team: Team | None, *roles: Role) -> Staff:
    person = User.objects.create_user(f"staff-of-{team}", is_staff=True)
    grant(person, roles or [Role.ONBOARDER, Role.OPERATOR, Role.AUDITOR], actor=builders.ACTOR)
    if team is not None:
        teams.put_into(person, [team], actor=builders.ACTOR)
    return Staff.of(User.objects.get(pk=person.pk))


def europe(two: Two) -> Team:
    return teams.make("Europe", {"tag": [two.tag.pk]}, actor=builders.ACTOR)


def acting(staff: Staff) -> Actor:
    user = staff.user
    return Actor.staff(user.username, None, may=user.has_perm, limits=lambda: limits_of(user))


def shown(staff: Staff, model: str) -> set[str]:
    return {str(row) for row in staff.get(f"/admin/{model}/").context["cl"].result_list}


@pytest.mark.req("S-48")
def test_lists_show_what_belongs_to_the_partners_of_the_team(two: Two) -> None:
    staff = member(europe(two))
    assert shown(staff, "tenants/partnertenant") == {"Ours"}
    assert shown(staff, "tenants/customertenant") == {"Customer of Ours"}
    for model in ("consent/partnerconsent", "consent/customerconsent", "incidents/incident"):
        assert len(shown(staff, model)) == 1, model
    unlimited = member(None)
    assert shown(unlimited, "tenants/partnertenant") == {"Ours", "Theirs"}
    assert len(shown(unlimited, "incidents/incident")) == 2


@pytest.mark.req("S-48")
def test_no_page_of_another_partner_opens(two: Two) -> None:
    staff, customer = member(europe(two)), CustomerTenant.objects.get(partner=two.other)
    hub = f"/admin/tenants/partnertenant/{two.other.pk}"
    for tab in ("connection", "customers", "gdap", "activity", "audit", "details", "live"):
        assert staff.get(f"{hub}/{tab}/").status_code == 404, tab
        assert staff.get(f"/admin/tenants/partnertenant/{two.own.pk}/{tab}/").status_code == 200, tab
    for word in ("check", "synchronise", "plan"):
        assert staff.post(f"{hub}/ask/{word}/").status_code == 404, word
        assert staff.post(f"/admin/tenants/customertenant/{customer.pk}/ask/{word}/").status_code == 404
    assert staff.get(f"/admin/tenants/customertenant/{customer.pk}/live/").status_code == 404
    for page in (f"{hub}/change/", f"/admin/tenants/customertenant/{customer.pk}/change/"):
        assert staff.get(page).status_code == 302, page
    keys = f"partner={two.other.pk}&registration={two.registration.pk}"
    assert staff.get(f"/admin/consent/consentlink/preview/?{keys}").status_code == 404
    assert "Theirs" not in staff.get(f"/admin/consent/consentlink/add/?{keys}").content.decode()


@pytest.mark.req("S-48")
def test_search_file_filters_and_first_page_name_no_other_partner(two: Two) -> None:
    staff = member(europe(two))
    for path in (
        "/admin/search/?part=1&q=Theirs",
        "/admin/",
        "/admin/consent/partnerconsent/",
        "/admin/incidents/incident/groups/",
        "/admin/autocomplete/?app_label=tenants&model_name=customertenant&field_name=partner&term=Theirs",
    ):
        assert "Theirs" not in staff.get(path).content.decode().replace("“Theirs”", "").replace('"Theirs"', ""), path
    assert "Theirs" in member(None).get("/admin/search/?part=1&q=Theirs").content.decode()
    file = staff.choose("tenants_partnertenant", "export_csv", two.own.pk, two.other.pk)
    text = b"".join(file.streaming_content).decode()
    assert "Ours" in text
    assert "Theirs" not in text


@pytest.mark.req("S-48")
def test_the_trail_tells_of_partners_of_the_team_only(two: Two) -> None:
    for partner in (two.own, two.other):
        partners.disable(partner, actor=builders.ACTOR)
    staff = member(europe(two))
    events = staff.get("/admin/audit/auditevent/").context["cl"].result_list
    assert {event.subject.get("partner") for event in events} == {two.own.pk}


@pytest.mark.req("S-48")
def test_a_service_does_nothing_for_another_partner_and_the_trail_says_so(two: Two) -> None:
    actor = acting(member(europe(two)))
    link, _ = links.issue(two.other, two.registration, actor=builders.ACTOR)
    customer = CustomerTenant.objects.select_related("partner").get(partner=two.other)
    for refused in (
        lambda: links.issue(two.other, two.registration, actor=actor),
        lambda: links.revoke(link, actor=actor),
        lambda: on_request.read_again(customer, actor=actor),
        lambda: schedule.run_now("customer_sync", actor=actor),
    ):
        with pytest.raises(Forbidden, match="teams"):
            refused()
        assert AuditEvent.objects.latest("sequence").action == "right.refused"
    assert links.issue(two.own, two.registration, actor=actor)


@pytest.mark.req("S-48")
def test_what_is_chosen_widely_reaches_the_partners_of_the_team_only(two: Two) -> None:
    actor = acting(member(europe(two)))
    plan = plans.make_plan(two.registration, EVERYTHING, actor=actor)
    assert {item.customer.partner for item in plan.items.select_related("customer__partner")} == {two.own}
    run = on_request.check_tokens(PartnerConsent.objects.all(), actor=actor).run
    assert run.scope["tokens"] == [PartnerConsent.objects.get(partner=two.own).pk]
    run = on_request.read_consents(CustomerConsent.objects.all(), actor=actor).run
    assert run.scope["consents"] == [CustomerConsent.objects.get(customer__partner=two.own).pk]
    made = campaigns.create(
        name="All", registration=two.registration, reason=Campaign.Reason.NEW_SCOPE, link_days=14,
        partners=PartnerTenant.objects.all(), actor=actor,
    )  # fmt: skip
    assert made.invited == 1
    assert incidents.take_up(Incident.objects.all(), actor=actor) == 1


@pytest.mark.req("S-48")
def test_a_team_may_be_limited_to_registrations_and_to_both(two: Two) -> None:
    second = builders.registration(name="Second")
    builders.consent(two.other, second)
    by_application = teams.make("Second product", {"registration": [second.pk]}, actor=builders.ACTOR)
    staff = member(by_application)
    assert shown(staff, "tenants/partnertenant") == {"Theirs"}
    tokens = staff.get("/admin/consent/partnerconsent/").context["cl"].result_list
    assert [token.registration for token in tokens] == [second]
    both = teams.make("Both", {"registration": [second.pk], "tag": [two.tag.pk]}, actor=builders.ACTOR)
    assert shown(member(both), "tenants/partnertenant") == set()


@pytest.mark.req("S-48")
def test_who_is_in_two_teams_sees_what_each_sees(two: Two) -> None:
    other = PartnerTag.objects.create(name="Asia")
    two.other.tags.add(other)
    staff = member(europe(two))
    asia = teams.make("Asia", {"tag": [other.pk]}, actor=builders.ACTOR)
    teams.put_into(staff.user, [*Team.objects.filter(group__name="Europe"), asia], actor=builders.ACTOR)
    staff.force_login(staff.user)  # the change of rights ended the session
    assert shown(staff, "tenants/partnertenant") == {"Ours", "Theirs"}


@pytest.mark.req("S-48")
def test_a_team_without_a_limit_sees_nothing(two: Two) -> None:
    team = europe(two)
    team.limits.all().delete()
    assert shown(member(team), "tenants/partnertenant") == set()


def test_who_is_in_no_team_costs_no_statement_more(two: Two) -> None:
    team = europe(two)
    counts = []
    for staff in (member(None), member(team)):
        staff.get("/admin/tenants/partnertenant/")
        with CaptureQueriesContext(connection) as queries:
            staff.get("/admin/tenants/partnertenant/")
        counts.append(len(asked(queries)))
        if not counts[1:]:
            assert not any("portal_team" in one["sql"] for one in queries)
    unlimited, limited = counts
    assert limited == unlimited + 2  # the limits, and the keys of the partners for the number of incidents


@pytest.mark.req("S-48")
def test_each_list_is_declared_so_that_nothing_is_shown_by_oversight() -> None:
    listed = {model._meta.label_lower for model in admin.site._registry}
    assert listed == set(sights())
    found = {kind.model for extension in extensions() for kind in extension.searchable}
    assert {model._meta.label_lower for model in found} <= set(sights())
    person = User.objects.create_user("ben")
    person.limits_of_teams = None  # type: ignore[attr-defined]
    assert visible(User.objects.all(), limits_of(person)).exists()


@pytest.mark.req("S-48")
def test_nobody_leaves_a_team_by_himself_and_a_security_administrator_is_in_none(two: Two) -> None:
    team = europe(two)
    giver, other = member(None, Role.SECURITY), member(team, Role.VIEWER).user
    actor = acting(giver)
    with pytest.raises(RoleRefused, match="Nobody changes their own"):
        teams.put_into(giver.user, [team], actor=actor)
    with pytest.raises(RoleRefused, match="take the person out"):
        grant(other, [Role.SECURITY], actor=actor)
    assert teams.put_into(other, [], actor=actor)
    assert grant(other, [Role.SECURITY], actor=actor, approved=decisions.approval())
    with pytest.raises(RoleRefused, match="is in no team"):
        teams.put_into(other, [team], actor=actor)


@pytest.mark.req("S-48", "S-50")
def test_a_member_of_a_team_neither_asks_for_nor_decides_about_what_the_team_does_not_see(two: Two) -> None:
    staff, boss = member(europe(two), Role.OPERATOR), account("boss")
    user = staff.user
    own, other = (
        [one.pk for one in CustomerConsent.objects.filter(customer__partner=of)] for of in (two.own, two.other)
    )
    for consents in (other, own + other):
        with pytest.raises(Forbidden, match="your teams do not see"):
            service.ask(REMOVE, removal_of(consents), why="x", actor=acting(staff), account=user)
        of_boss, _ = service.ask(REMOVE, removal_of(consents), why="x", actor=builders.ACTOR)
        with pytest.raises(DecisionRefused, match="your teams do not see"):
            service.approve(of_boss, person=person(user))
        service.refuse(of_boss, person=person(boss), answer="no")
    with pytest.raises(Forbidden):  # what concerns everybody is nothing for a team
        service.ask(replace(RETIRE_KEY, permission=REMOVE.permission), {}, why="x", actor=acting(staff), account=user)

    decision, _ = service.ask(REMOVE, removal_of(own), why="x", actor=acting(staff), account=user)

    assert shown(staff, "decisions/decision") == {decision.what}
    denied = AuditEvent.objects.filter(action="right.refused", actor=user.username)
    assert denied.latest("sequence").details == {"needed": ["sight of retire_vault_key"]}


def test_a_team_is_made_changed_and_joined_by_its_pages(two: Two) -> None:
    staff = member(None, Role.SECURITY)
    refused = staff.post("/admin/portal/team/add/", {"name": "South"})
    assert "Choose at least one" in refused.content.decode()
    staff.post("/admin/portal/team/add/", {"name": "South", "tag": [two.tag.pk]})
    team = Team.objects.get(group__name="South")
    staff.post(f"/admin/portal/team/{team.pk}/change/", {"registration": [two.registration.pk]})
    assert list(team.limits.values_list("kind", "key")) == [("registration", two.registration.pk)]
    assert "South" in staff.get("/admin/portal/team/").content.decode()
    other = User.objects.create_user("eve", is_staff=True)
    done = staff.confirm(staff.get(f"/admin/auth/user/{other.pk}/teams/"), teams=[team.pk])
    assert "The teams are changed." in told(done)
    assert other.groups.get() == team.group
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {"team.created", "team.changed", "staff.teams_changed"} <= actions


def test_a_partner_that_a_member_adds_carries_a_tag_of_the_team(two: Two) -> None:
    other = PartnerTag.objects.create(name="Asia")
    two.own.tags.add(other)
    staff = member(europe(two))
    form: dict[str, Any] = {
        "name": "New", "tenant_id": builders.guid(), "cloud": "global", "kind": "direct",
        "contacts-TOTAL_FORMS": 0, "contacts-INITIAL_FORMS": 0,
    }  # fmt: skip
    assert staff.post("/admin/tenants/partnertenant/add/", form).status_code == 200
    assert staff.post("/admin/tenants/partnertenant/add/", {**form, "tags": [other.pk]}).status_code == 200
    assert not PartnerTenant.objects.filter(name="New").exists()
    assert staff.post("/admin/tenants/partnertenant/add/", {**form, "tags": [two.tag.pk]}).status_code == 302
    edited = {**form, "name": "Still ours", "tags": []}
    assert staff.post(f"/admin/tenants/partnertenant/{two.own.pk}/change/", edited).status_code == 302
    assert set(two.own.tags.all()) == {two.tag, other}, "tags of other teams stay"
