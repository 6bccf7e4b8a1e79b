"""A partner's page: its next step with buttons that a person may use, and tabs with addresses of their own.

Covers: consent.admin.buttons, consent.admin.news, consent.admin.partner_cards, consent.admin.partner_head,
consent.admin.partner_requests, portal.site.shown.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentLink, ConsentPlan, PartnerConsent
from consent.tokens import health
from portal.audit.trail import record
from portal.incidents.models import Incident
from portal.runs.executor import Executor
from portal.runs.models import Run
from tenants.models import GdapRelationship, PartnerTag, PartnerTenant
from tests.support import builders, fleet
from tests.support.connected import connect
from tests.support.portal import Portal
from tests.support.staff import Staff, told

NO_CONTACTS = {"contacts-TOTAL_FORMS": 0, "contacts-INITIAL_FORMS": 0}
TABS = ("change", "connection", "customers", "gdap", "activity", "audit", "details")


def address(partner: PartnerTenant, tab: str = "change") -> str:
    return reverse(f"admin:tenants_partnertenant_{tab}", args=[partner.pk])


def text_of(staff: Staff, partner: PartnerTenant, tab: str = "change") -> str:
    page = staff.get(address(partner, tab))
    assert page.status_code == 200, tab
    return str(page.content.decode())


def ask(staff: Staff, partner: PartnerTenant, action: str, **fields: object) -> Any:
    return staff.post(reverse("admin:tenants_partnertenant_ask", args=[partner.pk, action]), fields, follow=True)


@pytest.fixture
def registration(db: None) -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All")
    return made


@pytest.fixture
def partner(registration: ApplicationRegistration) -> PartnerTenant:
    made = builders.partner(name="Harbour <b>Managed</b>", customers_synced_at=timezone.now())
    made.tags.add(PartnerTag.objects.create(name="gold"))
    return made


def fill(partner: PartnerTenant, registration: ApplicationRegistration) -> PartnerConsent:
    """Give a partner one of everything that its tabs show."""
    checks = [{"check": "tenant", "state": "passed"}]
    consent = builders.consent(partner, registration, checks=checks, last_class="ok", last_success_at=timezone.now())
    links.issue(partner, registration, actor=builders.ACTOR)
    ready = builders.customer(partner, readiness="ready")
    blocked = builders.customer(partner, readiness="not_ready", readiness_owner="partner", readiness_reason="No role.")
    builders.customer_consent(ready, registration, "User.Read.All")
    seen = {"first_seen_at": timezone.now(), "last_seen_at": timezone.now()}
    GdapRelationship.objects.create(
        partner=partner, customer=blocked, relationship_id="one", display_name="Support", status="active",
        roles=["88d8e3e3-8f55-4a1e-953a-9b9898b8876b"], **seen,
    )  # fmt: skip
    run = Run.objects.create(
        kind="token_check", scope_hash=builders.guid(), actor_kind="staff", actor="anna", state="done",
        finished_at=timezone.now(), total=1,
    )  # fmt: skip
    run.items.create(
        key=consent.pk, group=partner.pk, label="x", turn=0, state="done", failure_class="ok",
        finished_at=timezone.now(), correlation_id=builders.guid(),
    )  # fmt: skip
    plan = registration.plans.create(purpose="remove", created_by="anna")
    plan.items.create(customer=ready, action="remove")
    record("partner.changed", actor=builders.ACTOR, subject={"partner": partner.pk})
    health.watch()
    return consent


def test_every_tab_has_an_address_and_names_the_partner_its_state_and_its_step(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    fill(partner, registration)
    staff = Staff()
    for tab in TABS:
        text = text_of(staff, partner, tab)
        assert "<h1>Harbour &lt;b&gt;Managed&lt;/b&gt;</h1>" in text, tab
        assert "Connected</span>" in text, tab
        assert "1 customer is not ready for consent." in text, tab
        assert f'href="{address(partner, tab)}" aria-current="page"' in text, tab
        assert partner.tenant_id in text
        assert "gold" in text


@pytest.mark.parametrize(
    ("tab", "words"),
    [
        ("change", ["Example Control Panel", "90 days without renewal", "Token check: OK", "Check now", "Renew now"]),
        ("connection", ["The account belongs to the partner&#x27;s tenant", "User.Read.All", "Read the profiles",
                        "the first end", "Version 1 of the token was stored", "was made"]),
        ("customers", ["Customer", "Plan consent", "Not ready"]),
        ("gdap", ["here it is broken", "Directory Readers", "Support", "Roles cannot be added"]),
        ("activity", ["Token check: OK", "Plan", "The partner was in no campaign."]),
        ("audit", ["partner.changed"]),
        ("details", ["Tenant id", 'name="notes"']),
    ],
)  # fmt: skip
def test_each_tab_shows_what_it_is_for(
    partner: PartnerTenant, registration: ApplicationRegistration, tab: str, words: list[str]
) -> None:
    fill(partner, registration)
    text = text_of(Staff(), partner, tab)
    for word in words:
        assert word in text, word


def test_the_tab_of_customers_names_its_partner_in_no_row_and_offers_no_other(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    fill(partner, registration)
    builders.customer(builders.partner(name="Alder"))
    staff = Staff()
    tab = staff.get(address(partner, "customers"))
    everywhere = staff.get(reverse("admin:tenants_customertenant_changelist"))
    assert 'class="field-partner' in everywhere.content.decode()
    assert 'class="field-partner' not in tab.content.decode()
    assert any("partner__id__exact" in one.expected_parameters() for one in everywhere.context["cl"].filter_specs)
    assert not any("partner__id__exact" in one.expected_parameters() for one in tab.context["cl"].filter_specs)
    assert 'name="column" value="partner" checked' in tab.content.decode()  # what is kept there is kept for all lists


def test_the_customers_and_events_of_others_are_not_in_the_tabs(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    other = builders.partner(name="Alder")
    builders.customer(other, company_name="Coral Optics")
    record("partner.enabled", actor=builders.ACTOR, subject={"partner": other.pk})
    staff = Staff()
    foreign = address(partner, "customers") + f"?partner__id__exact={other.pk}"
    assert "Coral Optics" not in staff.get(foreign).content.decode()
    assert staff.get(address(partner, "audit")).context["cl"].result_count == 0
    assert staff.get(address(other, "audit")).context["cl"].result_count == 1


def test_the_filter_that_a_tab_is_cannot_be_taken_away(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    fill(partner, registration)
    staff = Staff()
    for tab, kept in (("customers", "readiness__exact=ready"), ("audit", "outcome__exact=done")):
        changes = staff.get(address(partner, tab)).context["cl"]
        assert not {"partner", "about"} & {spec.title for spec in changes.filter_specs}, tab
        assert not changes.has_active_filters, tab
        assert staff.get(f"{address(partner, tab)}?{kept}").context["cl"].has_active_filters, tab


def test_actions_on_customers_work_inside_the_tab(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    fill(partner, registration)
    keys = list(partner.customers.values_list("pk", flat=True))
    path = address(partner, "customers")
    staff = Staff()
    page = staff.post(path, {"action": "plan_consent_of_customers", "_selected_action": keys, "index": 0})
    assert "Make the plan" in page.content.decode()
    made = staff.confirm(page, registration=registration.pk)
    assert made.redirect_chain[-1][0].startswith("/admin/consent/consentplan/")


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_costs_the_same_for_any_number_of_rows(
    partner: PartnerTenant, registration: ApplicationRegistration, tab: str, django_assert_num_queries: Any
) -> None:
    fill(partner, registration)
    staff = Staff()
    text_of(staff, partner, tab)
    with CaptureQueriesContext(connection) as few:
        text_of(staff, partner, tab)
    for number in range(3):
        other = builders.registration(name=f"Product {number}")
        builders.grant(other, "User.Read.All")
        fill_more(partner, other, number)
    with django_assert_num_queries(len(few)):
        text_of(staff, partner, tab)
    assert len(few) <= 38


def fill_more(partner: PartnerTenant, registration: ApplicationRegistration, number: int) -> None:
    consent = builders.consent(partner, registration, last_class="ok", last_success_at=timezone.now())
    links.issue(partner, registration, actor=builders.ACTOR)
    blocked = builders.customer(partner, readiness="not_ready", readiness_owner="partner", readiness_reason="No role.")
    builders.customer_consent(blocked, registration, "User.Read.All")
    seen = {"first_seen_at": timezone.now(), "last_seen_at": timezone.now()}
    GdapRelationship.objects.create(
        partner=partner, customer=blocked, relationship_id=f"more{number}", status="active", **seen
    )
    run = Run.objects.create(
        kind="token_check", scope_hash=builders.guid(), actor_kind="staff", actor="anna", state="done",
        finished_at=timezone.now(), total=1,
    )  # fmt: skip
    run.items.create(
        key=consent.pk, group=partner.pk, label="x", turn=0, state="done", failure_class="ok",
        finished_at=timezone.now(), correlation_id=builders.guid(),
    )  # fmt: skip
    record("partner.changed", actor=builders.ACTOR, subject={"partner": partner.pk})


# --- what a person may ----------------------------------------------------------------------------------------------


def test_what_a_person_may_not_do_is_not_offered_and_not_done(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    fill(partner, registration)
    staff = Staff("tenants.view_partnertenant")
    text = text_of(staff, partner)
    for word in ("Check now", "Renew now", "Synchronise", "Invite again", "Connection</a>", "Audit</a>"):
        assert word not in text, word
    for tab in ("connection", "customers", "gdap", "activity", "audit", "live"):
        assert staff.get(address(partner, tab)).status_code == 403, tab
    for action in ("check", "renew", "synchronise", "plan"):
        assert ask(staff, partner, action).status_code == 403, action
    assert not Run.objects.filter(state="open").exists()
    assert not ConsentPlan.objects.filter(purpose="apply").exists()
    assert Staff("tenants.view_customertenant").get(address(partner)).status_code == 403


def test_a_partner_that_is_not_there_and_an_unknown_action_are_answered_as_such(partner: PartnerTenant) -> None:
    staff = Staff()
    assert staff.get("/admin/tenants/partnertenant/999/change/").status_code == 302
    assert staff.get("/admin/tenants/partnertenant/999/gdap/").status_code == 404
    assert ask(staff, partner, "approve").status_code == 404
    assert staff.get(reverse("admin:tenants_partnertenant_ask", args=[partner.pk, "check"])).status_code == 405


# --- jobs -----------------------------------------------------------------------------------------------------------


def test_a_saved_partner_is_offered_its_link_with_the_registration_chosen(
    registration: ApplicationRegistration,
) -> None:
    staff = Staff()
    form = {"name": "Contoso", "tenant_id": builders.guid(), "cloud": "global", "kind": "direct", **NO_CONTACTS}
    page = staff.post(reverse("admin:tenants_partnertenant_add"), form, follow=True)
    partner = PartnerTenant.objects.get(name="Contoso")
    assert page.redirect_chain[-1][0] == address(partner)
    text = page.content.decode()
    assert '<details class="ask-link" open>' in text
    assert f'name="registration" value="{registration.pk}"' in text
    assert f'name="partner" value="{partner.pk}"' in text

    issued = staff.post(
        reverse("admin:consent_consentlink_add"),
        {"partner": partner.pk, "registration": registration.pk, "kind": "sign_in", "days": 14},
    )
    assert "/consent/" in issued.context["address"]
    assert ConsentLink.objects.get().partner == partner


def test_a_broken_partner_says_why_and_offers_a_new_link_in_place(portal: Portal) -> None:
    partner = fleet.connected(portal, "harbour", "Harbour")
    fleet.revoke(portal, partner)
    fleet.check(partner)
    text = text_of(Staff(), partner)
    assert "The partner must consent again." in text
    assert "Who must act: <strong>The partner</strong>" in text
    assert '<details class="ask-link">' in text
    assert "Invite again" in text


def test_one_press_checks_a_token_and_the_page_says_the_answer_without_a_script(portal: Portal) -> None:
    [consent] = connect(portal, 1)
    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    staff = Staff()
    page = ask(staff, consent.partner, "check", registration=portal.registration.pk)
    assert told(page) == "The check was left to the workers."
    text = page.content.decode()
    assert "is under way: no worker took it yet" in text
    assert "data-poll=" in text
    live = reverse("admin:tenants_partnertenant_live", args=[consent.partner_id])
    assert "data-poll=" in staff.get(live).content.decode()

    Executor(Run.objects.get()).work()
    fragment = staff.get(live).content.decode()
    assert "Checked just now: the token works." in fragment
    assert "data-poll=" not in fragment
    assert "Checked just now: the token works." in text_of(staff, consent.partner)
    assert told(ask(staff, consent.partner, "check")) == "The check was left to the workers."
    assert told(ask(staff, consent.partner, "check")) == "The check is under way already."


def test_an_answer_that_changes_the_step_has_the_whole_page_come_again(portal: Portal) -> None:
    [consent] = connect(portal, 1)
    staff = Staff()
    page = ask(staff, consent.partner, "check")
    poll = page.context["live"]["address"]
    fleet.take_role(portal, consent.partner)
    Executor(Run.objects.get()).work()
    assert staff.get(poll).status_code == 205
    assert "Checked just now:" in text_of(staff, consent.partner)


def test_renewing_synchronising_and_planning_lead_to_what_they_began(portal: Portal) -> None:
    portal.connect()
    partner, staff = portal.partner, Staff()
    assert told(ask(staff, partner, "renew")) == "The renewal was left to the workers."
    page = ask(staff, partner, "synchronise")
    assert page.redirect_chain[-1][0] == reverse("admin:runs_run_change", args=[Run.objects.latest("pk").pk])
    builders.customer(partner)
    page = ask(staff, partner, "plan")
    assert page.redirect_chain[-1][0] == reverse(
        "admin:consent_consentplan_change", args=[ConsentPlan.objects.get().pk]
    )


def test_what_cannot_be_done_says_why(partner: PartnerTenant) -> None:
    staff = Staff()
    assert told(ask(staff, partner, "check")).startswith("Nothing was begun")
    assert "no usable token" in told(ask(staff, partner, "synchronise"))
    assert told(ask(staff, partner, "plan")).startswith("Say for which application to plan (none)")


def test_open_incidents_of_the_partner_stand_on_its_page(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    now = timezone.now()
    for one, words in ((partner, "Its token is refused."), (builders.partner(), "Another one.")):
        Incident.objects.create(
            cause="token_needs_consent", about=f"consent:{one.pk}", owner="partner", words=words,
            subject={"partner": one.pk}, first_seen_at=now, last_seen_at=now,
        )  # fmt: skip
    text = text_of(Staff(), partner)
    assert "Its token is refused." in text
    assert "Another one." not in text


def test_details_save_and_lead_back_to_the_page(partner: PartnerTenant) -> None:
    staff = Staff()
    form = {"name": "Harbour", "kind": "direct", "notes": "Call first.", **NO_CONTACTS}
    page = staff.post(address(partner, "details"), form, follow=True)
    assert page.redirect_chain[-1][0] == address(partner)
    partner.refresh_from_db()
    assert (partner.name, partner.notes) == ("Harbour", "Call first.")
