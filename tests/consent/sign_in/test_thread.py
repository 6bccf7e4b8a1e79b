"""The whole thread of the product, over HTTP against the sandbox, once with each vault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

from consent.models import ConsentFlow, CustomerConsent, PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.states import state_of
from portal.audit import walking
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.microsoft.http import GuardedSession
from tenants.models import CustomerTenant, PartnerTenant
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox.server import Sandbox
from tests.support import customer_tenants
from tests.support.custody import ask, make_due
from tests.support.portal import Portal
from tests.support.units import check_token, work_unit


@pytest.fixture(params=["local", "azure"])
def either_portal(
    request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> Portal:
    use_sandbox(settings, sandbox)
    if request.param == "local":
        use_local_vault(settings, tmp_path)
    else:
        use_azure_vault(settings, sandbox, tmp_path)
    return make_portal(sandbox)


def test_a_partner_is_onboarded_and_a_customer_granted(either_portal: Portal, client: Client) -> None:
    portal = either_portal

    page = portal.onboard(client)

    assert page.status_code == 200
    assert "Northwind Cloud" in page.content.decode()
    consent = portal.consent()
    assert (consent.state, consent.mfa, consent.generation) == ("connected", "proven", 1)
    assert consent.amr == ["pwd", "mfa"]
    assert state_of(portal.partner) == PartnerTenant.State.CONNECTED
    assert ConsentFlow.objects.get().outcome == ConsentFlow.Outcome.CONNECTED

    synced = work_unit(CUSTOMER_SYNC, portal.partner.pk).fields
    assert (synced["listed"], synced["new"], synced["missing"]) == (3, 3, 0)

    result = check_token(consent)
    assert result.ok, result

    customer = CustomerTenant.objects.first()
    assert customer is not None
    customer_tenants.push(portal, customer)

    pushed = customer_tenants.consent_of(customer)
    assert pushed.state == CustomerConsent.State.GRANTED, pushed.reason
    assert pushed.actual_grants == {GRAPH_APPLICATION_ID: ["Directory.Read.All", "User.Read.All"]}
    assert pushed.service_principal_id
    observation = pushed.observations.get()
    assert observation.grants[0]["id"]
    assert portal.sandbox.world.crossings == []
    assert walking.first_broken_sequence() is None
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {
        "link.issued",
        "flow.started",
        "token.stored",
        "partner.customers_synced",
        "customer_consent.create",
        "customer_consent.observed",
    } <= actions


def test_consenting_again_replaces_the_token_and_switches_the_old_version_off(
    either_portal: Portal, client: Client
) -> None:
    either_portal.onboard(client)
    first = either_portal.consent()

    either_portal.onboard(client)

    second = PartnerConsent.objects.get(pk=first.pk)
    assert second.generation == 2
    assert second.secret_version != first.secret_version
    assert second.fingerprint != first.fingerprint


@pytest.mark.req("R-35")
@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent_while_a_transaction_is_open(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    send = GuardedSession.send

    def watched(self: GuardedSession, *arguments: Any, **options: Any) -> Any:
        calls.append(connection.in_atomic_block)
        return send(self, *arguments, **options)

    monkeypatch.setattr(GuardedSession, "send", watched)
    portal.onboard()
    make_due(portal.consent())
    ask(portal.consent(), fresh=True)

    assert portal.consent().generation == 2
    assert len(calls) > 4
    assert not any(calls)
