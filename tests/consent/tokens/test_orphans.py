"""Secrets and keys of the vault that no credential names are named, and switched off after a time.

Covers: consent.vault.azure_keys.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import key_pairs, rotation
from consent.models import ApplicationCredential
from consent.tokens import orphans
from consent.vault.base import SecretName
from portal.audit.models import AuditEvent
from portal.microsoft.errors import ServerFault
from tests.conftest import VAULT_NAME, make_portal, use_azure_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.key_vault_keys import KeyVersion
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, known_id
from tests.support import builders, vault_secrets
from tests.support.commands import run
from tests.support.credentials import KEY_RIGHTS, current
from tests.support.portal import Portal
from tests.support.vault_secrets import found

pytestmark = [pytest.mark.django_db, pytest.mark.req("R-41")]
LISTER = "Reconcile"


@pytest.fixture
def portal(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A portal at a Key Vault: its own identity uses secrets and keys, another one may only list both."""
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = KEY_RIGHTS
    settings.VAULT_RECONCILE_IDENTITY = vault_secrets.add_identity(sandbox, LISTER, {"list", "keys/list"}, tmp_path)
    return make_portal(sandbox)


def keys_of(portal: Portal) -> dict[str, list[KeyVersion]]:
    found: dict[str, list[KeyVersion]] = portal.sandbox.world.vaults["global", VAULT_NAME].keys
    return found


def cut_off(portal: Portal, *, registration: int | None = None) -> KeyVersion:
    """Let the vault make a key whose credential is never added, as by a process that dies between."""
    number = portal.registration.pk if registration is None else registration
    made = clients.vault_keys().create(tags={"record": rotation.owner(number)})
    return keys_of(portal)[made.name][0]


def make_older(portal: Portal, days: float) -> None:
    """Let all keys and secrets of the vault be as old as this."""
    vault = portal.sandbox.world.vaults["global", VAULT_NAME]
    for versions in vault.keys.values():
        for version in versions:
            version.made -= days * 86_400
    for secret in vault.secrets.values():
        for one in secret.versions:
            one.written -= days * 86_400


def test_a_key_that_no_credential_names_is_named_and_switched_off_once_it_is_old_and_replaced(portal: Portal) -> None:
    left, kept = cut_off(portal), clients.vault_keys().create(tags={"record": "registration-x"})
    used = key_pairs.make_vault_key(portal.registration, days=365, keys=clients.vault_keys(), actor=builders.ACTOR)
    listed = vault_secrets.reconcile()
    assert sorted((each.kind.value, each.name, each.outcome) for each in listed.differences) == sorted(
        [("credential_without_row", left.name, ""), ("orphan", kept.name, "")]
    )
    (named,) = [each for each in listed.differences if each.name == left.name]
    assert named.subject == {"registration": portal.registration.pk}
    assert "switched off 30 days after it was made" in named.meaning.remedy

    make_older(portal, 29)
    vault_secrets.reconcile()
    assert [left.enabled] == [True]
    make_older(portal, 2)
    outcomes = {each.name: each.outcome for each in vault_secrets.reconcile().differences}
    assert outcomes == {left.name: "repaired", kept.name: ""}
    assert [one.enabled for one in keys_of(portal)[left.name]] == [False]
    assert keys_of(portal)[used.secret_name][0].enabled
    event = AuditEvent.objects.get(action="vault.version_disabled")
    assert event.subject == {"registration": portal.registration.pk}
    assert event.details["why"] == "credential_without_row"
    assert vault_secrets.calls_by(portal, known_id("application", LISTER)) <= {"list", "list_versions", "list_keys"}


def test_what_is_newer_than_the_credential_in_use_may_be_of_a_newer_database_and_is_left(portal: Portal) -> None:
    left = cut_off(portal)
    make_older(portal, 100)
    ApplicationCredential.objects.update(created_at=timezone.now() - timedelta(days=101))
    assert found(vault_secrets.reconcile()) == [("credential_without_row", "")]
    assert left.enabled
    assert found(vault_secrets.reconcile(disable_orphans=True)) == [("credential_without_row", "repaired")]
    assert not left.enabled


def test_a_version_of_a_credentials_own_entry_is_found_as_well(portal: Portal) -> None:
    credential = current(portal)
    row = ApplicationCredential.objects.filter(pk=credential.pk)
    tags = {"record": rotation.owner(portal.registration.pk)}
    secret = clients.vault().read(credential.secret_name, credential.secret_version)  # type: ignore[arg-type]
    newer = clients.vault().write(secret.name, secret.value, tags=tags, expires_at=None)
    assert [(each.kind.value, each.version) for each in vault_secrets.reconcile().differences] == [
        ("credential_without_row", newer)
    ]
    row.update(secret_version=newer)
    # The first was written by the fixture; ours by its tag, and named by no row now.
    assert {each.version for each in vault_secrets.reconcile().differences} <= {credential.secret_version}


def test_what_retiring_did_not_switch_off_is_switched_off_by_the_next_run(portal: Portal) -> None:
    made = key_pairs.make_vault_key(portal.registration, days=365, keys=clients.vault_keys(), actor=builders.ACTOR)
    portal.sandbox.world.faults.append(Fault(service="vault", method="PATCH", status=503, body="{}"))
    with pytest.raises(ServerFault):
        rotation.retire(made, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert keys_of(portal)[made.secret_name][0].enabled
    dry = run("vault_reconcile", "--dry-run")
    assert f"retired_credential_enabled  registration {portal.registration.pk}, entry {made.secret_name}" in dry.out
    assert "would switch it off" in dry.out
    assert found(vault_secrets.reconcile()) == [("retired_credential_enabled", "repaired")]
    assert not keys_of(portal)[made.secret_name][0].enabled
    assert found(vault_secrets.reconcile()) == []


def test_a_key_that_gets_its_credential_meanwhile_is_left(portal: Portal) -> None:
    left = cut_off(portal)
    make_older(portal, 31)
    difference = vault_secrets.reconcile(dry_run=True).differences[0]
    made = key_pairs.make_vault_key(portal.registration, days=365, keys=clients.vault_keys(), actor=builders.ACTOR)
    ApplicationCredential.objects.filter(pk=made.pk).update(secret_name=left.name, secret_version=left.version)
    known, name = clients.key_inventory(), SecretName(difference.name)
    assert known is not None
    look = orphans.Orphans(clients.inventory(), set(), {name: known.versions(name)}, ask=lambda call: call())
    assert look.why_not(difference, asked=True) == "a row names it by now"


def test_without_the_right_to_list_keys_the_run_says_so_where_there_are_keys(portal: Portal) -> None:
    portal.sandbox.world.vault_rights[known_id("application", LISTER)] = {"list"}
    assert vault_secrets.reconcile().not_looked_at == []
    key_pairs.make_vault_key(portal.registration, days=365, keys=clients.vault_keys(), actor=builders.ACTOR)
    (said,) = vault_secrets.reconcile().not_looked_at
    assert "Give the right List on keys" in said
