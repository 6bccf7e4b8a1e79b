"""verify_consents: a state comes from a read, a read that fails says why, and nothing is sent that changes a tenant."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent import clients, jobs, selection
from consent.customers.observations import note_unreadable, prune, write
from consent.grants import Grants
from consent.hub.customer import facts_of_customer
from consent.models import ConsentObservation, CustomerConsent, PartnerConsent
from consent.runs.verify import CONSENT_VERIFY
from consent.selection import NEIGHBOURS, WEEK_HOURS, Selection
from consent.upkeep import clean_up
from portal.runs.models import Run
from tenants.models import PartnerTag, PartnerTenant
from tests.sandbox.world import Fault, Refusal
from tests.support import builders, customer_tenants
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db(transaction=True)


def command(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command with JSON lines; return exit code, lines and what it said as an error."""
    out, err = StringIO(), StringIO()
    try:
        call_command("verify_consents", "--json", *arguments, stdout=out, stderr=err)
    except SystemExit as ended:
        return int(ended.code or 0), [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()
    return 0, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue()


# --- what a read shows ----------------------------------------------------------------------------------------------


def test_each_chosen_tenant_is_read_and_the_evidence_is_kept(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    posts = len(customer_tenants.booked(portal, "create consent"))

    code, lines, _ = command()

    assert code == 0
    assert {line["state"] for line in lines[:-1]} == {"granted"}
    assert {line["customer"] for line in lines[:-1]} == {customer.tenant_id for customer in customers}
    assert lines[-1]["summary"]["classes"] == {"ok": 3}
    for consent in CustomerConsent.objects.all():
        seen = consent.observations.get()
        assert (consent.state, seen.state, seen.changed_by, seen.evidence) == (
            "granted",
            "granted",
            "first",
            "directory",
        )
        assert seen.service_principal_id == consent.service_principal_id != ""
        assert seen.grants[0]["id"]
        assert consent.verified_at == seen.observed_at
    assert len(customer_tenants.booked(portal, "create consent")) == posts
    assert customer_tenants.booked(portal, "delete consent") == []
    assert portal.sandbox.world.crossings == []


def test_a_read_that_finds_everything_as_it_was_costs_no_row_and_is_the_last_read(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    command()
    kept = set(ConsentObservation.objects.values_list("pk", flat=True))
    before = customer_tenants.consent_of(customers[0])

    command()

    after = customer_tenants.consent_of(customers[0])
    assert set(ConsentObservation.objects.values_list("pk", flat=True)) == kept
    assert before.verified_at is not None
    assert after.verified_at is not None
    assert after.verified_at > before.verified_at
    assert after.tried_at == after.verified_at
    assert (after.changed_at, after.state) == (before.changed_at, "granted")
    (holding,) = facts_of_customer(customers[0].pk, timezone.now()).holdings
    newest, first = holding.timeline
    assert (newest.at, newest.text, newest.detail) == (
        after.verified_at,
        "Read again: granted",
        "Nothing changed since the read before.",
    )
    assert first.at == before.verified_at

    customer_tenants.delete_application(portal, customers[0])
    command()
    command()
    assert [one.state for one in after.observations.all()] == ["absent", "granted"], "each change, once"


@pytest.mark.parametrize("code", [65001, 700016, 90099])
def test_a_tenant_that_knows_no_consent_of_ours_is_absent_by_the_sign_in_services_word(
    portal: Portal, code: int
) -> None:
    portal.sandbox.world.switches["customer_not_consented"] = code
    customers = customer_tenants.connect_customers(portal, consented=0)

    exit_code, lines, _ = command("--customer", customers[0].tenant_id)

    consent = customer_tenants.consent_of(customers[0])
    assert (exit_code, consent.state, consent.observations.get().evidence) == (0, "absent", "sign_in")
    assert lines[0]["state"] == "absent"


def test_what_was_asked_for_and_is_not_there_makes_the_command_fail(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    CustomerConsent.objects.update(requested_hash="0" * 64, requested_at=timezone.now() - timedelta(days=1))
    customer_tenants.delete_application(portal, customers[0])

    code, lines, _ = command()

    assert code == 1
    assert lines[-1]["summary"]["classes"] == {"absent": 1, "ok": 2}


@pytest.mark.req("R-23")
def test_grants_that_were_asked_for_a_moment_ago_are_waited_for_and_half_an_hour_later_they_are_missing(
    portal: Portal,
) -> None:
    customers = customer_tenants.connect_customers(portal, consented=0)
    asked = timezone.now() - timedelta(minutes=5)
    CustomerConsent.objects.create(
        customer=customers[0],
        registration=portal.registration,
        requested_hash="0" * 64,
        requested_at=asked,
        request_open=True,
    )

    assert (command()[0], customer_tenants.consent_of(customers[0]).state) == (0, "waiting")

    CustomerConsent.objects.update(requested_at=asked - timedelta(minutes=30))
    code, _, _ = command()
    consent = customer_tenants.consent_of(customers[0])
    assert (code, consent.state, consent.request_open) == (1, "absent", False)


# --- what cannot be read --------------------------------------------------------------------------------------------


def _forbidden(portal: Portal, customer: Any) -> None:
    portal.sandbox.world.faults.append(
        Fault(service="graph", tenant=customer.tenant_id, path="servicePrincipals", status=403, body="{}", times=99)
    )


def _locked_out(portal: Portal, customer: Any) -> None:
    portal.sandbox.world.refusals.append(Refusal(code=53003, tenant_id=customer.tenant_id, times=99))


def _ended(portal: Portal, customer: Any) -> None:
    customer_tenants.end_relationship(portal, customer)


def _not_listed(portal: Portal, customer: Any) -> None:
    customer_tenants.end_relationship(portal, customer)
    type(customer).objects.filter(pk=customer.pk).update(missing_since=timezone.now())


@pytest.mark.req("R-24")
@pytest.mark.parametrize(
    ("change", "words", "owner"),
    [
        (_forbidden, "", None),
        (_locked_out, "", None),
        (_ended, "No active GDAP relationship", "partner"),
        (_not_listed, "no longer lists", "partner"),
    ],
)
def test_a_read_that_fails_leaves_the_earlier_state_with_its_age_and_says_who_must_act(
    portal: Portal, change: Any, words: str, owner: str | None
) -> None:
    customers = customer_tenants.connect_customers(portal)
    command()
    before = customer_tenants.consent_of(customers[0])
    change(portal, customers[0])

    code, lines, _ = command()

    after = customer_tenants.consent_of(customers[0])
    assert code == 1
    assert lines[-1]["summary"]["classes"]["ok"] == 2, "the others go on"
    line = next(line for line in lines if line.get("customer") == customers[0].tenant_id)
    assert (after.state, after.verified_at) == ("granted", before.verified_at)
    assert after.actual_grants == before.actual_grants != {}
    assert after.unread_since is not None
    assert line["reason"].startswith("could not be read: ")
    assert words in after.unread_reason
    assert after.unread_owner == (owner or after.unread_owner) != ""
    assert line["owner"] == after.unread_owner
    assert after.observations.count() == 1
    assert list(CustomerConsent.objects.findings()) == [after]


def test_a_tenant_that_can_be_read_again_is_no_finding_any_more(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    one = customer_tenants.relationship(portal, customers[0])
    one.status = "expired"
    command()
    first = customer_tenants.consent_of(customers[0]).unread_since
    command()
    assert customer_tenants.consent_of(customers[0]).unread_since == first, "since the first failure"

    one.status = "active"
    command()

    after = customer_tenants.consent_of(customers[0])
    assert (after.state, after.unread_since, after.unread_reason, after.unread_owner) == ("granted", None, "", "")


def test_an_outage_is_tried_again_and_blames_no_customer(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    portal.sandbox.world.faults.append(
        Fault(service="graph", tenant=customers[0].tenant_id, path="servicePrincipals", status=503, times=5)
    )

    code, lines, _ = command()

    assert (code, lines[-1]["summary"]["classes"]) == (0, {"ok": 3})
    assert not CustomerConsent.objects.findings().exists()


def test_a_partner_without_a_token_of_this_application_is_said_so(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    other = builders.registration()
    CustomerConsent.objects.filter(customer=customers[0]).update(registration=other)

    code, _, _ = command()

    consent = customer_tenants.consent_of(customers[0])
    assert (code, consent.state) == (1, "unknown")
    assert "no usable token" in consent.unread_reason


# --- one partner's token only for that partner (S-51, S-53) ---------------------------------------------------------


@pytest.mark.req("S-51")
def test_with_two_partners_each_customer_is_read_with_its_own_partners_token(portal: Portal) -> None:
    customer_tenants.connect_customers(portal)
    stranger = builders.partner()
    hers = builders.customer(stranger)
    CustomerConsent.objects.create(customer=hers, registration=portal.registration)

    _, lines, _ = command()

    assert "no usable token" in customer_tenants.consent_of(hers).unread_reason
    assert {line["partner"] for line in lines[:-1]} == {portal.partner.name, stranger.name}
    assert portal.sandbox.world.crossings == []
    assert {line.get("home", portal.partner.tenant_id) for line in portal.sandbox.world.ledger} == {
        portal.partner.tenant_id
    }


@pytest.mark.req("S-53")
def test_a_partner_disabled_during_the_run_gets_no_further_call(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer_tenants.connect_customers(portal)
    real, calls = clients.customer_clients, []

    def disabled_first(*arguments: Any, **named: Any) -> Any:
        PartnerTenant.objects.update(switch="disabled")
        calls.append(len(portal.sandbox.world.ledger))
        return real(*arguments, **named)

    monkeypatch.setattr(clients, "customer_clients", disabled_first)

    run = customer_tenants.work(CONSENT_VERIFY, {}, concurrency=1)

    assert len(portal.sandbox.world.ledger) == calls[0]
    assert "ok" not in customer_tenants.classes(run)
    assert set(CustomerConsent.objects.values_list("state", flat=True)) == {"unknown"}


# --- choosing -------------------------------------------------------------------------------------------------------


def test_consents_are_chosen_by_partner_tag_cloud_customer_state_and_age(portal: Portal) -> None:
    here = [builders.customer(portal.partner) for _ in range(2)]
    other = builders.partner(cloud="usgov")
    there = builders.customer(other)
    off = builders.customer(builders.partner(switch="disabled"))
    tag = PartnerTag.objects.create(name="gold")
    other.tags.add(tag)
    for customer in (*here, there, off):
        CustomerConsent.objects.create(customer=customer, registration=portal.registration)
    read = CustomerConsent.objects.filter(customer=here[0])
    read.update(state="absent", verified_at=timezone.now() - timedelta(hours=2))

    def chosen(**scope: Any) -> set[int]:
        return set(Selection.from_json(scope).customer_consents().values_list("customer", flat=True))

    assert chosen() == {here[0].pk, here[1].pk, there.pk}
    assert chosen(partner=[portal.partner.tenant_id]) == {here[0].pk, here[1].pk}
    assert chosen(tag=["gold"]) == chosen(cloud="usgov") == {there.pk}
    assert chosen(customer=[here[1].tenant_id]) == {here[1].pk}
    assert chosen(state=["absent"]) == {here[0].pk}
    assert chosen(age=3) == {here[1].pk, there.pk}
    assert chosen(age=1) == {here[0].pk, here[1].pk, there.pk}
    assert chosen(consents=[read.get().pk]) == {here[0].pk}


def test_customers_that_were_never_looked_at_are_read_on_demand_only(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal, consented=1)

    assert command()[1][-1]["summary"]["total"] == 1
    assert command("--new")[1][-1]["summary"]["total"] == len(customers)
    assert sorted(CustomerConsent.objects.values_list("state", flat=True)) == ["absent", "absent", "granted"]


def test_a_dry_run_sends_and_writes_nothing(portal: Portal) -> None:
    customer_tenants.connect_customers(portal)
    calls = len(portal.sandbox.world.ledger)

    code, _, _ = command("--dry-run", "--new")

    assert (code, len(portal.sandbox.world.ledger), Run.objects.count()) == (0, calls, 0)


def test_an_unknown_customer_is_a_usage_error_that_says_what_to_do(portal: Portal) -> None:
    with pytest.raises(CommandError, match="sync_customers") as refused:
        call_command("verify_consents", "--customer", builders.guid())
    assert refused.value.returncode == 2


# --- by schedule ----------------------------------------------------------------------------------------------------


def test_the_week_has_each_consent_once_and_what_was_missed_is_made_up_for(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = [builders.customer(portal.partner) for _ in range(20)]
    for customer in customers:
        CustomerConsent.objects.create(
            customer=customer, registration=portal.registration, tried_at=timezone.now() - timedelta(days=6)
        )

    def of_hour(hour: int) -> set[int]:
        return set(Selection(week_hour=hour).customer_consents().values_list("pk", flat=True))

    together = {customer.pk // NEIGHBOURS % WEEK_HOURS for customer in customers}
    assert len(together) <= 2, "customers of one partner are read in the same hours"
    assert sum(len(of_hour(hour)) for hour in together) == 20
    monkeypatch.setattr(selection, "NEIGHBOURS", 1)
    hours = [of_hour(hour) for hour in range(WEEK_HOURS)]
    assert sum(len(hour) for hour in hours) == 20
    assert max(len(hour) for hour in hours) == 1, "spread over the week"

    missed = CustomerConsent.objects.order_by("pk").first()
    assert missed is not None
    CustomerConsent.objects.filter(pk=missed.pk).update(tried_at=timezone.now() - timedelta(days=9))
    chosen = [hour for hour in range(WEEK_HOURS) if missed.pk in of_hour(hour)]
    assert len(chosen) == 7, "once a day until it was tried, so that many are spread and none is listed twice"
    assert len({hour % 24 for hour in chosen}) == 1
    CustomerConsent.objects.filter(pk=missed.pk).update(tried_at=timezone.now() - timedelta(hours=2))
    assert not any(missed.pk in of_hour(hour) for hour in range(WEEK_HOURS)), "not twice a day"


def test_the_schedule_starts_the_check_of_this_hour(portal: Portal) -> None:
    customers = customer_tenants.connect_customers(portal)
    for customer in customers[1:]:
        CustomerConsent.objects.filter(customer=customer).update(tried_at=timezone.now() - timedelta(hours=1))

    now = timezone.now()
    hours = [now + timedelta(hours=hour) for hour in range(24)]  # who was never looked at has one of them
    assert jobs._verify(hours).endswith("started")

    run = Run.objects.get(kind="consent_verify")
    assert set(run.scope) == {"week_hour"}
    CustomerConsent.objects.update(tried_at=timezone.now())
    Run.objects.update(state="cancelled", finished_at=timezone.now())
    assert jobs._verify(hours) == "nothing due"


# --- cost -----------------------------------------------------------------------------------------------------------


def test_writing_costs_the_same_number_of_queries_for_any_number_of_reads(portal: Portal) -> None:
    from consent.customers.consents import reading
    from consent.customers.observations import Unreadable

    def rows(number: int) -> list[CustomerConsent]:
        return [
            CustomerConsent.objects.create(customer=builders.customer(portal.partner), registration=portal.registration)
            for _ in range(number)
        ]

    def cost(consents: list[CustomerConsent]) -> int:
        found = [reading(one, None, Grants(), correlation_id="") for one in consents]
        with CaptureQueriesContext(connection) as queries:
            write(found, actor=builders.ACTOR)
            note_unreadable([Unreadable(consent_id=one.pk, reason="why", owner="us") for one in consents])
        return len(queries)

    few, many = rows(2), rows(40)
    assert cost(few) == cost(many)
    assert CustomerConsent.objects.filter(observations__isnull=False).count() == 42


def test_a_unit_costs_one_redemption_and_one_read(portal: Portal) -> None:
    customer_tenants.connect_customers(portal)
    calls = len(portal.sandbox.world.ledger)

    command()

    lines = list(portal.sandbox.world.ledger)[calls:]
    made = [(line["service"], line["operation"]) for line in lines if not line.get("part")]
    assert [one for one in made if one[0] == "graph"] == [("graph", "batch")] * 3
    assert len([one for one in made if one[0] == "entra" and "token" in one[1]]) == 3, made
    assert clients.tokens()._cache == {}, "no token of a customer is kept: memory is flat"


# --- old reads ------------------------------------------------------------------------------------------------------


def test_old_reads_are_removed_but_never_the_newest_nor_the_proof_of_a_removal(portal: Portal) -> None:
    now = timezone.now()
    consent = CustomerConsent.objects.create(
        customer=builders.customer(portal.partner), registration=portal.registration
    )

    def seen(days: int, changed_by: str = "", state: str = "granted") -> int:
        made = consent.observations.create(
            registration=consent.registration,
            observed_at=now - timedelta(days=days),
            state=state,
            changed_by=changed_by,
            correlation_id="",
        )
        return made.pk

    seen(2000, "first")
    proof = seen(1900, "us", "absent")
    seen(1800, "outside")
    kept_change = seen(400, "outside")
    seen(100)
    young = seen(80)
    other = CustomerConsent.objects.create(customer=builders.customer(portal.partner), registration=portal.registration)
    newest = other.observations.create(
        registration=other.registration, observed_at=now - timedelta(days=3000), state="granted", correlation_id=""
    )

    assert clean_up(vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR).old_reads == 3

    left = set(consent.observations.values_list("pk", flat=True)) | set(other.observations.values_list("pk", flat=True))
    assert left == {proof, kept_change, young, newest.pk}
    assert prune(now) == 0


def test_a_read_that_comes_late_never_replaces_a_later_one(portal: Portal) -> None:
    from consent.customers.consents import reading

    consent = CustomerConsent.objects.create(
        customer=builders.customer(portal.partner), registration=portal.registration
    )
    with time_machine.travel(timezone.now() - timedelta(minutes=1)):
        late = reading(consent, None, Grants(), correlation_id="late")
    write([reading(consent, None, Grants(), correlation_id="newer")], actor=builders.ACTOR)

    assert write([late], actor=builders.ACTOR) == {}

    assert consent.observations.get().correlation_id == "newer"
    assert PartnerConsent.objects.count() == 0
