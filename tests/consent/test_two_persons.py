"""What two persons decide about in consent: the services refuse without, and each is shown as it is (S-50)."""

from __future__ import annotations

from typing import Any

import pytest

from consent.customers.plans import make_plan
from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentPlan, Offboarding
from consent.runs.apply_plan import SecondPersonNeeded, start_apply, start_direct
from consent.selection import EVERYTHING, Selection
from consent.two_persons import (
    APPLY,
    ERASE,
    OFFBOARD,
    REMOVE,
    RETIRE_KEY,
    chosen_for_removal,
    offboarding_of,
    removal_of,
)
from portal.audit.models import AuditEvent
from portal.decisions import service
from portal.decisions.kinds import CannotBeDone, kinds
from portal.decisions.models import Decision
from portal.decisions.records import DecisionRefused
from portal.runs.models import Run
from tenants.models import PartnerTenant
from tests.support import builders, decisions
from tests.support.commands import run
from tests.support.staff import Staff, told

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-50")]
State = Decision.State


@pytest.fixture
def partner() -> PartnerTenant:
    """A partner with a token and two customers that hold our consent."""
    registration = builders.registration()
    builders.grant(registration, "User.Read.All")
    made = builders.partner(name="Northwind")
    builders.consent(made, registration)
    for name in ("Fabrikam", "Litware"):
        builders.customer_consent(builders.customer(made, company_name=name), registration, "User.Read.All")
    return made


def consents_of(partner: PartnerTenant) -> list[int]:
    return list(Selection(partner=(partner.tenant_id,)).customer_consents().values_list("pk", flat=True))


def removing_plan() -> ConsentPlan:
    """A plan that would take our consent from each customer."""
    registration = ApplicationRegistration.objects.get()
    return make_plan(registration, EVERYTHING, actor=builders.ACTOR, purpose=ConsentPlan.Purpose.REMOVE)


def test_all_kinds_are_known_by_their_keys() -> None:
    assert [kinds()[one.key] for one in (OFFBOARD, ERASE, REMOVE, APPLY, RETIRE_KEY)]


# --- the services refuse ------------------------------------------------------------------------------------------


def test_from_more_than_one_customer_nothing_is_removed_without_an_approval(partner: PartnerTenant) -> None:
    both = Selection(consents=tuple(consents_of(partner)))
    with pytest.raises(SecondPersonNeeded, match="removed from 2 customer tenants, which two persons decide about"):
        start_direct(ConsentPlan.Purpose.REMOVE, both, actor=builders.ACTOR)
    assert not Run.objects.exists()
    _, new = start_direct(ConsentPlan.Purpose.REMOVE, Selection(consents=both.consents[:1]), actor=builders.ACTOR)  # type: ignore[index]
    assert new
    approval = decisions.approval()
    _, new = start_direct(ConsentPlan.Purpose.REMOVE, both, actor=builders.ACTOR, approved=approval)
    assert new


def test_a_plan_that_removes_from_more_than_one_customer_is_not_applied_without_an_approval(
    partner: PartnerTenant,
) -> None:
    plan = removing_plan()
    with pytest.raises(SecondPersonNeeded, match="2 customer tenants"):
        start_apply(plan, actor=builders.ACTOR)
    begun, new = start_apply(plan, actor=builders.ACTOR, approved=decisions.approval())
    assert new
    assert start_apply(plan, actor=builders.ACTOR) == (begun, False), "it goes on with what was approved"


# --- what is shown, and done --------------------------------------------------------------------------------------


def test_an_offboarding_is_begun_by_the_approval_and_a_link_that_opens_meanwhile_ends_it(
    partner: PartnerTenant,
) -> None:
    decision, _ = service.ask(OFFBOARD, offboarding_of(partner), why="They left.", actor=builders.ACTOR)
    link, _ = links.issue(partner, ApplicationRegistration.objects.get(), actor=builders.ACTOR)
    with pytest.raises(DecisionRefused, match=r"Open links: before 0 links → closed at once, now 1 link"):
        decisions.approve(decision)
    assert not Offboarding.objects.exists()
    links.revoke(link, actor=builders.ACTOR)
    done = decisions.approve(decision)
    one = Offboarding.objects.get()
    assert (done.state, done.outcome_subject, one.state) == (State.DONE, {"offboarding": one.pk}, "removing")
    assert one.started_by == builders.ACTOR.name
    with pytest.raises(CannotBeDone, match="is being offboarded already"):
        service.ask(OFFBOARD, offboarding_of(partner), why="Again.", actor=builders.ACTOR)


def test_a_removal_names_partner_customers_and_application_and_is_started_by_the_approval(
    partner: PartnerTenant,
) -> None:
    parameters = removal_of(consents_of(partner))
    decision, _ = service.ask(REMOVE, parameters, why="They left.", actor=builders.ACTOR)
    assert (decision.what, decision.whom) == ("Remove our consent from 2 customer tenants", "Northwind")
    shown = str(decision.preview["changes"])
    assert "Fabrikam, Litware" in shown
    assert "Example Control Panel" in shown
    done = decisions.approve(decision)
    begun = Run.objects.get()
    assert (done.outcome_subject, begun.actor) == ({"run": begun.pk}, builders.ACTOR.name)
    plan = ConsentPlan.objects.get()
    assert Selection.from_json(plan.scope) == chosen_for_removal(parameters)
    with pytest.raises(CannotBeDone, match=f"Run {begun.pk} does this already"):
        service.ask(REMOVE, parameters, why="Again.", actor=builders.ACTOR)


def test_a_removing_plan_is_asked_for_on_its_page_and_applied_by_the_approval(partner: PartnerTenant) -> None:
    plan, staff = removing_plan(), Staff()
    page = f"/admin/consent/consentplan/{plan.pk}/apply/"
    chosen = {"waves": "1", "stop_percent": "10"}
    sure = staff.confirm(staff.get(page), **chosen)
    assert "another person with the same right decides" in sure.content.decode()
    again = staff.confirm(sure, **chosen, reset="False", why=" ")
    assert not Decision.objects.exists()
    asked = staff.confirm(again, **chosen, reset="False", why="They left.")
    assert "nothing was done yet" in told(asked) or "no other account has the right" in told(asked)
    assert not Run.objects.exists()
    decision = Decision.objects.get()
    assert "remove" in str(decision.preview["changes"]).lower()
    done = decisions.approve(decision)
    begun = Run.objects.get()
    assert (done.state, begun.stop_share, begun.actor) == (State.DONE, 0.1, staff.user.username)
    assert AuditEvent.objects.get(action="consent_plan.applied").details["approved_by"] == "second-person"


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["offboard_partner", "apply_plan"])
def test_a_command_asks_says_where_and_ends_with_1(partner: PartnerTenant, name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "offboard_partner": (partner.tenant_id, "--yes"),
        "apply_plan": (removing_plan().pk,),
    }
    unasked = run(name, *arguments[name])
    assert (unasked.code, "Say why with --why TEXT" in unasked.err) == (2, True)
    assert not Decision.objects.exists()
    ran = run(name, *arguments[name], "--why", "They left.")
    decision = Decision.objects.get()
    assert ran.code == 1
    assert (
        f"https://portal.localhost/admin/decisions/decision/{decision.pk}/change/ . Then the workers do it." in ran.err
    )
    assert (decision.requester, decision.requester_kind) == (None, "command")
    again = run(name, *arguments[name], "--why", "They left.")
    assert "Asked for already by" in again.err
    assert not Run.objects.exists()
    assert decisions.approve(decision).state == State.DONE
    assert Run.objects.count() == 1


def test_the_tenant_and_the_cloud_of_a_partner_cannot_be_changed(partner: PartnerTenant) -> None:
    staff = Staff()
    page = f"/admin/tenants/partnertenant/{partner.pk}/details/"
    before = (partner.tenant_id, partner.cloud)
    for address in (page, f"/admin/tenants/partnertenant/{partner.pk}/change/"):
        staff.post(address, {"name": "Other", "tenant_id": builders.guid(), "cloud": "china", "kind": "direct"})
    partner.refresh_from_db()
    assert (partner.tenant_id, partner.cloud) == before
