"""Partners whose token cannot serve their customers: a plan says so, and none of them stops the others.

Covers: consent.tokens.serving.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from consent.models import ConsentPlan, ConsentPlanItem, PartnerConsent
from consent.runs.apply_plan import start_apply
from portal.incidents.models import Incident
from portal.runs import summaries
from portal.runs.models import RunItem
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders, fleet
from tests.support.plans import apply, first_customers, more_customers, plan_for, refuse_posts, requests, work
from tests.support.portal import Portal

pytestmark = pytest.mark.django_db

CANNOT = "The partner's token cannot serve its customers."


def results() -> dict[str, set[tuple[str, str]]]:
    """Return what came of the customers of the latest plan, by partner."""
    plan = ConsentPlan.objects.latest("pk")
    said: dict[str, set[tuple[str, str]]] = {}
    for item in plan.items.select_related("customer__partner"):
        said.setdefault(item.customer.partner.name, set()).add((item.result, item.owner))
    return said


def test_a_plan_blocks_the_customers_of_each_partner_that_cannot_serve_them(portal: Portal) -> None:
    first_customers(portal, 3)
    harbour = fleet.connected(portal, "harbour", "Harbour")
    meadow = fleet.connected(portal, "meadow", "Meadow")
    lakeview = fleet.add_partner(portal, "lakeview", "Lakeview")
    fleet.account(portal, lakeview).mfa_required = False
    fleet.connect(portal, lakeview)
    fabric = fleet.connected(portal, "fabric", "Fabric")
    leaving = fleet.connected(portal, "leaving", "Leaving")
    fleet.add_partner(portal, "newcomer", "Newcomer")
    expired = fleet.connected(portal, "expired", "Expired")
    fleet.revoke(portal, harbour)
    fleet.take_role(portal, meadow)
    fleet.check(harbour, meadow)
    PartnerConsent.objects.filter(partner=expired).update(state=PartnerConsent.State.EXPIRED)
    PartnerTenant.objects.filter(pk=fabric.pk).update(switch="disabled")
    PartnerTenant.objects.filter(pk=leaving.pk).update(offboarding_since=timezone.now())

    everybody = list(CustomerTenant.objects.values_list("pk", flat=True))
    items = make(portal, everybody)

    said = {name: {(item.action, item.owner) for item in mine} for name, mine in items.items()}
    assert said == {
        "Northwind Cloud": {("create", "")},
        "Harbour": {("blocked", "partner")},
        "Meadow": {("blocked", "partner")},
        "Lakeview": {("blocked", "partner")},
        "Fabric": {("blocked", "us")},
        "Leaving": {("blocked", "us")},
        "Newcomer": {("blocked", "partner")},
        "Expired": {("blocked", "partner")},
    }
    reasons = {name: mine[0].reason for name, mine in items.items()}
    known = {consent.partner.name: consent for consent in PartnerConsent.objects.select_related("partner")}
    assert reasons["Harbour"] == f"{CANNOT} Needs consent again. {known['Harbour'].last_message}"
    assert reasons["Meadow"] == f"{CANNOT} {known['Meadow'].last_message}"
    assert reasons["Lakeview"] == f"{CANNOT} Connected, MFA missing. Send the partner a new consent link."
    assert reasons["Fabric"] == "Fabric is disabled; enable it first."
    assert reasons["Leaving"] == "The partner is being offboarded."
    assert reasons["Newcomer"].startswith("The partner never connected this application.")
    assert reasons["Expired"].startswith(f"{CANNOT} Expired. Send the partner a new consent link.")


def make(portal: Portal, customers: list[int]) -> dict[str, list[ConsentPlanItem]]:
    plan = plan_for(portal, customers=customers)
    by_partner: dict[str, list[ConsentPlanItem]] = {}
    for item in plan.items.select_related("customer__partner"):
        by_partner.setdefault(item.customer.partner.name, []).append(item)
    return by_partner


def test_partners_that_are_known_to_be_dead_halt_nobodys_waves(portal: Portal) -> None:
    harbour, meadow = fleet.connected(portal, "harbour", "Harbour", 4), fleet.connected(portal, "meadow", "Meadow", 4)
    first_customers(portal, 3)
    more_customers(portal, 3)
    fleet.revoke(portal, harbour)
    fleet.take_role(portal, meadow)
    fleet.check(harbour, meadow)

    done = apply(portal, waves=(1, 3))

    assert (done.state, summaries.summary(done).classes) == ("done", {"ok": 6})


def test_a_partner_whose_token_died_since_the_plan_is_held_by_its_row_and_nothing_is_called(portal: Portal) -> None:
    harbour = fleet.connected(portal, "harbour", "Harbour", 3)
    first_customers(portal, 3)
    started, _ = start_apply(plan_for(portal), actor=builders.ACTOR, waves=(1, 2))
    fleet.revoke(portal, harbour)
    fleet.check(harbour)
    before = calls_for(portal, harbour)
    assert before

    done = work(started)

    assert (done.state, summaries.summary(done).classes) == ("done", {"held": 3, "ok": 3})
    assert results() == {"Harbour": {("held", "partner")}, "Northwind Cloud": {("done", "")}}
    item = ConsentPlanItem.objects.filter(customer__partner=harbour).first()
    assert item is not None
    assert item.message.startswith(f"{CANNOT} Needs consent again.")
    assert item.message.endswith("Nothing was sent; make a new plan then.")
    assert calls_for(portal, harbour) == before


def calls_for(portal: Portal, partner: PartnerTenant) -> int:
    """Return how many lines of the sandbox's ledger name the partner's tenant."""
    return sum(partner.tenant_id in map(str, line.values()) for line in portal.sandbox.world.ledger)


@pytest.mark.parametrize(
    ("lose", "cause"), [(fleet.revoke, "token_needs_consent"), (fleet.take_role, "token_not_permitted")]
)
def test_a_token_that_turns_out_dead_holds_back_that_partner_and_halts_nobody(
    portal: Portal, lose: Callable[[Portal, PartnerTenant], None], cause: str
) -> None:
    harbour = fleet.connected(portal, "harbour", "Harbour", 6)  # the first waves are all its customers
    first_customers(portal, 3)
    plan = plan_for(portal)
    lose(portal, harbour)

    done = apply(portal, plan, waves=(1, 3))

    assert done.state == "done"
    assert summaries.summary(done).classes == {cause: 1, "held": 5, "ok": 3}
    assert results() == {"Harbour": {("held", "partner")}, "Northwind Cloud": {("done", "")}}
    assert not Incident.objects.open().filter(cause="run_halted").exists()
    messages = set(RunItem.objects.filter(group=harbour.pk).values_list("message", flat=True))
    assert all(message.startswith(CANNOT) for message in messages)


def test_many_dead_partners_in_one_wave_are_a_question_to_a_person(portal: Portal) -> None:
    lost = [fleet.connected(portal, f"lost{number}", f"Lost {number}", 1) for number in range(3)]
    first_customers(portal, 3)
    plan = plan_for(portal)
    for partner in lost:
        fleet.take_role(portal, partner)

    halted = apply(portal, plan, waves=(3,))

    assert halted.state == "paused"
    assert halted.reason == (
        "Too many failed in wave 1: 3 of 3 partners cannot be worked at all. "
        "Lost 0: 1 token_not_permitted; Lost 1: 1 token_not_permitted; Lost 2: 1 token_not_permitted."
    )
    assert requests(portal) == []


def test_a_customer_that_is_refused_alone_is_not_held_against_its_partner(portal: Portal) -> None:
    customers = first_customers(portal, 3)
    portal.sandbox.world.customers[portal.partner.tenant_id].pop(customers[0].tenant_id)

    done = apply(portal, waves=(), stop_share=1)

    assert done.state == "done"
    assert summaries.summary(done).classes["ok"] == 2
    assert not RunItem.objects.filter(failure_class__startswith="token_").exists()


def test_a_halted_wave_counts_by_partner_and_cause(portal: Portal) -> None:
    harbour = fleet.connected(portal, "harbour", "Harbour", 1)
    first_customers(portal, 3)
    more_customers(portal, 1)
    plan = plan_for(portal)
    fleet.take_role(portal, harbour)
    refuse_posts(portal, times=2)

    halted = apply(portal, plan, waves=(5,))

    assert halted.state == "paused"
    assert halted.reason == (
        "Too many failed in wave 1: 2 of 4 (2 failed, 2 ok, 1 token_not_permitted). "
        "Northwind Cloud: 2 failed; Harbour: 1 token_not_permitted."
    )
