"""add_credential and promote_credential: the good ways, every exit code, and no secret on any channel."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import ApplicationCredential, ApplicationRegistration
from consent.vault.base import SecretName, SecretVersion
from portal.audit.models import AuditEvent
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Application, Refusal
from tests.support import builders
from tests.support.certificates import pem, private
from tests.support.commands import run
from tests.support.credentials import KEY_RIGHTS, signed
from tests.support.portal import Portal

pytestmark = pytest.mark.req("S-39")


@pytest.fixture
def draft(portal: Portal) -> ApplicationRegistration:
    return builders.registration(name="Draft", state="draft", credential=None)


def added(to: ApplicationRegistration) -> ApplicationCredential:
    return to.credentials.latest("pk")


def now(registration: ApplicationRegistration) -> tuple[int | None, str]:
    registration.refresh_from_db()
    return registration.credential_id, registration.state


def vault_value(credential: ApplicationCredential) -> str:
    name, version = SecretName(credential.secret_name), SecretVersion(credential.secret_version)
    return clients.vault().read(name, version).value.reveal()


def make_known(portal: Portal, draft: ApplicationRegistration) -> None:
    """Register the application at Microsoft, with the secret that the test adds here."""
    world, home = portal.sandbox.world, scenarios.vendor_tenant()
    world.applications[draft.application_id] = Application(
        app_id=draft.application_id,
        name=draft.name,
        home_tenant=home,
        multi_tenant=True,
        secrets={"secret-canary-1": world.now() + 3600},
    )
    world.tenants[home].add_principal(draft.application_id, draft.name)
    ApplicationRegistration.objects.filter(pk=draft.pk).update(home_tenant_id=home)


def test_a_secret_is_taken_from_standard_input_and_promoted_unproven_only_on_demand(
    portal: Portal, draft: ApplicationRegistration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret-canary-1\n"))
    key_id = builders.guid()
    ran = run("add_credential", draft.pk, "secret", "--expires", "2127-05-31", "--key-id", key_id.upper())
    assert (ran.code, ran.err) == (0, "")
    credential = added(draft)
    assert vault_value(credential) == "secret-canary-1"
    assert credential.expires_at == datetime(2127, 5, 31, tzinfo=UTC)
    assert credential.key_id == key_id
    assert now(draft) == (None, "draft")

    alone = run("promote_credential", draft.pk, "--activate")
    assert alone.code == 1
    assert "No partner is connected" in alone.err
    assert "--unproven" in alone.err
    assert now(draft) == (None, "draft")

    unknown = run("promote_credential", draft.pk, "--unproven", "--activate")
    assert unknown.code == 1
    assert "Promoted, but not activated. " in unknown.err
    assert now(draft) == (credential.pk, "draft")

    make_known(portal, draft)
    promoted = run("promote_credential", draft.pk, credential.pk, "--unproven", "--activate")
    assert promoted.code == 0
    assert "promoted unproven: no partner to prove with" in promoted.out
    assert now(draft) == (credential.pk, "active")
    said = ran.out + alone.err + promoted.out
    assert "canary" not in said + repr(list(AuditEvent.objects.values()))
    actions = set(AuditEvent.objects.filter(subject__registration=draft.pk).values_list("action", flat=True))
    assert actions == {"credential.added", "credential.promoted", "registration.verified", "registration.changed"}


@pytest.mark.parametrize("form", ["pem", "pkcs12"])
def test_a_certificate_is_taken_from_a_private_file(draft: ApplicationRegistration, tmp_path: Path, form: str) -> None:
    text = pem()
    content: str | bytes = text
    if form == "pkcs12":
        key = serialization.load_pem_private_key(text.encode(), None)
        assert isinstance(key, RSAPrivateKey)
        certificate = load_pem_x509_certificate(text.encode())
        content = pkcs12.serialize_key_and_certificates(None, key, certificate, None, serialization.NoEncryption())
    ran = run("add_credential", draft.pk, "certificate", "--file", private(tmp_path / "c", content))
    assert (ran.code, ran.err) == (0, "")
    credential = added(draft)
    assert len(credential.key_id) == 43
    assert credential.public_certificate == text[: text.index("-----BEGIN PRIVATE")]
    assert credential.expires_at is not None
    assert timedelta(days=364) < credential.expires_at - timezone.now() < timedelta(days=366)


def test_a_certificate_that_lies_in_the_vault_is_used_where_it_is(
    draft: ApplicationRegistration, tmp_path: Path
) -> None:
    run("add_credential", draft.pk, "certificate", "--file", private(tmp_path / "c", pem()))
    stored, other = added(draft), builders.registration(credential=None, state="draft")
    place = ["--vault-name", stored.secret_name, "--vault-version", stored.secret_version]
    assert run("add_credential", other.pk, "certificate", *place, "--send-chain").code == 0
    credential = added(other)
    found = (credential.key_id, credential.secret_name, credential.sends_chain)
    assert found == (stored.key_id, stored.secret_name, True)
    again = run("add_credential", other.pk, "certificate", *place)
    assert again.code == 2
    assert "already" in again.err
    assert run("add_credential", other.pk, "certificate", "--vault-name", stored.secret_name).code == 1


def test_a_managed_identity_is_named_and_nothing_is_stored(draft: ApplicationRegistration, settings: Settings) -> None:
    client_id = builders.guid()
    files = sorted(Path(settings.VAULT_URL).rglob("*"))
    assert run("add_credential", draft.pk, "federated", "--client-id", client_id).code == 0
    assert added(draft).key_id == client_id
    assert sorted(Path(settings.VAULT_URL).rglob("*")) == files
    assert run("add_credential", draft.pk, "federated", "--client-id", client_id).code == 2
    assert run("add_credential", draft.pk, "federated", "--client-id", "portal").code == 2
    assert run("add_credential", draft.pk, "federated").code == 2


@pytest.mark.req("S-36")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_may_read_is_refused(draft: ApplicationRegistration, tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "secret", "canary")
    file.chmod(mode)
    ran = run("add_credential", draft.pk, "secret", "--file", file)
    assert ran.code == 2
    assert "chmod 600" in ran.err
    assert not draft.credentials.exists()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("secret", ""),
        ("secret", "two words canary"),
        ("certificate", "canary"),
        ("certificate", pem(with_key=False)),
        ("certificate", pem(other_key=True)),
        ("certificate", pem(1024)),
        ("certificate", pem(days=0)),
        ("certificate", "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"),
        ("certificate", b"\x30\x82\xff\xfe canary"),
    ],
    ids=["empty", "two words", "no PEM", "no key", "foreign key", "short key", "over", "damaged", "binary"],
)
def test_what_is_no_credential_is_refused_and_nothing_of_it_is_repeated(
    draft: ApplicationRegistration, tmp_path: Path, kind: str, content: str | bytes
) -> None:
    ran = run("add_credential", draft.pk, kind, "--file", private(tmp_path / "file", content))
    assert ran.code == 2
    assert "canary" not in ran.err + ran.out
    assert "codec" not in ran.err
    assert ran.err.count("\n") == 0
    assert not draft.credentials.exists()
    assert not AuditEvent.objects.filter(subject__registration=draft.pk).exists()


def test_usage_errors_are_named(
    draft: ApplicationRegistration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = private(tmp_path / "secret", "canary")
    assert run("add_credential", 999_999, "secret", "--file", file).code == 2
    assert run("add_credential", draft.pk, "secret", "--file", tmp_path / "missing").code == 2
    assert run("add_credential", draft.pk, "secret", "--file", file, "--expires", "tomorrow").code == 2
    assert run("add_credential", draft.pk, "secret", "--file", file, "--expires", "2020-01-01").code == 2
    assert run("add_credential", draft.pk, "secret", "--file", file, "--key-id", "7").code == 2
    terminal = io.StringIO("canary")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    ran = run("add_credential", draft.pk, "secret")
    assert ran.code == 2
    assert "Pipe the credential" in ran.err
    assert not draft.credentials.exists()
    assert run("promote_credential", 999_999).code == 2
    assert run("promote_credential", draft.pk).code == 2
    assert run("promote_credential", draft.pk, 999_999).code == 2


def test_nothing_is_added_when_the_vault_takes_nothing(portal: Portal, tmp_path: Path, settings: Settings) -> None:
    Path(settings.VAULT_URL).rename(tmp_path / "away")
    Path(settings.VAULT_URL).write_text("in the way")
    ran = run("add_credential", portal.registration.pk, "secret", "--file", private(tmp_path / "secret", "canary"))
    assert ran.code == 1
    assert portal.registration.credentials.count() == 1
    assert "canary" not in ran.err


def test_a_rotation_by_commands_is_proven_refused_and_rolled_back(portal: Portal, tmp_path: Path) -> None:
    portal.connect()
    registration, first = portal.registration, portal.registration.credential
    application = portal.sandbox.world.applications[registration.application_id]
    application.secrets["the-second-secret"] = portal.sandbox.world.now() + 3600
    wrong, right = private(tmp_path / "wrong", "a-secret-id"), private(tmp_path / "right", "the-second-secret")

    run("add_credential", registration.pk, "secret", "--file", wrong)
    refused = run("promote_credential", registration.pk)
    assert refused.code == 1
    assert "Not promoted. The client secret is wrong. Store the value of the secret" in refused.err
    registration.refresh_from_db()
    assert registration.credential == first

    run("add_credential", registration.pk, "secret", "--file", right)
    elsewhere = builders.partner()
    assert run("promote_credential", registration.pk, "--partner", builders.guid()).code == 2
    assert run("promote_credential", registration.pk, "--partner", elsewhere.tenant_id).code == 1
    promoted = run("promote_credential", registration.pk, "--partner", portal.partner.tenant_id)
    assert "proven with the token of Northwind Cloud" in promoted.out
    registration.refresh_from_db()
    assert registration.credential == added(registration)

    assert run("promote_credential", registration.pk, "--roll-back").code == 0
    registration.refresh_from_db()
    assert registration.credential == first
    portal.sandbox.world.refusals.append(Refusal(code=7000222, times=9))
    again = run("promote_credential", registration.pk, "--roll-back")
    assert again.code == 1
    assert "expired" in again.err
    assert "secret-id" not in refused.err + refused.out
    assert run("promote_credential", builders.registration().pk, "--roll-back").code == 1


# --- keys that are made -----------------------------------------------------------------------------------------------


def test_a_key_pair_is_made_and_only_its_certificate_is_printed(draft: ApplicationRegistration) -> None:
    ran = run("add_credential", draft.pk, "certificate", "--make", "--days", "180")
    assert ran.code == 0
    credential = added(draft)
    assert ran.out == credential.public_certificate
    assert f"candidate {credential.pk}" in ran.err
    assert "BEGIN PRIVATE" in vault_value(credential)
    assert "PRIVATE" not in ran.out + ran.err
    assert run("add_credential", draft.pk, "secret", "--make").code == 2
    assert run("add_credential", draft.pk, "vault_key", "--make").code == 3  # the embedded vault does not sign


def test_a_request_is_printed_and_answered(draft: ApplicationRegistration, tmp_path: Path) -> None:
    ran = run("add_credential", draft.pk, "certificate", "--request")
    asked = added(draft)
    assert (ran.code, ran.out) == (0, asked.certificate_request)
    file = tmp_path / "signed.cer"
    file.write_text(signed(ran.out))
    answer = ["add_credential", str(draft.pk), "certificate", "--answer"]
    assert run(*answer, asked.pk + 1, "--file", file).code == 2
    assert run(*answer, asked.pk, "--file", tmp_path / "missing").code == 2
    assert run(*answer, asked.pk, "--file", file).code == 0
    assert "BEGIN CERTIFICATE" in vault_value(added(draft))
    again = run(*answer, asked.pk, "--file", file)
    assert again.code == 1
    assert "does not wait" in again.err


def test_a_key_of_the_vault_is_made_and_named_by_the_command(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    sandbox.world.vault_rights[settings.VAULT_CLIENT_ID] = set(KEY_RIGHTS)
    assert run("add_credential", portal.registration.pk, "vault_key", "--make").code == 0
    made = added(portal.registration)
    assert made.kind == "vault_key"
    other = builders.registration(name="Other", credential=None, state="draft")
    file = tmp_path / "app.cer"
    file.write_text(made.public_certificate)
    place = ["--vault-name", made.secret_name, "--vault-version", made.secret_version]
    assert run("add_credential", other.pk, "vault_key", *place, "--file", file).code == 0
    assert added(other).key_id == made.key_id
    assert run("add_credential", other.pk, "vault_key", "--request").code == 0
    assert added(other).certificate_request
