"""Erased is erased: with the right identity; told plainly without."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from consent import clients, partners
from consent.models import PartnerConsent, WaitingToken
from consent.two_persons import ERASE
from portal.audit.models import AuditEvent
from portal.decisions.models import Decision
from portal.incidents.models import Incident
from tenants.models import PartnerTenant
from tests.conftest import VAULT_NAME
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, known_id
from tests.support import builders, custody, decisions, vault_secrets
from tests.support.commands import run
from tests.support.erasing import ERASER, disabled_partner
from tests.support.portal import Portal

AT_AZURE = pytest.mark.parametrize("portal", ["azure"], indirect=True)


@pytest.fixture(params=["local", "azure"])
def portal(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A disabled partner with a token and another account's waiting token, once with each vault."""
    return disabled_partner(request.param, settings, sandbox, tmp_path)


def come_back(portal: Portal) -> PartnerConsent:
    """Enable the partner again and let it consent."""
    partners.enable(PartnerTenant.objects.get(pk=portal.partner.pk), actor=builders.ACTOR)
    assert portal.onboard().status_code == 200
    return portal.consent()


def erase(portal: Portal) -> tuple[int, str]:
    """Run the command, of which a second person approved where it makes sense."""
    if not PartnerTenant.objects.get(pk=portal.partner.pk).is_active:
        decisions.decided(ERASE, {"partner": portal.partner.pk})
    ran = run("erase_tokens", portal.partner.tenant_id)
    return ran.code, ran.out + ran.err


@pytest.mark.req("S-68")
@pytest.mark.req("S-40")
@pytest.mark.req("S-41")
def test_a_disabled_partners_tokens_are_gone_and_a_new_consent_has_a_new_name(portal: Portal) -> None:
    consent, waiting = portal.consent(), WaitingToken.objects.get()
    code, out = erase(portal)
    assert (code, out) == (0, "2 erased, 0 recoverable, 0 switched off.\n")
    for name in (consent.secret_name, waiting.secret_name):
        assert custody.all_versions(portal, name) == []
    after = portal.consent()
    assert (after.state, after.generation, after.secret_version) == ("disconnected", 0, "")
    assert AuditEvent.objects.get(action="partner.tokens_erased").details["erased"] == 2
    assert vault_secrets.found(vault_secrets.reconcile()) == []
    assert erase(portal) == (0, "0 erased, 0 recoverable, 0 switched off.\n")

    again = come_back(portal)
    assert (again.state, again.generation) == ("connected", 1)
    assert again.secret_name != consent.secret_name
    custody.ask(again)
    if vault_secrets.is_azure():
        assert vault_secrets.calls_by(portal, known_id("application", ERASER)) == {"delete", "purge"}
        assert vault_secrets.calls_by(portal, scenarios.vault_application_id()) <= {"get", "set", "update"}


def test_an_active_partner_keeps_its_tokens(portal: Portal) -> None:
    PartnerTenant.objects.update(switch="on")
    before = vault_secrets.content(portal)
    code, out = erase(portal)
    assert code == 2
    assert "Disable it in the admin first" in out
    assert vault_secrets.content(portal) == before


def test_a_token_that_is_being_renewed_is_not_erased_under_the_renewal(portal: Portal) -> None:
    before = vault_secrets.content(portal)
    with clients.tokens()._custody.lease(portal.consent()):
        code, _ = erase(portal)
    assert code == 1
    assert vault_secrets.content(portal) == before


@AT_AZURE
@pytest.mark.req("S-68")
@pytest.mark.req("S-40")
def test_without_the_right_to_delete_the_tokens_are_switched_off_and_the_missing_right_is_named(
    portal: Portal, settings: Settings
) -> None:
    identity, settings.VAULT_ERASE_IDENTITY = settings.VAULT_ERASE_IDENTITY, ""
    consent = portal.consent()
    code, out = erase(portal)
    assert code == 1
    assert "2 switched off" in out
    assert "Not permitted: the identity lacks the right Delete" in out
    assert custody.enabled_versions(portal, consent) == []
    assert portal.consent().state == "disconnected"

    settings.VAULT_ERASE_IDENTITY = identity
    clients.reset()
    assert erase(portal)[0] == 0
    assert custody.all_versions(portal, consent.secret_name) == []


@AT_AZURE
@pytest.mark.req("S-68")
@pytest.mark.req("S-41")
@pytest.mark.req("R-10")
def test_a_vault_that_keeps_deleted_entries_is_told_and_a_new_consent_succeeds_meanwhile(portal: Portal) -> None:
    portal.sandbox.world.switches["vault_purge_protection"] = True
    old = portal.consent()
    code, out = erase(portal)
    assert code == 0
    assert "2 recoverable" in out
    again = come_back(portal)
    assert (again.state, again.secret_name != old.secret_name) == ("connected", True)
    custody.ask(again)


@AT_AZURE
@pytest.mark.req("S-68")
@pytest.mark.parametrize("close", ["before", "after"])
@pytest.mark.parametrize("skip", [0, 1], ids=["first token", "second token"])
@pytest.mark.parametrize("path", ["^/secrets/", "^/deletedsecrets/"], ids=["delete", "purge"])
def test_an_erasure_that_ends_at_any_call_is_gone_on_with(portal: Portal, path: str, skip: int, close: str) -> None:
    names = [portal.consent().secret_name, WaitingToken.objects.get().secret_name]
    fault = Fault(service="vault", method="DELETE", path=path, skip=skip, close=close, times=50)
    portal.sandbox.world.faults.append(fault)
    code, out = erase(portal)
    assert fault.times < 50, "the vault was not asked"
    assert code == 1 or "recoverable" in out
    assert portal.consent().state == "disconnected"
    portal.sandbox.world.faults.clear()

    assert erase(portal)[0] == 0

    secrets = portal.sandbox.world.vaults[custody.CLOUD, VAULT_NAME].secrets
    assert [name for name in names if name in secrets] == []
    after = portal.consent()
    assert (after.generation, after.secret_version, after.fingerprint) == (0, "", "")
    assert erase(portal) == (0, "0 erased, 0 recoverable, 0 switched off.\n")


@pytest.mark.req("S-50")
def test_an_emergency_on_the_server_needs_a_reason_and_is_an_incident(portal: Portal) -> None:
    unasked = run("erase_tokens", portal.partner.tenant_id, "--emergency")
    assert (unasked.code, "Say why" in unasked.err) == (2, True)
    assert portal.consent().generation == 1
    assert run("erase_tokens", portal.partner.tenant_id, "--emergency", "--why", "It burns.").code == 0
    assert portal.consent().generation == 0
    decision = Decision.objects.get()
    assert (decision.state, decision.way, decision.decided_by[:14]) == ("done", "emergency", "erase_tokens (")
    assert AuditEvent.objects.get(action="partner.tokens_erased").details["way"] == "emergency"
    assert Incident.objects.open().filter(cause="decision_overridden").count() == 1


def test_an_unknown_tenant_is_a_usage_error(db: None) -> None:
    assert run("erase_tokens", builders.guid()).code == 2
