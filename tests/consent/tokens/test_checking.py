"""Checking a token: the honest state of a partner, and no partner blamed for a fault of ours.

Covers: consent.tokens.next_steps.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.models import ApplicationRegistration, PartnerConsent
from consent.states import state_of
from consent.tokens.checking import CheckResult
from consent.tokens.next_steps import next_step
from consent.vault.base import SecretDisabled, VaultDamaged
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.errors import AccessDenied, NotFound, RemoteError
from tenants.models import PartnerTenant
from tests.sandbox.world import Fault, Refusal, Tamper
from tests.support import builders, custody
from tests.support.portal import Portal
from tests.support.units import check_token

HEALTH = ("state", "mfa", "last_problem", "last_code", "last_message", "first_denied_at", "last_success_at")


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def check(portal: Portal) -> CheckResult:
    return check_token(portal.consent())


def health(portal: Portal) -> dict[str, Any]:
    row: dict[str, Any] = PartnerConsent.objects.values(*HEALTH).get()
    return row | {"partner": state_of(PartnerTenant.objects.get())}


def refuse(portal: Portal, code: int, times: int = 1) -> None:
    portal.sandbox.world.refusals.append(Refusal(code=code, tenant_id=portal.partner.tenant_id, times=times))


def denied_before(minutes: float) -> None:
    """Move the first denial into the past."""
    PartnerConsent.objects.update(first_denied_at=timezone.now() - timedelta(minutes=minutes))


@pytest.mark.req("R-45")
def test_a_working_token_is_connected_with_the_time_of_its_success(connected: Portal) -> None:
    PartnerConsent.objects.update(
        state="needs_consent",
        last_success_at=None,
        last_problem="temporary",
        last_message="old",
        first_denied_at=timezone.now(),
    )

    result = check(connected)

    assert (result.ok, result.failure_class, result.systemic) == (True, "ok", False)
    now = health(connected)
    assert timezone.now() - now.pop("last_success_at") < timedelta(minutes=1)
    assert now == {
        "state": "connected",
        "mfa": "proven",
        "last_problem": "",
        "last_code": "",
        "last_message": "",
        "first_denied_at": None,
        "partner": "connected",
    }
    event = AuditEvent.objects.get(action="token.checked")
    assert (event.outcome, event.correlation_id) == ("done", result.correlation_id)
    assert event.details["state"] == {"before": "needs_consent", "after": "connected"}
    assert check(connected).ok
    assert AuditEvent.objects.filter(action="token.checked").count() == 1, "nothing turned: its run has the result"


@pytest.mark.req("R-45")
def test_each_check_redeems_and_asks_partner_center_even_with_a_good_cached_token(connected: Portal) -> None:
    custody.ask(connected.consent())
    before, calls = len(custody.redemptions(connected)), custody.api_calls(connected)

    check(connected)

    assert len(custody.redemptions(connected)) == before + 1
    assert custody.api_calls(connected) == calls + 1


@pytest.mark.req("S-18")
def test_without_mfa_a_working_token_is_not_healthy(connected: Portal) -> None:
    for token in connected.sandbox.world.refresh_tokens.values():
        token.amr = ["pwd"]

    result = check(connected)

    assert (result.ok, result.failure_class, result.owner) == (False, "needs_interaction", "partner")
    now = health(connected)
    assert (now["state"], now["mfa"], now["partner"], now["last_problem"]) == (
        "mfa_missing",
        "missing",
        "attention",
        "mfa",
    )


@pytest.mark.req("S-18")
def test_an_answer_without_a_verdict_takes_the_proof_and_not_the_state(connected: Portal) -> None:
    """One answer of Partner Center, or of a proxy, without the header ``isMfaCompliant``."""
    verdict_at = timezone.now() - timedelta(days=3)
    PartnerConsent.objects.update(mfa_checked_at=verdict_at, last_success_at=verdict_at)
    before = health(connected)
    connected.sandbox.world.switches["mfa_header"] = False

    for _ in range(2):
        result = check(connected)
        assert (result.ok, result.failure_class, result.owner) == (False, "mfa_unproven", "nobody")
        now = health(connected)
        assert (now["state"], now["mfa"], now["partner"]) == ("connected", "unproven", "connected")
        assert (now["last_problem"], now["first_denied_at"]) == ("", None)
        assert now["last_success_at"] > before["last_success_at"]
    assert connected.consent().mfa_checked_at == verdict_at, "the age of the last verdict"
    assert not Incident.objects.exists()
    assert next_step(connected.consent(), timezone.now()).owner == "nobody"

    connected.sandbox.world.switches["mfa_header"] = True
    assert check(connected).ok
    assert health(connected)["mfa"] == "proven"


@pytest.mark.req("S-18")
@pytest.mark.parametrize("mfa", ["missing", "unproven"])
def test_an_answer_without_a_verdict_heals_nobody(connected: Portal, mfa: str) -> None:
    PartnerConsent.objects.update(state="mfa_missing", mfa=mfa, last_problem="mfa")
    connected.sandbox.world.switches["mfa_header"] = False

    assert not check(connected).ok

    now = health(connected)
    assert (now["state"], now["mfa"], now["last_problem"]) == ("mfa_missing", mfa, "mfa")


@pytest.mark.req("S-18")
@pytest.mark.parametrize("form", ["900421", "old"])
def test_partner_center_refusing_for_mfa_turns_the_partner_after_the_second_time(connected: Portal, form: str) -> None:
    connected.sandbox.world.switches.update(mfa_enforced=True, mfa_refusal=form)
    for token in connected.sandbox.world.refresh_tokens.values():
        token.amr = ["pwd"]

    result = check(connected)
    assert (result.failure_class, result.owner, result.systemic) == ("needs_interaction", "partner", False)
    assert health(connected)["state"] == "connected"
    denied_before(11)
    check(connected)

    now = health(connected)
    assert (now["state"], now["mfa"], now["partner"]) == ("mfa_missing", "missing", "attention")


@pytest.mark.req("R-15")
def test_one_denial_does_not_turn_a_healthy_partner_and_a_second_soon_after_does_not_either(connected: Portal) -> None:
    refuse(connected, 700082)
    first = check(connected)
    assert (first.failure_class, first.code, first.systemic) == ("needs_consent", "AADSTS700082", False)
    now = health(connected)
    assert (now["state"], now["partner"], now["last_problem"]) == ("connected", "attention", "needs_consent")
    assert now["first_denied_at"] is not None

    denied_before(9)
    refuse(connected, 700082)
    check(connected)
    assert health(connected)["state"] == "connected"


@pytest.mark.req("R-15")
def test_two_denials_ten_minutes_apart_need_a_new_consent(connected: Portal) -> None:
    refuse(connected, 50173)
    check(connected)
    denied_before(10.1)
    refuse(connected, 50173)

    result = check(connected)

    now = health(connected)
    assert (now["state"], now["partner"], now["last_code"]) == ("needs_consent", "attention", "AADSTS50173")
    assert now["last_message"] == f"{result.cause} {result.remedy}"


@pytest.mark.req("R-15")
@pytest.mark.parametrize("code", [53003, 50097])
def test_a_policy_that_wants_another_sign_in_never_costs_the_consent(connected: Portal, code: int) -> None:
    refuse(connected, code)
    check(connected)
    denied_before(60)
    refuse(connected, code)

    result = check(connected)

    assert (result.failure_class, result.systemic) == ("needs_interaction", False)
    now = health(connected)
    assert (now["state"], now["partner"], now["last_problem"]) == ("connected", "attention", "needs_interaction")


@pytest.mark.req("R-15")
def test_a_success_in_between_starts_the_count_anew(connected: Portal) -> None:
    refuse(connected, 50173)
    check(connected)
    denied_before(60)
    assert check(connected).ok
    refuse(connected, 50173)

    check(connected)

    assert health(connected)["state"] == "connected"


@pytest.mark.req("R-05")
@pytest.mark.req("R-14")
@pytest.mark.req("R-15")
@pytest.mark.parametrize(
    "cause",
    [
        7000215,
        7000222,
        700027,
        50196,
        90033,
        90055,
        Fault(service="login", path="token", status=503, body="{}", times=3),
        Fault(service="login", path="token", status=200, body="<html>", headers={"Content-Type": "text/html"}, times=3),
        Fault(service="login", path="token", close="before", times=3),
        Fault(service="partnercenter", status=503, times=3),
        Fault(service="partnercenter", status=429, headers={"Retry-After": "100"}, times=3),
        Fault(service="partnercenter", close="after", times=3),
        Fault(service="partnercenter", status=200, body="[]", times=3),
    ],
    ids=str,
)
def test_a_fault_that_is_not_the_partners_changes_nothing_but_the_time_of_the_last_try(
    connected: Portal, cause: int | Fault
) -> None:
    before = health(connected)
    if isinstance(cause, Fault):
        connected.sandbox.world.faults.append(cause)
    else:
        refuse(connected, cause, times=3)

    result = check(connected)

    assert (result.ok, result.systemic) == (False, True), result
    assert result.cause
    assert result.owner
    assert health(connected) == before
    assert timezone.now() - connected.consent().last_try_at < timedelta(minutes=1)  # type: ignore[operator]
    assert not AuditEvent.objects.filter(action="token.checked").exists()


@pytest.mark.req("R-05")
@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("vault", "read", status=403),
        SecretDisabled("vault", "read", status=403),
        NotFound("vault", "read", status=404),
        VaultDamaged("vault", "read"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_vault_says_it_is_not_the_partners_fault(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, error: RemoteError
) -> None:
    before = health(connected)
    watched = custody.watch_vault(monkeypatch)
    watched.before = custody.fails_at("read", error)

    result = check(connected)

    assert result.systemic
    assert health(connected) == before


@pytest.mark.req("R-05")
def test_a_vault_that_is_away_changes_nothing(connected: Portal, settings: Settings) -> None:
    before, calls = health(connected), len(custody.redemptions(connected))
    Path(settings.VAULT_URL).rename(Path(settings.VAULT_URL).with_name("away"))

    assert check(connected).systemic

    assert health(connected) == before
    assert len(custody.redemptions(connected)) == calls


def test_a_lost_role_is_for_the_partner_and_leaves_the_token_alone(connected: Portal) -> None:
    custody.service_account(connected).groups.clear()

    result = check(connected)

    assert (result.failure_class, result.owner, result.systemic) == ("not_permitted", "partner", False)
    now = health(connected)
    assert (now["state"], now["partner"], now["last_problem"]) == ("connected", "attention", "not_permitted")


@pytest.mark.req("S-18")
@pytest.mark.req("S-51")
def test_another_tenants_profile_stops_the_partner(connected: Portal) -> None:
    body = f'{{"tenantId": "{builders.guid()}", "companyName": "Somebody else"}}'
    connected.sandbox.world.faults.append(Fault(service="partnercenter", status=200, body=body))

    result = check(connected)

    assert (result.ok, result.failure_class) == (False, "identity_mismatch")
    now = health(connected)
    assert (now["state"], now["partner"], now["last_code"]) == ("stopped", "attention", "profile_tenant")
    assert AuditEvent.objects.get(action="token.checked").outcome == "refused"
    calls = len(custody.redemptions(connected))
    assert check(connected).failure_class == "skipped"
    assert len(custody.redemptions(connected)) == calls


@pytest.mark.req("S-51")
def test_another_accounts_token_is_reported_as_a_mismatch(connected: Portal) -> None:
    connected.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", claims={"oid": builders.guid()}))

    result = check(connected)

    assert (result.ok, result.failure_class) == (False, "identity_mismatch")
    assert health(connected)["state"] == "stopped"


@pytest.mark.req("S-53")
@pytest.mark.parametrize("who", ["partner", "registration"])
def test_what_is_disabled_is_skipped_without_a_call_or_a_trace(connected: Portal, who: str) -> None:
    if who == "partner":
        PartnerTenant.objects.update(switch="disabled")
    else:
        ApplicationRegistration.objects.update(state="retired")
    before, calls = health(connected), len(custody.redemptions(connected))

    result = check(connected)

    assert (result.ok, result.failure_class, result.systemic) == (False, "skipped", False)
    assert health(connected) == before
    assert len(custody.redemptions(connected)) == calls
    assert not AuditEvent.objects.filter(action="token.checked").exists()


def test_a_partner_disabled_during_the_check_stays_disabled(connected: Portal) -> None:
    check_token(connected.consent(), meanwhile=lambda: PartnerTenant.objects.update(switch="disabled"))

    assert PartnerTenant.objects.get().switch == "disabled"


@pytest.mark.parametrize("state", ["stopped", "disconnected"])
def test_a_consent_stopped_during_the_check_is_not_revived(connected: Portal, state: str) -> None:
    check_token(connected.consent(), meanwhile=lambda: PartnerConsent.objects.update(state=state))

    assert health(connected)["state"] == state
    assert health(connected)["partner"] == "attention"


def test_a_denial_of_an_older_token_says_nothing_about_the_one_consented_meanwhile(connected: Portal) -> None:
    refuse(connected, 50173)
    check(connected)
    denied_before(60)
    refuse(connected, 50173)

    check_token(connected.consent(), meanwhile=connected.onboard)

    now = health(connected)
    assert (connected.consent().generation, now["state"], now["partner"]) == (2, "connected", "connected")
