"""TokenService: one door, no lost token, no late writer, no token of another partner.

Covers: consent.tokens.custody, consent.tokens.renewal, consent.tokens.versions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, connections
from django.db.models import Model
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries, Settings

from consent import clients
from consent.microsoft.id_tokens import unverified_claims
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from consent.states import state_of
from consent.tokens.custody import Custody, TokenUnavailable
from consent.tokens.service import Audience
from consent.tokens.versions import IdentityMismatch, token_fingerprint
from consent.vault.base import SecretDisabled, SecretName, SecretVersion, VaultDamaged
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.clouds import get_cloud
from portal.microsoft.errors import (
    AuthenticationFailed,
    ConsentRequired,
    NotFound,
    RemoteError,
    ServerFault,
    UnexpectedResponse,
    Unreachable,
)
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from portal.microsoft.waiting import before_waiting
from tenants.models import PartnerTenant
from tests.conftest import VAULT_NAME, make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Refusal, Tamper
from tests.support import builders, custody
from tests.support.connected import connect, two_partners
from tests.support.custody import ask, enabled_versions, make_due, redemptions, watch_vault
from tests.support.portal import Portal


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


@pytest.fixture(params=["local", "azure"])
def either(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A connected partner, once with each vault."""
    use_sandbox(settings, sandbox)
    if request.param == "local":
        use_local_vault(settings, tmp_path)
    else:
        use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    portal.connect()
    return portal


def rotate_strictly(portal: Portal, settings: Settings) -> None:
    """A sign-in service that kills a refresh token at its first use, and the setting for it."""
    portal.sandbox.world.switches["rotation"] = "strict"
    settings.TOKEN_SAVE_AFTER_HOURS = 0
    clients.tokens.cache_clear()


def in_threads[T](number: int, work: Callable[[int], T]) -> list[Future[T]]:
    """Run the work in that many threads that start together, each with its own database connection."""
    together = threading.Barrier(number)

    def one(index: int) -> T:
        try:
            together.wait(10)
            return work(index)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return [pool.submit(one, index) for index in range(number)]


def stopped_by(consent: PartnerConsent) -> str:
    """Return why this consent was stopped; the audit trail says it, too, and nothing else about it."""
    consent.refresh_from_db()
    assert consent.state == PartnerConsent.State.STOPPED
    assert state_of(PartnerTenant.objects.get(pk=consent.partner_id)) == PartnerTenant.State.ATTENTION
    event = AuditEvent.objects.get(action="token.identity_mismatch", subject__consent=consent.pk)
    assert event.outcome == AuditEvent.Outcome.REFUSED
    return str(event.details["what"])


# --- access tokens ------------------------------------------------------------------------------------------------


def loaded() -> PartnerConsent:
    """Return the partner's consent as work over many loads it, some time before it is used."""
    return PartnerConsent.objects.select_related("partner", "registration__credential").get()


def test_a_cached_token_costs_one_statement_while_the_callers_row_says_what_the_database_says(
    connected: Portal, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    by = replace(builders.BY, run=1)
    source = clients.tokens().source(loaded(), Audience.GRAPH, by=by, correlation_id=new_correlation_id())
    source()

    with django_assert_num_queries(1):
        source()


@pytest.mark.req("S-51")
@pytest.mark.req("S-53")
@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (PartnerConsent, {"state": "mfa_missing"}),
        (PartnerConsent, {"generation": 7}),
        (PartnerConsent, {"secret_name": "another"}),
        (PartnerConsent, {"secret_version": "b" * 32}),
        (PartnerConsent, {"fingerprint": "0" * 16}),
        (PartnerConsent, {"pinned_oid": "11111111-2222-4333-8444-555555555555"}),
        (PartnerConsent, {"stored_at": timezone.now() - timedelta(days=3, microseconds=1)}),
        (PartnerTenant, {"tenant_id": "11111111-2222-4333-8444-555555555555"}),
        (PartnerTenant, {"cloud": "china"}),
        (ApplicationRegistration, {"application_id": "11111111-2222-4333-8444-555555555555"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_use_goes_by_the_row_as_it_is_now_and_not_as_the_caller_read_it(
    connected: Portal, model: type[Model], columns: dict[str, object]
) -> None:
    consent = loaded()
    keeper = Custody(clients.vault())
    assert keeper.usable(consent) is consent

    model._default_manager.update(**columns)

    ((name, value),) = columns.items()
    now = keeper.usable(consent)
    assert now is not consent
    assert value in {getattr(one, name, None) for one in (now, now.partner, now.registration)}


def test_a_use_goes_by_the_credential_that_was_promoted_since(connected: Portal) -> None:
    consent = loaded()
    other = ApplicationCredential.objects.get()
    other.pk, other.secret_name = None, "another"
    other.save()
    ApplicationRegistration.objects.update(credential=other)

    assert Custody(clients.vault()).usable(consent).registration.credential == other


@pytest.mark.req("S-53")
@pytest.mark.parametrize(
    ("model", "columns"),
    [(PartnerTenant, {"switch": "disabled"}), (ApplicationRegistration, {"state": "retired"})],
)
def test_a_row_that_was_read_before_a_partner_or_application_went_off_gives_nothing(
    connected: Portal, model: type[Model], columns: dict[str, object]
) -> None:
    consent = loaded()

    model._default_manager.update(**columns)

    with pytest.raises(TokenUnavailable):
        Custody(clients.vault()).usable(consent)


@pytest.mark.req("R-04")
@pytest.mark.django_db(transaction=True)
def test_many_callers_at_once_cause_one_redemption(connected: Portal) -> None:
    consent, before = connected.consent(), len(redemptions(connected))
    connected.sandbox.world.faults.append(Fault(service="login", path="token", delay=0.2))

    tokens = [one.result().reveal() for one in in_threads(24, lambda _: ask(consent))]

    assert len(set(tokens)) == 1
    assert len(redemptions(connected)) - before == 1


def test_who_waits_for_another_caller_or_its_lease_gives_back_what_others_need(connected: Portal) -> None:
    """A thread of a run that kept its database connection then could keep the other one waiting for it (R-36)."""
    consent, said = connected.consent(), []
    ask(consent)
    before = len(connected.sandbox.world.ledger)

    with before_waiting(lambda: said.append("for the other caller")):
        ask(consent)
    assert said == ["for the other caller"]
    assert len(connected.sandbox.world.ledger) == before, "a request would have said it, too"

    lend_to_another(consent, seconds=0.05)
    with before_waiting(lambda: said.append("for the lease")), clients.tokens()._custody.lease(consent, wait_seconds=5):
        assert said[1:] == ["for the lease"]


def test_an_access_token_is_used_until_five_minutes_before_its_end(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = 0.0
    custody.stop_time(monkeypatch, lambda: time.monotonic() + shift)
    consent = connected.consent()
    first, before = ask(consent), len(redemptions(connected))

    shift = 4549 - 300 - 5
    assert ask(consent).same_as(first)
    assert len(redemptions(connected)) == before

    shift = 4549 - 300 + 1
    assert not ask(consent).same_as(first)
    assert len(redemptions(connected)) == before + 1


@pytest.mark.req("R-45")
def test_a_fresh_token_is_redeemed_even_if_a_cached_one_is_still_good(connected: Portal) -> None:
    consent = connected.consent()
    cached, before = ask(consent), len(redemptions(connected))

    fresh = ask(consent, fresh=True)

    assert len(redemptions(connected)) == before + 1
    assert not fresh.same_as(cached)
    assert ask(consent).same_as(fresh)


@pytest.mark.req("S-38")
def test_audiences_and_customers_never_share_a_cached_token(connected: Portal) -> None:
    consent, customer = connected.consent(), custody.first_customer(connected)
    custody.consent_directly(connected, customer, {"User.Read.All"})

    tokens = {
        ask(consent).reveal(),
        ask(consent, Audience.GRAPH).reveal(),
        ask(consent, Audience.GRAPH, customer=customer).reveal(),
    }

    assert len(tokens) == 3
    assert [line["tenant"] for line in redemptions(connected)][-1] == customer.tenant_id


@pytest.mark.req("S-38")
@pytest.mark.django_db(transaction=True)
def test_partners_who_are_asked_for_at_the_same_time_never_get_each_others_token(portal: Portal) -> None:
    consents = connect(portal, 5)

    def in_turn(thread: int) -> list[tuple[str, str]]:
        turn = [consents[(thread + step) % 5] for step in range(15)]
        return [(one.partner.tenant_id, str(unverified_claims(ask(one))["home"])) for one in turn]

    answers = [pair for future in in_threads(6, in_turn) for pair in future.result()]

    assert len(answers) == 90
    assert [pair for pair in answers if not pair[1].startswith(f"{pair[0]}/")] == []
    assert len(redemptions(portal)) < 90, "no token came from the cache"


def test_a_cloud_without_a_partner_api_is_a_usage_error() -> None:
    with pytest.raises(ValueError, match="no Partner API"):
        Audience.PARTNER_API.scope(get_cloud("china"))
    assert Audience.AZURE_MANAGEMENT.scope(get_cloud("global")).endswith("/.default")


@pytest.mark.req("S-53")
@pytest.mark.parametrize("state", ["disabled", "offboarded"])
def test_a_disabled_partner_stops_before_any_call_and_loses_its_cached_tokens(connected: Portal, state: str) -> None:
    consent = connected.consent()
    cached, before = ask(consent), len(redemptions(connected))
    PartnerTenant.objects.update(switch=state)

    with pytest.raises(TokenUnavailable, match=state):
        ask(consent)
    assert len(redemptions(connected)) == before

    PartnerTenant.objects.update(switch="on")
    assert not ask(consent).same_as(cached)


@pytest.mark.req("S-53")
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"state": "stopped"}, "stopped"),
        ({"state": "disconnected"}, "disconnected"),
        ({"state": "needs_consent", "generation": 0}, "not consented yet"),
    ],
)
def test_a_consent_that_may_not_be_used_sends_nothing(
    connected: Portal, columns: dict[str, object], words: str
) -> None:
    consent, before = connected.consent(), len(redemptions(connected))
    PartnerConsent.objects.update(**columns)

    with pytest.raises(TokenUnavailable, match=words):
        ask(consent)

    assert len(redemptions(connected)) == before


def test_a_retired_registration_or_a_vanished_consent_sends_nothing(connected: Portal) -> None:
    consent, before = connected.consent(), len(redemptions(connected))
    ApplicationRegistration.objects.update(state="retired")
    with pytest.raises(TokenUnavailable, match="registration"):
        ask(consent)

    consent.pk = 0
    with pytest.raises(TokenUnavailable, match="no such consent"):
        ask(consent)
    assert len(redemptions(connected)) == before


@pytest.mark.req("R-42")
@pytest.mark.parametrize("minutes", [-10, -4, 4, 10])
def test_renewals_do_not_depend_on_the_clocks_agreeing(connected: Portal, minutes: int) -> None:
    connected.sandbox.world.advance(60 * minutes)

    ask(connected.consent(), fresh=True)

    assert connected.consent().state == "connected"


# --- saving a rotated token ---------------------------------------------------------------------------------------


@pytest.mark.req("R-11")
def test_a_rotated_token_is_saved_only_when_the_stored_one_is_older_than_a_day(either: Portal) -> None:
    for _ in range(3):
        ask(either.consent(), fresh=True)
    assert either.consent().generation == 1

    make_due(either.consent())
    ask(either.consent(), fresh=True)
    ask(either.consent(), fresh=True)

    consent = either.consent()
    assert consent.generation == 2
    assert timezone.now() - consent.stored_at < timedelta(minutes=1)  # type: ignore[operator]
    assert AuditEvent.objects.filter(action="token.stored", details__generation=2).count() == 1


@pytest.mark.req("R-11")
def test_with_strict_rotation_every_redemption_is_saved_also_at_a_customers_authority(
    either: Portal, settings: Settings
) -> None:
    customer = custody.first_customer(either)
    custody.consent_directly(either, customer, {"User.Read.All"})
    rotate_strictly(either, settings)

    for number in range(2, 8, 3):
        ask(either.consent(), fresh=True)
        assert either.consent().generation == number
        ask(either.consent(), Audience.GRAPH, fresh=True)
        assert either.consent().generation == number + 1
        ask(either.consent(), Audience.GRAPH, customer=customer, fresh=True)
        assert either.consent().generation == number + 2

    assert {line["status"] for line in redemptions(either)} == {200}
    assert len(enabled_versions(either, either.consent())) == 1


def test_a_customers_authority_does_not_replace_the_master_copy(connected: Portal) -> None:
    customer = custody.first_customer(connected)
    custody.consent_directly(connected, customer, {"User.Read.All"})
    make_due(connected.consent())

    ask(connected.consent(), Audience.GRAPH, customer=customer)

    assert connected.consent().generation == 1


@pytest.mark.req("S-42")
def test_after_many_rotations_exactly_one_version_is_enabled(either: Portal) -> None:
    for _ in range(6):
        make_due(either.consent())
        ask(either.consent(), fresh=True)

    consent = either.consent()
    assert consent.generation == 7
    assert enabled_versions(either, consent) == [consent.secret_version]
    assert len(custody.all_versions(either, consent.secret_name)) == 7
    stored = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
    assert stored.tags == {"record": f"consent-{consent.pk}", "generation": "7"}
    assert stored.expires_at is not None
    assert timedelta(days=89) < stored.expires_at - timezone.now() <= timedelta(days=90)
    assert consent.fingerprint == token_fingerprint(stored.value)


@pytest.mark.req("R-02")
def test_the_order_is_vault_then_read_back_then_pointer_then_old_version_off(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(connected.consent())  # the application's credential was read
    watched = watch_vault(monkeypatch)
    pointers: list[tuple[str, int]] = []
    watched.before = lambda operation: pointers.append((operation, connected.consent().generation))
    make_due(connected.consent())

    ask(connected.consent(), fresh=True)

    assert pointers == [("read_newest", 1), ("write", 1), ("read", 1), ("disable", 2)]


@pytest.mark.req("R-02")
def test_a_version_that_reads_back_differently_is_not_pointed_to(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = connected.consent()
    watched = watch_vault(monkeypatch)
    real = watched.read

    def other_value(name: SecretName, version: SecretVersion) -> object:
        stored = real(name, version)
        if "write" not in watched.calls:
            return stored
        return type(stored)(
            name=name,
            version=version,
            value=Secret("another"),
            tags=stored.tags,
            created_at=stored.created_at,
            expires_at=None,
        )

    monkeypatch.setattr(watched, "read", other_value)
    make_due(consent)

    ask(consent, fresh=True)

    after = connected.consent()
    assert (after.generation, after.secret_version) == (1, consent.secret_version)
    assert AuditEvent.objects.get(action="token.stored", outcome="failed").details["generation"] == 2


@pytest.mark.req("R-43")
@pytest.mark.parametrize("size", [1, 1_024, 8_192, 24_999, 25_000, 25_001, 900_000])
def test_a_rotated_token_is_kept_exactly_and_one_that_is_too_large_leaves_the_old_one(
    either: Portal, size: int
) -> None:
    before = either.consent()
    make_due(before)
    token = Secret("t" * size)
    either.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", members={"refresh_token": token.reveal()}))

    assert ask(before, fresh=True)  # the access token is good, whatever becomes of the other

    after = either.consent()
    stored = clients.vault().read(SecretName(after.secret_name), SecretVersion(after.secret_version))
    if size <= 25_000:
        assert (after.generation, after.fingerprint) == (2, token_fingerprint(token))
        assert stored.value.same_as(token)
    else:
        assert (after.generation, after.secret_version) == (1, before.secret_version)
        assert AuditEvent.objects.get(action="token.stored", outcome="failed").details["generation"] == 2
        assert Incident.objects.open().get().cause == "renewed_but_not_saved"
        assert ask(after, fresh=True)
    last = either.consent()
    assert enabled_versions(either, last) == [last.secret_version]


# --- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-01")
@pytest.mark.req("R-02")
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_a_crash_between_vault_and_pointer_is_rolled_forward(either: Portal, settings: Settings, strict: bool) -> None:
    if strict:
        rotate_strictly(either, settings)
    before = either.consent()
    written = custody.write_version(before, custody.rotated_token(either, before), 2)
    make_due(before)

    ask(either.consent(), fresh=True)

    event = AuditEvent.objects.get(action="token.rolled_forward")
    assert event.details == {"from": 1, "to": 2}
    consent = either.consent()
    assert consent.generation == 3
    assert consent.secret_version not in {before.secret_version, written}
    assert enabled_versions(either, consent) == [consent.secret_version]
    ask(consent, fresh=True)


@pytest.mark.req("R-02")
@pytest.mark.parametrize("generation", [1, 0], ids=["equal", "lower"])
def test_a_leftover_of_no_higher_generation_is_switched_off_not_adopted(either: Portal, generation: int) -> None:
    before = either.consent()
    leftover = custody.write_version(before, Secret("1.A-leftover"), generation)
    assert len(enabled_versions(either, before)) == 2
    make_due(before)

    ask(before, fresh=True)

    assert not AuditEvent.objects.filter(action="token.rolled_forward").exists()
    consent = either.consent()
    assert leftover not in enabled_versions(either, consent)
    assert enabled_versions(either, consent) == [consent.secret_version]


@pytest.mark.req("S-51")
def test_a_newer_version_of_another_record_is_never_adopted(connected: Portal) -> None:
    before = connected.consent()
    custody.write_version(before, Secret("1.A-foreign"), 9, record="consent-0")
    make_due(before)

    ask(before, fresh=True)

    assert connected.consent().generation == 2
    assert not AuditEvent.objects.filter(action="token.rolled_forward").exists()


@pytest.mark.req("R-02")
@pytest.mark.parametrize(
    "error",
    [
        NotFound("vault", "read"),
        VaultDamaged("vault", "read"),
        SecretDisabled("vault", "read"),
        Unreachable("vault", "read"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_vault_that_cannot_say_what_is_newest_does_not_stop_a_renewal(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, error: RemoteError
) -> None:
    watched = watch_vault(monkeypatch)
    watched.before = custody.fails_at("read_newest", error)
    make_due(connected.consent())

    ask(connected.consent(), fresh=True)

    assert connected.consent().generation == 2


@pytest.mark.req("R-02")
def test_a_first_consent_that_was_cut_off_is_not_adopted_by_the_next_one(connected: Portal) -> None:
    cut_off = connected.consent()
    PartnerConsent.objects.update(generation=0, secret_version="", fingerprint="", state="needs_consent")

    connected.onboard()

    consent = connected.consent()
    assert consent.generation == 1
    assert consent.secret_version != cut_off.secret_version
    assert enabled_versions(connected, consent) == [consent.secret_version]


def test_an_old_version_that_cannot_be_switched_off_does_not_cost_the_new_one(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch_vault(monkeypatch)
    watched.before = custody.fails_at("disable", ServerFault("vault", "disable"), times=1)
    make_due(connected.consent())

    ask(connected.consent(), fresh=True)

    consent = connected.consent()
    assert consent.generation == 2
    assert len(enabled_versions(connected, consent)) == 2
    make_due(consent)
    ask(consent, fresh=True)
    after = connected.consent()
    assert after.replaced_version == ""
    assert enabled_versions(connected, after) == [after.secret_version]


# --- lease and late writers ---------------------------------------------------------------------------------------


def lend_to_another(consent: PartnerConsent, seconds: float = 60) -> None:
    PartnerConsent.objects.filter(pk=consent.pk).update(
        lease_owner="another", lease_until=timezone.now() + timedelta(seconds=seconds)
    )


@pytest.mark.req("R-03")
def test_while_another_renews_a_token_is_served_but_not_saved(connected: Portal) -> None:
    make_due(connected.consent())
    lend_to_another(connected.consent())

    ask(connected.consent(), fresh=True)

    consent = connected.consent()
    assert consent.generation == 1
    assert consent.lease_owner == "another"


@pytest.mark.req("R-03")
def test_a_lease_whose_time_is_over_is_taken_and_given_back(connected: Portal) -> None:
    make_due(connected.consent())
    lend_to_another(connected.consent(), seconds=-1)

    ask(connected.consent(), fresh=True)

    consent = connected.consent()
    assert (consent.generation, consent.lease_owner, consent.lease_until) == (2, "", None)


def renew_elsewhere_at(portal: Portal, watched: custody.WatchedVault, when: str) -> None:
    """Let a second process take over the lease, and renew, before or after the first one's write."""
    done: list[bool] = []

    def overtake(operation: str) -> None:
        if operation == "write" and not done:
            done.append(True)
            lend_to_another(portal.consent(), seconds=-1)  # the first one's time is over
            make_due(portal.consent())
            ask(portal.consent(), Audience.GRAPH, fresh=True)

    setattr(watched, when, overtake)


@pytest.mark.req("R-03")
@pytest.mark.req("R-12")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_late_writer_cannot_overwrite_and_switches_its_version_off(
    either: Portal, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    watched = watch_vault(monkeypatch)
    renew_elsewhere_at(either, watched, when)
    make_due(either.consent())

    ask(either.consent(), fresh=True)

    winner = either.consent()
    assert winner.generation == (2 if when == "before" else 3)  # afterwards the late one's token was adopted first
    assert AuditEvent.objects.filter(action="token.stored", details__generation=winner.generation).count() == 1
    assert enabled_versions(either, winner) == [winner.secret_version]
    assert (winner.lease_owner, winner.replaced_version, winner.renewal_started_at) == ("", "", None)
    late = AuditEvent.objects.get(action="token.discarded")
    assert (late.outcome, late.details) == ("refused", {"why": "another renewal was faster"})
    ask(winner, fresh=True)


@pytest.mark.req("R-03")
def test_a_late_writers_token_is_adopted_when_nobody_was_faster(
    either: Portal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate_strictly(either, settings)
    watched = watch_vault(monkeypatch)
    custody.stop_time(monkeypatch, time.monotonic)
    consent = either.consent()

    def lend(operation: str) -> None:
        if operation == "write":
            lend_to_another(consent, seconds=0.5)

    watched.after = lend

    ask(consent, fresh=True)

    watched.after = lambda operation: None
    after = either.consent()
    assert (after.generation, after.renewal_started_at) == (2, None)
    assert enabled_versions(either, after) == [after.secret_version]
    ask(after, fresh=True)


@pytest.mark.req("R-03")
def test_a_pointer_that_moved_under_the_same_lease_is_not_overwritten(
    either: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, watched = either.consent(), watch_vault(monkeypatch)

    def move(operation: str) -> None:
        if operation == "write":
            PartnerConsent.objects.update(generation=6)

    watched.after = move
    make_due(before)

    ask(before, fresh=True)

    after = either.consent()
    assert (after.generation, after.secret_version) == (6, before.secret_version)
    assert enabled_versions(either, after) == [before.secret_version]


@pytest.mark.req("R-03")
def test_a_late_version_that_nobody_can_decide_about_is_left_to_the_next_renewal(
    either: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch_vault(monkeypatch)
    before = either.consent()
    passed = 0.0
    slept = custody.stop_time(monkeypatch, lambda: passed + sum(slept))

    def lend(operation: str) -> None:
        if operation == "write":
            lend_to_another(before)

    watched.after = lend
    make_due(before)

    ask(before, fresh=True)

    watched.after = lambda operation: None
    assert either.consent().generation == 1
    assert len(enabled_versions(either, before)) == 2
    lend_to_another(before, seconds=-1)
    ask(before, fresh=True)
    after = either.consent()
    assert after.generation == 3
    assert enabled_versions(either, after) == [after.secret_version]


@pytest.mark.req("R-04")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_callers_for_several_audiences_at_once_all_get_a_token_and_lose_none(
    connected: Portal, settings: Settings, strict: bool
) -> None:
    if strict:
        rotate_strictly(connected, settings)
    make_due(connected.consent())
    audiences = [Audience.PARTNER_CENTER, Audience.GRAPH]

    for _ in range(3):
        work = in_threads(8, lambda index: ask(connected.consent(), audiences[index % 2], fresh=True))
        assert all(one.result() for one in work)

    consent = connected.consent()
    assert {line["status"] for line in redemptions(connected)} == {200}
    assert enabled_versions(connected, consent) == [consent.secret_version]
    assert (consent.lease_owner, consent.state) == ("", "connected")
    ask(consent, fresh=True)


@pytest.mark.req("R-03")
def test_with_strict_rotation_nothing_is_redeemed_while_another_renews(
    connected: Portal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate_strictly(connected, settings)
    lend_to_another(connected.consent(), seconds=240)
    passed = 0.0
    slept = custody.stop_time(monkeypatch, lambda: passed + sum(slept))
    before = len(redemptions(connected))

    with pytest.raises(TokenUnavailable, match="renewed right now"):
        ask(connected.consent(), fresh=True)

    assert len(redemptions(connected)) == before
    assert 10 <= sum(slept) <= 20


def test_a_caller_whose_version_was_switched_off_meanwhile_reads_the_newer_one(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    consent = connected.consent()
    watched = watch_vault(monkeypatch)
    done: list[bool] = []

    def renewed_elsewhere(operation: str) -> None:
        if operation == "read" and not done:
            done.append(True)
            make_due(consent)
            ask(consent, Audience.GRAPH, fresh=True)

    watched.before = renewed_elsewhere

    ask(consent, fresh=True)

    assert connected.consent().generation == 2


# --- vault down ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-05")
def test_an_embedded_vault_that_is_away_causes_no_token_call_and_no_state(
    connected: Portal, settings: Settings
) -> None:
    consent, before = connected.consent(), len(redemptions(connected))
    Path(settings.VAULT_URL).rename(Path(settings.VAULT_URL).with_name("away"))

    with pytest.raises(RemoteError) as caught:
        ask(consent, fresh=True)

    assert caught.value.service == "vault"
    assert len(redemptions(connected)) == before
    assert connected.consent().state == "connected"


@pytest.mark.req("R-05")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(service="vault", close="before", times=20),
        Fault(service="vault", status=500, body="{}", times=20),
        Fault(service="vault", status=403, body='{"error":{"code":"Forbidden","message":"no"}}', times=20),
        Fault(service="vault", status=200, body="<html>", times=20),
        Fault(service="vault", status=200, body="{}", times=20),
    ],
    ids=["no answer", "500", "403", "no JSON", "empty object"],
)
def test_a_key_vault_that_is_down_causes_no_token_call_and_no_state(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path, fault: Fault
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    portal.onboard()
    before = len(redemptions(portal))
    sandbox.world.faults.append(fault)

    with pytest.raises(RemoteError) as caught:
        ask(portal.consent(), fresh=True)

    assert caught.value.service == "vault"
    assert len(redemptions(portal)) == before
    assert portal.consent().state == "connected"
    assert state_of(PartnerTenant.objects.get()) == "connected"


@pytest.mark.req("R-06")
def test_a_vault_that_takes_nothing_means_renewed_but_not_saved(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = connected.consent()
    watched = watch_vault(monkeypatch)
    watched.before = custody.fails_at("write", ServerFault("vault", "write", code="ENOSPC"))
    slept = custody.stop_time(monkeypatch, time.monotonic)
    make_due(before)

    token = ask(before, fresh=True)

    assert token
    assert watched.calls.count("write") == 8
    assert 30 < sum(slept) < 60  # within the lease
    assert Incident.objects.open().get().cause == "renewed_but_not_saved"
    assert "renewed but not saved" in caplog.text
    after = connected.consent()
    assert (after.generation, after.secret_version, after.state) == (1, before.secret_version, "connected")
    event = AuditEvent.objects.get(action="token.stored", outcome="failed")
    assert event.details == {"generation": 2, "code": "ENOSPC"}
    watched.before = lambda operation: None
    ask(after, fresh=True)
    assert connected.consent().generation == 2
    assert not Incident.objects.open().exists()


@pytest.mark.req("R-06")
def test_a_short_fault_of_the_vault_is_overcome_within_the_renewal(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch_vault(monkeypatch)
    watched.before = custody.fails_at("write", Unreachable("vault", "write", retry_after=99), times=2)
    slept = custody.stop_time(monkeypatch, time.monotonic)
    make_due(connected.consent())

    ask(connected.consent(), fresh=True)

    assert connected.consent().generation == 2
    assert slept == [15.0, 15.0]  # inside the lease, whatever the vault asks for


@pytest.mark.req("R-09")
def test_a_write_whose_answer_was_lost_ends_with_one_enabled_version_after_the_next_renewal(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch_vault(monkeypatch)
    watched.after = custody.fails_at("write", Unreachable("vault", "write"), times=1)
    custody.stop_time(monkeypatch, time.monotonic)
    make_due(connected.consent())

    ask(connected.consent(), fresh=True)

    consent = connected.consent()
    assert consent.generation == 2
    assert len(enabled_versions(connected, consent)) == 1


@pytest.mark.req("R-10")
def test_a_blocked_secret_name_is_replaced_by_a_new_one(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    blocked, free = SecretName("rt-" + "b" * 32), SecretName("rt-" + "f" * 32)
    clients.vault().write(blocked, Secret("old"), tags={}, expires_at=None)
    sandbox.world.vaults["global", VAULT_NAME].secrets[blocked].deleted = sandbox.world.now()
    names = iter([blocked, free])
    for module in ("consent.tokens.custody", "consent.tokens.versions"):
        monkeypatch.setattr(f"{module}.new_secret_name", lambda: next(names))

    portal.onboard()

    consent = portal.consent()
    assert (consent.state, consent.secret_name) == ("connected", free)
    ask(consent, fresh=True)


# --- one partner's token only for that partner --------------------------------------------------------------------


@pytest.mark.req("S-51")
@pytest.mark.parametrize(
    "columns",
    [("secret_name",), ("secret_name", "secret_version"), ("secret_name", "secret_version", "fingerprint")],
    ids=len,
)
def test_swapped_vault_columns_stop_both_partners_without_any_call(either: Portal, columns: tuple[str, ...]) -> None:
    first, second = two_partners(either)
    with connection.cursor() as cursor:
        table = PartnerConsent._meta.db_table
        cursor.execute(f"UPDATE {table} SET secret_name = 'aside' WHERE id = %s", [first.pk])  # noqa: S608
        for target, source in ((second, first), (first, second)):
            values = [getattr(source, column) for column in columns]
            assignments = ", ".join(f"{column} = %s" for column in columns)
            cursor.execute(f"UPDATE {table} SET {assignments} WHERE id = %s", [*values, target.pk])  # noqa: S608
    calls, apis = len(redemptions(either)), custody.api_calls(either)

    for consent in (first, second):
        with pytest.raises(IdentityMismatch):
            ask(consent, fresh=True)
        assert stopped_by(consent) == "fingerprint"

    assert (len(redemptions(either)), custody.api_calls(either)) == (calls, apis)
    with pytest.raises(TokenUnavailable, match="stopped"):
        ask(first)


@pytest.mark.req("S-51")
@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"oid": "11111111-2222-4333-8444-555555555555"}, "object_id"),
        ({"tid": "11111111-2222-4333-8444-555555555555"}, "id_token_tenant"),
        ({"aud": "11111111-2222-4333-8444-555555555555"}, "id_token_audience"),
    ],
    ids=["oid", "tid", "aud"],
)
def test_a_renewed_token_of_another_account_stops_the_partner(
    connected: Portal, claims: dict[str, str], why: str
) -> None:
    connected.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", claims=claims))
    consent, apis = connected.consent(), custody.api_calls(connected)
    make_due(consent)

    with pytest.raises(IdentityMismatch):
        ask(consent, fresh=True)

    assert stopped_by(consent) == why
    assert custody.api_calls(connected) == apis
    assert connected.consent().generation == 1
    calls = len(redemptions(connected))
    with pytest.raises(TokenUnavailable):
        ask(consent)
    assert len(redemptions(connected)) == calls


@pytest.mark.req("S-51")
@pytest.mark.parametrize("form", ["missing", "bad_signature", "unknown_kid", "two_segments", "none_alg"])
def test_an_id_token_that_proves_nothing_is_dropped_without_blaming_the_partner(connected: Portal, form: str) -> None:
    connected.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", id_token=form))
    consent = connected.consent()
    make_due(consent)

    with pytest.raises(UnexpectedResponse):
        ask(consent, fresh=True)

    after = connected.consent()
    assert (after.state, after.generation) == ("connected", 1)
    assert not AuditEvent.objects.filter(action="token.identity_mismatch").exists()
    ask(consent, fresh=True)


@pytest.mark.req("S-51")
def test_a_customer_of_another_partner_is_refused_before_any_call(connected: Portal) -> None:
    foreign = builders.customer(builders.partner())
    before = len(redemptions(connected))

    with pytest.raises(TokenUnavailable, match="another partner"):
        ask(connected.consent(), Audience.GRAPH, customer=foreign)

    assert len(redemptions(connected)) == before


@pytest.mark.parametrize("code", [65001, 53003, 700082, 7000215, 50034])
def test_a_customers_error_never_changes_the_partner(connected: Portal, code: int) -> None:
    customer = custody.first_customer(connected)
    before = PartnerConsent.objects.values().get()
    connected.sandbox.world.refusals.append(Refusal(code=code, tenant_id=customer.tenant_id, times=9))

    with pytest.raises(RemoteError):
        ask(connected.consent(), Audience.GRAPH, customer=customer)

    assert PartnerConsent.objects.values().get() == before
    assert state_of(PartnerTenant.objects.get()) == "connected"
    ask(connected.consent())


@pytest.mark.req("S-51")
def test_a_customers_authority_that_answers_for_another_tenant_is_not_believed(connected: Portal) -> None:
    customer = custody.first_customer(connected)
    custody.consent_directly(connected, customer, {"User.Read.All"})
    connected.sandbox.world.tampers.append(
        Tamper(grant_type="refresh_token", claims={"tid": connected.partner.tenant_id})
    )

    with pytest.raises(IdentityMismatch):
        ask(connected.consent(), Audience.GRAPH, customer=customer)

    assert stopped_by(connected.consent()) == "id_token_tenant"


@pytest.mark.parametrize(
    ("code", "kind"), [(700082, ConsentRequired), (7000215, AuthenticationFailed), (50173, ConsentRequired)]
)
def test_the_service_reports_a_failure_and_writes_no_state(
    connected: Portal, code: int, kind: type[RemoteError]
) -> None:
    before = PartnerConsent.objects.values().get()
    connected.sandbox.world.refusals.append(Refusal(code=code))

    with pytest.raises(kind) as caught:
        ask(connected.consent(), fresh=True)

    assert caught.value.code == f"AADSTS{code}"
    assert PartnerConsent.objects.values().get() == before


# --- disabled in the middle ---------------------------------------------------------------------------------------


@pytest.mark.req("R-12")
@pytest.mark.req("S-53")
@pytest.mark.django_db(transaction=True)
def test_a_partner_disabled_while_the_answer_is_held_gets_nothing_out_of_it(connected: Portal) -> None:
    consent = connected.consent()
    make_due(consent)
    connected.sandbox.world.faults.append(Fault(service="login", path="token", hold=True))

    def disable_and_release() -> None:
        until = time.monotonic() + 10
        while not connected.sandbox.faults.holding and time.monotonic() < until:
            time.sleep(0.01)
        PartnerTenant.objects.update(switch="disabled")
        connected.sandbox.faults.release()

    work = in_threads(2, lambda index: disable_and_release() if index else ask(consent, fresh=True))

    with pytest.raises(TokenUnavailable, match="disabled"):
        work[0].result()
    work[1].result()
    after = connected.consent()
    assert (after.generation, after.secret_version) == (1, consent.secret_version)
    assert enabled_versions(connected, after) == [consent.secret_version]
    assert PartnerTenant.objects.get().switch == "disabled"


@pytest.mark.req("R-12")
def test_a_partner_disabled_between_vault_and_pointer_has_the_new_version_switched_off(
    either: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = either.consent()
    watched = watch_vault(monkeypatch)

    def disable(operation: str) -> None:
        if operation == "write":
            PartnerTenant.objects.update(switch="disabled")

    watched.after = disable
    make_due(before)

    ask(before, fresh=True)

    after = either.consent()
    assert (after.generation, after.secret_version) == (1, before.secret_version)
    assert enabled_versions(either, after) == [before.secret_version]
    assert not AuditEvent.objects.filter(action="token.stored", details__generation=2).exists()


@pytest.mark.req("R-12")
@pytest.mark.parametrize(
    ("switch_off", "state"),
    [
        (lambda: PartnerTenant.objects.update(switch="disabled"), "needs_consent"),
        (lambda: PartnerTenant.objects.update(offboarding_since=timezone.now()), "needs_consent"),
        (lambda: PartnerConsent.objects.update(state="disconnected"), "disconnected"),
        (lambda: PartnerConsent.objects.update(state="stopped"), "stopped"),
    ],
    ids=["disabled", "offboarding", "disconnected", "stopped"],
)
def test_a_partner_who_is_switched_off_while_its_consent_is_stored_is_not_revived(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, switch_off: Callable[[], int], state: str
) -> None:
    watched = watch_vault(monkeypatch)

    def after(operation: str) -> None:
        if operation == "write":
            switch_off()

    watched.after = after

    portal.onboard()

    consent = portal.consent()
    assert (consent.generation, consent.state) == (0, state)
    assert enabled_versions(portal, consent) == []


@pytest.mark.req("R-03")
def test_a_new_consent_waits_for_its_turn_while_the_old_token_is_renewed(connected: Portal) -> None:
    before = connected.consent()
    lend_to_another(before)

    connected.onboard()

    after = connected.consent()
    assert (after.generation, after.secret_version) == (1, before.secret_version)
    assert enabled_versions(connected, after) == [before.secret_version]
