"""Database and vault agree, or a run says where not, repairs what is safe, and leaves the rest to a person.

Covers: consent.tokens.differences, consent.tokens.vault_incidents.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients, jobs
from consent.models import PartnerConsent, WaitingToken
from consent.sign_in import approvals
from consent.tokens import orphans, reconcile
from consent.tokens.custody import Custody
from consent.tokens.differences import ReconcileReport
from consent.tokens.reconcile import TooManyChanges
from consent.tokens.service import Audience
from consent.vault.azure import AzureKeyVault
from consent.vault.base import SecretName, SecretVersion
from consent.vault.pace import Pace
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.incidents.service import report as report_incident
from portal.microsoft.diagnosis import Owner
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from portal.runs import registry
from tenants.models import PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox import world as sandbox_world
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, known_id
from tests.support import builders, custody, vault_secrets
from tests.support.commands import run
from tests.support.connected import two_partners
from tests.support.portal import Portal
from tests.support.vault_secrets import found

SECOND = "second@northwind.example.com"
LISTER = "Reconcile"
PARTNERS = int(os.environ.get("RECONCILE_PARTNERS", "60"))  # 1000 for the full demonstration of R-08
AT_AZURE = pytest.mark.parametrize("portal", ["azure"], indirect=True)


@pytest.fixture(params=["local", "azure"])
def portal(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A connected partner, once with each vault; at Azure the web identity may Get and Set, another one List."""
    use_sandbox(settings, sandbox)
    if request.param == "local":
        use_local_vault(settings, tmp_path)
    else:
        use_azure_vault(settings, sandbox, tmp_path)
        sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
        settings.VAULT_RECONCILE_IDENTITY = vault_secrets.add_identity(sandbox, LISTER, {"list"}, tmp_path)
    portal = make_portal(sandbox)
    portal.connect()
    return portal


@pytest.fixture
def consent(portal: Portal) -> PartnerConsent:
    return portal.consent()


def assert_nothing_more(portal: Portal) -> None:
    assert found(vault_secrets.reconcile()) == []
    before = vault_secrets.content(portal)
    assert found(vault_secrets.reconcile()) == []
    assert vault_secrets.content(portal) == before


def rotate(portal: Portal) -> None:
    custody.make_due(portal.consent())
    custody.ask(portal.consent(), fresh=True)


def test_a_portal_that_works_differs_in_nothing(portal: Portal, consent: PartnerConsent) -> None:
    for _ in range(3):
        rotate(portal)
    assert portal.consent().generation == 4
    portal.onboard(user=SECOND)
    report = vault_secrets.reconcile()
    assert found(report) == []
    assert report.looked_at == 2
    assert report.not_looked_at == []


# --- repaired -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-02")
@pytest.mark.req("S-42")
def test_a_version_that_was_written_before_a_crash_is_used_and_the_older_one_switched_off(
    portal: Portal, consent: PartnerConsent
) -> None:
    token = custody.rotated_token(portal, consent)
    version = custody.write_version(consent, token, 2)

    assert found(vault_secrets.reconcile()) == [("newer_version", "repaired")]

    after = portal.consent()
    assert (after.generation, after.secret_version) == (2, version)
    assert custody.enabled_versions(portal, after) == [version]
    custody.ask(after, fresh=True)
    assert_nothing_more(portal)


@pytest.mark.req("R-02")
@pytest.mark.parametrize("generation", [0, 1], ids=["lower", "equal"])
def test_a_late_writers_version_is_switched_off(portal: Portal, consent: PartnerConsent, generation: int) -> None:
    custody.write_version(consent, Secret("late"), generation)
    assert found(vault_secrets.reconcile()) == [("old_version_enabled", "repaired")]
    assert custody.enabled_versions(portal, portal.consent()) == [consent.secret_version]
    assert vault_secrets.row(consent)["secret_version"] == consent.secret_version
    assert_nothing_more(portal)


@pytest.mark.req("R-02")
def test_of_several_newer_versions_the_highest_is_used_even_if_a_disabled_one_is_the_latest(
    portal: Portal, consent: PartnerConsent
) -> None:
    custody.write_version(consent, Secret("two"), 2)
    third = custody.write_version(consent, custody.rotated_token(portal, consent), 3)
    latest = custody.write_version(consent, Secret("late"), 2)
    clients.vault().disable(SecretName(consent.secret_name), latest)

    assert found(vault_secrets.reconcile()) == [("newer_version", "repaired"), ("old_version_enabled", "repaired")]

    assert portal.consent().generation == 3
    assert custody.enabled_versions(portal, portal.consent()) == [third]
    assert_nothing_more(portal)


@pytest.mark.req("R-02")
def test_what_a_first_consent_left_behind_is_switched_off(portal: Portal) -> None:
    partner = builders.partner()
    cut_off = builders.consent(
        partner, portal.registration, state="needs_consent", generation=0, secret_version="", fingerprint=""
    )
    version = custody.write_version(cut_off, Secret("first"), 1)
    assert found(vault_secrets.reconcile()) == [("first_consent_cut_off", "repaired")]
    assert not vault_secrets.is_enabled(portal, cut_off.secret_name, version)
    assert vault_secrets.row(cut_off)["generation"] == 0
    assert_nothing_more(portal)


def test_a_disconnected_partners_token_is_switched_off(portal: Portal, consent: PartnerConsent) -> None:
    PartnerConsent.objects.update(state="disconnected")
    assert found(vault_secrets.reconcile()) == [("disconnected_still_enabled", "repaired")]
    assert custody.enabled_versions(portal, consent) == []
    assert_nothing_more(portal)


@pytest.mark.req("S-15")
@pytest.mark.parametrize("why", ["rejected", "too late", "never finished"])
def test_the_token_of_an_account_that_waits_no_longer_is_switched_off(
    portal: Portal, consent: PartnerConsent, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.onboard(user=SECOND)
    waiting = WaitingToken.objects.get()
    if why == "rejected":
        with monkeypatch.context() as patch:
            patch.setattr(approvals, "_switch_off", lambda waiting, vault: None)  # the process died just before it
            approvals.reject(waiting, vault=clients.vault(), actor=builders.ACTOR)
    elif why == "too late":
        WaitingToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    else:
        WaitingToken.objects.update(secret_version="", created_at=timezone.now() - timedelta(hours=2))

    assert found(vault_secrets.reconcile()) == [("waiting_token_over", "repaired")]

    assert not vault_secrets.is_enabled(portal, waiting.secret_name, waiting.secret_version)
    assert custody.enabled_versions(portal, consent) == [consent.secret_version]
    assert_nothing_more(portal)


def test_a_sign_in_that_is_being_stored_at_this_moment_is_left_alone(portal: Portal, consent: PartnerConsent) -> None:
    portal.onboard(user=SECOND)
    WaitingToken.objects.update(secret_version="")
    custody.write_version(consent, Secret("new"), 2)
    with clients.tokens()._custody.lease(consent):
        report = vault_secrets.reconcile()
        assert (found(report), report.busy) == ([], 1)
    assert portal.consent().generation == 1


# --- orphans ------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-41")
def test_an_orphan_is_listed_and_switched_off_only_when_asked_tagged_and_old(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, untagged = vault_secrets.write_orphan(), vault_secrets.write_orphan(record="")
    old_credential = vault_secrets.write_orphan(record="registration-1")
    expected = sorted([ours[0], untagged[0], old_credential[0]])

    listed = vault_secrets.reconcile()
    assert sorted(each.name for each in listed.differences) == expected
    assert {each.outcome for each in listed.differences} == {""}
    young = vault_secrets.reconcile(disable_orphans=True)
    assert [each.outcome for each in young.differences if each.name == ours[0]] == [
        "not repaired: it is less than a day old"
    ]

    monkeypatch.setattr(orphans, "ORPHAN_AGE", timedelta(seconds=-2))
    report = vault_secrets.reconcile(disable_orphans=True)
    assert {each.name: each.outcome for each in report.differences} == {
        ours[0]: "repaired",
        untagged[0]: "not repaired: it does not carry our tag",
        old_credential[0]: "repaired",
    }
    assert not vault_secrets.is_enabled(portal, *ours)
    assert vault_secrets.is_enabled(portal, *untagged)
    assert not vault_secrets.is_enabled(portal, *old_credential)
    assert ours[0] not in {each.name for each in vault_secrets.reconcile(disable_orphans=True).differences}


def test_entries_of_other_programs_in_the_same_vault_are_not_even_listed(portal: Portal) -> None:
    clients.vault().write(SecretName("somebody-elses"), Secret("x"), tags={}, expires_at=None)
    report = vault_secrets.reconcile(disable_orphans=True)
    assert [each.name for each in report.differences if each.name == "somebody-elses"] == []


# --- for a person -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "disabled", "gone"])
def test_a_pointer_to_nothing_is_loud_until_it_is_over_and_nothing_is_changed(
    portal: Portal, consent: PartnerConsent, how: str
) -> None:
    older = custody.write_version(consent, Secret("older"), 0)
    restore = vault_secrets.snapshot(portal)
    if how == "deleted":
        vault_secrets.delete_entry(portal, consent.secret_name)
    elif how == "disabled":
        vault_secrets.disable(consent)
    else:
        PartnerConsent.objects.update(secret_version="f" * 32)
    before, row = vault_secrets.content(portal), vault_secrets.row(consent)

    report = vault_secrets.reconcile()

    kind = {"disabled": "token_disabled", "gone": "token_missing"}.get(how) or (
        "token_deleted" if vault_secrets.is_azure() else "token_missing"
    )
    assert found(report) == [(kind, "")]
    if how != "deleted":
        left = 1 if how == "disabled" else 2
        assert f"{left} older enabled version(s) are left as they are" in report.differences[0].words
        assert vault_secrets.is_enabled(portal, consent.secret_name, older)
    assert vault_secrets.content(portal) == before
    assert vault_secrets.row(consent) == row
    incident = Incident.objects.get(cause="vault_difference")
    assert (incident.about, incident.owner) == (f"consent:{consent.pk}", "us")
    assert "link" in incident.words
    vault_secrets.reconcile()
    incident.refresh_from_db()
    assert incident.times == 2

    restore()
    PartnerConsent.objects.update(secret_version=consent.secret_version)
    vault_secrets.reconcile()
    assert not Incident.objects.open().exists()
    assert_nothing_more(portal)


@pytest.mark.req("S-51")
def test_swapped_rows_stop_both_partners_and_their_tokens_are_not_touched(portal: Portal) -> None:
    first, second = two_partners(portal)
    PartnerConsent.objects.filter(pk=first.pk).update(secret_name="aside")
    for target, source in ((second, first), (first, second)):
        PartnerConsent.objects.filter(pk=target.pk).update(
            secret_name=source.secret_name, secret_version=source.secret_version
        )
    before = vault_secrets.content(portal)

    assert {each.kind.value for each in vault_secrets.reconcile(dry_run=True).differences} >= {"identity_mismatch"}
    assert set(PartnerConsent.objects.values_list("state", flat=True)) == {"connected"}
    report = vault_secrets.reconcile()

    assert found(report) == [("identity_mismatch", "partner stopped")] * 2
    assert set(PartnerConsent.objects.values_list("state", flat=True)) == {"stopped"}
    assert Incident.objects.open().filter(cause="identity_mismatch").count() == 2
    assert vault_secrets.content(portal) == before
    again = vault_secrets.reconcile()
    assert (found(again), again.stopped) == ([], 2)


@pytest.mark.req("S-51")
def test_a_changed_fingerprint_stops_the_partner(portal: Portal, consent: PartnerConsent) -> None:
    PartnerConsent.objects.update(fingerprint="0" * 16)
    assert found(vault_secrets.reconcile()) == [("identity_mismatch", "partner stopped")]
    assert portal.consent().state == "stopped"
    assert custody.enabled_versions(portal, consent) == [consent.secret_version]


@pytest.mark.req("S-51")
def test_another_records_token_under_a_partners_name_is_never_used(portal: Portal, consent: PartnerConsent) -> None:
    custody.write_version(consent, Secret("foreign"), 9, record="consent-4711")
    assert found(vault_secrets.reconcile()) == [("foreign_version", "")]
    assert portal.consent().generation == 1
    assert Incident.objects.open().filter(cause="vault_difference").count() == 1


def test_a_waiting_token_that_was_exchanged_is_told(portal: Portal) -> None:
    portal.onboard(user=SECOND)
    waiting = WaitingToken.objects.get()
    WaitingToken.objects.update(fingerprint="0" * 16)
    assert found(vault_secrets.reconcile()) == [("waiting_token_lost", "")]
    assert Incident.objects.open().get(cause="vault_difference").about == f"waiting:{waiting.pk}"


# --- an older token, after a restore of an older vault --------------------------------------------------------------


@pytest.fixture
def older(portal: Portal, consent: PartnerConsent) -> PartnerConsent:
    """The row is two renewals ahead of its vault. Returns it as it was when the vault was copied."""
    restore = vault_secrets.snapshot(portal)
    rotate(portal)
    rotate(portal)
    restore()
    assert portal.consent().generation == 3
    return consent


def adopt(**options: Any) -> ReconcileReport:
    return vault_secrets.reconcile(adopt_older=clients.tokens(), **options)


@pytest.mark.req("R-41")
@pytest.mark.req("R-02")
def test_an_older_token_that_microsoft_honours_is_taken_up_when_it_is_asked_for(
    portal: Portal, older: PartnerConsent
) -> None:
    assert found(vault_secrets.reconcile()) == [("token_missing", "")]
    assert portal.consent().secret_version != older.secret_version
    assert Incident.objects.open().filter(cause="vault_difference").count() == 1
    calls = len(custody.redemptions(portal))

    report = adopt()

    assert found(report) == [("token_missing", "older token taken up")]
    assert (report.open, report.taken_up) == (0, 1)
    assert len(custody.redemptions(portal)) == calls + 1
    after = portal.consent()
    assert (after.generation, after.state, after.replaced_version, after.lease_owner) == (4, "connected", "", "")
    assert custody.enabled_versions(portal, after) == [after.secret_version] != [older.secret_version]
    assert not Incident.objects.open().exists()
    event = AuditEvent.objects.get(action="token.older_taken_up")
    assert event.details == {"older": 1, "lost": 3, "generation": 4}
    custody.ask(after, fresh=True)
    assert_nothing_more(portal)


def test_the_newest_of_several_older_tokens_is_taken_up_and_the_others_are_switched_off(
    portal: Portal, older: PartnerConsent
) -> None:
    custody.write_version(older, Secret("a token that nobody knows"), 0)
    custody.write_version(older, Secret("another"), 2)  # tried first, and refused

    report = adopt()

    assert found(report) == [("token_missing", "older token taken up")]
    after = portal.consent()
    assert custody.enabled_versions(portal, after) == [after.secret_version]
    assert_nothing_more(portal)


@pytest.mark.req("S-51")
@pytest.mark.parametrize("why", ["refused", "another account", "disabled", "Microsoft is away"])
def test_an_older_token_that_is_not_proven_stays_as_it_is(portal: Portal, older: PartnerConsent, why: str) -> None:
    vault_secrets.reconcile(dry_run=True)  # so that the vault's identities have signed in
    if why == "refused":
        custody.service_account(portal).sessions_revoked_at = portal.sandbox.world.now() + 1
    elif why == "another account":
        PartnerConsent.objects.update(pinned_oid=known_id("user", "somebody else"))
    elif why == "disabled":
        PartnerTenant.objects.update(switch="disabled")
    else:
        portal.sandbox.world.faults.append(
            Fault(service="login", path=older.partner.tenant_id, status=503, body="{}", times=50)
        )
    before = vault_secrets.row(older)
    content = vault_secrets.content(portal)

    report = adopt()

    [difference] = report.differences
    assert difference.outcome.startswith("failed" if why == "Microsoft is away" else "not taken up: ")
    assert report.open == 1
    assert vault_secrets.row(older) == before
    assert vault_secrets.content(portal) == content
    assert not AuditEvent.objects.filter(action="token.older_taken_up").exists()
    assert Incident.objects.open().filter(cause="vault_difference").count() == 1


@AT_AZURE
def test_get_and_set_alone_are_enough_to_take_an_older_token_up(
    portal: Portal, older: PartnerConsent, settings: Settings
) -> None:
    settings.VAULT_RECONCILE_IDENTITY = ""
    clients.reset()
    assert found(adopt()) == [("token_missing", "older token taken up")]
    custody.ask(portal.consent(), fresh=True)


def test_the_command_takes_older_tokens_up_and_says_how_many(portal: Portal, older: PartnerConsent) -> None:
    dry = run("vault_reconcile", "--dry-run", "--adopt-older")
    assert dry.code == 1
    assert "(--adopt-older)" in dry.out
    assert portal.consent().generation == 3

    ran = run("vault_reconcile", "--adopt-older")

    assert ran.code == 0
    assert "1 older token(s) were taken up" in ran.out
    assert run("vault_reconcile", "--json", "--adopt-older").out.count('"older_taken_up": 0') == 1


@pytest.mark.req("R-03")
def test_a_renewal_that_holds_the_lease_is_not_disturbed(portal: Portal, older: PartnerConsent) -> None:
    with clients.tokens()._custody.lease(portal.consent()):
        report = adopt()
    assert report.busy == 1
    assert portal.consent().generation == 3


# --- restores -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-41")
@pytest.mark.req("S-69")
@pytest.mark.parametrize("older", ["database", "vault"])
@pytest.mark.parametrize("event", ["rotated", "disabled", "erased"])
def test_after_a_restore_of_an_older_copy_the_run_goes_forward_only(
    portal: Portal, consent: PartnerConsent, older: str, event: str
) -> None:
    restore_vault, old_row = vault_secrets.snapshot(portal), vault_secrets.row(consent)
    if event == "rotated":
        rotate(portal)
        assert portal.consent().generation == 2
    elif event == "disabled":
        vault_secrets.disable(consent)
        PartnerConsent.objects.update(state="disconnected")
    else:
        vault_secrets.delete_entry(portal, consent.secret_name)
        PartnerConsent.objects.all().delete()
    new_version = PartnerConsent.objects.filter(pk=consent.pk).values_list("secret_version", flat=True).first()
    if older == "vault":
        restore_vault()
    elif event == "erased":
        PartnerConsent.objects.create(**old_row)
    else:
        vault_secrets.put_back(old_row)

    report = vault_secrets.reconcile()

    gone = "token_deleted" if vault_secrets.is_azure() else "token_missing"
    assert (
        found(report)
        == {
            ("database", "rotated"): [("newer_version", "repaired")],
            ("database", "disabled"): [("token_disabled", "")],
            ("database", "erased"): [(gone, "")],
            ("vault", "rotated"): [("token_missing", "")],
            ("vault", "disabled"): [("disconnected_still_enabled", "repaired")],
            ("vault", "erased"): [("orphan", "")],
        }[older, event]
    )
    if event == "rotated":
        assert portal.consent().generation == 2
    if (older, event) == ("database", "rotated"):
        assert portal.consent().secret_version == new_version
        clients.tokens().access_token(
            portal.consent(), Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id()
        )
    if (older, event) == ("vault", "disabled"):
        assert custody.enabled_versions(portal, consent) == []
    second = vault_secrets.reconcile()
    assert [kind for kind, _ in found(second)] == [kind for kind, outcome in found(report) if outcome != "repaired"]


# --- how a run behaves --------------------------------------------------------------------------------------------


@pytest.mark.req("R-41")
def test_a_dry_run_lists_the_same_and_changes_nothing(portal: Portal, consent: PartnerConsent) -> None:
    custody.write_version(consent, Secret("late"), 1)
    vault_secrets.write_orphan()
    before, row, events = vault_secrets.content(portal), vault_secrets.row(consent), AuditEvent.objects.count()
    report = vault_secrets.reconcile(dry_run=True, disable_orphans=True)
    assert found(report) == [("old_version_enabled", ""), ("orphan", "")]
    assert (vault_secrets.content(portal), vault_secrets.row(consent)) == (before, row)
    assert AuditEvent.objects.count() == events


@pytest.mark.req("S-40")
def test_listing_is_done_by_its_own_identity_and_the_portals_does_nothing_else_than_get_and_set(
    portal: Portal, consent: PartnerConsent
) -> None:
    custody.write_version(consent, Secret("late"), 1)
    assert found(vault_secrets.reconcile()) == [("old_version_enabled", "repaired")]
    if vault_secrets.is_azure():
        assert vault_secrets.calls_by(portal, known_id("application", LISTER)) <= {"list", "list_versions", "list_keys"}
        assert vault_secrets.calls_by(portal, scenarios.vault_application_id()) <= {"get", "set", "update"}


@pytest.mark.req("S-40")
@AT_AZURE
def test_without_the_right_to_list_the_rest_is_done_and_the_run_says_what_it_could_not_see(
    portal: Portal, consent: PartnerConsent, settings: Settings
) -> None:
    settings.VAULT_RECONCILE_IDENTITY = ""
    clients.reset()
    version = custody.write_version(consent, custody.rotated_token(portal, consent), 2)
    vault_secrets.write_orphan()
    ran = run("vault_reconcile")
    assert ran.code == 0
    assert "not looked at: The identity may not List" in ran.out
    assert portal.consent().secret_version == version
    assert found(vault_secrets.reconcile()) == []


@pytest.mark.req("R-30")
def test_a_row_that_cannot_be_looked_at_does_not_stop_the_run(portal: Portal, consent: PartnerConsent) -> None:
    partner = builders.partner()
    builders.consent(partner, portal.registration, id=0, secret_name="../../etc", secret_version="x")
    custody.write_version(consent, Secret("late"), 1)
    assert found(vault_secrets.reconcile()) == [("token_not_readable", ""), ("old_version_enabled", "repaired")]


@pytest.mark.req("R-02")
@AT_AZURE
def test_a_repair_that_fails_is_told_the_others_are_done_and_the_next_run_finishes(portal: Portal) -> None:
    first, second = two_partners(portal)
    for consent in (first, second):
        custody.write_version(consent, Secret("late"), 1)
    portal.sandbox.world.faults.append(Fault(service="vault", method="PATCH", status=400, body="{}"))
    outcomes = [outcome for _, outcome in found(vault_secrets.reconcile())]
    assert outcomes[0].startswith("failed: ")
    assert outcomes[1] == "repaired"
    assert found(vault_secrets.reconcile()) == [("old_version_enabled", "repaired")]
    assert_nothing_more(portal)


@pytest.mark.req("R-08")
@AT_AZURE
def test_a_vault_that_asks_for_time_gets_it(
    portal: Portal, consent: PartnerConsent, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    pace = Pace(clock=lambda: now, sleep=advance, jitter=lambda: 0.0)
    monkeypatch.setattr(clients, "_pace", cache(lambda: pace))
    clients.vault.cache_clear()
    portal.sandbox.world.faults.append(
        Fault(service="vault", method="GET", status=429, body="{}", headers={"Retry-After": "200"}, times=1)
    )
    assert found(vault_secrets.reconcile(sleep=advance)) == []
    assert 200 <= now < 210


@AT_AZURE
@pytest.mark.req("R-08")
def test_a_vault_with_a_low_limit_is_approached_and_a_whole_run_completes(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred requests in ten seconds, counted with a clock that only our own waiting moves."""
    for _ in range(PARTNERS):
        late = builders.consent(builders.partner(), portal.registration)
        custody.write_version(late, Secret("newer"), 2)
    now, lock = 0.0, threading.Lock()

    def advance(seconds: float) -> None:
        nonlocal now
        with lock:
            now += seconds

    asked: list[tuple[float, bool]] = []
    over_limit = portal.sandbox.world.over_limit

    def count(key: str, limit: int, seconds: float) -> bool:
        refused = over_limit(key, limit, seconds)
        if key.startswith("vault"):
            asked.append((now, refused))
        return refused

    monkeypatch.setattr(sandbox_world, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    monkeypatch.setattr(portal.sandbox.world, "over_limit", count)
    pace = Pace(clock=lambda: now, sleep=advance, jitter=lambda: 0.5)
    monkeypatch.setattr(clients, "_pace", cache(lambda: pace))
    clients.vault.cache_clear()
    portal.sandbox.world.switches["vault_limit"] = 100

    report = vault_secrets.reconcile(sleep=advance, max_share=100)

    assert set(found(report)) == {("newer_version", "repaired")}
    assert PartnerConsent.objects.filter(generation=2, state="connected").count() == PARTNERS
    moments = [moment for moment, _ in asked]
    busiest = max(index + 1 - bisect_left(moments, moment - 10 + 1e-9) for index, moment in enumerate(moments))
    assert busiest <= 120
    assert sum(refused for _, refused in asked) < len(asked) / 50


@pytest.mark.req("R-41")
def test_a_run_that_would_change_too_much_changes_nothing_and_asks(portal: Portal) -> None:
    for _ in range(15):
        lost = builders.consent(builders.partner(), portal.registration)
        custody.write_version(lost, Secret("newer"), 2)
    with pytest.raises(TooManyChanges, match="15 of 16"):
        vault_secrets.reconcile()
    ran = run("vault_reconcile")
    assert ran.code == 3
    assert "--max-share 100" in ran.err
    assert not AuditEvent.objects.filter(action="vault.reconciled").exists()
    assert [one.cause for one in Incident.objects.open()] == ["vault_many_differences"]
    assert jobs._reconcile() == "too many differences; nothing was changed"
    assert run("vault_reconcile", "--max-share", "100").code == 0
    assert PartnerConsent.objects.filter(generation=2).count() == 15
    assert not Incident.objects.open().exists()


@pytest.mark.req("R-41")
def test_the_schedule_looks_daily_at_what_changed_and_weekly_at_all(portal: Portal, consent: PartnerConsent) -> None:
    assert registry.jobs()["vault_reconcile"].every == timedelta(days=1)
    assert registry.jobs()["vault_reconcile_all"].every == timedelta(days=7)
    custody.write_version(consent, Secret("late"), 1)
    assert jobs._reconcile() == "1 looked at, 1 differences, 0 left"

    vault_secrets.write_orphan()
    long_ago = timezone.now() - timedelta(days=5)
    PartnerConsent.objects.update(stored_at=long_ago, consented_at=long_ago)
    calls = len(portal.sandbox.world.ledger)
    assert jobs._reconcile([timezone.now()]) == "0 looked at, 0 differences, 0 left"
    assert len(portal.sandbox.world.ledger) == calls, "the vault is not even asked for its names"
    assert jobs._reconcile_all().startswith("2 looked at, 1 differences")
    if vault_secrets.is_azure():
        assert "list" in vault_secrets.calls_by(portal, known_id("application", LISTER))


@pytest.mark.req("R-02")
@pytest.mark.parametrize(
    "columns",
    [
        {"stored_at": timezone.now() - timedelta(hours=20)},
        {"consented_at": timezone.now() - timedelta(hours=20)},
        {"replaced_version": "0" * 32},
        {"renewal_started_at": timezone.now() - timedelta(days=4)},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_what_was_renewed_begun_or_not_ended_is_looked_at_daily(
    portal: Portal, consent: PartnerConsent, columns: dict[str, Any]
) -> None:
    long_ago = timezone.now() - timedelta(days=5)
    PartnerConsent.objects.update(**{"stored_at": long_ago, "consented_at": long_ago} | columns)
    custody.write_version(consent, Secret("newer"), 2)
    since = timezone.now() - timedelta(days=1, hours=1)
    assert found(vault_secrets.reconcile(since=since)) == [("newer_version", "repaired")]


def test_a_daily_look_settles_what_it_saw_and_nothing_else(portal: Portal, consent: PartnerConsent) -> None:
    """What is known to differ is looked at each day, whenever it changed."""
    vault_secrets.disable(consent)
    vault_secrets.reconcile()
    incident = Incident.objects.open().get(cause="vault_difference")
    long_ago = timezone.now() - timedelta(days=5)
    PartnerConsent.objects.update(stored_at=long_ago, consented_at=long_ago)
    other = builders.consent(builders.partner(), portal.registration)
    PartnerConsent.objects.filter(pk=other.pk).update(stored_at=long_ago, consented_at=long_ago)
    report_incident("vault_difference", about="waiting:4711", words="x", owner=Owner.US)

    since = timezone.now() - timedelta(days=1)
    report = vault_secrets.reconcile(since=since)
    assert (found(report), report.looked_at) == ([("token_disabled", "")], 1)
    assert Incident.objects.open().filter(cause="vault_difference").count() == 2

    portal.onboard()
    report = vault_secrets.reconcile(since=since)
    assert found(report) == []
    open_ones = Incident.objects.open().filter(cause="vault_difference")
    assert [one.about for one in open_ones] == ["waiting:4711"]
    assert incident not in open_ones


@AT_AZURE
def test_staff_are_warned_before_an_entry_has_more_versions_than_key_vault_backs_up(
    portal: Portal, consent: PartnerConsent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AzureKeyVault.most_versions == 500
    monkeypatch.setattr(AzureKeyVault, "most_versions", 4)
    rotate(portal)
    rotate(portal)
    vault_secrets.reconcile()
    assert not Incident.objects.open().exists()

    rotate(portal)
    vault_secrets.reconcile(since=timezone.now() - timedelta(days=1))
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.subject) == ("vault_many_versions", {"partner": portal.partner.pk})
    assert "with more than 4 versions" in incident.words
    assert "erase its tokens" in incident.words

    monkeypatch.setattr(AzureKeyVault, "most_versions", 500)
    vault_secrets.reconcile(since=timezone.now() - timedelta(days=1))
    assert Incident.objects.open().exists(), "a part says nothing of all"
    vault_secrets.reconcile()
    assert not Incident.objects.open().exists()


@pytest.mark.req("R-02")
@pytest.mark.parametrize("moment", [1, 2])
def test_a_run_that_died_in_the_middle_is_finished_by_the_next_one_once_its_lease_is_over(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    class KilledError(BaseException):
        pass

    first, second = two_partners(portal)
    token = custody.rotated_token(portal, first)
    custody.write_version(first, token, 2)
    custody.write_version(second, Secret("late"), 1)
    watched = custody.watch_vault(monkeypatch)
    done = 0

    def die(operation: str) -> None:
        nonlocal done
        done += operation == "disable"
        if done == moment:
            raise KilledError

    watched.before = die
    released = Custody._free
    monkeypatch.setattr(Custody, "_free", lambda self, *of: None if done == moment else released(*of))
    with pytest.raises(KilledError):
        vault_secrets.reconcile()
    done = 9
    assert vault_secrets.reconcile().busy == 1
    PartnerConsent.objects.exclude(lease_owner="").update(lease_until=timezone.now() - timedelta(seconds=1))
    vault_secrets.reconcile()
    for consent in (first, second):
        consent.refresh_from_db()
        assert custody.enabled_versions(portal, consent) == [consent.secret_version]
    assert first.generation == 2
    assert_nothing_more(portal)


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_tells_each_difference_its_owner_and_the_next_step(portal: Portal, consent: PartnerConsent) -> None:
    custody.write_version(consent, Secret("CANARY-late"), 1)
    PartnerConsent.objects.update(secret_version="f" * 32)
    dry = run("vault_reconcile", "--dry-run")
    assert dry.code == 1
    assert "token_missing" in dry.out
    assert "Who must act: you. Restore the vault's newer backup, let an operator take up the older token, or" in dry.out
    machine = run("vault_reconcile", "--json")
    assert machine.code == 1
    assert '"kind": "token_missing"' in machine.out
    PartnerConsent.objects.update(secret_version=consent.secret_version)
    good = run("vault_reconcile")
    assert good.code == 0
    assert "    repaired." in good.out
    assert "1 differences, 0 left" in good.out
    token = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version)).value.reveal()
    for ran in (dry, machine, good):
        assert "CANARY" not in ran.out + ran.err
        assert token not in ran.out + ran.err
    assert run("vault_reconcile", "--max-share", "101").code == 2


@pytest.mark.req("R-05")
def test_a_vault_that_does_not_answer_is_systemic_and_changes_no_state(
    portal: Portal, consent: PartnerConsent, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_TRIES", 1)
    row = vault_secrets.row(consent)
    if vault_secrets.is_azure():
        portal.sandbox.world.faults.append(Fault(service="vault", status=503, body="{}"))
    else:
        folder = Path(django_settings.VAULT_URL)
        clients.vault()
        clients.inventory()
        folder.rename(folder.with_name("unmounted"))
    ran = run("vault_reconcile")
    assert ran.code == 3
    assert vault_secrets.row(consent) == row
    assert not Incident.objects.exists()
