"""The leak gate (S-37) over the application's own credentials: added, refused, promoted, rolled back, retired."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import reverse

from consent.models import ApplicationCredential
from tests.leaks.conftest import Gate
from tests.leaks.walks import ALWAYS, assert_clean, crawl_admin, onboarding
from tests.sandbox.managed_identity import trust
from tests.sandbox.world import Fault, Refusal
from tests.support import builders
from tests.support.certificates import pem, private

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("S-37"), pytest.mark.req("S-39")]


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
