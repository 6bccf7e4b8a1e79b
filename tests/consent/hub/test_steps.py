"""The one next step of a partner: each situation has its sentence, its owner and the buttons that do it.

Covers: consent.hub.facts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consent.hub.steps import Action, NextStep, next_step_of
from consent.invitations import links
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink, PartnerConsent, WaitingToken
from consent.models.offboardings import Offboarding
from consent.partners import disable
from portal.microsoft.diagnosis import Owner
from portal.runs.models import Run
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.hub import facts_of, read_all

pytestmark = pytest.mark.django_db


def step(partner: PartnerTenant) -> NextStep:
    return next_step_of(facts_of(partner), timezone.now())


@pytest.fixture
def registration() -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All")
    return made


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner(name="Northwind Cloud")


def token(partner: PartnerTenant, registration: ApplicationRegistration, **columns: Any) -> PartnerConsent:
    """Connect the partner: checked an hour ago, customers read since."""
    now = timezone.now()
    PartnerTenant.objects.filter(pk=partner.pk).update(customers_synced_at=now)
    well = {"last_success_at": now - timedelta(hours=1), "last_try_at": now, "last_class": "ok"}
    return builders.consent(partner, registration, **well | columns)


def link(partner: PartnerTenant, registration: ApplicationRegistration, **attempt: Any) -> ConsentLink:
    made, _ = links.issue(partner, registration, actor=builders.ACTOR)
    if attempt:
        ConsentFlow.objects.create(
            link=made,
            public_id=builders.guid()[:32],
            state_hash=builders.guid(),
            binder_hash="",
            expires_at=timezone.now() + timedelta(minutes=15),
            correlation_id=builders.guid(),
            **attempt,
        )
    return made


def refused(problem: str) -> dict[str, Any]:
    return {"outcome": "refused", "problem": problem, "claimed_at": timezone.now()}


def test_a_new_partner_is_to_be_invited(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    found = step(partner)
    assert (found.what, found.owner) == ("The partner was not invited yet.", Owner.US)
    assert found.actions == (Action.SEND_LINK,)
    assert found.since == partner.created_at


def test_without_an_active_registration_of_its_cloud_nobody_is_asked_to_send_a_link(partner: PartnerTenant) -> None:
    builders.registration(cloud="china")
    builders.registration(kind="csp")  # of another tenant
    found = step(partner)
    assert "No application registration" in found.what
    assert found.actions == ()


def test_an_open_link_waits_for_the_partner_and_a_refused_attempt_says_what_it_read(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    link(partner, registration)
    found = step(partner)
    assert (found.what, found.owner) == ("The partner has a link and has not used it.", Owner.PARTNER)
    assert found.actions == (Action.INVITE_AGAIN,)

    link(partner, registration, **refused("admin_approval_needed"))
    found = step(partner)
    assert found.what.startswith("The partner's last attempt was refused:")
    assert found.owner is Owner.PARTNER

    ConsentLink.objects.update(created_at=timezone.now() - timedelta(days=30), expires_at=timezone.now())
    found = step(partner)
    assert found.what == "The partner's last link does not work any more: expired."
    assert (found.owner, found.actions) == (Owner.US, (Action.SEND_LINK,))


@pytest.mark.parametrize(
    ("columns", "what", "owner", "actions"),
    [
        (
            {"state": "needs_consent", "last_problem": "needs_consent", "last_owner": "partner",
             "last_message": "Somebody revoked it. Send a new link."},
            "The partner must consent again.", Owner.PARTNER, (Action.INVITE_AGAIN, Action.CHECK),
        ),
        (
            {"state": "mfa_missing", "mfa": "missing"},
            "Partner Center does not confirm multifactor authentication.", Owner.PARTNER,
            (Action.INVITE_AGAIN, Action.CHECK),
        ),
        (
            {"last_problem": "not_permitted", "last_owner": "partner", "last_message": "The role is gone."},
            "The last check was refused.", Owner.PARTNER, (Action.INVITE_AGAIN, Action.CHECK),
        ),
        (
            {"state": "stopped", "last_problem": "identity_mismatch", "last_owner": "us"},
            "The token was stopped: it is not of the account that its record names.", Owner.US,
            (Action.SEE_AUDIT, Action.INVITE_AGAIN),
        ),
        (
            {"state": "expired"},
            "The token was not renewed for 90 days and is over.", Owner.PARTNER, (Action.INVITE_AGAIN, Action.CHECK),
        ),
        (
            {"state": "disconnected"},
            "We disconnected the partner; Microsoft may still accept the token.", Owner.PARTNER,
            (Action.INVITE_AGAIN,),
        ),
        (
            {"last_class": "our_credential", "last_owner": "us", "failures": 2},
            "Microsoft does not accept our application's credential.", Owner.US,
            (Action.SEE_CREDENTIAL, Action.CHECK),
        ),
        (
            {"last_success_at": None},
            "Nobody knows how the token stands: the last proof is too old.", Owner.US, (Action.CHECK,),
        ),
        (
            {"granted_scopes": {"fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd": []}},
            "The partner granted less than the application asks for.", Owner.PARTNER,
            (Action.INVITE_AGAIN, Action.CHECK),
        ),
    ],
)  # fmt: skip
def test_a_token_that_wants_somebody_says_who_and_what_does_it(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    columns: dict[str, Any],
    what: str,
    owner: Owner,
    actions: tuple[Action, ...],
) -> None:
    consent = token(partner, registration, **columns)
    found = step(partner)
    assert (found.what, found.owner, found.actions) == (what, owner, actions)
    assert found.consent == consent
    assert found.remedy


def test_of_two_tokens_the_worse_one_is_named(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    second = builders.registration(name="Backup")
    token(partner, registration, state="mfa_missing", mfa="missing")
    worse = token(partner, second, state="needs_consent", last_problem="needs_consent", last_owner="partner")
    found = step(partner)
    assert found.consent == worse
    assert found.what == "Backup: The partner must consent again."
    ApplicationRegistration.objects.filter(pk=second.pk).update(state="retired")
    assert "multifactor" in step(partner).what


def test_an_account_that_waits_comes_before_everything_else(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    consent = token(partner, registration, state="needs_consent", last_problem="needs_consent")
    waiting = WaitingToken.objects.create(
        consent=consent,
        object_id=builders.guid(),
        secret_name="rt-waits",
        secret_version="1",
        mfa="proven",
        expires_at=timezone.now() + timedelta(days=7),
    )
    found = step(partner)
    assert (found.actions, found.key, found.since) == ((Action.APPROVE,), waiting.pk, waiting.created_at)


def test_what_staff_decided_wins(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    token(partner, registration, state="needs_consent", last_problem="needs_consent")
    offboarding = Offboarding.objects.create(partner=partner, started_by="anna", remaining=2, state="waiting")
    PartnerTenant.objects.update(offboarding_since=timezone.now())
    found = step(partner)
    assert (found.owner, found.actions, found.key) == (Owner.US, (Action.SEE_OFFBOARDING,), offboarding.pk)
    assert found.remedy.startswith("2 customers could not be proven")

    disable(partner, actor=builders.ACTOR)
    found = step(partner)
    assert (found.owner, found.actions) == (Owner.US, (Action.ENABLE,))

    PartnerTenant.objects.update(switch="offboarded")
    assert step(partner).owner is None


def test_a_connected_partner_is_synchronised_then_planned_then_all_is_well(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    token(partner, registration)
    PartnerTenant.objects.update(customers_synced_at=None)
    assert step(partner).actions == (Action.SYNCHRONISE,)

    PartnerTenant.objects.update(customers_synced_at=timezone.now())
    ready = [builders.customer(partner, readiness="ready") for _ in range(2)]
    blocked = builders.customer(partner, readiness="not_ready", readiness_owner="customer")
    found = step(partner)
    assert found.what.startswith("2 customers are ready, and hold no consent to Example Control Panel")
    assert found.actions == (Action.PLAN,)

    rows = [builders.customer_consent(one, registration, "User.Read.All") for one in ready]
    found = step(partner)
    assert found.what == "1 customer is not ready for consent."
    assert (found.owner, found.actions) == (Owner.CUSTOMER, (Action.SEE_GDAP, Action.SYNCHRONISE))

    rows[0].state, rows[0].reason, rows[0].owner = "differs", "One permission is missing.", "us"
    rows[0].save()
    found = step(partner)
    assert found.what == "1 consent in customer tenants is not as wanted."
    assert found.actions == (Action.SEE_CUSTOMERS, Action.PLAN)

    rows[0].state, rows[0].owner = "granted", ""
    rows[0].save()
    blocked.delete()
    found = step(partner)
    assert found.what == "All is well: the token works, and 2 customers need nothing."
    assert (found.owner, found.actions) == (None, (Action.CHECK,))


def test_a_credential_that_ends_soon_leads_to_the_credential_and_not_to_a_check(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    soon = timezone.now() + timedelta(days=5)
    token(partner, registration, forecast_at=soon, forecast_cause="credential")
    found = step(partner)
    assert found.remedy == "The application's credential ends: store a new one before that."
    assert (found.owner, found.actions) == (Owner.US, (Action.SEE_CREDENTIAL,))


def test_a_plan_that_stopped_names_what_it_left_and_leads_to_its_run(
    partner: PartnerTenant, registration: ApplicationRegistration
) -> None:
    token(partner, registration)
    run = Run.objects.create(
        kind="consent_apply",
        scope_hash="1",
        actor_kind="staff",
        actor="anna",
        state="paused",
        reason="Too many failed.",
    )
    plan = registration.plans.create(
        purpose="remove", state="stopped", run=run, created_by="anna", applied_at=timezone.now()
    )
    plan.items.create(customer=builders.customer(partner), action="create")
    plan.items.create(customer=builders.customer(partner), action="create", result="done", finished_at=timezone.now())
    found = step(partner)
    assert found.what == f"Plan {plan.pk} waits, with 1 customer of this partner left to do."
    assert (found.actions, found.key) == ((Action.RESUME,), run.pk)


def test_facts_cost_the_same_for_any_number_of_rows(
    partner: PartnerTenant, registration: ApplicationRegistration, django_assert_num_queries: Callable[[int], Any]
) -> None:
    token(partner, registration)
    link(partner, registration)
    with CaptureQueriesContext(connection) as few:
        read_all(facts_of(partner))
    for number in range(3):
        other = builders.registration(name=f"Product {number}")
        builders.grant(other, "User.Read.All")
        token(partner, other)
        link(partner, other)
        customer = builders.customer(partner, readiness="ready")
        builders.customer_consent(customer, other, "User.Read.All")
    with django_assert_num_queries(len(few)):
        facts = facts_of(partner)
        read_all(facts)
        next_step_of(facts, timezone.now())
        assert [one.registration.credential for one in facts.consents]
    assert len(few) <= 13


def test_a_step_reads_no_more_than_it_needs(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    token(partner, registration)
    facts = facts_of(partner)
    with CaptureQueriesContext(connection) as asked:
        next_step_of(facts, timezone.now())
        next_step_of(facts, timezone.now())
    assert vars(facts).keys() - {"partner", "state"} == {"waiting", "consents", "stopped", "customers"}
    assert len(asked) == 7
