"""A customer's page: what is there, why, who acts, what was done, and the buttons that a person may use."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consent.models import ApplicationRegistration, ConsentPlan, CustomerConsent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.models import Run
from tenants.models import CustomerTenant, GdapRelationship
from tests.support import builders
from tests.support.staff import Staff, told


@pytest.fixture
def registration(db: None) -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All", "Directory.Read.All")
    return made


@pytest.fixture
def customer(registration: ApplicationRegistration) -> CustomerTenant:
    partner = builders.partner(name="Northwind Cloud", customers_synced_at=timezone.now())
    builders.consent(partner, registration, last_class="ok", last_success_at=timezone.now())
    made = builders.customer(partner, company_name="Coral <i>Optics</i>", readiness="not_ready",
                             readiness_owner="partner", readiness_reason="No role.")  # fmt: skip
    seen = {"first_seen_at": timezone.now(), "last_seen_at": timezone.now()}
    GdapRelationship.objects.create(
        partner=partner, customer=made, relationship_id="one", display_name="Support", status="active",
        roles=["88d8e3e3-8f55-4a1e-953a-9b9898b8876b"], **seen,
    )  # fmt: skip
    return made


def page_of(staff: Staff, customer: CustomerTenant) -> Any:
    page = staff.get(reverse("admin:tenants_customertenant_change", args=[customer.pk]))
    assert page.status_code == 200
    return page


def ask(staff: Staff, customer: CustomerTenant, action: str, **fields: object) -> Any:
    return staff.post(reverse("admin:tenants_customertenant_ask", args=[customer.pk, action]), fields, follow=True)


def test_the_page_says_what_is_there_against_what_is_wanted_why_and_who_acts(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    other = builders.customer(builders.partner(name="Alder"), tenant_id=customer.tenant_id)
    consent = builders.customer_consent(
        customer, registration, "User.Read.All", state="partial", reason="One is missing.", owner="us"
    )
    consent.observations.create(
        registration=consent.registration,
        observed_at=timezone.now(), state="partial", removed={GRAPH_APPLICATION_ID: ["Directory.Read.All"]},
        changed_by="outside", correlation_id=builders.guid(),
    )  # fmt: skip
    text = page_of(Staff(), customer).content.decode()
    for words in (
        "<h1>Coral &lt;i&gt;Optics&lt;/i&gt;</h1>",
        "Northwind Cloud",
        "Alder",
        reverse("admin:tenants_customertenant_change", args=[other.pk]),
        "The customer is not ready for consent: Role.",
        "Roles cannot be added to a relationship",
        "Who mends it: The partner",
        "Partly granted",
        "One is missing.",
        "Directory.Read.All",
        "Read roles, groups and applications in the directory",
        "Gone Directory.Read.All; somebody outside changed it.",
        "Read in the customer&#x27;s directory",
        consent.service_principal_id,
        "Directory Readers",
        "Read again",
        "Plan consent",
        "Remove",
    ):
        assert words in text, words


def test_a_read_is_asked_for_in_one_press_and_seen_without_a_script(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    staff = Staff()
    page = ask(staff, customer, "read-again")
    assert told(page) == "The read was left to the workers."
    text = page.content.decode()
    assert "is under way: no worker took it yet" in text
    assert "data-poll=" in text
    run = Run.objects.get(kind="consent_verify")
    assert run.scope == {"consents": [CustomerConsent.objects.get().pk]}
    live = reverse("admin:tenants_customertenant_live", args=[customer.pk])
    assert "is under way" in staff.get(live).content.decode()
    Run.objects.update(state="cancelled", finished_at=timezone.now())
    assert "data-poll=" not in staff.get(live).content.decode()


def test_a_plan_for_one_customer_is_one_press_away(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    def led_to(staff: Staff) -> tuple[str, str]:
        """Return the page that the press leads to, and what it shows."""
        page = ask(staff, customer, "plan")
        plan = ConsentPlan.objects.latest("pk")
        assert [item.customer for item in plan.items.all()] == [customer]
        return page.redirect_chain[-1][0].removeprefix(f"/admin/consent/consentplan/{plan.pk}/"), page.content.decode()

    assert led_to(Staff())[0] == "change/"  # it is blocked: there is nothing to apply
    CustomerTenant.objects.update(readiness="ready", judged_at=timezone.now(), company_name="Coral Optics")
    customer.refresh_from_db()
    where, shown = led_to(Staff())
    assert where == "apply/"
    assert "Coral Optics: create" in shown
    planner = Staff("tenants.view_customertenant", "consent.add_consentplan", "consent.view_consentplan")
    assert led_to(planner)[0] == "change/"  # may not apply


def test_what_cannot_be_done_says_why(customer: CustomerTenant, registration: ApplicationRegistration) -> None:
    staff = Staff()
    assert "not active" in told(ask(staff, customer, "plan", registration=9999))
    customer.partner.consents.update(state="disconnected")
    assert "no usable token" in told(ask(staff, customer, "read-again"))
    assert "no usable token" in told(ask(staff, customer, "synchronise"))
    assert "(none)" in told(ask(staff, customer, "plan"))


def test_what_a_person_may_not_do_is_not_offered_and_not_done(
    customer: CustomerTenant, registration: ApplicationRegistration
) -> None:
    builders.customer_consent(customer, registration, "User.Read.All")
    staff = Staff("tenants.view_customertenant")
    text = page_of(staff, customer).content.decode()
    for word in ("Read again", "Plan consent", "Remove", "Partly"):
        assert f">{word}<" not in text, word
    for action in ("read-again", "synchronise", "plan"):
        assert ask(staff, customer, action).status_code == 403, action
    assert ask(Staff(), customer, "check").status_code == 404
    live = reverse("admin:tenants_customertenant_live", args=[customer.pk])
    assert Staff("tenants.view_partnertenant").get(live).status_code == 403
    assert staff.get("/admin/tenants/customertenant/999/change/").status_code == 302


def test_a_page_costs_the_same_for_any_number_of_rows(
    customer: CustomerTenant, registration: ApplicationRegistration, django_assert_num_queries: Any
) -> None:
    builders.customer_consent(customer, registration, "User.Read.All")
    staff = Staff()
    page_of(staff, customer)
    with CaptureQueriesContext(connection) as few:
        page_of(staff, customer)
    for number in range(3):
        other = builders.registration(name=f"Product {number}")
        builders.grant(other, "User.Read.All")
        builders.consent(customer.partner, other)
        consent = builders.customer_consent(customer, other, "User.Read.All")
        consent.observations.create(
            registration=consent.registration,
            observed_at=timezone.now(),
            state="granted",
            correlation_id=builders.guid(),
        )
    with django_assert_num_queries(len(few)):
        page_of(staff, customer)
    assert len(few) <= 25
