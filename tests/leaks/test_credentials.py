"""The leak gate (S-37) over the application's own credentials: added, refused, promoted, rolled back, retired."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import ApplicationCredential
from consent.vault.base import SecretName, SecretVersion
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.leaks.conftest import Gate, error_mail, open_gate
from tests.leaks.sinks import Canaries, RecordingStaff
from tests.leaks.walks import ALWAYS, assert_clean, crawl_admin, onboarding
from tests.sandbox.managed_identity import trust
from tests.sandbox.scenarios import vault_application_id
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Refusal
from tests.support import builders
from tests.support.certificates import pem, private
from tests.support.credentials import KEY_RIGHTS, know, signed

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.req("S-37"),
    pytest.mark.req("S-39"),
]


def add_secret(gate: Gate, *, known: bool = True) -> None:
    value = secrets.token_urlsafe(40)
    gate.canaries.add("client secret", value)
    if known:
        world = gate.portal.sandbox.world
        world.applications[gate.portal.registration.application_id].secrets[value] = world.now() + 3600
    add(gate, "secret", value)


def add_certificate(gate: Gate, *, known: bool = True) -> None:
    text = pem()
    key = text[text.index("-----BEGIN PRIVATE") :]
    gate.canaries.add("private key", *(line for line in key.splitlines() if len(line) == 64))
    if known:
        der = x509.load_pem_x509_certificate(text.encode()).public_bytes(serialization.Encoding.DER)
        gate.portal.sandbox.world.applications[gate.portal.registration.application_id].certificates.append(der)
    add(gate, "certificate", text)


def add(gate: Gate, kind: str, value: str) -> None:
    """Add it by the command, from a file that is gone afterwards as an operator would do it."""
    file = private(Path(settings.VAULT_KEY_FILE).parent / "given", value)
    gate.command("add_credential", str(gate.portal.registration.pk), kind, "--file", str(file))
    file.unlink()


def promote(gate: Gate, *arguments: str) -> None:
    gate.command("promote_credential", str(gate.portal.registration.pk), *arguments)


def rotated(gate: Gate) -> None:
    """Two rotations and a roll back by commands, then pages, then a retirement on its page."""
    for step in (add_secret, add_certificate):
        step(gate)
        promote(gate)
    gate.command("check_tokens")
    promote(gate, "--roll-back")
    crawl_admin(gate)
    who = gate.browser()
    who.force_login(User.objects.get(username="anna"))
    certificate = ApplicationCredential.objects.get(kind="certificate")
    address = reverse("admin:consent_applicationcredential_public", args=[certificate.pk])
    assert "BEGIN CERTIFICATE" in who.get(address).content.decode()


def refused(gate: Gate) -> None:
    for step in (add_secret, add_certificate):
        step(gate, known=False)
        promote(gate)
    crawl_admin(gate)
    assert set(ApplicationCredential.objects.exclude(refused_at=None).values_list("kind", flat=True)) == {
        "secret",
        "certificate",
    }


def no_credential(gate: Gate) -> None:
    """What is given is damaged: the file's text must be in no message."""
    text = pem()
    half = text[: text.index("-----END PRIVATE") - 300]
    gate.canaries.add("private key", *(line for line in half.splitlines()[-8:] if len(line) == 64))
    add(gate, "certificate", half)
    add(gate, "secret", half)
    assert ApplicationCredential.objects.count() == 1


def microsoft_away(gate: Gate) -> None:
    add_certificate(gate)
    gate.portal.sandbox.world.faults.append(Fault(service="login", path="token", status=500, body="<html>", times=9))
    promote(gate)


def refused_in_use(gate: Gate) -> None:
    gate.portal.sandbox.world.refusals.append(Refusal(code=7000222, times=9))
    gate.command("check_tokens")
    crawl_admin(gate)


FLOWS: dict[str, tuple[Callable[[Gate], None], tuple[str, ...]]] = {
    "rotation": (rotated, ("private key", "client assertion")),
    "refused candidates": (refused, ("private key", "client assertion")),
    "no credential": (no_credential, ("private key",)),
    "Microsoft is away": (microsoft_away, ("private key", "refresh token")),
    "refused in use": (refused_in_use, ()),
}


@pytest.mark.parametrize(("run", "kinds"), FLOWS.values(), ids=FLOWS)
def test_a_credential_leaves_no_secret_anywhere(
    gate: Gate, run: Callable[[Gate], None], kinds: tuple[str, ...]
) -> None:
    onboarding(gate)
    run(gate)
    assert_clean(gate, *ALWAYS, *kinds)


@pytest.mark.parametrize("known", [True, False], ids=["trusted", "not assigned to this host"])
def test_a_managed_identity_leaves_its_token_nowhere(gate: Gate, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    onboarding(gate)
    portal, client_id = gate.portal, builders.guid()
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{portal.sandbox.browser_port}")
    if known:
        application = portal.sandbox.world.applications[portal.registration.application_id]
        trust(portal.sandbox.world, portal.sandbox.clouds["global"], application, client_id)
    gate.command("add_credential", str(portal.registration.pk), "federated", "--client-id", client_id)
    promote(gate)
    gate.command("check_tokens")
    crawl_admin(gate)
    portal.registration.refresh_from_db()
    assert portal.registration.credential is not None
    assert (portal.registration.credential.kind == "federated") is known
    assert_clean(gate, *ALWAYS, *(["client assertion"] if known else []))


# --- by the pages of the admin ----------------------------------------------------------------------------------------


def key_lines(gate: Gate, text: str) -> None:
    key = text[text.index("-----BEGIN PRIVATE") :]
    gate.canaries.add("private key", *(line for line in key.splitlines() if len(line) == 64))


def stored_key(gate: Gate, credential: ApplicationCredential) -> None:
    """Look into the vault, where the key may lie, for what must lie nowhere else."""
    name, version = SecretName(credential.secret_name), SecretVersion(credential.secret_version)
    key_lines(gate, clients.vault().read(name, version).value.reveal())


def fill(staff: RecordingStaff, gate: Gate, way: str, **fields: object) -> ApplicationCredential:
    address = reverse("admin:consent_applicationcredential_new", args=[gate.portal.registration.pk, way])
    staff.confirm(staff.get(address), **fields)
    return ApplicationCredential.objects.latest("pk")


def press(staff: RecordingStaff, credential: ApplicationCredential, button: str, **fields: object) -> None:
    page = staff.get(reverse(f"admin:consent_applicationcredential_{button}", args=[credential.pk]))
    staff.confirm(page, **fields)


def pair_by_page(gate: Gate, staff: RecordingStaff) -> None:
    made = fill(staff, gate, "pair", place="read", days="365")
    stored_key(gate, made)
    press(staff, made, "promote_this")  # which Microsoft refuses
    know(gate.portal, made)
    press(staff, made, "promote_this")
    press(staff, made, "roll_back")
    press(staff, made, "retire_this", word="retire")


def request_by_page(gate: Gate, staff: RecordingStaff) -> None:
    asked = fill(staff, gate, "request", place="read")
    stored_key(gate, asked)
    wrong, answer = pem(), signed(asked.certificate_request)
    key_lines(gate, wrong)  # a person may choose the wrong file
    press(staff, asked, "answer_request", file=SimpleUploadedFile("wrong.pem", wrong.encode()))
    press(staff, asked, "answer_request", file=SimpleUploadedFile("app.cer", answer.encode()))
    asked.refresh_from_db()
    assert asked.public_certificate
    know(gate.portal, asked)
    press(staff, asked, "promote_this")


def upload_by_page(gate: Gate, staff: RecordingStaff) -> None:
    text, password = pem(), secrets.token_urlsafe(30)
    key_lines(gate, text)
    gate.canaries.add("password", password, password[::-1])
    key: Any = serialization.load_pem_private_key(text.encode(), None)
    certificate = x509.load_pem_x509_certificate(text.encode())
    locked = serialization.BestAvailableEncryption(password.encode())
    pfx = pkcs12.serialize_key_and_certificates(b"app", key, certificate, None, locked)
    huge = text.encode() + b" " * 3_000_000
    for content, typed, word in (
        (pfx, password[::-1], "upload"),
        (pfx[:-40], password, "upload"),
        (text.encode()[:-90], password, "upload"),
        (huge, password, "upload"),
        (pfx, password, "no"),
    ):
        fill(staff, gate, "upload", file=SimpleUploadedFile("app.pfx", content), password=typed, word=word)
    assert ApplicationCredential.objects.count() == 1
    added = fill(staff, gate, "upload", file=SimpleUploadedFile("app.pfx", pfx), password=password, word="upload")
    know(gate.portal, added)
    press(staff, added, "promote_this")
    sinks = gate.sinks.contents()
    assert [name for name, content in sinks.items() if pfx[60:80] in content] == []


PAGES: dict[str, tuple[Callable[[Gate, RecordingStaff], None], tuple[str, ...]]] = {
    "key pair": (pair_by_page, ("private key", "client assertion")),
    "request": (request_by_page, ("private key", "client assertion")),
    "upload": (upload_by_page, ("private key", "client assertion", "password")),
}


@pytest.mark.parametrize(("run", "kinds"), PAGES.values(), ids=PAGES)
def test_a_page_of_credentials_leaves_no_secret_anywhere(
    gate: Gate,
    run: Callable[[Gate, RecordingStaff], None],
    kinds: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onboarding(gate)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # an upload that goes to a file ends badly
        run(gate, gate.staff())
    crawl_admin(gate)
    assert_clean(gate, *ALWAYS, *kinds)


def test_a_key_that_signs_in_the_vault_leaves_no_secret_anywhere(
    db: None, settings: Settings, sandbox: Sandbox, wire: Canaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    sandbox.world.vault_rights[vault_application_id()] = set(KEY_RIGHTS)
    gate = open_gate(make_portal(sandbox), wire, settings, tmp_path, monkeypatch)
    with gate.sinks.open(), error_mail(settings):
        onboarding(gate)
        staff = gate.staff()
        made = fill(staff, gate, "pair", place="signed", days="180")
        know(gate.portal, made)
        press(staff, made, "promote_this")
        sandbox.world.vault_rights[vault_application_id()] = {"get", "set"}
        clients.reset()
        gate.command("check_tokens")
        crawl_admin(gate)
        assert_clean(gate, *ALWAYS, "client assertion")
