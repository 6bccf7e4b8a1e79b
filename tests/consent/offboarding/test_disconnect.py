"""Disconnecting stops all use in every process, with each vault, and says no more than is true (S-67)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent, WaitingToken
from consent.offboarding.disconnect import disconnect
from consent.tokens.custody import TokenUnavailable
from consent.tokens.service import Audience
from consent.vault.base import SecretName
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.conftest import VAULT_NAME
from tests.sandbox.server import Sandbox
from tests.support import builders, custody, vault_secrets
from tests.support.commands import run
from tests.support.erasing import disabled_partner
from tests.support.portal import Portal

State = PartnerConsent.State


@pytest.fixture(params=["local", "azure"])
def connected(request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A partner with a token that was renewed once, and another account's waiting token."""
    portal = disabled_partner(request.param, settings, sandbox, tmp_path)
    PartnerTenant.objects.update(switch="on")
    custody.make_due(portal.consent())
    custody.ask(portal.consent(), fresh=True)
    return portal


@pytest.mark.req("S-67")
def test_another_process_that_holds_an_access_token_gives_it_to_nobody_any_more(connected: Portal) -> None:
    consent, other = connected.consent(), clients.tokens()
    for audience in (Audience.PARTNER_CENTER, Audience.GRAPH):
        custody.ask(consent, audience, service=other)
    clients.reset()
    calls = len(connected.sandbox.world.ledger)
    custody.ask(consent, service=other)
    assert len(connected.sandbox.world.ledger) == calls, "it is answered from memory"

    assert disconnect(consent, vault=clients.vault(), actor=builders.ACTOR)

    calls = len(custody.redemptions(connected)) + custody.api_calls(connected)
    with pytest.raises(TokenUnavailable, match="disconnected"):
        custody.ask(consent, service=other)
    assert run("get_access_token", connected.partner.tenant_id, "graph").code != 0
    assert run("check_tokens").code == 0
    assert len(custody.redemptions(connected)) + custody.api_calls(connected) == calls


@pytest.mark.req("S-67")
def test_each_version_of_each_entry_of_the_partner_is_off_in_the_vault_itself(connected: Portal) -> None:
    consent = connected.consent()
    names = [consent.secret_name, WaitingToken.objects.get().secret_name]
    newer = custody.write_version(consent, Secret("a token whose older one is still on"), consent.generation + 1)
    PartnerConsent.objects.update(secret_version=newer, replaced_version=consent.secret_version)  # and died here
    assert [len(custody.all_versions(connected, name)) for name in names] == [3, 1]

    assert disconnect(connected.consent(), vault=clients.vault(), actor=builders.ACTOR)

    if vault_secrets.is_azure():
        stored = connected.sandbox.world.vaults[custody.CLOUD, VAULT_NAME].secrets
        assert [one.enabled for name in names for one in stored[name].versions] == [False] * 4
    else:
        infos = [info for name in names for info in clients.inventory().versions(SecretName(name))]
        assert [(info.enabled, info.damage) for info in infos] == [(False, "")] * 4


@pytest.mark.req("S-67")
@pytest.mark.parametrize(
    ("state", "code", "after"),
    [
        (State.CONNECTED, "", State.DISCONNECTED),
        (State.NEEDS_CONSENT, "", State.DISCONNECTED),
        (State.NEEDS_CONSENT, "AADSTS50173", State.REVOKED),
        (State.EXPIRED, "", State.REVOKED),
    ],
)
def test_only_what_microsoft_called_dead_is_said_to_be_dead(
    portal: Portal, state: State, code: str, after: State
) -> None:
    portal.connect()
    PartnerConsent.objects.update(state=state, last_code=code)
    assert disconnect(portal.consent(), vault=clients.vault(), actor=builders.ACTOR)
    assert portal.consent().state == after
