"""The pages of customer consents and of offboardings: filtered, exported, decided, each behind its permission.

Covers: consent.admin.customers, consent.admin.offboardings.
"""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.models import ConsentObservation, CustomerConsent, Offboarding
from consent.offboarding import steps
from consent.offboarding.report import check_file
from consent.runs.verify import CONSENT_VERIFY
from portal.audit.models import AuditEvent
from portal.decisions.models import Decision
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.executor import Executor
from portal.runs.models import Run
from portal.site import list_filters, searching
from tenants.models import CustomerTenant
from tests.support import builders, customer_tenants, decisions
from tests.support.portal import Portal
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db(transaction=True)
LIST, READS = "/admin/consent/customerconsent/", "/admin/consent/consentobservation/"
MODEL, PARTNERS = "consent_customerconsent", "tenants_partnertenant"
VIEW = ["consent.view_customerconsent", "consent.view_consentobservation", "runs.view_run"]


@pytest.fixture
def staff() -> Staff:
    return Staff()


def rows(number: int = 1, **columns: Any) -> list[CustomerConsent]:
    of, by = builders.partner(), builders.registration()
    return [
        CustomerConsent.objects.create(customer=builders.customer(of), registration=by, **columns)
        for _ in range(number)
    ]


def listed(staff: Staff, query: str) -> set[int]:
    page = staff.get(f"{LIST}?{query}")
    assert page.status_code == 200
    return {row.pk for row in page.context["cl"].result_list}


# --- customers ------------------------------------------------------------------------------------------------------


def test_the_page_of_a_consent_and_of_a_read_names_services_and_not_their_ids(staff: Staff) -> None:
    consent = builders.customer_consent(builders.customer(builders.partner()), builders.registration(), "User.Read.All")
    read = ConsentObservation.objects.create(
        consent=consent,
        registration=consent.registration,
        observed_at=timezone.now(),
        correlation_id=builders.guid(),
        state="granted",
        grants=[{"id": "a grant", "resource": GRAPH_APPLICATION_ID, "scopes": ["User.Read.All"]}],
    )
    for address in (f"{LIST}{consent.pk}/change/", f"{READS}{read.pk}/change/"):
        text = staff.get(address).content.decode()
        assert "Microsoft Graph: User.Read.All" in text
        assert GRAPH_APPLICATION_ID not in text


def test_findings_are_filtered_by_what_was_found(db: None, staff: Staff) -> None:
    now = timezone.now()
    asked: dict[str, Any] = {"requested_hash": "0" * 64, "requested_at": now}
    [drift] = rows(state="absent", changed_by="outside", verified_at=now)
    [more] = rows(state="differs", changed_by="first", verified_at=now - timedelta(days=20))
    [less] = rows(state="absent", **asked, verified_at=now - timedelta(days=60))
    [unread] = rows(state="unknown", unread_since=now, unread_reason="No relationship.", unread_owner="partner")
    [gone] = rows(state="absent", requested_at=now, changed_by="us", verified_at=now)
    [kept] = rows(state="unknown", requested_at=now, verified_at=now)

    assert listed(staff, "finding=any") == {drift.pk, more.pk, less.pk, unread.pk, kept.pk}
    assert listed(staff, "finding=drift") == {drift.pk}
    assert listed(staff, "finding=more") == {more.pk}
    assert listed(staff, "finding=less") == {drift.pk, less.pk}
    assert listed(staff, "finding=unread") == {unread.pk}
    assert listed(staff, "finding=nonsense") == listed(staff, "") >= {gone.pk}
    assert listed(staff, "evidence=7") == {drift.pk, gone.pk, kept.pk}
    assert listed(staff, "evidence=30") == {drift.pk, gone.pk, kept.pk, more.pk}
    assert listed(staff, "evidence=old") == {less.pk}
    assert listed(staff, "evidence=never") == {unread.pk}
    assert listed(staff, f"customer__partner__id__exact={more.customer.partner_id}") == {more.pk}
    assert listed(staff, "changed_by__exact=outside") == {drift.pk}
    page = staff.get(f"{LIST}?finding=unread").content.decode()
    assert "No relationship." in page
    assert "Read failed" in page


def test_the_history_of_a_customer_says_what_changed_when_and_who_did_it(portal: Portal, staff: Staff) -> None:
    customers = customer_tenants.connect_customers(portal)
    customer_tenants.work(CONSENT_VERIFY, {})
    customer_tenants.change_scopes(portal, customers[0], {"Directory.Read.All", "Mail.Read"})
    customer_tenants.work(CONSENT_VERIFY, {})
    consent = customer_tenants.consent_of(customers[0])

    page = staff.get(f"{LIST}{consent.pk}/change/").content.decode()

    assert "Added Mail.Read; gone User.Read.All" in page
    for words in ("Somebody outside", "First read", consent.service_principal_id):
        assert words in page
    assert f"{READS}?consent__id__exact={consent.pk}" in page
    reads = staff.get(f"{READS}?consent__id__exact={consent.pk}&changed_by__exact=outside")
    assert [row.changed_by for row in reads.context["cl"].result_list] == ["outside"]


def test_findings_and_history_are_exported(portal: Portal, staff: Staff) -> None:
    customers = customer_tenants.connect_customers(portal)
    customer_tenants.work(CONSENT_VERIFY, {})
    customer_tenants.change_scopes(portal, customers[0], {"Directory.Read.All"})
    customer_tenants.work(CONSENT_VERIFY, {})

    found = exported(staff, MODEL, customer_tenants.consent_of(customers[0]).pk)
    assert [(one["State"], one["Changed by"]) for one in found] == [("Partly granted", "Somebody outside")]
    history = exported(staff, "consent_consentobservation", *ConsentObservation.objects.values_list("pk", flat=True))
    assert len(history) == 4, "two customers were as before"
    assert {one["Changed by"] for one in history} == {"First read", "Somebody outside"}


def exported(staff: Staff, model: str, *keys: int) -> list[dict[str, str]]:
    answer = staff.choose(model, "export_csv", *keys)
    content = b"".join(answer.streaming_content).decode()
    return list(csv.DictReader(content.lstrip("\ufeff").splitlines()))


def test_lists_cost_the_same_for_two_rows_and_forty(db: None, staff: Staff) -> None:
    def cost(path: str) -> int:
        staff.get(path)
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(path).status_code == 200
        return len(queries)

    def more(number: int) -> None:
        for one in rows(number, state="differs", verified_at=timezone.now()):
            one.observations.create(
                registration=one.registration, observed_at=timezone.now(), state="differs", correlation_id=""
            )
            Offboarding.objects.create(partner=builders.partner(), started_by="somebody")

    paths = [f"{LIST}?finding=any", f"{READS}?state__exact=differs", "/admin/consent/offboarding/"]
    more(2)
    few = [cost(path) for path in paths]
    more(40)
    assert [cost(path) for path in paths] == few
    assert max(few) <= 15


def test_chosen_customers_are_read_again_by_the_workers(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    keys = [customer_tenants.consent_of(customer).pk for customer in customers[:2]]
    staff = Staff(*VIEW, "consent.verify_customerconsent")

    asked = staff.choose(MODEL, "verify_now", *keys)
    assert "in 2 customer tenants" in asked.content.decode()
    assert not Run.objects.filter(kind="consent_verify").exists()

    staff.confirm(asked)

    run = Run.objects.get(kind="consent_verify")
    assert (run.scope, run.actor) == ({"consents": sorted(keys)}, staff.user.username)
    Executor(run).work()
    assert CustomerConsent.objects.filter(state="granted").count() == 2


def test_removing_from_chosen_customers_names_their_number_and_the_consequence(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    keys = [customer_tenants.consent_of(customer).pk for customer in customers[:2]]
    staff = Staff(*VIEW, "consent.remove_customerconsent")

    page = staff.choose(MODEL, "remove_consents", *keys)
    what = "our application is deleted with all grants: Example Control Panel in 2 customer tenants."
    assert f"In 2 customer tenants {what}" in page.content.decode()
    asked = staff.confirm(page, why="The contract ended.")
    assert not Run.objects.exists()
    assert "nothing was done yet" in told(asked)
    decisions.approve()

    run = Run.objects.get(kind="apply_plan")
    assert run.actor == staff.user.username
    Executor(run).work()
    assert [bool(customer_tenants.holds(portal, customer)) for customer in customers] == [False, False, True]
    again = staff.confirm(page, why="The contract ended.")
    assert "already done" in told(again)
    assert Run.objects.count() == 1


def test_without_the_permission_there_is_no_such_action(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    staff = Staff(*VIEW)
    for action in ("verify_now", "remove_consents"):
        staff.choose(MODEL, action, customer_tenants.consent_of(customers[0]).pk)
    assert not Run.objects.exists()


def test_customers_of_a_disabled_partner_are_not_removed(portal: Portal, staff: Staff) -> None:
    customers = customer_tenants.connect_customers(portal)
    type(portal.partner).objects.update(switch="disabled")

    staff.choose(MODEL, "remove_consents", customer_tenants.consent_of(customers[0]).pk)

    assert "disabled or offboarded" in told(staff.get(LIST))
    assert not Run.objects.exists()


# --- offboarding ----------------------------------------------------------------------------------------------------


@pytest.fixture
def customers(portal: Portal) -> list[CustomerTenant]:
    return customer_tenants.connect_customers(portal)


def begin(portal: Portal, staff: Staff) -> Any:
    page = staff.choose(PARTNERS, "offboard_partners", portal.partner.pk)
    assert "removed in 3 customer tenants" in page.content.decode()
    asked = staff.confirm(page, typed_name=portal.partner.name, why="The contract ended.")
    assert not Offboarding.objects.exists()
    decisions.approve()
    return asked


def test_a_partner_is_offboarded_after_its_name_was_typed_which_stands_on_the_page(
    portal: Portal, staff: Staff, customers: list[CustomerTenant]
) -> None:
    page = staff.choose(PARTNERS, "offboard_partners", portal.partner.pk)
    shown = page.content.decode()
    assert f"Type {portal.partner.name}, so that" in shown
    assert portal.partner.tenant_id in shown
    for wrong in ("", "nonsense", portal.partner.name[:-1]):
        page = staff.confirm(page, typed_name=wrong, why="The contract ended.")
    page = staff.confirm(page, typed_name=portal.partner.name, why=" ")
    assert not Decision.objects.exists()

    asked = staff.confirm(page, typed_name=f" {portal.partner.name.upper()} ", why="The contract ended.")
    decision = Decision.objects.get()
    assert asked.request["PATH_INFO"] == f"/admin/decisions/decision/{decision.pk}/change/"
    assert "3 customer tenants (Example Control Panel)" in asked.content.decode()
    assert not Offboarding.objects.exists()
    decisions.approve()

    one = Offboarding.objects.select_related("run").get()
    assert one.started_by == staff.user.username
    started = AuditEvent.objects.get(action="partner.offboarding_started")
    assert started.details == {"decision": decision.pk, "approved_by": "second-person", "way": "second"}
    ended = staff.get(f"/admin/consent/offboarding/{one.pk}/change/")
    assert "Removing from customers" in ended.content.decode()
    assert "Being offboarded" in staff.get("/admin/tenants/partnertenant/").content.decode()
    assert one.run is not None
    Executor(one.run).work()
    steps.advance(one, actor=builders.ACTOR)

    shown = staff.get(f"/admin/consent/offboarding/{one.pk}/change/").content.decode()
    for words in (
        "The seal fits",
        "The sign-in service knows no consent",
        "deleted and purged",
        "Revoke sessions",
    ):
        assert words in shown
    for customer in customers:
        assert customer.tenant_id in shown


def test_what_waits_is_tried_again_or_finished_by_somebody_who_may(
    portal: Portal, staff: Staff, customers: list[CustomerTenant]
) -> None:
    customer_tenants.end_relationship(portal, customers[0])
    begin(portal, staff)
    one = Offboarding.objects.select_related("run").get()
    address = f"/admin/consent/offboarding/{one.pk}"
    assert "Nothing waits" in told(staff.get(f"{address}/finish/", follow=True))

    def offered() -> tuple[list[str], str]:
        page = staff.get(f"{address}/change/")
        return [button.name for button, _ in page.context["buttons"]], page.content.decode()

    assert offered()[0] == []
    assert "Nothing to do: the workers remove our consent" in offered()[1]
    assert one.run is not None
    Executor(one.run).work()
    steps.advance(one, actor=builders.ACTOR)
    assert offered()[0] == ["try_again", "finish"]
    assert "1 customer is not proven to be without our consent. Look at why" in offered()[1]
    viewer = Staff("consent.view_offboarding")
    assert viewer.get(f"{address}/finish/").status_code in {302, 403}
    assert viewer.get(f"{address}/again/").status_code in {302, 403}
    assert Offboarding.objects.get().state == "waiting"

    staff.confirm(staff.get(f"{address}/again/"))
    one.refresh_from_db()
    assert (one.state, Run.objects.count()) == ("removing", 2)
    Executor(Run.objects.latest("pk")).work()
    steps.advance(one, actor=builders.ACTOR)

    asked = staff.confirm(staff.get(f"{address}/finish/"), why="They will not answer.")
    assert "Another person decides" in told(asked)
    assert customers[0].company_name in asked.content.decode()
    one.refresh_from_db()
    assert one.state == "waiting"
    decisions.approve()
    steps.advance(one, actor=builders.ACTOR)
    one.refresh_from_db()
    assert (one.state, one.remaining, one.decided_by) == ("done", 1, staff.user.username)
    assert "No active GDAP relationship" in offered()[1]
    assert offered()[0] == ["download"]


def test_the_report_is_downloaded_as_it_was_sealed(
    portal: Portal, staff: Staff, customers: list[CustomerTenant]
) -> None:
    begin(portal, staff)
    one = Offboarding.objects.select_related("run").get()
    address = f"/admin/consent/offboarding/{one.pk}/report/"
    assert "no report yet" in told(staff.get(address, follow=True))
    assert one.run is not None
    Executor(one.run).work()
    steps.advance(one, actor=builders.ACTOR)

    answer = staff.get(address)

    assert answer["Content-Disposition"].startswith("attachment")
    assert check_file(answer.content.decode()).genuine
    assert json.loads(answer.content)["report"]["counts"]["proven_absent"] == 3
    assert AuditEvent.objects.filter(action="offboarding.report_downloaded").count() == 1


def test_a_report_that_was_changed_in_the_database_is_shown_as_such(
    portal: Portal, staff: Staff, customers: list[CustomerTenant]
) -> None:
    begin(portal, staff)
    one = Offboarding.objects.select_related("run").get()
    assert one.run is not None
    Executor(one.run).work()
    one = steps.advance(one, actor=builders.ACTOR)
    Offboarding.objects.update(report=one.report.replace('"proven_absent":true', '"proven_absent":false', 1))

    assert "The seal does not fit" in staff.get(f"/admin/consent/offboarding/{one.pk}/change/").content.decode()


def test_one_partner_at_a_time_and_only_by_somebody_who_may(portal: Portal, staff: Staff) -> None:
    other = builders.partner()
    staff.choose(PARTNERS, "offboard_partners", portal.partner.pk, other.pk)
    assert "Choose one partner" in told(staff.get("/admin/tenants/partnertenant/"))
    viewer = Staff("tenants.view_partnertenant")
    viewer.choose(PARTNERS, "offboard_partners", portal.partner.pk)
    assert b"offboard_partners" not in viewer.get("/admin/tenants/partnertenant/").content
    assert not Offboarding.objects.exists()


@pytest.mark.req("R-29")
@pytest.mark.parametrize("most", [0, 50_000])
def test_the_same_rows_are_found_where_few_are_found_first_and_where_many_are_met_in_order(
    staff: Staff, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(searching, "FEW_ROWS", most)
    monkeypatch.setattr(list_filters, "FEW_ROWS", most)
    old = timezone.now() - timedelta(days=40)
    granted, absent, other = rows(state="absent") + rows(state="absent") + rows(state="absent")
    CustomerConsent.objects.filter(pk=granted.pk).update(
        state="granted", verified_at=timezone.now(), service_principal_id=builders.guid(), changed_by="us"
    )
    [failed] = rows(state="failed", verified_at=old, failed_at=timezone.now(), failed_what="apply", failed_owner="us")
    CustomerTenant.objects.filter(pk=other.customer_id).update(missing_since=timezone.now())
    for one in (granted, absent, other):
        ConsentObservation.objects.create(
            consent=one, registration=one.registration, observed_at=timezone.now(), correlation_id=builders.guid()
        )

    def found(model: type[CustomerConsent] | type[ConsentObservation], path: str, **query: Any) -> set[int]:
        request: Any = RequestFactory().get(path, query)
        request.user = staff.user
        return {row.pk for row in admin.site.get_model_admin(model).get_changelist_instance(request).result_list}

    listed, gone = ({"customer__missing_since__isempty": word} for word in "10")
    assert found(CustomerConsent, LIST, state__exact="granted") == {granted.pk}
    assert found(CustomerConsent, LIST, state__exact="absent") == {absent.pk, other.pk}
    assert found(CustomerConsent, LIST, state__exact="absent", **listed) == {absent.pk}
    assert found(CustomerConsent, LIST, **gone) == {other.pk}
    assert found(CustomerConsent, LIST, evidence="7") == {granted.pk}
    assert found(CustomerConsent, LIST, evidence="never") == {absent.pk, other.pk}
    assert found(CustomerConsent, LIST, finding="any") == {failed.pk}
    assert found(CustomerConsent, LIST, finding="drift") == set()
    assert found(CustomerConsent, LIST, who="us") == {failed.pk}
    assert found(CustomerConsent, LIST, changed_by__exact="us") == {granted.pk}
    assert found(CustomerConsent, LIST, registration__id__exact=str(granted.registration_id)) == {granted.pk}
    assert found(CustomerConsent, LIST, registration__named=granted.registration.name) == {
        one.pk for one in (granted, absent, other, failed)
    }
    assert found(CustomerConsent, LIST, q=absent.customer.company_name.lower()) == {absent.pk}
    assert found(CustomerConsent, LIST, q="nowhere") == set()
    read = ConsentObservation.objects.get(consent=absent).pk
    assert found(ConsentObservation, READS, q=absent.customer.domain) == {read}
    of_one = {"registration__id__exact": str(absent.registration_id)}
    assert found(ConsentObservation, READS, **of_one) == {read}
