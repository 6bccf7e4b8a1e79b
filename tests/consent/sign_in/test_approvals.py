"""A changed account waits apart until a person decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from consent import clients
from consent.models import ConsentFlow, PartnerConsent, WaitingToken
from consent.sign_in import approvals
from consent.tokens.service import Audience
from consent.vault.base import SecretDisabled, SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import new_correlation_id
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import SERVICE_ACCOUNT, Browser, Portal

SECOND = "second@northwind.example.com"
pytestmark = pytest.mark.req("S-15")


def oid_of(portal: Portal, upn: str) -> str:
    return next(user.oid for _, user in portal.sandbox.world.users_of("global") if user.upn == upn)


@pytest.fixture
def waiting(portal: Portal) -> WaitingToken:
    portal.onboard()
    page = portal.onboard(user=SECOND)
    assert page.status_code == 200
    return WaitingToken.objects.select_related("consent").get()


def approve(token: WaitingToken) -> None:
    approvals.approve(token, tools=clients.consent_tools(), actor=builders.ACTOR, correlation_id=new_correlation_id())


def read(token: WaitingToken) -> None:
    clients.vault().read(SecretName(token.secret_name), SecretVersion(token.secret_version))


def test_another_account_waits_under_its_own_name_and_the_working_token_stays(
    portal: Portal, waiting: WaitingToken
) -> None:
    consent = portal.consent()
    assert (consent.state, consent.generation) == ("connected", 1)
    assert waiting.secret_name != consent.secret_name
    assert waiting.object_id == oid_of(portal, SECOND) != consent.pinned_oid
    assert ConsentFlow.objects.filter(outcome="waiting_approval").count() == 1
    event = AuditEvent.objects.get(action="account.waiting")
    assert event.details == {"pinned_oid": consent.pinned_oid, "actual_oid": waiting.object_id}
    clients.tokens().access_token(consent, Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id())
    used = [line["user"] for line in portal.sandbox.world.ledger if line.get("grant") == "refresh_token"]
    assert used[-1] == consent.pinned_oid


@contextmanager
def stalled_before_the_row_is_made(meanwhile: Callable[[], object]) -> Iterator[None]:
    """Do something else between a flow's look at the consents and the moment in which it makes or finds its own."""
    called = False

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal called
        if not called and sql.startswith("SELECT") and 'FROM "consent_partnerconsent"' in sql and "LIMIT 21" in sql:
            called = True
            meanwhile()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield
    assert called


def test_two_flows_of_one_link_with_a_stall_between_pin_one_account_and_the_other_waits(portal: Portal) -> None:
    path, one, two = portal.link(), Browser(), Browser()
    first = portal.at_microsoft(portal.press_continue(one, path))
    second = portal.at_microsoft(portal.press_continue(two, path), SECOND)

    with stalled_before_the_row_is_made(lambda: portal.come_back(one, first)):
        portal.come_back(two, second)

    consent = portal.consent()
    assert (consent.pinned_oid, consent.generation) == (oid_of(portal, SERVICE_ACCOUNT), 1)
    assert WaitingToken.objects.get().object_id == oid_of(portal, SECOND)
    assert sorted(ConsentFlow.objects.values_list("outcome", flat=True)) == ["connected", "waiting_approval"]


def test_two_flows_of_one_account_with_a_stall_between_keep_the_one_with_mfa(portal: Portal) -> None:
    path, one, two = portal.link(), Browser(), Browser()
    first = portal.at_microsoft(portal.press_continue(one, path))
    second = portal.at_microsoft(portal.press_continue(two, path), mfa=False)

    with stalled_before_the_row_is_made(lambda: portal.come_back(one, first)):
        portal.come_back(two, second)

    consent = portal.consent()
    assert (consent.state, consent.mfa, consent.generation) == ("connected", "proven", 1)
    assert ConsentFlow.objects.get(outcome="refused").problem == "mfa_missing"


def test_an_account_is_not_approved_over_one_that_took_over_meanwhile(portal: Portal, waiting: WaitingToken) -> None:
    third = builders.guid()

    with (
        stalled_before_the_row_is_made(lambda: PartnerConsent.objects.update(pinned_oid=third)),
        pytest.raises(approvals.DecisionRefused, match="changed meanwhile"),
    ):
        approve(waiting)

    consent = portal.consent()
    assert (consent.pinned_oid, consent.generation) == (third, 1)
    waiting.refresh_from_db()
    assert waiting.decision == "waiting"


def test_approving_swaps_the_account_and_switches_both_older_versions_off(
    portal: Portal, waiting: WaitingToken
) -> None:
    before = portal.consent()

    approve(waiting)

    after = portal.consent()
    assert (after.pinned_oid, after.generation, after.state) == (waiting.object_id, 2, "connected")
    clients.tokens().access_token(after, Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id())
    for name, version in (
        (before.secret_name, before.secret_version),
        (waiting.secret_name, waiting.secret_version),
    ):
        with pytest.raises(SecretDisabled):
            clients.vault().read(SecretName(name), SecretVersion(version))
    waiting.refresh_from_db()
    assert (waiting.decision, waiting.decided_by) == ("approved", builders.ACTOR.name)


def test_rejecting_switches_the_waiting_token_off_and_changes_nothing_else(
    portal: Portal, waiting: WaitingToken
) -> None:
    before = portal.consent()

    approvals.reject(waiting, vault=clients.vault(), actor=builders.ACTOR)

    with pytest.raises(SecretDisabled):
        read(waiting)
    after = portal.consent()
    assert (after.pinned_oid, after.secret_version) == (before.pinned_oid, before.secret_version)
    with pytest.raises(approvals.DecisionRefused):
        approve(waiting)


def test_nobody_decides_twice(portal: Portal, waiting: WaitingToken) -> None:
    approve(waiting)
    with pytest.raises(approvals.DecisionRefused):
        approvals.reject(waiting, vault=clients.vault(), actor=builders.ACTOR)
    with pytest.raises(approvals.DecisionRefused):
        approve(waiting)
    assert portal.consent().generation == 2


def test_after_seven_days_it_is_too_late_and_the_token_is_switched_off(portal: Portal, waiting: WaitingToken) -> None:
    WaitingToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(approvals.DecisionRefused):
        approve(waiting)

    assert approvals.expire_overdue(vault=clients.vault()) == 1

    with pytest.raises(SecretDisabled):
        read(waiting)
    assert WaitingToken.objects.get().decision == "expired"
    assert approvals.expire_overdue(vault=clients.vault()) == 0


@pytest.mark.req("S-17")
def test_a_token_that_cannot_prove_itself_any_more_is_not_approved(portal: Portal, waiting: WaitingToken) -> None:
    for _, user in portal.sandbox.world.users_of("global"):
        if user.upn == SECOND:
            user.enabled = False
    with pytest.raises(RemoteError):
        approve(waiting)
    consent = portal.consent()
    assert (consent.generation, consent.pinned_oid) == (1, oid_of(portal, "service@northwind.example.com"))
    assert WaitingToken.objects.get().decision == "waiting"


def test_a_disabled_partner_is_not_revived_by_an_approval(portal: Portal, waiting: WaitingToken) -> None:
    PartnerTenant.objects.update(switch="disabled")
    with pytest.raises(approvals.DecisionRefused):
        approve(waiting)
    assert PartnerTenant.objects.get().switch == "disabled"


def test_the_same_account_again_replaces_its_own_waiting_token(portal: Portal, waiting: WaitingToken) -> None:
    portal.onboard(user=SECOND)

    assert sorted(WaitingToken.objects.values_list("decision", flat=True)) == ["replaced", "waiting"]
    with pytest.raises(SecretDisabled):
        read(waiting)


@pytest.mark.req("S-51")
def test_a_stopped_partner_that_consents_again_gets_a_name_of_its_own(portal: Portal) -> None:
    portal.onboard()
    before = portal.consent()
    PartnerConsent.objects.update(state="stopped")

    portal.onboard()

    after = portal.consent()
    assert (after.state, after.generation) == ("connected", 2)
    assert after.secret_name != before.secret_name
    clients.vault().read(SecretName(before.secret_name), SecretVersion(before.secret_version))
