"""remove_consent: what was removed is proven by a read; what cannot be read is not called absent.

Covers: consent.runs.plan_lines.
"""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import import_module
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from consent import clients
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.models import CustomerConsent
from consent.runs.verify import CONSENT_VERIFY
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.microsoft.identifiers import RequestId
from portal.runs import service
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox.world import DIRECTORY_READERS, Fault, Refusal
from tests.support import builders, custody, customer_tenants, decisions
from tests.support.commands import run
from tests.support.portal import Portal
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def granted(portal: Portal) -> list[CustomerTenant]:
    """Three customers that hold our consent, which the portal has not read yet."""
    return customer_tenants.connect_customers(portal)


def remove(portal: Portal, **scope: Any) -> dict[str, int]:
    return customer_tenants.classes(customer_tenants.remove(scope or {"partner": [portal.partner.tenant_id]}))


def message(customer: CustomerTenant) -> str:
    run = Run.objects.latest("pk")
    return str(run.items.get(label=f"{customer} (Example Control Panel)").message)


# --- the good way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_removed_consent_is_proven_absent_with_what_was_there_before(
    portal: Portal, granted: list[CustomerTenant], status: int
) -> None:
    portal.sandbox.world.switches["consent_delete_status"] = status

    assert remove(portal, customer=[granted[0].tenant_id]) == {"ok": 1}

    consent = customer_tenants.consent_of(granted[0])
    after, before = consent.observations.all()
    assert (before.state, before.evidence, before.changed_by) == ("granted", "directory", "first")
    assert before.grants[0]["id"]
    assert (after.state, after.evidence, after.changed_by) == ("absent", "sign_in", "us")
    assert after.actor == builders.ACTOR.name
    assert after.removed == {GRAPH_APPLICATION_ID: sorted(customer_tenants.WANTED)}
    assert (consent.state, consent.actual_grants, consent.owner) == ("absent", {}, "")
    assert (consent.was_removed, consent.request_open) == (True, False)
    assert [customer_tenants.holds(portal, customer) for customer in granted] == [
        set(),
        customer_tenants.WANTED,
        customer_tenants.WANTED,
    ]
    assert list(
        AuditEvent.objects.filter(action__startswith="customer_consent")
        .order_by("sequence")
        .values_list("action", "outcome")
    ) == [
        ("customer_consent.remove", "intent"),
        ("customer_consent.observed", "done"),
    ]
    assert not CustomerConsent.objects.findings().exists()
    assert portal.sandbox.world.crossings == []


def test_what_is_not_there_is_not_asked_to_be_removed(portal: Portal, granted: list[CustomerTenant]) -> None:
    customer_tenants.delete_application(portal, granted[0])

    assert remove(portal, customer=[granted[0].tenant_id]) == {"ok": 1}

    assert customer_tenants.booked(portal, "delete consent") == []
    assert customer_tenants.consent_of(granted[0]).observations.get().state == "absent"


def test_what_somebody_took_away_meanwhile_answers_404_and_is_proven_all_the_same(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ApplicationConsentClient.remove

    def too_late(self: ApplicationConsentClient, **arguments: Any) -> None:
        customer_tenants.delete_application(portal, granted[0])
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "remove", too_late)

    assert remove(portal, customer=[granted[0].tenant_id]) == {"ok": 1}

    assert [line["status"] for line in customer_tenants.booked(portal, "delete consent")] == [404]
    assert customer_tenants.consent_of(granted[0]).state == "absent"


def test_after_a_removal_a_later_check_is_good_and_a_consent_that_comes_back_is_drift(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    remove(portal)
    assert customer_tenants.classes(customer_tenants.work(CONSENT_VERIFY, {})) == {"ok": 3}

    custody.consent_directly(portal, granted[0], set(customer_tenants.WANTED))

    assert customer_tenants.classes(customer_tenants.work(CONSENT_VERIFY, {})) == {"granted": 1, "ok": 2}
    assert Incident.objects.open().filter(cause="consent_drift").exists()
    assert list(CustomerConsent.objects.findings()) == [customer_tenants.consent_of(granted[0])]


def test_a_removed_customer_can_be_consented_again_and_removed_again_by_other_requests(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.sandbox.world.switches["idempotent"] = True
    sent: list[RequestId] = []
    real = ApplicationConsentClient.remove

    def noted(self: ApplicationConsentClient, **arguments: Any) -> None:
        sent.append(arguments["request_id"])
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "remove", noted)
    customer = granted[0]
    remove(portal, customer=[customer.tenant_id])
    assert customer_tenants.classes(customer_tenants.push(portal, customer)) == {"ok": 1}

    assert remove(portal, customer=[customer.tenant_id]) == {"ok": 1}

    assert len(set(sent)) == 2
    assert customer_tenants.holds(portal, customer) == set()


# --- accepted is not removed ----------------------------------------------------------------------------------------


def test_a_204_that_removes_nothing_is_never_called_absent(portal: Portal, granted: list[CustomerTenant]) -> None:
    portal.sandbox.world.switches |= {"consent_removes_nothing": True, "consent_delete_status": 204}

    assert remove(portal, customer=[granted[0].tenant_id]) == {"still_there": 1}

    consent = customer_tenants.consent_of(granted[0])
    assert [line["status"] for line in customer_tenants.booked(portal, "delete consent")] == [204]
    assert (consent.state, consent.owner) == ("granted", "microsoft")
    assert "still shows the consent" in consent.reason
    assert set(consent.observations.values_list("state", flat=True)) == {"granted"}
    assert list(CustomerConsent.objects.findings()) == [consent]
    assert customer_tenants.classes(customer_tenants.work(CONSENT_VERIFY, {"customer": [granted[0].tenant_id]})) == {
        "granted": 1
    }


def test_repeating_what_failed_sends_the_removal_again_as_another_request(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    portal.sandbox.world.switches |= {"consent_removes_nothing": True, "consent_delete_status": 204}
    first = customer_tenants.remove({"customer": [granted[0].tenant_id]})
    asked = customer_tenants.consent_of(granted[0]).requested_at
    portal.sandbox.world.switches |= {"consent_removes_nothing": False}

    again, _ = service.repeat_failed(first, actor=builders.ACTOR)

    assert customer_tenants.classes(customer_tenants.worked(again)) == {"ok": 1}
    assert customer_tenants.holds(portal, granted[0]) == set()
    assert len(customer_tenants.booked(portal, "delete consent")) == 2
    assert asked is not None
    assert customer_tenants.consent_of(granted[0]).requested_at > asked  # type: ignore[operator]


@pytest.mark.req("R-20")
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_lost_answer_is_looked_up_and_a_repeat_is_the_same_request(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch, close: str
) -> None:
    sent: list[RequestId] = []
    real = ApplicationConsentClient.remove

    def noted(self: ApplicationConsentClient, **arguments: Any) -> None:
        sent.append(arguments["request_id"])
        real(self, **arguments)

    monkeypatch.setattr(ApplicationConsentClient, "remove", noted)
    portal.sandbox.world.faults.append(Fault(service="partnercenter", path="applicationconsents", close=close))

    assert remove(portal, customer=[granted[0].tenant_id]) == {"ok": 1}

    assert customer_tenants.holds(portal, granted[0]) == set()
    assert len(set(sent)) == 1
    assert len(sent) == (2 if close == "before" else 1)
    assert customer_tenants.consent_of(granted[0]).observations.first().changed_by == "us"  # type: ignore[union-attr]


# --- what cannot be proven, or not be done --------------------------------------------------------------------------


def test_a_tenant_that_locks_us_out_after_the_removal_is_unknown_with_the_reason(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ApplicationConsentClient.remove

    def locked_out_then(self: ApplicationConsentClient, **arguments: Any) -> None:
        real(self, **arguments)
        portal.sandbox.world.refusals.append(Refusal(code=53003, tenant_id=granted[0].tenant_id, times=99))

    monkeypatch.setattr(ApplicationConsentClient, "remove", locked_out_then)

    assert remove(portal, customer=[granted[0].tenant_id]) == {"not_proven": 1}

    consent = customer_tenants.consent_of(granted[0])
    assert consent.state == "unknown"
    assert consent.reason.startswith("The removal was sent, but its result could not be read: ")
    assert consent.owner
    assert list(CustomerConsent.objects.findings()) == [consent]
    assert AuditEvent.objects.filter(action="customer_consent.remove", outcome="failed").count() == 1

    portal.sandbox.world.refusals.clear()
    customer_tenants.work(CONSENT_VERIFY, {})
    newest = customer_tenants.consent_of(granted[0]).observations.first()
    assert newest is not None
    assert (newest.state, newest.changed_by) == ("absent", "us")


@pytest.mark.req("R-24")
def test_a_relationship_that_ended_is_said_as_that_nothing_is_sent_and_the_others_go_on(
    portal: Portal, granted: list[CustomerTenant]
) -> None:
    customer_tenants.work(CONSENT_VERIFY, {})
    customer_tenants.end_relationship(portal, granted[0])

    assert remove(portal) == {"ok": 2, "refused": 1}

    consent = customer_tenants.consent_of(granted[0])
    assert (consent.state, consent.unread_owner) == ("granted", "partner")
    assert "No active GDAP relationship" in consent.unread_reason
    assert "can delete the enterprise application" in message(granted[0])
    assert len(customer_tenants.booked(portal, "delete consent")) == 2
    assert customer_tenants.holds(portal, granted[0]) == customer_tenants.WANTED


@pytest.mark.req("R-24")
def test_a_missing_role_is_this_customers_failure(portal: Portal, granted: list[CustomerTenant]) -> None:
    for assignment in customer_tenants.relationship(portal, granted[0]).assignments:
        assignment.roles = {DIRECTORY_READERS}

    assert remove(portal) == {"not_permitted": 1, "ok": 2}

    consent = customer_tenants.consent_of(granted[0])
    assert consent.state == "granted"
    assert consent.reason.startswith("Not removed: ")
    assert consent.owner
    assert customer_tenants.holds(portal, granted[0]) == customer_tenants.WANTED


@pytest.mark.req("S-53")
def test_a_partner_disabled_during_the_run_gets_no_further_call(
    portal: Portal, granted: list[CustomerTenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clients.customer_clients

    def disabled_first(*arguments: Any, **named: Any) -> Any:
        PartnerTenant.objects.update(switch="disabled")
        return real(*arguments, **named)

    monkeypatch.setattr(clients, "customer_clients", disabled_first)

    classes = remove(portal)

    assert "ok" not in classes
    assert customer_tenants.booked(portal, "delete consent") == []
    assert [customer_tenants.holds(portal, customer) for customer in granted] == [customer_tenants.WANTED] * 3


@pytest.mark.req("S-52")
@pytest.mark.parametrize("own", ["partner", "vendor"])
def test_the_partners_and_our_own_tenant_are_never_touched(
    portal: Portal, granted: list[CustomerTenant], own: str
) -> None:
    tenant_id = portal.partner.tenant_id if own == "partner" else portal.registration.home_tenant_id
    CustomerTenant.objects.filter(pk=granted[0].pk).update(tenant_id=tenant_id)
    calls = len(portal.sandbox.world.ledger)

    assert remove(portal, customer=[tenant_id]) == {"refused": 1}

    assert len(portal.sandbox.world.ledger) == calls


# --- the command ----------------------------------------------------------------------------------------------------


def test_without_a_choice_or_without_yes_nothing_is_sent(portal: Portal, granted: list[CustomerTenant]) -> None:
    calls = len(portal.sandbox.world.ledger)
    for arguments, words in (
        (["--yes"], "Choose customers"),
        (["--partner", portal.partner.tenant_id], "3 customer tenants would lose our application"),
    ):
        with pytest.raises(CommandError, match=words) as refused:
            call_command("remove_consent", *arguments)
        assert refused.value.returncode == 2
    call_command("remove_consent", "--partner", portal.partner.tenant_id, "--dry-run", stdout=StringIO())

    assert len(portal.sandbox.world.ledger) == calls
    assert not Run.objects.exists()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_choice_that_fits_nothing_is_good_and_is_summed_up(portal: Portal, as_json: bool) -> None:
    ran = run("remove_consent", "--partner", portal.partner.tenant_id, "--yes", *(["--json"] if as_json else []))

    assert ran.code == 0
    if as_json:
        [line] = ran.out.splitlines()
        summary = json.loads(line)["summary"]
        assert (summary["state"], summary["total"], summary["classes"]) == ("done", 0, {})
    else:
        first, second = ran.out.splitlines()
        assert first.startswith("Removal of customer consents, run ")
        assert first.endswith(": 0 of 0")
        assert second.startswith("Nothing fits this selection today.")


def test_the_command_says_for_each_customer_what_became_of_it(portal: Portal, granted: list[CustomerTenant]) -> None:
    out = StringIO()
    CustomerConsent.objects.update(requested_at=timezone.now() - timedelta(days=30), requested_hash="0" * 64)

    chosen = ("remove_consent", "--partner", portal.partner.tenant_id, "--yes", "--wait", "0")
    with pytest.raises(CommandError, match=r"nothing was done yet\. A second person decides until") as waits:
        call_command(*chosen, "--why", "It is meant.")
    assert waits.value.returncode == 1
    assert not Run.objects.exists()
    decisions.approve()
    call_command(*chosen, "--json", stdout=out)

    *lines, last = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {line["customer"] for line in lines} == {customer.tenant_id for customer in granted}
    assert {(line["state"], line["proof"]) for line in lines} == {("absent", "sign_in")}
    assert lines[0]["removed"] == {GRAPH_APPLICATION_ID: sorted(customer_tenants.WANTED)}
    assert last["summary"]["classes"] == {"ok": 3}


# --- runs of an older version ---------------------------------------------------------------------------------------


def test_runs_of_the_former_kinds_are_read_and_none_of_them_waits_for_a_worker(portal: Portal) -> None:
    runs = {
        kind: an_old_run(kind, state)
        for kind, state in (("customer_push", "done"), ("consent_remove", "open"), ("consent_verify", "open"))
    }
    with connection.schema_editor() as editor:
        import_module("consent.migrations.0011_direct_plans").cancel_former_runs(apps, editor)

    states = dict(Run.objects.values_list("kind", "state"))
    assert states == {"customer_push": "done", "consent_remove": "cancelled", "consent_verify": "open"}
    staff = Staff()
    page = staff.get("/admin/runs/run/").content.decode()
    assert "Push of consent" in page
    assert "Removal of customer consents" in page
    assert (
        "pushes and removals are plans now"
        in staff.get(f"/admin/runs/run/{runs['consent_remove'].pk}/change/").content.decode()
    )


def an_old_run(kind: str, state: str) -> Run:
    ended = timezone.now() if state == "done" else None
    return Run.objects.create(
        kind=kind,
        scope={"consents": [1]},
        scope_hash=kind.ljust(64, "0"),
        actor_kind="command",
        actor="remove_consent (root)",
        state=state,
        finished_at=ended,
    )
