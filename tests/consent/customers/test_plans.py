"""Plans: what would change is said per customer, from what was last read there; nothing is sent.

Covers: consent.customers.export, consent.customers.judging, consent.models.plans.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
import tracemalloc
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.customers import export, judging, plans
from consent.customers.plans import PlanRefused, counts, make_plan, make_undo
from consent.customers.wanted import preview
from consent.models import ApplicationGrant, ApplicationRegistration, ConsentPlan, ConsentPlanItem, CustomerConsent
from consent.selection import EVERYTHING, Selection
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.commands import run

pytestmark = pytest.mark.django_db

OTHER = "00000002-0000-0ff1-ce00-000000000000"
ALLOWED = [f"{GRAPH_APPLICATION_ID}/{scope}" for scope in ("User.Read.All", "Directory.Read.All", "Group.Read.All")]


@pytest.fixture(autouse=True)
def _allow_list(settings: Settings) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [*ALLOWED, f"{OTHER}/Mail.Read"]


@pytest.fixture
def registration() -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All", "Directory.Read.All")
    return made


@pytest.fixture
def partner(registration: ApplicationRegistration) -> PartnerTenant:
    made = builders.partner(name="Northwind")
    builders.consent(made, registration)
    return made


def plan_of(registration: ApplicationRegistration, scope: dict[str, Any] | None = None) -> ConsentPlan:
    return make_plan(registration, Selection.from_json(scope or {}), actor=builders.ACTOR)


def item_for(
    partner: PartnerTenant, registration: ApplicationRegistration, *scopes: str, **columns: Any
) -> ConsentPlanItem:
    """Plan for one customer that holds these grants."""
    customer = builders.customer(partner)
    builders.customer_consent(customer, registration, *scopes, **columns)
    return plan_of(registration).items.get(customer=customer)


# --- what would change -------------------------------------------------------------------------------------------


def test_a_customer_that_was_never_read_is_to_be_created_and_says_so(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.customer(partner)
    item = plan_of(registration).items.get()
    assert (item.action, item.needs_reset, item.read_at, item.before) == ("create", False, None, {})
    assert item.reason.startswith("Never read: the tenant is looked at before anything is sent. Adds Directory.Read")
    assert item.target == {GRAPH_APPLICATION_ID: ["Directory.Read.All", "User.Read.All"]}


def test_each_state_of_a_tenant_has_its_action(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    nothing = item_for(partner, registration, "directory.read.ALL", "User.Read.All")
    assert (nothing.action, nothing.reason, nothing.needs_reset) == ("nothing", "", False)

    absent = item_for(partner, registration, state="absent", service_principal_id="")
    assert (absent.action, absent.reason) == ("create", "Adds Directory.Read.All, User.Read.All.")
    assert absent.read_at is not None

    fewer = item_for(partner, registration, "User.Read.All", state="partial")
    assert (fewer.action, fewer.needs_reset, fewer.reason) == ("widen", True, "Adds Directory.Read.All.")

    more = item_for(partner, registration, "User.Read.All", "Directory.Read.All", "Group.Read.All", state="differs")
    assert (more.action, more.needs_reset, more.reason) == ("narrow", True, "Takes away Group.Read.All.")

    other = item_for(partner, registration, "User.Read.All", "Mail.Send", state="differs")
    assert other.action == "narrow"
    assert other.reason == "Adds Directory.Read.All. Takes away Mail.Send."


def test_a_resource_that_has_no_grant_yet_is_added_without_a_reset(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    ApplicationGrant.objects.create(registration=registration, resource_application_id=OTHER, scopes=["Mail.Read"])
    item = item_for(partner, registration, "User.Read.All", "Directory.Read.All", state="partial")
    assert (item.action, item.needs_reset, item.reason) == ("widen", False, "Adds Mail.Read.")


def test_a_removal_ends_at_nothing_only_where_a_read_showed_nothing(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    there, gone, never, empty = (builders.customer(partner) for _ in range(4))
    builders.customer_consent(there, registration, "User.Read.All")
    builders.customer_consent(gone, registration, state="absent", service_principal_id="")
    builders.customer_consent(empty, registration, state="absent")  # a service principal without grants
    plan = make_plan(registration, EVERYTHING, actor=builders.ACTOR, purpose=ConsentPlan.Purpose.REMOVE)
    actions = dict(plan.items.values_list("customer", "action"))
    assert actions == {there.pk: "remove", gone.pk: "nothing", never.pk: "remove", empty.pk: "remove"}
    assert plan.wanted is None
    assert plan.items.get(customer=there).reason == "Takes away User.Read.All."


# --- what is in the way ------------------------------------------------------------------------------------------


@pytest.mark.req("S-52", "S-53")
def test_blocked_customers_say_why_and_who_must_act(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    ready = builders.customer(partner)
    no_role = builders.customer(partner)
    builders.customer_consent(
        no_role, registration, state="blocked", reason="No accepted role.", owner="partner", verified_at=None
    )
    own = builders.customer(partner, tenant_id=partner.tenant_id)
    ours = builders.customer(partner, tenant_id=registration.home_tenant_id)
    unconnected = builders.customer(builders.partner())
    gone = builders.customer(partner, missing_since=timezone.now())
    everybody = list(CustomerTenant.objects.values_list("pk", flat=True))
    items = {item.customer_id: item for item in plan_of(registration, {"customers": everybody}).items.all()}
    said = {key: (item.action, item.reason, item.owner) for key, item in items.items()}
    assert said.pop(ready.pk)[0] == "create"
    assert said == {
        no_role.pk: ("blocked", "No accepted role.", "partner"),
        own.pk: ("blocked", "This is the partner's or our own tenant, not a customer.", "us"),
        ours.pk: ("blocked", "This is the partner's or our own tenant, not a customer.", "us"),
        unconnected.pk: (
            "blocked",
            "The partner never connected this application. Send the partner a new consent link.",
            "partner",
        ),
        gone.pk: (
            "blocked",
            "Partner Center no longer lists this customer; synchronise the partner's customers.",
            "us",
        ),
    }


def test_a_customer_that_the_last_sync_showed_not_ready_is_blocked_unless_nothing_would_change_or_it_settles(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    said = {"readiness": "not_ready", "readiness_reason": "No active GDAP relationship.", "readiness_owner": "partner"}
    blocked, settles, granted = (builders.customer(partner, **said) for _ in range(3))
    CustomerTenant.objects.filter(pk=settles.pk).update(readiness_owner="nobody")
    builders.customer_consent(granted, registration, "User.Read.All", "Directory.Read.All")

    items = {item.customer_id: item for item in plan_of(registration).items.all()}

    assert (items[blocked.pk].action, items[blocked.pk].owner) == ("blocked", "partner")
    assert items[blocked.pk].reason == "No active GDAP relationship. As of the last sync."
    assert (items[settles.pk].action, items[granted.pk].action) == ("create", "nothing")


def test_a_tenant_that_cannot_be_read_is_blocked_while_the_partner_or_the_customer_must_act(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    unread = {"unread_since": timezone.now(), "unread_reason": "No active GDAP relationship."}
    ended = item_for(partner, registration, "User.Read.All", **unread, unread_owner="partner")
    assert (ended.action, ended.owner) == ("blocked", "partner")
    assert ended.reason == "The tenant cannot be read, and is not changed unread: No active GDAP relationship."
    passing = item_for(partner, registration, "User.Read.All", **unread, unread_owner="nobody")
    assert passing.action == "widen", "what passes by itself is seen when the plan is applied"


@pytest.mark.req("S-52")
def test_no_plan_is_made_for_grants_outside_the_allow_list_or_for_none(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.customer(partner)
    ApplicationGrant.objects.update(scopes=["Directory.ReadWrite.All"])
    with pytest.raises(PlanRefused, match=r"CONSENT_GRANT_ALLOW_LIST: Directory.ReadWrite.All"):
        plan_of(registration)
    ApplicationGrant.objects.all().delete()
    with pytest.raises(PlanRefused, match="no wanted grants yet"):
        plan_of(registration)
    assert not ConsentPlan.objects.exists()


def test_a_plan_for_nobody_is_refused(registration: ApplicationRegistration) -> None:
    with pytest.raises(PlanRefused, match="No customer is chosen"):
        plan_of(registration)
    assert not ConsentPlan.objects.exists()
    assert not AuditEvent.objects.filter(action="consent_plan.made").exists()


# --- whom --------------------------------------------------------------------------------------------------------


def test_partners_tags_and_customers_choose(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    other, gone = builders.partner(name="Contoso"), builders.partner(switch="offboarded")
    disabled = builders.customer(builders.partner(switch="disabled"))
    elsewhere = builders.partner(cloud="china")
    other.tags.add(PartnerTag.objects.create(name="Europe"))
    first, second = builders.customer(partner), builders.customer(partner)
    third = builders.customer(other, tenant_id=first.tenant_id)  # a customer of two partners has two rows
    for one in (gone, elsewhere):
        builders.customer(one)

    def chosen(**scope: Any) -> set[int]:
        return set(plan_of(registration, scope).items.values_list("customer", flat=True))

    assert chosen() == {first.pk, second.pk, third.pk, disabled.pk}
    assert chosen(partner=[partner.tenant_id]) == {first.pk, second.pk}
    assert chosen(tag=["Europe"]) == {third.pk}
    assert chosen(customer=[first.tenant_id]) == {first.pk, third.pk}
    assert chosen(customer=[first.tenant_id], partner=[partner.tenant_id]) == {first.pk}
    assert chosen(customers=[second.pk]) == {second.pk}


def test_a_plan_names_the_version_it_was_made_for_and_keeps_what_it_showed(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    customer = builders.customer(partner)
    row = builders.customer_consent(customer, registration, "User.Read.All", state="partial")
    plan = plan_of(registration)
    assert plan.wanted is not None
    assert (plan.wanted.number, plan.created_by) == (1, builders.ACTOR.name)
    CustomerConsent.objects.filter(pk=row.pk).update(actual_grants={}, verified_at=timezone.now())
    ApplicationGrant.objects.update(scopes=["Group.Read.All"])
    later = plan_of(registration)
    assert later.wanted is not None
    assert later.wanted.number == 2
    item = plan.items.get()
    assert (item.before, item.read_at) == (row.actual_grants, row.verified_at)
    assert item.target == {GRAPH_APPLICATION_ID: ["Directory.Read.All", "User.Read.All"]}
    event = AuditEvent.objects.filter(action="consent_plan.made").order_by("sequence").first()
    assert event is not None
    assert (event.subject["plan"], event.details["counts"]["widen"]) == (plan.pk, 1)


# --- undoing -----------------------------------------------------------------------------------------------------


def test_an_undo_goes_back_to_what_was_read_before_the_first_change(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    created, widened, untouched, foreign = (builders.customer(partner) for _ in range(4))
    builders.customer_consent(widened, registration, "User.Read.All", state="partial")
    plan = plan_of(registration)
    for customer, snapshot in ((created, {}), (widened, {GRAPH_APPLICATION_ID: ["User.Read.All"]})):
        plan.items.filter(customer=customer).update(snapshot=snapshot, phase="posting", result="done")
        now = {"state": "granted", "actual_grants": plan.items.get(customer=customer).target}
        CustomerConsent.objects.update_or_create(
            customer=customer,
            registration=registration,
            defaults={**now, "service_principal_id": builders.guid(), "verified_at": timezone.now()},
        )
    plan.items.filter(customer=foreign).update(
        snapshot={GRAPH_APPLICATION_ID: ["Mail.Send"]}, phase="posting", result="done"
    )

    undo = make_undo(plan, actor=builders.ACTOR)

    said = {item.customer_id: (item.action, item.target, item.reason) for item in undo.items.all()}
    assert untouched.pk not in said
    assert said[created.pk][:2] == ("remove", {})
    assert said[widened.pk][:2] == ("narrow", {GRAPH_APPLICATION_ID: ["User.Read.All"]})
    assert said[foreign.pk][0] == "blocked", "also an undo stays inside the allow list (S-52)"
    assert "Mail.Send" in said[foreign.pk][2]
    assert (undo.purpose, undo.scope) == ("undo", {"undo": plan.pk})


def changed_by(plan: ConsentPlan, *customers: CustomerTenant) -> None:
    """As if the plan had been applied to these: each held nothing before, and holds the target now."""
    plan.items.filter(customer__in=customers).update(snapshot={}, phase="posting", result="done")
    for item in plan.items.filter(customer__in=customers):
        now = {"state": "granted", "actual_grants": item.target, "service_principal_id": builders.guid()}
        CustomerConsent.objects.update_or_create(
            customer=item.customer, registration=plan.registration, defaults={**now, "verified_at": timezone.now()}
        )


def test_an_undo_can_be_for_some_customers_and_says_when_a_later_plan_goes_with_it(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    first, second = builders.customer(partner), builders.customer(partner)
    plan = plan_of(registration)
    changed_by(plan, first, second)
    ApplicationGrant.objects.update(scopes=["Group.Read.All"])
    later = plan_of(registration)
    changed_by(later, first)

    undo = make_undo(plan, actor=builders.ACTOR)
    said = {item.customer_id: item.reason for item in undo.items.all()}
    assert said[first.pk].startswith(f"Plan {later.pk} changed it afterwards, which is undone as well. Takes away")
    assert said[second.pk].startswith("Takes away")

    ran = run("plan_consents", "--undo", plan.pk, "--customer", second.tenant_id, "--format", "json")
    document = json.loads(ran.out)
    assert (ran.code, document["purpose"], document["scope"]) == (
        0,
        "undo",
        {"undo": plan.pk, "customers": [second.pk]},
    )
    assert [item["tenant_id"] for item in document["items"]] == [second.tenant_id]
    ran = run("plan_consents", "--undo", later.pk, "--customer", second.tenant_id)
    assert (ran.code, "changed nothing there" in ran.err) == (2, True)


def test_a_plan_that_changed_nothing_cannot_be_undone(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    builders.customer(partner)
    with pytest.raises(PlanRefused, match="changed nothing"):
        make_undo(plan_of(registration), actor=builders.ACTOR)


# --- size --------------------------------------------------------------------------------------------------------


def many(partner: PartnerTenant, number: int) -> None:
    now, start = timezone.now(), CustomerTenant.objects.count()
    CustomerTenant.objects.bulk_create(
        CustomerTenant(
            partner=partner,
            tenant_id=f"{start + index:08x}-0000-4000-8000-000000000000",
            partner_center_id=str(start + index),
            company_name=f"Customer {start + index}",
            first_seen_at=now,
            last_seen_at=now,
        )
        for index in range(number)
    )


def test_a_plan_asks_the_database_as_often_a_chunk_whatever_the_chunk_holds(
    partner: PartnerTenant, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert counts(plan_of(registration))["create"] == CustomerTenant.objects.count()
        return len(captured) - 1

    many(partner, 1)
    queries()  # makes the version
    few = queries()
    many(partner, 59)
    assert queries() == few
    monkeypatch.setattr(judging, "CHUNK", 20)
    assert queries() == few + 2 * 4, "customers, consents, partners, items: four a chunk"
    assert plans.results(plan_of(registration)) == {"open": 60}


def test_a_plan_for_many_customers_holds_a_chunk_in_memory_and_no_more(
    partner: PartnerTenant, registration: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long form, 100,000 customers with the real chunk: ``PLAN_CUSTOMERS=100000``."""
    number = int(os.environ.get("PLAN_CUSTOMERS", "4000"))
    if number < 100_000:
        monkeypatch.setattr(judging, "CHUNK", 200)
    many(partner, number)

    def exported() -> int:
        return sum(len(piece) for piece in export.json_document(plan))

    peaks, seconds = {}, {}
    plan = ConsentPlan()
    for what in ("plan", "preview", "export"):
        tracemalloc.start()
        began = time.monotonic()
        if what == "plan":
            plan = plan_of(registration)
            assert counts(plan)["create"] == number
        elif what == "preview":
            assert preview(registration, {GRAPH_APPLICATION_ID: ["User.Read.All"]}).counts["create"] == number
        else:
            assert exported() > number * 200
        seconds[what] = round(time.monotonic() - began, 1)
        peaks[what] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    sys.stdout.write(f"{number} customers: {peaks} bytes at most, {seconds} s\n")
    assert max(peaks.values()) < 20_000_000 if number >= 100_000 else max(peaks.values()) < 4_000_000


# --- plan_consents -----------------------------------------------------------------------------------------------


def three(partner: PartnerTenant, registration: ApplicationRegistration) -> list[CustomerTenant]:
    """One to create, one to narrow, one that is blocked."""
    new, more, blocked = (builders.customer(partner, company_name=name) for name in ("=New", "More", "Blocked"))
    builders.customer_consent(more, registration, "User.Read.All", "Directory.Read.All", "Group.Read.All")
    builders.customer_consent(
        blocked, registration, state="blocked", reason="No accepted role.", owner="partner", verified_at=None
    )
    return [new, more, blocked]


def test_plan_consents_prints_the_counts_and_then_the_customers(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    three(partner, registration)
    ran = run("plan_consents")
    assert ran.code == 1, "somebody is blocked"
    first, numbers, reset, header, *rows = ran.out.splitlines()
    assert first.endswith("Example Control Panel: bring the wanted grants, version 1 of the wanted grants.")
    assert numbers == "  1 create, 0 widen, 1 narrow, 0 remove, 0 nothing, 1 blocked"
    assert reset == "  1 of them need DELETE and POST, and are left alone unless that is chosen"
    assert header.split() == ["ACTION", "RESULT", "CUSTOMER", "PARTNER", "WHAT", "AND", "WHY"]
    assert rows[1].startswith("narrow*")
    assert "Takes away Group.Read.All." in rows[1]
    assert rows[2].endswith("No accepted role. Who must act: partner.")
    plan = ConsentPlan.objects.get()
    assert rows[-1] == (
        f"Nothing was sent. Apply it with apply_plan {plan.pk}; print it with plan_consents --show {plan.pk}."
    )
    assert run("plan_consents", "--show", plan.pk).out == ran.out
    assert ConsentPlan.objects.count() == 1
    ConsentPlan.objects.update(state="stopped", applied_at=timezone.now())
    later = run("plan_consents", "--show", plan.pk).out
    assert "  Stopped" in later
    assert "Nothing was sent" not in later
    assert run("plan_consents", "--customer", plan.items.filter(action="create").get().customer.tenant_id).code == 0


def test_plan_consents_prints_json_and_csv(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    new, more, blocked = three(partner, registration)
    ran = run("plan_consents", "--format", "json", "--partner", partner.tenant_id)
    document = json.loads(ran.out)
    assert (ran.code, document["scope"]) == (1, {"partner": [partner.tenant_id]})
    assert (document["counts"]["narrow"], document["counts"]["needs_reset"]) == (1, 1)
    assert [item["tenant_id"] for item in document["items"]] == [new.tenant_id, more.tenant_id, blocked.tenant_id]
    assert document["items"][0]["adds"] == {GRAPH_APPLICATION_ID: ["Directory.Read.All", "User.Read.All"]}
    assert document["items"][1]["takes_away"] == {GRAPH_APPLICATION_ID: ["Group.Read.All"]}

    table = list(csv.DictReader(io.StringIO(run("plan_consents", "--show", document["plan"], "--format", "csv").out)))
    assert [row["action"] for row in table] == ["create", "narrow", "blocked"]
    assert table[0]["customer"] == "'=New", "a spreadsheet does not run it (S-64)"
    assert table[1]["takes_away"] == f"{GRAPH_APPLICATION_ID}: Group.Read.All"


def test_plan_consents_says_what_is_wrong_with_its_arguments(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    assert "No customer is chosen" in run("plan_consents").err
    unknown = builders.guid()
    for arguments, words in (
        (("--show", 4711), "There is no plan 4711"),
        (("--undo", 4711), "There is no plan 4711"),
        (("--undo", 1, "--tag", "europe"), "--undo takes no --tag"),
        (("--show", 1, "--customer", unknown), "--show takes no --customer"),
        (("--show", 1, "--undo", 1), "--show takes no --undo"),
        (("--customer", unknown), f"have no customer {unknown}"),
        (("--customer", "contoso"), "GUID"),
        (("--registration", unknown), f"There is no application registration {unknown}"),
        (("--registration", "contoso"), "GUID"),
    ):
        ran = run("plan_consents", *arguments)
        assert (ran.code, words in ran.err) == (2, True), ran.err
    second = builders.registration(name="Second")
    ran = run("plan_consents")
    assert ran.code == 2
    assert second.application_id in ran.err
    builders.customer(partner)
    assert run("plan_consents", "--registration", registration.application_id).code == 0
