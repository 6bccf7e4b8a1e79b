"""Rotation of the application's credentials, with real MSAL and the real SDK against the sandbox (S-39).

Covers: consent.microsoft.credentials, consent.microsoft.managed_identity.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings

from consent import clients
from consent.applications import rotation
from consent.models import ApplicationCredential, PartnerConsent
from consent.states import count_by_state
from consent.tokens import health
from consent.tokens.service import Audience
from consent.upkeep import clean_up
from consent.vault.base import SecretDisabled, SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.errors import AuthenticationFailed
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Refusal
from tests.support import builders
from tests.support.credentials import (
    State,
    add_certificate,
    add_identity,
    add_secret,
    application,
    current,
    promote,
    states,
)
from tests.support.portal import Portal
from tests.support.units import check_token

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-39")]


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def everything_about(portal: Portal) -> tuple[object, ...]:
    """The canary's whole state: rows, and the version in the vault."""
    consent = PartnerConsent.objects.filter(partner=portal.partner).values().get()
    newest = clients.vault().read_newest(SecretName(consent["secret_name"]))
    return consent, PartnerTenant.objects.filter(pk=portal.partner.pk).values().get(), newest.version


def redeem(portal: Portal) -> Secret:
    """Redeem in this process, as any work does."""
    return clients.tokens().access_token(
        portal.consent(), Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id(), fresh=True
    )


# --- proven first -----------------------------------------------------------------------------------------------------


def test_a_candidate_is_proven_with_a_partners_token_before_it_takes_over(connected: Portal) -> None:
    # Due: by the ordinary door a redemption would save the rotated token now.
    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=8))
    health.refresh_registration(connected.registration.pk)
    first, before = current(connected), everything_about(connected)
    candidate = add_secret(connected, "the-second-secret")
    assert current(connected) == first
    assert states(connected)[candidate.pk] == State.CANDIDATE

    assert promote(candidate) == connected.partner

    assert current(connected) == candidate
    assert states(connected) == {first.pk: State.PREVIOUS, candidate.pk: State.CURRENT}
    candidate.refresh_from_db()
    assert candidate.proven_with == connected.partner
    assert candidate.proven_at is not None
    assert everything_about(connected) == before  # the proof saved nothing and touched nobody


def test_the_canary_is_not_harmed_where_the_service_rotates_strictly(connected: Portal, settings: Settings) -> None:
    settings.TOKEN_SAVE_AFTER_HOURS = 0
    connected.sandbox.world.switches["rotation"] = "strict"
    clients.reset()
    generation = connected.consent().generation
    promote(add_secret(connected, "the-second-secret"))
    assert connected.consent().generation > generation  # each redemption spends the stored token, so each is saved
    assert connected.consent().state == "connected"
    redeem(connected)


@pytest.mark.parametrize("credential", [add_secret, add_certificate], ids=["secret", "certificate"])
def test_a_refused_candidate_leaves_everything_as_it_was(
    connected: Portal, credential: Callable[..., ApplicationCredential]
) -> None:
    first, before = current(connected), everything_about(connected)
    arguments = ("a-wrong-secret",) if credential is add_secret else ()
    candidate = credential(connected, *arguments, known=False)
    with pytest.raises(rotation.NotAccepted):
        promote(candidate)
    assert current(connected) == first
    assert states(connected)[candidate.pk] == State.REFUSED
    candidate.refresh_from_db()
    assert candidate.refused_code == ("AADSTS7000215" if arguments else "AADSTS700027")
    assert everything_about(connected) == before
    assert not Incident.objects.exists()  # whoever promotes reads it there; nothing stopped working
    redeem(connected)


def test_a_certificate_that_has_spread_by_now_is_promoted_at_the_second_try(connected: Portal) -> None:
    candidate = add_certificate(connected)
    connected.sandbox.world.refusals.append(Refusal(code=700027))
    with pytest.raises(rotation.NotAccepted, match="wait some minutes"):
        promote(candidate)
    promote(candidate)
    assert states(connected)[candidate.pk] == State.CURRENT


def test_without_a_connected_partner_nothing_is_promoted_unless_that_is_wanted(portal: Portal) -> None:
    first, candidate = current(portal), add_secret(portal, "the-second-secret")
    with pytest.raises(rotation.NoCanary, match="No partner is connected"):
        promote(candidate)
    assert current(portal) == first
    assert promote(candidate, allow_unproven=True) is None
    assert current(portal) == candidate
    candidate.refresh_from_db()
    assert candidate.proven_at is None


@pytest.mark.parametrize(
    "trouble",
    [Fault(service="login", status=503, times=99), Refusal(code=50173, times=99)],
    ids=["Microsoft is away", "the canary's token is dead"],
)
def test_what_says_nothing_about_the_credential_neither_promotes_nor_refuses_it(
    connected: Portal, trouble: Fault | Refusal
) -> None:
    first, candidate, before = current(connected), add_secret(connected, "the-second"), everything_about(connected)
    world = connected.sandbox.world
    (world.faults if isinstance(trouble, Fault) else world.refusals).append(trouble)  # type: ignore[arg-type]
    with pytest.raises(rotation.RotationRefused, match="Nothing was changed"):
        promote(candidate, allow_unproven=True)
    assert current(connected) == first
    assert states(connected)[candidate.pk] == State.CANDIDATE
    assert everything_about(connected) == before


def test_a_disabled_partner_is_no_canary(connected: Portal) -> None:
    PartnerTenant.objects.update(switch="disabled")
    with pytest.raises(rotation.NoCanary):
        promote(add_secret(connected, "the-second-secret"))


def test_a_credential_outside_its_validity_is_not_promoted(connected: Portal) -> None:
    now = timezone.now()
    over = builders.credential(connected.registration, expires_at=now - timedelta(hours=1))
    early = builders.credential(connected.registration, starts_at=now + timedelta(days=1))
    for credential, words in ((over, "ended on"), (early, "not valid before")):
        with pytest.raises(rotation.RotationRefused, match=words):
            promote(credential)
    assert not connected.sandbox.world.refusals


# --- roll back and retire ---------------------------------------------------------------------------------------------


def test_a_credential_that_is_refused_after_the_switch_is_rolled_back(connected: Portal) -> None:
    first, candidate = current(connected), add_secret(connected, "the-second-secret")
    asked = 0

    def door(credential: ApplicationCredential) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:  # another of Microsoft's servers has not heard of it yet
            assert current(connected) == candidate
            connected.sandbox.world.refusals.append(Refusal(code=7000215))
        return clients.tokens_with(credential)

    with pytest.raises(rotation.NotAccepted):
        rotation.promote(candidate, door=door, actor=builders.ACTOR)  # type: ignore[arg-type]
    assert current(connected) == first
    assert states(connected)[candidate.pk] == State.REFUSED
    assert AuditEvent.objects.filter(action="credential.rolled_back").count() == 1
    redeem(connected)


def test_the_older_one_stays_stored_and_roll_back_goes_to_the_latest_of_them(connected: Portal) -> None:
    first = current(connected)
    second, third = add_secret(connected, "the-second-secret"), add_certificate(connected)
    promote(second)
    promote(third)
    assert rotation.roll_back(connected.registration, door=clients.tokens_with, actor=builders.ACTOR) == second
    assert current(connected) == second
    redeem(connected)
    rotation.retire(third, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert rotation.roll_back(connected.registration, door=clients.tokens_with, actor=builders.ACTOR) == first


def test_a_retired_credential_is_off_in_the_vault_and_the_current_one_cannot_be_retired(connected: Portal) -> None:
    first, second = current(connected), add_secret(connected, "the-second-secret")
    with pytest.raises(rotation.RotationRefused, match="in use"):
        rotation.retire(first, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    promote(second)
    rotation.retire(first, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    with pytest.raises(SecretDisabled):
        clients.vault().read(SecretName(first.secret_name), SecretVersion(first.secret_version))
    for act in (
        lambda: rotation.retire(first, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR),
        lambda: promote(first),
        lambda: rotation.roll_back(connected.registration, door=clients.tokens_with, actor=builders.ACTOR),
    ):
        with pytest.raises(rotation.RotationRefused):
            act()
    assert states(connected)[first.pk] == State.RETIRED


def test_of_two_who_promote_at_once_one_wins(connected: Portal) -> None:
    mine, theirs = add_secret(connected, "the-second-secret"), add_secret(connected, "the-third-secret")
    raced = False

    def door(credential: ApplicationCredential) -> object:
        nonlocal raced
        if not raced:
            raced = True
            promote(theirs)
        return clients.tokens_with(credential)

    with pytest.raises(rotation.RotationRefused, match="Somebody else"):
        rotation.promote(mine, door=door, actor=builders.ACTOR)  # type: ignore[arg-type]
    assert current(connected) == theirs
    assert states(connected)[mine.pk] == State.CANDIDATE


@pytest.mark.django_db(transaction=True)
def test_of_many_who_promote_at_once_the_last_winner_is_current_and_the_others_change_nothing(
    connected: Portal,
) -> None:
    candidates = [add_secret(connected, f"the-secret-{number}") for number in range(4)]
    barrier = threading.Barrier(len(candidates))

    def run(candidate: ApplicationCredential) -> bool:
        barrier.wait()
        try:
            promote(candidate)
        except rotation.RotationRefused:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(len(candidates)) as pool:
        won = list(pool.map(run, candidates))
    winners = [candidate.pk for candidate, one in zip(candidates, won, strict=True) if one]
    assert current(connected).pk in winners
    found = states(connected)
    assert [found[candidate.pk] for candidate in candidates].count(State.CURRENT) == 1
    assert {found[candidate.pk] for candidate in candidates if candidate.pk not in winners} <= {State.CANDIDATE}


@pytest.mark.parametrize("rights", [{"get", "set"}, {"get", "set", "update"}], ids=["get and set", "update as well"])
def test_a_rotation_works_with_a_key_vault_of_exactly_get_and_set(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path, rights: set[str]
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    sandbox.world.vault_rights[settings.VAULT_CLIENT_ID] = rights
    portal.onboard()
    first = current(portal)
    promote(add_certificate(portal))
    redeem(portal)
    rotation.retire(first, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert states(portal)[first.pk] == State.RETIRED


# --- in use -----------------------------------------------------------------------------------------------------------


def test_a_running_process_uses_the_new_credential_from_its_next_redemption_on(connected: Portal) -> None:
    service = clients.tokens()
    redeem(connected)
    promote(add_secret(connected, "the-second-secret"))
    del application(connected).secrets[connected.client_secret]  # deleted at Microsoft right after
    assert clients.tokens() is service
    redeem(connected)


def test_the_credential_is_read_and_parsed_once_and_costs_a_redemption_no_query(
    connected: Portal, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    promote(add_certificate(connected))
    redeem(connected)
    consent = PartnerConsent.objects.with_all_for_calls().get(pk=connected.consent().pk)
    misses = clients._credential.cache_info().misses
    with django_assert_num_queries(3):  # what a use goes by, before and after; the ledger
        clients.tokens().access_token(
            consent, Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id(), fresh=True
        )
    assert clients._credential.cache_info().misses == misses


def test_an_assertion_serves_until_shortly_before_its_end_and_carries_the_chain_on_demand(connected: Portal) -> None:
    plain, chained = add_certificate(connected), add_certificate(connected, sends_chain=True)
    own_cloud, place = clients.cloud("global"), "https://login.example.com/t/oauth2/v2.0/token"
    for row, sends in ((plain, False), (chained, True)):
        credential = clients.client_credential(row, own_cloud)
        first = credential.assertion(connected.registration.client_id, place)  # type: ignore[attr-defined]
        again = credential.assertion(connected.registration.client_id, place)  # type: ignore[attr-defined]
        assert first is again
        header = base64.urlsafe_b64decode(first.reveal().split(".")[0] + "==").decode()
        assert row.key_id in header
        assert ('"x5c"' in header) is sends
        assert promote(row) == connected.partner


def test_a_managed_identity_proves_the_application_and_its_token_is_kept(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(add_identity(connected, monkeypatch))
    application(connected).secrets.clear()
    redeem(connected)
    redeem(connected)
    assert connected.sandbox.world.counters["identity token 200"] == 1
    grants = [line for line in connected.sandbox.world.ledger if line.get("grant") == "refresh_token"]
    assert grants[-1]["status"] == 200


def test_a_host_without_the_identity_is_told_in_plain_words(connected: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    first, candidate = current(connected), add_identity(connected, monkeypatch)
    connected.sandbox.world.identities.clear()
    with pytest.raises(rotation.NotAccepted, match="managed identity"):
        promote(candidate)
    assert current(connected) == first


@pytest.mark.req("R-14")
@pytest.mark.parametrize("code", [7000222, 700027, 7000215])
def test_a_credential_that_is_refused_in_use_is_one_incident_and_no_partners_fault(
    connected: Portal, code: int
) -> None:
    other = builders.partner()
    consents = [connected.consent(), builders.consent(other, connected.registration)]
    before = list(PartnerConsent.objects.values_list("pk", "state", "first_denied_at", "last_problem"))
    connected.sandbox.world.refusals.append(Refusal(code=code, times=4))
    assert check_token(consents[0]).systemic  # the run that it belongs to stops, and reports it
    assert not Incident.objects.open().exists()
    for _ in range(3):
        with pytest.raises(AuthenticationFailed):
            redeem(connected)
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.times) == ("credential_refused", 3)
    assert incident.subject["registration"] == connected.registration.pk
    assert list(PartnerConsent.objects.values_list("pk", "state", "first_denied_at", "last_problem")) == before
    assert count_by_state() == {"connected": 2}

    promote(add_secret(connected, "the-second-secret"))
    assert not Incident.objects.open().exists()


def test_a_refusal_during_a_partners_sign_in_is_told_as_well(portal: Portal) -> None:
    portal.sandbox.world.refusals.append(Refusal(code=7000222))
    portal.onboard()
    assert Incident.objects.open().get().cause == "credential_refused"


# --- expiry -----------------------------------------------------------------------------------------------------------


def test_each_threshold_is_told_once_and_only_of_what_is_in_use(portal: Portal) -> None:
    credential = current(portal)
    builders.credential(portal.registration, expires_at=timezone.now() + timedelta(days=3))  # a candidate
    gone = builders.registration(credential={"expires_at": timezone.now() + timedelta(days=3)})
    gone.state = "retired"
    gone.save()
    told = []
    for days in (90, 61, 59, 45, 31, 29, 15, 13, 8, 6, 1, -1):
        ApplicationCredential.objects.filter(pk=credential.pk).update(
            starts_at=timezone.now() - timedelta(days=100), expires_at=timezone.now() + timedelta(days=days)
        )
        told.append(rotation.warn_of_expiry() + rotation.warn_of_expiry())
    assert told == [0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0]
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.about, incident.times) == ("credential_expires", f"credential:{credential.pk}", 4)
    assert "in 7 days or less" in incident.words


def test_the_daily_upkeep_warns_and_a_promotion_settles_it(connected: Portal) -> None:
    ApplicationCredential.objects.filter(pk=current(connected).pk).update(
        expires_at=timezone.now() + timedelta(days=20)
    )
    clean_up(vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert Incident.objects.open().get().cause == "credential_expires"
    promote(add_certificate(connected))
    assert not Incident.objects.open().exists()
    call_command("clean_up", verbosity=0)
    assert not Incident.objects.open().exists()


# --- deploy check -----------------------------------------------------------------------------------------------------


def test_the_deploy_check_warns_of_a_client_secret_and_of_nothing_better(connected: Portal) -> None:
    def found() -> list[str]:
        messages = run_checks(tags=["database"], include_deployment_checks=True, databases=["default"])
        return [str(message.id) for message in messages if str(message.id).startswith("consent.")]

    assert found() == ["consent.W001"]
    promote(add_certificate(connected))
    assert found() == []
    assert run_checks(tags=["database"], include_deployment_checks=True) == []
