"""With each of many faults the doctor names that fault first; without one it names none and changes nothing.

Covers: consent.doctor.away, consent.doctor.case, consent.doctor.ground, consent.doctor.steps, consent.doctor.trail,
consent.doctor.vaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import key_pairs
from consent.doctor.examining import STEPS
from consent.doctor.steps import Result
from consent.models import PartnerConsent
from consent.vault.base import DOCTOR_NAME
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, doctor, vault_secrets
from tests.support.commands import assert_silent
from tests.support.credentials import KEY_RIGHTS
from tests.support.doctor import Ward, make_ward
from tests.support.smtp import serving

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def mail_port() -> Iterator[int]:
    with serving() as server:
        yield server.port


@pytest.fixture
def ward(
    db: None,
    settings: Settings,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mail_port: int,
    request: pytest.FixtureRequest,
) -> Ward:
    """A portal in which everything works; with the embedded vault unless a test asks for the Key Vault."""
    key_vault = getattr(request, "param", "") == "key vault"
    return make_ward(settings, sandbox, monkeypatch, tmp_path, mail_port, key_vault=key_vault)


in_key_vault = pytest.mark.parametrize("ward", ["key vault"], indirect=True)
in_both = pytest.mark.parametrize("ward", ["embedded", "key vault"], indirect=True)

# (fault, the vault that it needs, the step that must be named first, what it must say)
FAULTS: list[tuple[Callable[[Ward], None], str, str, str]] = [
    (doctor.no_ca_file, "embedded", "settings", "TEST_CA_FILE names"),
    (doctor.migration_missing, "embedded", "migrations", "lacks 1 migration"),
    (doctor.trigger_dropped, "embedded", "trail", "is not guarded as the portal made it: the trigger"),
    (doctor.wrong_clock, "embedded", "time", "s ahead of login.global.localhost"),
    (doctor.full_disk, "embedded", "disk", "Disk full: Vault"),
    (doctor.other_vault_key, "embedded", "vault", "key file"),
    (doctor.other_vault, "embedded", "vault", "does not carry the id of this database's vault"),
    (doctor.vault_identity_refused, "key vault", "vault", "identity"),
    (doctor.vault_without_set, "key vault", "vault_write", "lacks a permission"),
    (doctor.graph_out_of_reach, "embedded", "hosts", "graph.global.localhost"),
    (doctor.unknown_issuer, "embedded", "hosts", "issuer that this server does not trust"),
    (doctor.other_address, "key vault", "address", "We seem to call from 20.50.2.1, and partners are told 203.0.113.7"),
    (doctor.staff_service_away, "embedded", "staff", "Sign-in service of staff, id.vendor.localhost"),
    (doctor.staff_tenant_unknown, "embedded", "staff", "Sign-in service of staff, login.global.localhost"),
    (doctor.staff_role_unknown, "embedded", "staff", "STAFF_OIDC_ROLES names Operatr"),
    (doctor.foreign_discovery, "embedded", "sign_in", "Sign-in service of Global"),
    (doctor.no_signing_keys, "embedded", "sign_in", "no_signing_keys"),
    (doctor.credential_refused, "embedded", "credential", "AADSTS7000215"),
    (doctor.credential_ended, "embedded", "credential", "ended on"),
    (doctor.application_disabled, "embedded", "credential", "AADSTS7000112"),
    (doctor.canary_revoked, "embedded", "canary", "AADSTS50173"),
    (doctor.partner_center_refuses, "embedded", "partner_center", "Partner Center, for Northwind Cloud"),
    (doctor.graph_refuses, "embedded", "graph", "Microsoft Graph, for Northwind Cloud"),
    (doctor.reader_refused, "embedded", "identities", "READER_CLIENT_ID"),
    (doctor.mail_server_gone, "embedded", "mail", "The mail server cannot be used"),
    (doctor.no_worker, "embedded", "worker", "No worker gave a sign of life"),
    (doctor.schedule_not_kept, "embedded", "schedule", "Due, and not handed out"),
]


def first(report: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in report["steps"] if one["step"] == report["first_failure"])


@pytest.mark.parametrize(
    ("fault", "ward", "step", "says"), FAULTS, indirect=["ward"], ids=[one[0].__name__ for one in FAULTS]
)
def test_the_fault_is_named_first_with_what_to_do(
    ward: Ward, fault: Callable[[Ward], None], step: str, says: str
) -> None:
    fault(ward)
    report = ward.report()
    assert (report["ok"], report["first_failure"]) == (False, step), report
    broken = [one for one in first(report)["findings"] if one["result"] == "failed"]
    assert says in broken[0]["words"]
    assert broken[0]["remedy"]
    assert "unexpectedly" not in broken[0]["words"]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_named_first(ward: Ward) -> None:
    doctor.database_away(ward)
    report = ward.report()
    assert report["first_failure"] == "database"
    assert "DATABASE_URL" in first(report)["findings"][0]["words"]
    results = {one["step"]: one["result"] for one in report["steps"]}
    assert {results[name] for name in ("migrations", "vault", "hosts", "canary", "worker")} == {"skipped"}
    assert results["mail"] == "well"


def test_every_step_that_can_fail_has_a_fault() -> None:
    assert {step.name for step in STEPS} - {one[2] for one in FAULTS} == {"database", "production"}
    assert len({one[0] for one in FAULTS}) >= 15


@in_both
def test_where_nothing_is_wrong_nothing_fails_and_nothing_is_changed(ward: Ward) -> None:
    # So old that any other work would renew the token, save it and write the row.
    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=40))
    before = PartnerConsent.objects.values().get(), AuditEvent.objects.count(), Incident.objects.count()
    ran = ward.examine()
    assert ran.code == 0, ran.out
    assert "Nothing fails" in ran.out
    assert_silent(ward.portal, ran)
    after = PartnerConsent.objects.values().get(), AuditEvent.objects.count(), Incident.objects.count()
    assert after == before
    results = {one["step"]: one["result"] for one in ward.report()["steps"]}
    unseen = {"identities", "staff"} | ({"address"} if not ward.settings.VAULT_URL.startswith("https") else set())
    assert {name for name, result in results.items() if result == "not_seen"} == unseen
    assert {name for name, result in results.items() if result == "notice"} == {"production", "trail"}


@pytest.mark.parametrize("ward", ["key vault"], indirect=True)
def test_an_address_within_the_network_is_no_address_that_partners_see(ward: Ward) -> None:
    ward.settings.OUTGOING_ADDRESSES = ["203.0.113.7"]
    [step] = [one for one in ward.report()["steps"] if one["step"] == "address"]
    assert step["result"] == "not_seen"
    assert "which is no public address" in step["findings"][0]["words"]


@pytest.mark.parametrize("ward", ["key vault"], indirect=True)
def test_identities_that_were_not_tried_are_said(ward: Ward) -> None:
    [step] = [one for one in ward.report()["steps"] if one["step"] == "identities"]
    told = " ".join(one["words"] for one in step["findings"])
    assert {one["result"] for one in step["findings"]} == {"not_seen"}
    assert all(name in told for name in ("VAULT_RECONCILE_IDENTITY", "VAULT_ERASE_IDENTITY", "READER_CLIENT_ID"))


@in_key_vault
def test_keys_that_cannot_be_listed_and_a_tenant_without_reader_are_said(ward: Ward) -> None:
    rights = ward.sandbox.world.vault_rights
    rights[scenarios.vault_application_id()] = KEY_RIGHTS
    lister = vault_secrets.add_identity(ward.sandbox, "Reconcile", {"list"}, ward.folder)
    ward.settings.VAULT_RECONCILE_IDENTITY = lister
    ward.settings.READERS = {builders.guid(): (builders.guid(), "")}
    keys = clients.vault_keys()
    key_pairs.make_vault_key(ward.portal.registration, days=365, keys=keys, actor=builders.ACTOR)

    def told() -> str:
        [step] = [one for one in ward.report()["steps"] if one["step"] == "identities"]
        return " ".join(one["words"] for one in step["findings"])

    assert "may not list keys" in told()
    assert f"No identity reads {ward.portal.registration} at Microsoft: none is of its home tenant." in told()
    rights[lister.partition(",")[0]].add("keys/list")
    assert "VAULT_RECONCILE_IDENTITY may list the keys of the vault." in told()


def test_the_probe_is_removed_again_from_the_embedded_vault(ward: Ward) -> None:
    ward.examine()
    assert not (Path(ward.settings.VAULT_URL) / DOCTOR_NAME).exists()


@in_key_vault
def test_a_key_vault_gets_one_version_of_the_probe_a_day(ward: Ward) -> None:
    for _ in range(3):
        assert ward.examine().code == 0
    vault = next(iter(ward.sandbox.world.vaults.values()))
    assert len(vault.secrets[DOCTOR_NAME].versions) == 1


def test_a_fault_skips_what_needs_it_and_nothing_else(ward: Ward) -> None:
    doctor.no_signing_keys(ward)
    report = ward.report()
    skipped = [one["step"] for one in report["steps"] if one["result"] == "skipped"]
    assert skipped == ["credential", "canary", "partner_center", "graph", "identities"]
    words = {one["findings"][0]["words"] for one in report["steps"] if one["result"] == "skipped"}
    assert words == {"Not looked at, because this fails: Sign-in documents and keys."}


def test_the_last_line_names_the_first_of_several_and_the_code_is_1(ward: Ward) -> None:
    doctor.no_worker(ward)
    doctor.graph_refuses(ward)
    ran = ward.examine()
    assert ran.code == 1
    assert ran.out.strip().splitlines()[-1].startswith("The first that fails: Microsoft Graph.")
    assert "Worker: fails" in ran.out
    assert_silent(ward.portal, ran)


def test_a_service_that_spends_tokens_is_not_asked(ward: Ward) -> None:
    ward.settings.TOKEN_SAVE_AFTER_HOURS = 0
    stored = PartnerConsent.objects.values_list("secret_version", flat=True).get()
    canary = next(one for one in ward.report()["steps"] if one["step"] == "canary")
    assert canary["result"] == Result.NOT_SEEN
    assert PartnerConsent.objects.values_list("secret_version", flat=True).get() == stored


def test_a_portal_before_its_first_partner_fails_nothing_for_it(ward: Ward) -> None:
    PartnerConsent.objects.update(state=PartnerConsent.State.NEEDS_CONSENT)
    report = ward.report()
    results = {one["step"]: one["result"] for one in report["steps"]}
    assert (report["ok"], results["canary"], results["partner_center"]) == (True, "not_seen", "not_seen")


def test_each_cloud_in_use_is_tried_with_its_own_hosts_and_no_other(ward: Ward) -> None:
    builders.partner(cloud="china")
    steps = {one["step"]: one for one in ward.report()["steps"]}
    tried = " ".join(finding["words"] for finding in steps["hosts"]["findings"])
    assert {cloud for cloud in ward.sandbox.clouds if f".{cloud}.localhost" in tried} == {"global", "china"}
    assert [len(steps[name]["findings"]) for name in ("time", "sign_in")] == [2, 2]


def test_an_unknown_exception_is_a_failure_of_its_step_and_tells_no_text(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(place: object) -> None:
        raise RuntimeError("a text from outside")

    monkeypatch.setattr("shutil.disk_usage", tell)
    report = ward.report()
    assert report["first_failure"] == "disk"
    assert "RuntimeError" in first(report)["findings"][0]["words"]
    assert "from outside" not in str(report)


def test_an_embedded_vault_that_is_not_made_yet_is_not_made_by_looking(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    settings.VAULT_URL, settings.VAULT_KEY_FILE = str(tmp_path / "none"), str(tmp_path / "none-key")
    settings.TEST_ENDPOINTS = sandbox.port
    settings.OUTGOING_CA_FILE, settings.CLOUDS = str(sandbox.ca_file), sandbox.clouds
    clients.reset()
    with pytest.raises(SystemExit):  # there is no worker either
        call_command("doctor")
    assert not list(tmp_path.iterdir())
