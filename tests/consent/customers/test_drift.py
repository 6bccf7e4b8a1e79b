"""Drift: what changed in a customer's tenant, since when, and whether we did it.

Covers: consent.customers.observations.
"""

from __future__ import annotations

from typing import Any

import pytest

from consent.customers import observations
from consent.customers.observations import Change
from consent.grants import Grants
from consent.models import ApplicationGrant, ChangedBy, ConsentObservation, CustomerConsent
from consent.runs.verify import CONSENT_VERIFY
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.incidents.service import close
from portal.incidents.service import report as report_incident
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.runs.models import RunItem
from tenants.models import CustomerTenant
from tests.sandbox.world import Fault
from tests.support import builders, customer_tenants
from tests.support.portal import Portal
from tests.support.units import verify

FEWER = {"Directory.Read.All"}  # without it our token could not read the directory at all
pytestmark = pytest.mark.django_db(transaction=True)


def newest(customer: CustomerTenant) -> ConsentObservation:
    return ConsentObservation.objects.filter(consent__customer=customer).latest("pk")


def look(portal: Portal, customer: CustomerTenant) -> CustomerConsent:
    customer_tenants.read(portal, customer)
    return customer_tenants.consent_of(customer)


def send(portal: Portal, customer: CustomerTenant) -> CustomerConsent:
    customer_tenants.push(portal, customer)
    return customer_tenants.consent_of(customer)


def drift() -> Incident | None:
    return Incident.objects.open().filter(cause="consent_drift").first()


@pytest.fixture
def granted(portal: Portal) -> list[CustomerTenant]:
    """Three customers that hold what we want, read once."""
    customers = customer_tenants.connect_customers(portal)
    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() is None
    return customers


# --- from outside ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-21")
@pytest.mark.parametrize(
    ("scopes", "state", "added", "removed"),
    [
        ({*customer_tenants.WANTED, "Mail.Read"}, "differs", ["Mail.Read"], []),
        ({"Directory.Read.All"}, "partial", [], ["User.Read.All"]),
        ({"Directory.Read.All", "Mail.Read"}, "differs", ["Mail.Read"], ["User.Read.All"]),
    ],
    ids=["extra", "missing", "both"],
)
def test_a_change_from_outside_says_what_since_when_and_that_it_was_not_us(
    portal: Portal,
    granted: list[CustomerTenant],
    scopes: set[str],
    state: str,
    added: list[str],
    removed: list[str],
) -> None:
    before = customer_tenants.consent_of(granted[0]).verified_at
    customer_tenants.change_scopes(portal, granted[0], scopes)

    run = customer_tenants.work(CONSENT_VERIFY, {})

    seen, consent = newest(granted[0]), customer_tenants.consent_of(granted[0])
    assert (seen.changed_by, seen.actor, seen.unchanged_until) == ("outside", "", before)
    assert seen.added == ({GRAPH_APPLICATION_ID: added} if added else {})
    assert seen.removed == ({GRAPH_APPLICATION_ID: removed} if removed else {})
    assert (consent.state, consent.changed_by, consent.changed_at) == (state, "outside", seen.observed_at)
    assert customer_tenants.classes(run) == {state: 1, "ok": 2}
    assert list(CustomerConsent.objects.findings()) == list(CustomerConsent.objects.drifted()) == [consent]
    assert customer_tenants.holds(portal, granted[0]) == scopes, "a finding is shown, never repaired by force"
    assert AuditEvent.objects.filter(details__changed_by="outside").count() == 1


def test_an_application_that_somebody_deleted_is_drift_by_the_sign_in_services_word(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    customer_tenants.delete_application(portal, granted[0])

    customer_tenants.work(CONSENT_VERIFY, {})

    seen = newest(granted[0])
    assert (seen.state, seen.changed_by, seen.evidence) == ("absent", "outside", "sign_in")
    assert seen.removed == {GRAPH_APPLICATION_ID: sorted(customer_tenants.WANTED)}


def test_an_application_that_was_deleted_and_made_again_is_seen_although_its_grants_are_equal(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    tenant = portal.sandbox.world.tenants[granted[0].tenant_id]
    older = customer_tenants.consent_of(granted[0]).service_principal_id
    principal = tenant.principals.pop(older)
    principal.object_id = builders.guid()
    tenant.principals[principal.object_id] = principal
    for grant in tenant.grants.values():
        grant.client = principal.object_id if grant.client == older else grant.client

    customer_tenants.work(CONSENT_VERIFY, {})

    seen = newest(granted[0])
    assert (seen.state, seen.changed_by, seen.added, seen.removed) == ("granted", "outside", {}, {})
    assert drift() is None, "all is as wanted"


def test_an_unchanged_tenant_keeps_the_time_of_its_last_change(portal: Portal, granted: list[CustomerTenant]) -> None:
    customer_tenants.change_scopes(portal, granted[0], FEWER)
    customer_tenants.work(CONSENT_VERIFY, {})
    since = customer_tenants.consent_of(granted[0]).changed_at

    customer_tenants.work(CONSENT_VERIFY, {})

    consent = customer_tenants.consent_of(granted[0])
    assert (consent.changed_at, newest(granted[0]).changed_by) == (since, "outside"), "no row for nothing"
    assert consent.verified_at is not None
    assert since is not None
    assert consent.verified_at > since


def test_extra_scopes_on_the_first_read_are_a_finding_without_anybody_to_blame(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    customer_tenants.change_scopes(portal, customers[0], {*customer_tenants.WANTED, "Directory.ReadWrite.All"})

    customer_tenants.work(CONSENT_VERIFY, {})

    consent = customer_tenants.consent_of(customers[0])
    assert (consent.state, consent.changed_by, consent.owner) == ("differs", "first", "us")
    assert "More than we want: Directory.ReadWrite.All." in consent.reason
    assert list(CustomerConsent.objects.findings()) == [consent]
    assert drift() is None


def test_wanting_something_else_is_no_drift(portal: Portal, granted: list[CustomerTenant]) -> None:
    ApplicationGrant.objects.update(scopes=["User.Read.All", "Directory.Read.All", "Mail.Read"])

    customer_tenants.work(CONSENT_VERIFY, {})

    assert {customer_tenants.consent_of(customer).state for customer in granted} == {"partial"}
    assert {newest(customer).changed_by for customer in granted} == {""}
    assert drift() is None


# --- one incident ---------------------------------------------------------------------------------------------------


def test_many_drifted_customers_are_one_incident_of_their_partner_until_all_is_well(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    for customer in granted:
        customer_tenants.change_scopes(portal, customer, FEWER)
    customer_tenants.work(CONSENT_VERIFY, {}, concurrency=1)

    one = Incident.objects.get(cause="consent_drift")
    assert (one.about, one.owner) == (f"partner:{portal.partner.pk}", "us")
    assert str(one) == "Northwind Cloud: consent changed by others"
    assert one.words.startswith("Somebody outside changed our consent in 3 customer tenants.")

    for customer in granted[:2]:
        customer_tenants.change_scopes(portal, customer, set(customer_tenants.WANTED))
    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() == one, "one is left"
    customer_tenants.change_scopes(portal, granted[2], set(customer_tenants.WANTED))
    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() is None


def test_drift_that_a_person_settled_is_not_told_again_until_something_else_changes(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    customer_tenants.change_scopes(portal, granted[0], FEWER)
    customer_tenants.work(CONSENT_VERIFY, {})
    known = drift()
    assert known is not None
    close(Incident.objects.filter(pk=known.pk), actor=builders.ACTOR)

    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() is None

    customer_tenants.change_scopes(portal, granted[0], {*FEWER, "Mail.Read"})
    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() is not None


def test_a_run_that_dies_after_reading_tells_of_the_drift_when_it_goes_on(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observation, incident and result of a unit are one transaction: none of them exists without the others."""
    from portal.runs import service
    from portal.runs.executor import Executor

    customer_tenants.change_scopes(portal, granted[0], FEWER)
    run, _ = service.start(CONSENT_VERIFY, scope={}, actor=builders.ACTOR, concurrency=1)
    real = report_incident

    def dies(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(observations, "report", dies)
    with pytest.raises(RuntimeError):
        Executor(run).work()
    assert customer_tenants.consent_of(granted[0]).state == "granted"
    assert not RunItem.objects.filter(run=run, label=granted[0].company_name, state="done").exists()

    monkeypatch.setattr(observations, "report", real)
    Executor(run).work()
    assert customer_tenants.consent_of(granted[0]).state == "partial"
    assert drift() is not None


# --- our own doing --------------------------------------------------------------------------------------------------


def test_what_our_own_push_brought_is_ours_with_its_actor_and_no_incident(portal: Portal) -> None:
    [customer, *_] = customer_tenants.connect_customers(portal, consented=0)
    verify(CustomerConsent.objects.create(customer=customer, registration=portal.registration))

    send(portal, customer)

    seen = newest(customer)
    assert (seen.changed_by, seen.actor) == ("us", builders.ACTOR.name)
    assert seen.added == {GRAPH_APPLICATION_ID: sorted(customer_tenants.WANTED)}
    assert customer_tenants.consent_of(customer).request_open is False, (
        "its result was seen: what comes later is not ours"
    )
    assert drift() is None
    customer_tenants.change_scopes(portal, customer, FEWER)
    verify(customer_tenants.consent_of(customer))
    assert newest(customer).changed_by == "outside"


def test_grants_that_show_late_are_still_ours(portal: Portal) -> None:
    [customer, *_] = customer_tenants.connect_customers(portal, consented=0)
    portal.sandbox.world.switches["consent_visible_after"] = 600
    assert send(portal, customer).state == "waiting"
    portal.sandbox.world.advance(600)

    run = customer_tenants.work(CONSENT_VERIFY, {})

    assert (newest(customer).changed_by, customer_tenants.classes(run)) == ("us", {"ok": 1})
    assert drift() is None


def test_what_somebody_took_away_is_noted_before_a_push_brings_it_back(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    customer_tenants.delete_application(portal, granted[0])

    assert send(portal, granted[0]).state == "granted"

    reads = ConsentObservation.objects.filter(consent__customer=granted[0]).order_by("pk")
    history = list(reads.values_list("state", "changed_by"))
    assert history == [("granted", "first"), ("absent", "outside"), ("granted", "us")]
    assert drift() is None, "it was reported, and settled when all was well again"
    assert Incident.objects.filter(cause="consent_drift").count() == 1


@pytest.mark.req("R-20")
def test_a_push_after_a_seen_result_is_another_request_and_not_a_repeat(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    """Microsoft may answer a repeated id from memory, and then nothing would happen."""
    portal.sandbox.world.switches["idempotent"] = True
    customer_tenants.delete_application(portal, granted[0])
    send(portal, granted[0])
    first = customer_tenants.consent_of(granted[0]).request_id
    customer_tenants.delete_application(portal, granted[0])

    again = send(portal, granted[0])

    assert again.request_id != first
    assert (again.state, customer_tenants.holds(portal, granted[0])) == ("granted", customer_tenants.WANTED)


def test_a_failed_read_between_two_reads_changes_nobodys_blame(portal: Portal, granted: list[CustomerTenant]) -> None:
    customer_tenants.change_scopes(portal, granted[0], FEWER)
    portal.sandbox.world.faults.append(
        Fault(service="graph", tenant=granted[0].tenant_id, path="servicePrincipals", status=403, body="{}", times=99)
    )
    customer_tenants.work(CONSENT_VERIFY, {})
    assert drift() is None
    portal.sandbox.world.faults.clear()

    customer_tenants.work(CONSENT_VERIFY, {})

    assert newest(granted[0]).changed_by == "outside"
    assert drift() is not None


def test_a_change_is_said_in_words() -> None:
    both = Change(added=Grants({"a": ["x"]}), removed=Grants({"a": ["y", "z"]}), by=ChangedBy.OUTSIDE)
    assert both.words() == "added x; gone y, z"
    assert Change(added=Grants(), removed=Grants(), by=ChangedBy.OUTSIDE).words().startswith("the service principal")
