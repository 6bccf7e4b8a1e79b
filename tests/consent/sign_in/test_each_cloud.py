"""The whole thread in each national cloud: registration, partner, customers, a granted customer, and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import requests
from pytest_django.fixtures import Settings

from consent import clients
from consent.access_tokens import get_access_token
from consent.applications import rotation
from consent.models import CustomerConsent, PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from portal.microsoft.clouds import MICROSOFT
from portal.microsoft.http import GuardedSession
from portal.microsoft.secret import Secret
from tenants.models import CustomerTenant
from tests.conftest import make_portal, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, customer_tenants
from tests.support.permission_sets import PRICES, STRICT, made
from tests.support.portal import Browser, Portal
from tests.support.units import check_token, work_unit


@pytest.fixture(params=list(MICROSOFT))
def cloud_portal(
    request: pytest.FixtureRequest, db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> Portal:
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    return make_portal(sandbox, request.param)


def service_account(portal: Portal) -> str:
    return f"service@{portal.partner.domain}"


def asked_hosts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set into which each ``host:port`` that is called from now on goes."""
    send, hosts = GuardedSession.send, set[str]()

    def seen(self: GuardedSession, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        hosts.add(urlsplit(str(request.url)).netloc)
        return send(self, request, **options)

    monkeypatch.setattr(GuardedSession, "send", seen)
    return hosts


def test_a_partner_is_onboarded_and_a_customer_granted(cloud_portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    portal, hosts = cloud_portal, asked_hosts(monkeypatch)
    cloud = portal.sandbox.clouds[portal.partner.cloud]

    page = portal.onboard(Browser(), service_account(portal))

    assert "Northwind Cloud" in page.content.decode()
    consent = portal.consent()
    assert (consent.state, consent.mfa) == ("connected", "proven")
    assert work_unit(CUSTOMER_SYNC, portal.partner.pk).fields["new"] == 3
    assert check_token(consent).ok
    customer = CustomerTenant.objects.earliest("pk")
    customer_tenants.push(portal, customer)
    assert customer_tenants.consent_of(customer).state == CustomerConsent.State.GRANTED
    for audience, origin in (("graph", cloud.graph), ("partner_center", cloud.partner_center)):
        token = get_access_token(portal.partner.tenant_id, audience).reveal()
        assert jwt.decode(token, options={"verify_signature": False})["aud"] == origin
    assert get_access_token(portal.partner.tenant_id, "graph", customer=customer.tenant_id).reveal()
    assert hosts, "nothing was asked"
    assert hosts <= cloud.hosts(), "no call leaves the cloud"
    assert portal.sandbox.world.crossings == []


def test_the_partner_api_is_asked_for_where_the_cloud_has_it(cloud_portal: Portal) -> None:
    portal = cloud_portal
    has_it = portal.sandbox.clouds[portal.partner.cloud].partner_api is not None
    portal.registration.permission_set = "own"
    portal.registration.own_set = made("Prices", PRICES if has_it else STRICT)
    portal.registration.save()
    portal.onboard(Browser(), service_account(portal))

    if has_it:
        assert get_access_token(portal.partner.tenant_id, "partner_api").reveal()
    else:
        with pytest.raises(ValueError, match="has no Partner API"):
            get_access_token(portal.partner.tenant_id, "partner_api")
    assert not PartnerConsent.objects.to_consent_again().exists()


def test_a_second_product_stands_beside_the_first(cloud_portal: Portal) -> None:
    portal = cloud_portal
    portal.onboard(Browser(), service_account(portal))
    first, cloud = portal.registration, portal.partner.cloud
    app_id = scenarios.second_application_id(cloud)
    application = scenarios.add_application(portal.sandbox.world, app_id, "Example Backup", cloud=cloud)
    application.secrets["of-the-second"] = portal.sandbox.world.now() + 3600
    application.redirect_uris.add(f"https://portal.localhost/consent/callback/{cloud}")
    second = builders.registration(
        name="Example Backup",
        cloud=cloud,
        application_id=app_id,
        home_tenant_id=scenarios.vendor_tenant(cloud),
        state="draft",
        credential=None,
    )
    credential = rotation.add_secret(
        second, Secret("of-the-second"), expires_at=None, vault=clients.vault(), actor=builders.ACTOR
    )
    rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True)
    type(second).objects.filter(pk=second.pk).update(state="active")
    second.refresh_from_db()
    portal.registration = second
    portal.onboard(Browser(), service_account(portal))

    assert PartnerConsent.objects.filter(partner=portal.partner, state="connected").count() == 2
    for one in (first, second):
        token = get_access_token(portal.partner.tenant_id, "graph", registration=one.application_id).reveal()
        assert jwt.decode(token, options={"verify_signature": False})["appid"] == one.application_id
