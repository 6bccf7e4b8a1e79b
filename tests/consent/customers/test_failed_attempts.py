"""What failed stands on the customer: on its row, on the lists, on its page and in the exports, until it works.

Covers: consent.customers.attempts.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from consent.models import CustomerConsent
from consent.runs.verify import CONSENT_VERIFY
from tenants.models import CustomerTenant
from tests.sandbox.world import DIRECTORY_READERS
from tests.support import custody, customer_tenants, fleet
from tests.support.plans import apply, fault, first_customers, plan_for, refuse_posts
from tests.support.portal import Portal
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db

CUSTOMERS, CONSENTS = "tenants_customertenant", "consent_customerconsent"
CANNOT = "The partner's token cannot serve its customers."


def refuse_deletes(portal: Portal, times: int = 1) -> None:
    fault(
        portal,
        service="partnercenter",
        method="DELETE",
        path="applicationconsents",
        status=403,
        body="{}",
        times=times,
    )


def exported(staff: Staff, model: str, key: int) -> dict[str, str]:
    content = b"".join(staff.choose(model, "export_csv", key).streaming_content).decode()
    return next(csv.DictReader(content.lstrip("\ufeff").splitlines()))


def pages(staff: Staff, customer: CustomerTenant) -> list[str]:
    """Return what the list of customers, the customer's page, the list of consents and the consent's page say."""
    addresses = [
        "/admin/tenants/customertenant/",
        f"/admin/tenants/customertenant/{customer.pk}/change/",
        "/admin/consent/customerconsent/?finding=failed",
        f"/admin/consent/customerconsent/{customer_tenants.consent_of(customer).pk}/change/",
    ]
    answers = [staff.get(address) for address in addresses]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.content.decode().replace("&#x27;", "'") for answer in answers]


def push(customer: CustomerTenant, portal: Portal) -> None:
    customer_tenants.push(portal, customer)


def remove(customer: CustomerTenant, portal: Portal) -> None:
    customer_tenants.remove({"consents": [customer_tenants.consent_of(customer).pk]})


def verify(customer: CustomerTenant, portal: Portal) -> None:
    customer_tenants.work(CONSENT_VERIFY, {"consents": [customer_tenants.consent_of(customer).pk]}, concurrency=1)


def apply_all(customer: CustomerTenant, portal: Portal) -> None:
    apply(portal, plan_for(portal, customers=[customer.pk]))


Attempt = Callable[[CustomerTenant, Portal], None]


def test_customers_of_a_partner_whose_token_is_dead_say_so_after_the_plan_was_applied(portal: Portal) -> None:
    harbour = fleet.connected(portal, "harbour", "Harbour", 2)
    plan = plan_for(portal)
    fleet.take_role(portal, harbour)

    apply(portal, plan)

    staff = Staff()
    for customer in fleet.customers_of(harbour):  # none of them had a row
        row = customer_tenants.consent_of(customer)
        assert (row.state, row.verified_at, row.failed_what, row.failed_owner) == ("unknown", None, "apply", "partner")
        assert row.failed_reason.startswith(CANNOT)
        assert row.failed_at is not None
        assert timezone.now() - row.failed_at < timedelta(minutes=5)
        assert all(CANNOT in page and "Applying a plan failed" in page for page in pages(staff, customer)[:3])
        line = exported(staff, CUSTOMERS, customer.pk)
        assert line["Why"] == row.failed_reason
        assert (line["Who acts"], line["Consent attempt"]) == ("The partner", "Applying a plan")
        assert line["Consent attempt at"].startswith(f"{row.failed_at:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("attempt", "what", "label"), [(apply_all, "apply", "Applying a plan"), (push, "push", "Push")]
)
def test_what_was_refused_stands_on_the_customer_until_it_works(
    portal: Portal, attempt: Attempt, what: str, label: str
) -> None:
    [customer] = first_customers(portal)
    refuse_posts(portal)

    attempt(customer, portal)

    row, staff = customer_tenants.consent_of(customer), Staff()
    assert (row.failed_what, row.failed_reason, row.failed_owner) == (what, row.reason, row.owner)
    assert row.failed_reason
    assert all(f"{label} failed" in page for page in pages(staff, customer)[:3])
    assert f"{label}: " in pages(staff, customer)[3]
    line = exported(staff, CONSENTS, row.pk)
    assert (line["What failed"], line["Why it failed"], line["Who must act for it to work"]) == (
        label,
        row.reason,
        row.get_failed_owner_display(),
    )
    assert line["Last attempt failed"]

    attempt(customer, portal)

    row = customer_tenants.consent_of(customer)
    assert (row.state, row.failed_at, row.failed_what, row.failed_reason, row.failed_owner) == (
        "granted",
        None,
        "",
        "",
        "",
    )
    assert not any(f"{label} failed" in page for page in pages(staff, customer))


def test_a_removal_that_was_refused_stands_on_the_customer_until_a_read_shows_that_it_is_gone(portal: Portal) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    refuse_deletes(portal)
    remove(customer, portal)
    row, staff = customer_tenants.consent_of(customer), Staff()
    assert (row.state, row.failed_what) == ("granted", "remove")
    assert row.failed_owner
    assert all("Removal failed" in page for page in pages(staff, customer)[:3])

    verify(customer, portal)  # still there: read again, and the removal still failed
    assert customer_tenants.consent_of(customer).failed_what == "remove"
    assert "Removal: " in pages(staff, customer)[3]

    customer_tenants.delete_application(portal, customer)
    verify(customer, portal)
    assert customer_tenants.consent_of(customer).failed_what == ""


def test_a_read_that_shows_what_is_wanted_ends_the_failure(portal: Portal) -> None:
    [customer] = first_customers(portal)
    refuse_posts(portal)
    push(customer, portal)
    assert customer_tenants.consent_of(customer).failed_what == "push"

    custody.consent_directly(portal, customer, set(customer_tenants.WANTED))
    verify(customer, portal)

    assert (customer_tenants.consent_of(customer).state, customer_tenants.consent_of(customer).failed_what) == (
        "granted",
        "",
    )


def test_a_read_that_failed_says_when_why_and_who_on_lists_page_and_export(portal: Portal) -> None:
    customer = customer_tenants.connect_customers(portal, consented=1)[0]
    verify(customer, portal)
    customer_tenants.end_relationship(portal, customer)

    verify(customer, portal)

    row, staff = customer_tenants.consent_of(customer), Staff()
    assert row.unread_since is not None
    assert all("Read failed" in page and row.unread_reason in page for page in pages(staff, customer)[:2])
    line = exported(staff, CUSTOMERS, customer.pk)
    assert (line["Why"], line["Who acts"], line["Consent attempt"]) == (
        row.unread_reason,
        row.get_unread_owner_display(),
        "Read",
    )
    assert line["Consent attempt at"]


def test_the_newest_is_what_the_lists_say(portal: Portal) -> None:
    [customer] = first_customers(portal)
    refuse_posts(portal)
    push(customer, portal)
    verify(customer, portal)  # reads that nothing is there

    assert words() == ("", "The application is not in this tenant.")
    assert customer_tenants.consent_of(customer).failed_what == "push", "the page still tells what failed"
    CustomerConsent.objects.update(failed_at=timezone.now() + timedelta(seconds=1))
    assert words() == ("push", customer_tenants.consent_of(customer).failed_reason)


def words() -> tuple[str, str]:
    rows: Any = CustomerConsent.objects.with_words()
    row = rows.get()
    return row.attempt, row.why


def test_a_fault_on_our_side_is_no_failure_of_a_customer(portal: Portal) -> None:
    first_customers(portal, 3)
    fault(portal, service="partnercenter", status=500, body="{}", times=10_000)

    apply(portal)

    assert not CustomerConsent.objects.filter(failed_at__isnull=False).exists()


def test_a_push_for_a_partner_that_never_connected_says_so(portal: Portal) -> None:
    partner = fleet.add_partner(portal, "newcomer", "Newcomer", 1)
    [customer] = fleet.customers_of(partner)

    push(customer, portal)

    row = customer_tenants.consent_of(customer)
    assert (row.failed_what, row.failed_owner) == ("push", "partner")
    assert row.failed_reason.startswith("Nothing was sent: The partner never connected this application.")


def test_a_customer_that_was_not_ready_says_so_and_forgets_it_when_a_later_plan_works(portal: Portal) -> None:
    [customer] = first_customers(portal)
    one = customer_tenants.relationship(portal, customer)
    kept = [set(assignment.roles) for assignment in one.assignments]
    for assignment in one.assignments:
        assignment.roles = {DIRECTORY_READERS}
    apply_all(customer, portal)
    assert customer_tenants.consent_of(customer).failed_what == "apply"

    for assignment, roles in zip(one.assignments, kept, strict=True):
        assignment.roles = roles
    push(customer, portal)  # another kind of attempt that works settles it as well

    assert customer_tenants.consent_of(customer).failed_what == ""
