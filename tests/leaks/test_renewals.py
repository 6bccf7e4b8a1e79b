"""The leak gate over every renewal that goes wrong: whatever fails around a token, the token lies nowhere (S-37)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from consent import clients
from consent.access_tokens import get_access_token
from consent.models import PartnerConsent
from consent.tokens.custody import TokenUnavailable
from consent.tokens.versions import IdentityMismatch
from consent.vault.base import SecretName, SecretVersion
from portal.microsoft.errors import RemoteError
from tenants.models import PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_sandbox
from tests.leaks.conftest import Gate, error_mail, open_gate
from tests.leaks.sinks import Canaries
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Refusal, Tamper
from tests.support import custody
from tests.support.custody import make_due, watch_vault

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.req("S-37"),
    pytest.mark.req("S-32"),
]


@pytest.fixture
def azure_gate(
    settings: Settings, sandbox: Sandbox, wire: Canaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A connected partner whose tokens lie in Azure Key Vault, so that they pass the wire and its SDK."""
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    gate = open_gate(portal, wire, settings, tmp_path, monkeypatch)
    with gate.sinks.open(), error_mail(settings):
        portal.onboard(gate.browser())
        custody.stop_time(monkeypatch, time.monotonic)
        yield gate


def renew(gate: Gate) -> None:
    """Ask for a token that must be saved, as many clients do: whatever comes is fine, if it says nothing."""
    make_due(gate.portal.consent())
    for audience in ("partner_center", "graph"):
        try:
            get_access_token(gate.portal.partner.tenant_id, audience, fresh=True)
        except (RemoteError, TokenUnavailable, IdentityMismatch) as error:
            gate.sinks.printed += [str(error), repr(error)]
    gate.command("get_access_token", gate.portal.partner.tenant_id, "graph", "--output", "/nonexistent/token")


def with_fault(**fields: Any) -> Callable[[Gate, pytest.MonkeyPatch], None]:
    def prepare(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        tenant = gate.portal.partner.tenant_id if fields["service"] == "login" else ""  # not the vault's sign-in
        gate.portal.sandbox.world.faults.append(Fault(**{"times": 60, "tenant": tenant, **fields}))

    return prepare


def with_refusal(code: int) -> Callable[[Gate, pytest.MonkeyPatch], None]:
    def prepare(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        tenant = gate.portal.partner.tenant_id
        gate.portal.sandbox.world.refusals.append(Refusal(code=code, tenant_id=tenant, times=9))

    return prepare


def with_tamper(**fields: Any) -> Callable[[Gate, pytest.MonkeyPatch], None]:
    def prepare(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        gate.portal.sandbox.world.tampers.append(Tamper(grant_type="refresh_token", times=9, **fields))

    return prepare


def after_write(change: Callable[[Gate], Any]) -> Callable[[Gate, pytest.MonkeyPatch], None]:
    def prepare(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = watch_vault(monkeypatch)
        watched.after = lambda operation: change(gate) if operation == "write" else None

    return prepare


def lost(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service rotates strictly, a renewal was cut off, and the stored token is dead."""
    gate.portal.sandbox.world.switches["rotation"] = "strict"
    monkeypatch.setattr("django.conf.settings.TOKEN_SAVE_AFTER_HOURS", 0)
    clients.tokens.cache_clear()
    custody.rotated_token(gate.portal, gate.portal.consent())
    PartnerConsent.objects.update(renewal_started_at="2026-01-01T00:00:00Z")


def left_over(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = gate.portal.consent()
    custody.write_version(consent, custody.rotated_token(gate.portal, consent), 2)


def swapped(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    PartnerConsent.objects.update(fingerprint="0" * 16)


def disabled_version(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    consent = gate.portal.consent()
    clients.vault().disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))


HARMLESS = {
    "nothing wrong": lambda gate, patch: None,
    "vault takes nothing": with_fault(service="vault", method="PUT", status=500, body="{}"),
    "vault's answers are lost": with_fault(service="vault", method="PUT", close="after"),
    "vault forbids": with_fault(service="vault", method="PUT", status=403, body="{}"),
    "old one stays on": with_fault(service="vault", method="PATCH", status=500, body="{}"),
    "vault reads rubbish": with_fault(service="vault", method="GET", status=200, body="<html>"),
    "vault away": with_fault(service="vault", close="before"),
    "sign-in answers are lost": with_fault(service="login", path="token", close="after"),
    "sign-in answers rubbish": with_fault(service="login", path="token", status=200, body="{"),
    "sign-in is down": with_fault(service="login", path="token", status=503, body="<html>"),
    "expired": with_refusal(700082),
    "MFA wanted": with_refusal(50076),
    "our secret is wrong": with_refusal(7000215),
    "a loop": with_refusal(50196),
    "ID token with a bad signature": with_tamper(id_token="bad_signature"),
    "no access token": with_tamper(drop={"access_token"}),
    "left over by a crash": left_over,
}
ENDING = {
    "somebody else's": with_tamper(claims={"oid": "11111111-2222-4333-8444-555555555555"}),
    "disabled in the middle": after_write(lambda gate: PartnerTenant.objects.update(switch="disabled")),
    "too late": after_write(
        lambda gate: PartnerConsent.objects.update(lease_owner="another", lease_until="2026-01-01T00:00:00Z")
    ),
    "lost": lost,
    "swapped": swapped,
    "switched off": disabled_version,
}
PASSED = {"refresh token", "access token", "client secret"}


def test_faults_around_a_renewal_leave_no_token_anywhere(azure_gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    world = azure_gate.portal.sandbox.world
    for prepare in HARMLESS.values():
        clients.reset()  # or the breaker would spare the next fault
        prepare(azure_gate, monkeypatch)
        renew(azure_gate)
        for left in (world.faults, world.refusals, world.tampers):
            left.clear()

    assert azure_gate.portal.consent().generation > 1
    assert azure_gate.found() == []
    assert azure_gate.canaries.kinds() >= PASSED


@pytest.mark.parametrize("prepare", ENDING.values(), ids=ENDING)
def test_a_renewal_that_ends_badly_leaves_no_token_anywhere(
    azure_gate: Gate, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Gate, pytest.MonkeyPatch], None]
) -> None:
    prepare(azure_gate, monkeypatch)
    renew(azure_gate)
    azure_gate.command("check_tokens", "--json")

    assert azure_gate.found() == []
    assert azure_gate.canaries.kinds() >= PASSED
