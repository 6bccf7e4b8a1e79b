"""Azure Key Vault as it behaves: over TLS against the sandbox's vault, with rights, faults and deleted names."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.credentials import TokenCredential

from consent.vault.azure import AzureKeyVault, open_azure_vault
from consent.vault.base import NameBlocked, SecretDisabled, SecretName, SecretVersion, new_secret_name
from consent.vault.pace import Pace
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    NoAnswer,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    Unreachable,
)
from portal.microsoft.http import GuardedSession, time_budget
from portal.microsoft.secret import Secret
from tests.consent.vault.key_vault_answers import CANARY
from tests.sandbox import scenarios
from tests.sandbox.key_vault import VaultState
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support.debug_logs import log_everything

UNKNOWN = SecretVersion("f" * 32)


def write(vault: AzureKeyVault, name: SecretName, value: str = CANARY) -> SecretVersion:
    return vault.write(name, Secret(value), tags={"record": "41", "generation": "7"}, expires_at=None)


def state(sandbox: Sandbox, vault_name: str) -> VaultState:
    found: VaultState = sandbox.world.vaults["global", vault_name]
    return found


@pytest.fixture
def name() -> SecretName:
    return new_secret_name()


@pytest.mark.req("S-40")
def test_with_get_and_set_alone_everything_works_and_nothing_else_is_tried(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
    old, new = write(azure_vault, name), write(azure_vault, name)
    azure_vault.disable(name, old)
    azure_vault.read(name, new)
    azure_vault.read_newest(name)
    azure_vault.check_writable()
    tried = {line["operation"] for line in sandbox.world.ledger if line["service"] == "vault"}
    assert tried == {"set", "get", "update"}


@pytest.mark.parametrize("inner", ["AccessDenied", "ForbiddenByRbac"])
@pytest.mark.req("S-40")
def test_a_missing_right_is_told_by_what_it_stops(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName, inner: str
) -> None:
    version = write(azure_vault, name)
    sandbox.world.switches["vault_denied"] = inner
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get"}
    assert azure_vault.read(name, version).value.reveal() == CANARY
    for call in (
        lambda: write(azure_vault, name),
        lambda: azure_vault.disable(name, version),
        azure_vault.check_writable,
    ):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert caught.value.code == inner
        assert "appid" not in str(caught.value)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"set"}
    with pytest.raises(AccessDenied):
        azure_vault.read(name, version)
    azure_vault.check_writable()


@pytest.mark.req("R-07")
def test_the_write_check_makes_the_reserved_secret_once(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str
) -> None:
    for _ in range(4):
        azure_vault.check_writable()
    assert len(state(sandbox, sandbox_vault_name).secrets["portal-write-probe"].versions) == 1


@pytest.mark.req("S-41")
def test_the_vault_keeps_generation_record_and_nothing_about_the_partner(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str, name: SecretName
) -> None:
    write(azure_vault, name)
    stored = state(sandbox, sandbox_vault_name).secrets[name].versions[0]
    assert stored.tags == {"record": "41", "generation": "7"}
    assert stored.content_type == "application/x-refresh-token"


@pytest.mark.req("R-10")
def test_a_deleted_secret_blocks_its_name_and_another_name_works(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str, name: SecretName
) -> None:
    version = write(azure_vault, name)
    secret = state(sandbox, sandbox_vault_name).secrets[name]
    secret.deleted = sandbox.world.now()
    with pytest.raises(NotFound):
        azure_vault.read(name, version)
    with pytest.raises(NameBlocked):
        write(azure_vault, name)
    write(azure_vault, new_secret_name())

    sandbox.world.switches["vault_delete_seconds"] = 60.0
    with pytest.raises(ServerFault) as caught:
        write(azure_vault, name)
    assert caught.value.code == "ObjectIsBeingDeleted"

    secret.deleted, secret.recovered = None, sandbox.world.now() + 60
    with pytest.raises(ServerFault) as caught:
        write(azure_vault, name)
    assert caught.value.code == "ObjectIsBeingRecovered"


@pytest.mark.req("R-08")
def test_throttling_is_passed_on_with_its_time(azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName) -> None:
    version = write(azure_vault, name)
    sandbox.world.switches |= {"vault_limit": 1, "vault_retry_after": True}
    azure_vault.read(name, version)
    with pytest.raises(Throttled) as caught:
        azure_vault.read(name, version)
    assert caught.value.retry_after == 10


@pytest.mark.req("R-09")
def test_a_write_whose_answer_is_lost_is_unknown_and_can_be_read_back(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    write(azure_vault, name, "older")
    sandbox.world.faults.append(Fault(service="vault", method="PUT", close="after"))
    with pytest.raises(Unreachable):
        write(azure_vault, name, "newer")
    assert azure_vault.read_newest(name).value.reveal() == "newer"


@pytest.mark.req("R-09")
def test_a_write_that_never_arrived_leaves_the_older_version(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    version = write(azure_vault, name, "older")
    sandbox.world.faults.append(Fault(service="vault", method="PUT", close="before"))
    with pytest.raises(Unreachable):
        write(azure_vault, name, "newer")
    assert azure_vault.read_newest(name).version == version


@pytest.mark.parametrize(
    "fault",
    [{"hold": True}, {"slow_bytes": 0.1}, {"delay": 5.0}],
    ids=["says nothing", "one byte at a time", "answers late"],
)
@pytest.mark.req("R-13")
def test_a_vault_that_does_not_come_to_an_end_is_left_in_time(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName, fault: dict[str, Any]
) -> None:
    version = write(azure_vault, name)
    sandbox.world.faults.append(Fault(service="vault", **fault))
    started = time.monotonic()
    with pytest.raises(Unreachable), time_budget(0.5):
        azure_vault.read(name, version)
    assert time.monotonic() - started < 2
    sandbox.faults.release()
    assert azure_vault.read(name, version).value.reveal() == CANARY


@pytest.mark.req("R-05")
def test_a_fault_of_the_service_is_one_call_and_the_next_one_works(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    version = write(azure_vault, name)
    body = json.dumps({"error": {"code": "ServiceUnavailable", "message": CANARY}})
    sandbox.world.faults.append(Fault(service="vault", status=503, body=body))
    with pytest.raises(ServerFault) as caught:
        azure_vault.read(name, version)
    assert CANARY not in str(caught.value)
    assert azure_vault.read(name, version).value.reveal() == CANARY


def test_a_claims_challenge_is_answered_with_a_new_token(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    version = write(azure_vault, name)
    sandbox.world.switches["vault_claims_challenge"] = True
    assert azure_vault.read(name, version).value.reveal() == CANARY


def test_the_first_use_costs_one_token_and_asks_for_nothing_else(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    assert azure_vault.read(name, write(azure_vault, name)).value.reveal() == CANARY
    assert [(line["service"], line["operation"]) for line in sandbox.world.ledger] == [
        ("entra", "token"),
        ("vault", "set"),
        ("vault", "get"),
    ]


@pytest.mark.req("R-14")
def test_a_refused_credential_is_ours_and_not_the_partners(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName, caplog: pytest.LogCaptureFixture
) -> None:
    log_everything(caplog)
    sandbox.world.applications[scenarios.vault_application_id()].secrets.clear()
    with pytest.raises(AuthenticationFailed) as caught:
        write(azure_vault, name)
    assert caught.value.code == "identity_refused"
    assert diagnose(caught.value).cause == "The sign-in service refused the vault's identity."
    assert CANARY not in caplog.text


def test_a_vault_of_another_tenant_is_refused(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str, name: SecretName
) -> None:
    sandbox.world.vaults["global", sandbox_vault_name] = VaultState(tenant_id=scenarios.vendor_tenant("china"))
    with pytest.raises(AuthenticationFailed):
        write(azure_vault, name)


@pytest.mark.req("R-05")
def test_an_unknown_certificate_authority_is_unreachable_and_gets_nothing(
    sandbox: Sandbox, sandbox_credential: TokenCredential, name: SecretName
) -> None:
    address = f"https://untrusted{sandbox.clouds['global'].vault_suffix}"
    with GuardedSession(is_allowed=lambda host: True, loopback=True) as session:
        vault = open_azure_vault(address, lambda: sandbox_credential, session=session)
        with pytest.raises(Unreachable) as caught:
            write(vault, name)
    assert (caught.value.host, caught.value.code) == (urlsplit(address).netloc, NoAnswer.CERTIFICATE_ISSUER)
    assert "does not trust" in diagnose(caught.value).cause
    assert not [line for line in sandbox.world.ledger if line["service"] == "vault"]


def test_a_disabled_version_without_the_usual_inner_code_is_still_refused(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    version = write(azure_vault, name)
    azure_vault.disable(name, version)
    with pytest.raises(SecretDisabled):
        azure_vault.read(name, version)
    sandbox.world.switches["vault_disabled_inner"] = ""
    with pytest.raises(AccessDenied):
        azure_vault.read(name, version)


def test_many_threads_share_one_vault(azure_vault: AzureKeyVault, name: SecretName) -> None:
    def write_and_read(number: int) -> str:
        own = SecretName(f"{name}-{number}")
        return azure_vault.read(own, write(azure_vault, own, f"token {number}")).value.reveal()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(write_and_read, range(64))) == [f"token {number}" for number in range(64)]


@pytest.mark.req("S-31")
@pytest.mark.req("S-32")
def test_no_value_and_no_token_of_the_vault_is_logged_at_debug(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName, caplog: pytest.LogCaptureFixture
) -> None:
    log_everything(caplog)
    old = write(azure_vault, name)
    write(azure_vault, name)
    azure_vault.read(name, old)
    azure_vault.disable(name, old)
    for version in (old, UNKNOWN):
        with pytest.raises(RemoteError):
            azure_vault.read(name, version)
    assert caplog.records
    assert CANARY not in caplog.text
    assert "eyJ" not in caplog.text


# --- more rights than Get and Set, each with its own identity --------------------------------------------------------


@pytest.mark.req("S-40")
def test_listing_needs_exactly_list_and_shows_our_entries_without_values(
    azure_vault: AzureKeyVault, sandbox: Sandbox
) -> None:
    names = sorted(new_secret_name() for _ in range(30))  # more than a page
    versions = {each: [write(azure_vault, each), write(azure_vault, each)] for each in names}
    azure_vault.disable(names[0], versions[names[0]][0])
    write(azure_vault, SecretName("somebody-elses"))
    azure_vault.check_writable()
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"list"}

    assert sorted(azure_vault.names()) == names
    infos = azure_vault.versions(names[0])
    assert {each.version: each.enabled for each in infos} == dict(zip(versions[names[0]], [False, True], strict=True))
    assert [(each.record, each.generation) for each in infos] == [("41", 7)] * 2
    assert azure_vault.versions(new_secret_name()) == []
    with pytest.raises(AccessDenied):
        azure_vault.read(names[0], versions[names[0]][1])


@pytest.mark.req("S-40")
def test_the_web_identity_may_neither_list_nor_delete(
    azure_vault: AzureKeyVault, sandbox: Sandbox, name: SecretName
) -> None:
    version = write(azure_vault, name)
    for call in (
        lambda: list(azure_vault.names()),
        lambda: azure_vault.versions(name),
        lambda: list(azure_vault.deleted_names()),
        lambda: azure_vault.erase(name),
    ):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert "appid" not in str(caught.value)
    assert azure_vault.read(name, version).value.reveal() == CANARY


@pytest.mark.req("S-40")
@pytest.mark.req("S-41")
def test_erasing_deletes_and_purges_and_says_when_the_vault_keeps_it_recoverable(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str, name: SecretName
) -> None:
    write(azure_vault, name)
    other = new_secret_name()
    write(azure_vault, other)
    rights = sandbox.world.vault_rights
    rights[scenarios.vault_application_id()] = {"delete", "purge"}
    assert azure_vault.erase(name) is True
    assert name not in state(sandbox, sandbox_vault_name).secrets
    assert azure_vault.erase(name) is True

    rights[scenarios.vault_application_id()] = {"delete"}
    assert azure_vault.erase(other) is False
    rights[scenarios.vault_application_id()] = {"list"}
    assert list(azure_vault.deleted_names()) == [other]
    rights[scenarios.vault_application_id()] = {"delete", "purge"}
    sandbox.world.switches["vault_purge_protection"] = True
    assert azure_vault.erase(other) is False
    sandbox.world.switches["vault_purge_protection"] = False
    assert azure_vault.erase(other) is True


@pytest.mark.req("S-40")
def test_a_deletion_that_still_runs_is_purged_by_the_next_call(
    azure_vault: AzureKeyVault, sandbox: Sandbox, sandbox_vault_name: str, name: SecretName
) -> None:
    write(azure_vault, name)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = {"delete", "purge"}
    sandbox.world.switches["vault_delete_seconds"] = 60.0
    assert azure_vault.erase(name) is False
    sandbox.world.advance(61)
    assert azure_vault.erase(name) is True
    assert name not in state(sandbox, sandbox_vault_name).secrets


# --- the budget -------------------------------------------------------------------------------------------------------


def paced(
    sandbox: Sandbox, session: GuardedSession, credential: TokenCredential, vault_name: str
) -> tuple[AzureKeyVault, list[float]]:
    """Open the vault with a budget of 80 calls in ten seconds, on a clock that only sleeping moves."""
    now = [1_000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(80, clock=lambda: now[0], sleep=sleep, jitter=lambda: 0.0)
    address = f"https://{vault_name}{sandbox.clouds['global'].vault_suffix}"
    return open_azure_vault(address, lambda: credential, session=session, pace=pace), now


@pytest.mark.req("R-08")
@pytest.mark.parametrize("date", [False, True], ids=["seconds", "HTTP date"])
def test_after_a_429_no_call_leaves_until_the_time_that_the_vault_named(
    sandbox: Sandbox,
    sandbox_session: GuardedSession,
    sandbox_credential: TokenCredential,
    sandbox_vault_name: str,
    name: SecretName,
    date: bool,
) -> None:
    vault, now = paced(sandbox, sandbox_session, sandbox_credential, sandbox_vault_name)
    version = write(vault, name)
    wait = formatdate(time.time() + 120.5, usegmt=True) if date else "120"
    sandbox.world.faults.append(Fault(service="vault", status=429, body="{}", headers={"Retry-After": wait}))
    with pytest.raises(Throttled) as first:
        vault.read(name, version)
    assert first.value.retry_after == pytest.approx(120, abs=2)
    calls = len(sandbox.world.ledger)
    with pytest.raises(Throttled) as held:
        vault.read(name, version)
    assert held.value.retry_after == pytest.approx(120, abs=2)
    assert len(sandbox.world.ledger) == calls
    now[0] += 110
    assert vault.read(name, version).value.reveal() == CANARY
    assert now[0] == pytest.approx(1_120, abs=2)


@pytest.mark.req("R-08")
def test_a_time_beyond_five_minutes_is_cut_to_five_minutes(
    sandbox: Sandbox,
    sandbox_session: GuardedSession,
    sandbox_credential: TokenCredential,
    sandbox_vault_name: str,
    name: SecretName,
) -> None:
    vault, now = paced(sandbox, sandbox_session, sandbox_credential, sandbox_vault_name)
    version = write(vault, name)
    sandbox.world.faults.append(Fault(service="vault", status=429, body="{}", headers={"Retry-After": "86400"}))
    with pytest.raises(Throttled) as caught:
        vault.read(name, version)
    assert caught.value.retry_after == 300
    now[0] += 300
    vault.read(name, version)


@pytest.mark.req("R-08")
def test_many_calls_are_spread_over_their_windows(
    sandbox: Sandbox,
    sandbox_session: GuardedSession,
    sandbox_credential: TokenCredential,
    sandbox_vault_name: str,
    name: SecretName,
) -> None:
    vault, now = paced(sandbox, sandbox_session, sandbox_credential, sandbox_vault_name)
    version = write(vault, name)
    for _ in range(159):
        vault.read(name, version)
    assert now[0] - 1_000 == pytest.approx(20 - 1, abs=0.3)
