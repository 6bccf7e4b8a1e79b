"""Health of a token: every change of state, when it is tried again, when it ends, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import rotation as credential_rotation
from consent.models import ApplicationRegistration, ConsentLink, PartnerConsent, WaitingToken
from consent.offboarding.disconnect import confirm_revoked, disconnect
from consent.states import state_of
from consent.tokens import health
from consent.tokens.checking import CheckResult
from consent.tokens.custody import TokenUnavailable
from consent.tokens.renewal import rotation
from consent.vault.base import SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import named_token_lifetime
from portal.microsoft.errors import AccessDenied
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.sandbox.world import Fault, Refusal, Tamper
from tests.support import builders, custody, customer_tenants
from tests.support.portal import Portal
from tests.support.units import check_token


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def check(portal: Portal) -> CheckResult:
    return check_token(portal.consent())


def refuse(portal: Portal, code: int, times: int = 1) -> None:
    portal.sandbox.world.refusals.append(Refusal(code=code, tenant_id=portal.partner.tenant_id, times=times))


def refused_before(minutes: float = 11) -> None:
    PartnerConsent.objects.update(first_denied_at=timezone.now() - timedelta(minutes=minutes))


def without_mfa(portal: Portal) -> None:
    for token in portal.sandbox.world.refresh_tokens.values():
        token.amr = ["pwd"]


def set_state(state: str) -> None:
    PartnerConsent.objects.update(state=state)


def open_causes() -> set[str]:
    return set(Incident.objects.open().values_list("cause", flat=True))


# --- every row of the table in docs/operations.md -------------------------------------------------------------------


def succeeds(portal: Portal) -> None:
    check(portal)


def succeeds_without_mfa(portal: Portal) -> None:
    without_mfa(portal)
    check(portal)


def refused_twice(code: int) -> Callable[[Portal], None]:
    def act(portal: Portal) -> None:
        refuse(portal, code)
        check(portal)
        refused_before()
        refuse(portal, code)
        check(portal)

    return act


def refused_for_mfa_twice(portal: Portal) -> None:
    portal.sandbox.world.switches.update(mfa_enforced=True, mfa_refusal="900421")
    without_mfa(portal)
    check(portal)
    refused_before()
    check(portal)


def grows_old(portal: Portal) -> None:
    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=90))
    health.watch()


def answers_as_another(portal: Portal) -> None:
    portal.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", claims={"oid": builders.guid()}))
    check(portal)


def consents_anew(portal: Portal) -> None:
    portal.onboard()


def is_disconnected(portal: Portal) -> None:
    assert disconnect(portal.consent(), vault=clients.vault(), actor=builders.ACTOR)


def is_called_dead_and_disconnected(portal: Portal) -> None:
    PartnerConsent.objects.update(last_code="AADSTS700082")
    is_disconnected(portal)


def is_confirmed(portal: Portal) -> None:
    confirm_revoked(portal.consent(), actor=builders.ACTOR)


ALL = ["connected", "mfa_missing", "needs_consent", "expired", "stopped", "disconnected", "revoked"]
CHANGES = [
    (ALL, consents_anew, "connected"),
    (["connected", "mfa_missing", "needs_consent", "expired"], succeeds, "connected"),
    (["connected", "mfa_missing", "needs_consent", "expired"], succeeds_without_mfa, "mfa_missing"),
    (["connected", "needs_consent"], refused_for_mfa_twice, "mfa_missing"),
    (["connected", "mfa_missing", "needs_consent"], refused_twice(50173), "needs_consent"),
    (["expired"], refused_twice(50173), "expired"),
    (["connected", "mfa_missing", "needs_consent"], grows_old, "expired"),
    (["connected", "mfa_missing", "needs_consent", "expired"], answers_as_another, "stopped"),
    (["connected", "mfa_missing", "needs_consent", "stopped"], is_disconnected, "disconnected"),
    (["needs_consent"], is_called_dead_and_disconnected, "revoked"),
    (["expired"], is_disconnected, "revoked"),
    (["disconnected"], is_confirmed, "revoked"),
    # and what changes nothing
    (["stopped", "disconnected", "revoked"], succeeds, ""),
    (["stopped", "disconnected", "revoked"], grows_old, ""),
    (["connected", "mfa_missing", "needs_consent", "expired", "stopped"], is_confirmed, ""),
    (["connected", "mfa_missing"], refused_twice(50196), ""),
    (["connected", "mfa_missing"], refused_twice(53003), ""),
    (["connected", "mfa_missing"], refused_twice(7000222), ""),
    (["connected", "mfa_missing"], refused_twice(90033), ""),
]


@pytest.mark.req("R-15")
@pytest.mark.req("R-45")
@pytest.mark.parametrize(
    ("before", "act", "after"),
    [
        pytest.param(before, act, after or before, id=f"{before}: {getattr(act, '__name__', '')}: {after or 'stays'}")
        for befores, act, after in CHANGES
        for before in befores
    ],
)
def test_a_state_changes_as_the_table_says(
    connected: Portal, before: str, act: Callable[[Portal], None], after: str
) -> None:
    set_state(before)
    act(connected)
    assert connected.consent().state == after


# --- who is told ----------------------------------------------------------------------------------------------------


@pytest.mark.req("S-60")
@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (refused_twice(50173), "token_needs_consent"),
        (succeeds_without_mfa, "mfa_missing"),
        (answers_as_another, "identity_mismatch"),
        (grows_old, "token_expired"),
    ],
)
def test_each_turn_for_the_worse_is_told_once_and_settled_by_a_new_consent(
    connected: Portal, act: Callable[[Portal], None], cause: str
) -> None:
    act(connected)
    assert open_causes() == {cause}
    connected.sandbox.world.tampers.clear()
    for _ in range(3):
        check(connected)
        health.watch()
    assert Incident.objects.get(cause=cause).times == 1

    connected.onboard()

    assert open_causes() - {"identity_mismatch"} == set(), "a person settles a mismatch"


# --- when it is tried again -----------------------------------------------------------------------------------------


def wait_of(portal: Portal) -> timedelta | None:
    row = portal.consent()
    assert row.last_try_at is not None
    return None if row.next_try_at is None else row.next_try_at - row.last_try_at


@pytest.mark.req("R-11")
def test_a_healthy_token_is_due_again_within_a_day_and_before_it_is_to_be_renewed(
    connected: Portal, settings: Settings
) -> None:
    settings.TOKEN_SAVE_AFTER_HOURS = 24 * 30
    clients.reset()
    check(connected)
    assert timedelta(hours=19) < (wait_of(connected) or timedelta()) < timedelta(hours=22)
    settings.TOKEN_CHECK_HOURS = 720
    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=27))
    check(connected)
    assert timedelta(days=1.9) < (wait_of(connected) or timedelta()) < timedelta(days=2.1)


@pytest.mark.req("R-11")
def test_in_a_year_of_daily_checks_a_token_has_at_most_60_versions_and_is_never_nine_days_old(db: None) -> None:
    """Key Vault removes no version, and backs up no entry with more than 500; Entra ends a token after 90 days."""
    save_after = timedelta(hours=settings.TOKEN_SAVE_AFTER_HOURS)
    assert save_after == timedelta(days=7), "the default"
    rule, year = rotation(save_after), timedelta(days=365)
    partner = PartnerTenant(tenant_id=builders.guid())
    for _ in range(20):
        consent = PartnerConsent(partner=partner, stored_at=timezone.now())
        began, now, versions, oldest = timezone.now(), timezone.now(), 1, timedelta()
        while now - began < year:
            with time_machine.travel(now, tick=False):
                oldest = max(oldest, now - (consent.stored_at or now))
                if rule.renews(consent, partner.tenant):
                    consent.stored_at, versions = now, versions + 1
                now = health.try_after_success(consent, now) + timedelta(hours=1)  # the schedule looks hourly
        assert 44 <= versions <= 60
        assert save_after <= oldest < timedelta(days=9)


@pytest.mark.parametrize(
    ("failures", "least", "most"),
    [(0, 7.4, 15.1), (1, 14.9, 30.1), (3, 59.9, 120.1), (12, 719, 1441)],
)
def test_what_passes_by_itself_is_tried_again_with_doubled_and_jittered_waits(
    connected: Portal, failures: int, least: float, most: float
) -> None:
    waits = set()
    for _ in range(4):
        PartnerConsent.objects.update(failures=failures)
        refuse(connected, 90033, times=5)
        check(connected)
        connected.sandbox.world.refusals.clear()
        wait = wait_of(connected)
        assert wait is not None
        assert timedelta(minutes=least) < wait < timedelta(minutes=most)
        assert connected.consent().failures == failures + 1
        waits.add(wait)
    assert len(waits) == 4, "no two alike"


def test_retry_after_is_the_least_wait_and_a_success_forgets_all_failures(connected: Portal) -> None:
    fault = Fault(service="partnercenter", status=429, headers={"Retry-After": "7200"}, times=5)
    connected.sandbox.world.faults.append(fault)
    check(connected)
    # The client takes 5 minutes at most for itself; the next check honours what it was told.
    assert (wait_of(connected) or timedelta()) >= timedelta(minutes=5)
    connected.sandbox.world.faults.clear()
    check(connected)
    assert connected.consent().failures == 0
    assert connected.consent().last_class == "ok"


@pytest.mark.req("R-15")
@pytest.mark.parametrize(
    ("code", "failure_class", "owner", "again"),
    [
        (700082, "needs_consent", "partner", False),
        (50173, "needs_consent", "partner", False),
        (50057, "needs_consent", "partner", True),
        (53003, "needs_interaction", "partner", True),
        (50196, "throttled", "nobody", True),
        (7000222, "our_credential", "us", True),
    ],
)
def test_a_token_that_never_heals_is_not_tried_again_and_all_others_are_at_most_daily(
    connected: Portal, code: int, failure_class: str, owner: str, again: bool
) -> None:
    refused_twice(code)(connected)
    row = connected.consent()
    assert (row.last_class, row.last_owner) == (failure_class, owner)
    assert (row.next_try_at is not None) is again
    if failure_class.startswith("needs"):
        wait = wait_of(connected)
        assert wait is None or timedelta(hours=19) < wait < timedelta(hours=22)
        assert not PartnerConsent.objects.due(timezone.now()).exists()


@pytest.mark.req("R-15")
def test_a_first_denial_is_confirmed_after_ten_minutes_and_not_before(connected: Portal) -> None:
    refuse(connected, 50173)
    check(connected)
    assert health.CONFIRM_AFTER < (wait_of(connected) or timedelta()) <= 2 * health.CONFIRM_AFTER


def test_an_error_that_nobody_knows_means_look_and_never_dead(connected: Portal) -> None:
    body = '{"error": "something_new", "error_codes": [98765432]}'
    for _ in range(3):
        connected.sandbox.world.faults.append(Fault(service="login", path="token", status=400, body=body, times=5))
        result = check(connected)
        connected.sandbox.world.faults.clear()
        refused_before()
    assert (result.failure_class, result.owner) == ("unknown", "us")
    assert connected.consent().state == "connected"
    assert connected.consent().next_try_at is not None


# --- when it ends ---------------------------------------------------------------------------------------------------


def ends(portal: Portal) -> tuple[datetime | None, str]:
    row = portal.consent()
    return row.forecast_at, row.forecast_cause


def test_without_another_cause_a_token_ends_90_days_after_it_was_stored(connected: Portal) -> None:
    stored_at = connected.consent().stored_at
    assert stored_at is not None
    assert ends(connected) == (stored_at + timedelta(days=90), "idle")


def test_the_earliest_of_all_ends_is_the_forecast(connected: Portal) -> None:
    now = timezone.now()
    customer = custody.first_customer(connected)
    type(customer).objects.update(gdap_ends_at=now + timedelta(days=40))
    health.refresh_partner(connected.partner)
    assert ends(connected) == (now + timedelta(days=40), "gdap")

    ending = credential_rotation.add_secret(
        connected.registration,
        Secret(connected.client_secret),
        expires_at=now + timedelta(days=20),
        vault=clients.vault(),
        actor=builders.ACTOR,
    )
    credential_rotation.promote(ending, door=clients.tokens_with, actor=builders.ACTOR)
    assert ends(connected) == (now + timedelta(days=20), "credential")

    PartnerConsent.objects.update(sign_in_lifetime=86_400 * 7, consented_at=now)
    health.watch()
    assert ends(connected) == (now + timedelta(days=7), "sign_in")

    set_state("needs_consent")
    health.watch()
    assert ends(connected) == (None, "")


def test_a_relationship_that_is_over_or_a_customer_that_is_gone_ends_no_token(connected: Portal) -> None:
    now = timezone.now()
    builders.customer(connected.partner, gdap_ends_at=now - timedelta(days=1))
    builders.customer(connected.partner, gdap_ends_at=now + timedelta(days=1), missing_since=now)
    health.refresh_partner(connected.partner)
    assert ends(connected)[1] == "idle"


def test_a_renewal_moves_the_forecast(connected: Portal) -> None:
    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=10))
    health.watch()
    old, _ = ends(connected)
    check(connected)
    new, _ = ends(connected)
    assert old is not None
    assert new is not None
    assert new - old > timedelta(days=9)


def too_old(portal: Portal, text: str) -> None:
    body = f'{{"error": "invalid_grant", "error_codes": [70043], "error_description": "AADSTS70043: {text}"}}'
    portal.sandbox.world.faults.append(Fault(service="login", path="token", status=400, body=body))


def test_the_lifetime_that_a_policy_named_is_kept_for_the_next_token_until_one_outlives_it(connected: Portal) -> None:
    too_old(connected, "The maximum allowed lifetime for this request is 86400.".lower())
    check(connected)
    assert connected.consent().sign_in_lifetime == 86_400

    connected.onboard()
    consent = connected.consent()
    assert ends(connected) == (consent.consented_at + timedelta(days=1), "sign_in")

    PartnerConsent.objects.update(consented_at=timezone.now() - timedelta(days=3))
    assert check(connected).ok
    assert connected.consent().sign_in_lifetime is None
    assert ends(connected)[1] == "idle"


@pytest.mark.parametrize(
    ("codes", "text", "seconds"),
    [
        ([70043], "maximum allowed lifetime for this request is 604800.", 604_800),
        ([70043], "maximum allowed lifetime for this request is 5", 3600),
        ([70043], "maximum allowed lifetime for this request is 999999999", 90 * 86_400),
        ([70043], "maximum allowed lifetime for this request is 9999999999999", None),
        ([70043], "lifetime 86400", None),
        ([70008], "maximum allowed lifetime for this request is 86400", None),
        ([], "AADSTS70043: maximum allowed lifetime for this request is 86400", None),
    ],
)
def test_a_lifetime_counts_only_together_with_its_code_and_within_sane_limits(
    codes: list[int], text: str, seconds: int | None
) -> None:
    assert named_token_lifetime(codes, text) == seconds


def test_working_out_many_tokens_that_end_alike_costs_a_fixed_number_of_queries(
    db: None, django_assert_num_queries: Any
) -> None:
    registration = builders.registration()
    stored_at = timezone.now() - timedelta(days=1)
    keys = [builders.consent(builders.partner(), registration, stored_at=stored_at).pk for _ in range(30)]
    with django_assert_num_queries(3):
        health.refresh(keys)
    with django_assert_num_queries(2):
        health.refresh(keys)


def test_rows_of_which_a_check_changed_no_input_cost_one_query(db: None, django_assert_num_queries: Any) -> None:
    registration = builders.registration()
    stored_at = timezone.now() - timedelta(days=1)
    rows = [builders.consent(builders.partner(), registration, stored_at=stored_at) for _ in range(30)]
    health.refresh([row.pk for row in rows])
    rows = list(PartnerConsent.objects.all())
    checked = [(row, {"state": "connected", "last_try_at": timezone.now()}) for row in rows]
    with django_assert_num_queries(1):
        health.refresh_changed(checked)


@pytest.mark.parametrize(
    ("loaded", "written", "by_others"),
    [
        ({}, {"state": "needs_consent"}, {}),
        ({"state": "needs_consent", "forecast_at": None, "forecast_cause": ""}, {"state": "connected"}, {}),
        ({"sign_in_lifetime": 86_400}, {"sign_in_lifetime": None}, {}),
        ({}, {"sign_in_lifetime": 86_400}, {}),
        ({}, {"state": "connected"}, {"forecast_at": None, "forecast_cause": ""}),
        ({}, {"state": "needs_consent"}, {"state": "needs_consent", "forecast_at": None, "forecast_cause": ""}),
        ({"state": "needs_consent"}, {"state": "needs_consent"}, {}),
        ({"stored_at": timezone.now() - timedelta(days=61), "alerted_days": 0}, {"state": "connected"}, {}),
    ],
    ids=[
        "stopped working",
        "works again",
        "outlived a policy",
        "a policy named its end",
        "another cleared it meanwhile",
        "another came to the same end",
        "a forecast that should not be there",
        "grew old",
    ],
)
def test_whatever_a_check_changes_the_forecast_is_what_working_it_out_anew_says(
    db: None, loaded: dict[str, Any], written: dict[str, Any], by_others: dict[str, Any]
) -> None:
    row = builders.consent(builders.partner(), builders.registration(), stored_at=timezone.now() - timedelta(days=1))
    rows = PartnerConsent.objects.filter(pk=row.pk)
    health.refresh([row.pk])
    rows.update(**loaded)
    row = rows.get()
    rows.update(**by_others)
    rows.update(**written)

    health.refresh_changed([(row, written)])

    found = rows.values("forecast_at", "forecast_cause", "alerted_days").get()
    health.refresh([row.pk])
    assert rows.values("forecast_at", "forecast_cause", "alerted_days").get() == found


# --- disconnect -----------------------------------------------------------------------------------------------------


@pytest.mark.req("S-67")
@pytest.mark.req("S-53")
def test_after_a_disconnect_no_call_is_made_and_no_version_is_left_on(connected: Portal) -> None:
    consent = connected.consent()
    custody.ask(consent)
    custody.make_due(consent)
    custody.ask(consent, fresh=True)
    link = connected.link()
    calls = len(custody.redemptions(connected))

    is_disconnected(connected)

    with pytest.raises(TokenUnavailable, match="disconnected"):
        custody.ask(connected.consent())
    assert check(connected).failure_class == "skipped"
    assert len(custody.redemptions(connected)) == calls
    assert len(custody.all_versions(connected, consent.secret_name)) == 2
    assert custody.enabled_versions(connected, connected.consent()) == []
    assert connected.consent().get_state_display() == "Disconnected (token may still be valid at Microsoft)"
    assert not ConsentLink.objects.usable().exists(), link
    assert state_of(PartnerTenant.objects.get()) == "attention"
    assert AuditEvent.objects.get(action="consent.disconnected").actor == builders.ACTOR.name

    assert confirm_revoked(connected.consent(), actor=builders.ACTOR)
    assert not confirm_revoked(connected.consent(), actor=builders.ACTOR)
    assert state_of(PartnerTenant.objects.get()) == "left"


@pytest.mark.req("S-67")
def test_a_vault_that_is_away_does_not_delay_a_disconnect_and_staff_finish_it(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = custody.watch_vault(monkeypatch)
    watched.before = custody.fails_at("disable", AccessDenied("vault", "disable", status=403), times=1)

    assert not disconnect(connected.consent(), vault=clients.vault(), actor=builders.ACTOR)

    assert connected.consent().state == "disconnected"
    assert open_causes() == {"disconnect_unfinished"}
    is_disconnected(connected)
    assert open_causes() == set()
    assert custody.enabled_versions(connected, connected.consent()) == []


@pytest.mark.req("R-12")
@pytest.mark.req("S-67")
def test_a_renewal_on_its_way_during_a_disconnect_leaves_no_version_that_is_on(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    custody.make_due(connected.consent())
    watched = custody.watch_vault(monkeypatch)

    def disconnected_before_the_write(operation: str) -> None:
        if operation == "write":
            watched.before = lambda operation: None
            disconnect(connected.consent(), vault=clients.vault(), actor=builders.ACTOR)

    watched.before = disconnected_before_the_write
    custody.ask(connected.consent(), fresh=True)

    assert connected.consent().state == "disconnected"
    assert connected.consent().generation == 1
    assert custody.enabled_versions(connected, connected.consent()) == []


@pytest.mark.req("S-67")
def test_an_account_that_waits_for_approval_is_rejected_by_a_disconnect(connected: Portal) -> None:
    consent = connected.consent()
    version = clients.vault().write(
        SecretName("rt-" + "a" * 32), Secret("waiting"), tags={"record": "waiting-1"}, expires_at=None
    )
    WaitingToken.objects.create(
        consent=consent,
        object_id=builders.guid(),
        secret_name="rt-" + "a" * 32,
        secret_version=SecretVersion(version),
        fingerprint="0" * 16,
        mfa="proven",
        expires_at=timezone.now() + timedelta(days=1),
    )

    is_disconnected(connected)

    assert WaitingToken.objects.get().decision == "rejected"
    assert ApplicationRegistration.objects.get().state == "active"


def test_a_push_notes_when_the_relationship_ends_and_the_forecast_knows_it(connected: Portal) -> None:
    customer = custody.first_customer(connected)
    customer_tenants.push(connected, customer)
    customer.refresh_from_db()
    assert customer.gdap_ends_at is not None
    PartnerConsent.objects.update(stored_at=customer.gdap_ends_at)
    health.watch()
    assert ends(connected) == (customer.gdap_ends_at, "gdap")
