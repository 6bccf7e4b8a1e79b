"""A sign-in with a permission set of our own: what is asked and proven on each service, and tokens for them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from consent.access_tokens import get_access_token
from consent.models import ApplicationRegistration, OwnPermissionSet, PartnerConsent
from portal.microsoft.clouds import PARTNER_API_APPLICATION_ID as PARTNER_API
from portal.microsoft.errors import RemoteError
from tests.sandbox.world import Fault, known_id
from tests.support.permission_sets import OWN_SERVICE, PRICES, made
from tests.support.portal import Browser, Portal

BILLING = known_id("application", "billing")


@pytest.fixture
def own(portal: Portal) -> OwnPermissionSet:
    """The registration asks for prices, and for a service of the vendor that the sandbox knows."""
    from_us = {**OWN_SERVICE, "resource": BILLING}
    row = made("Prices and invoices", [*PRICES, from_us])
    world = portal.sandbox.world
    service = world.applications[portal.registration.application_id]
    made_at_entra = type(service)(app_id=BILLING, name="Billing API", home_tenant=service.home_tenant)
    made_at_entra.known_clients = {service.app_id}
    world.applications[BILLING] = made_at_entra
    service.permissions[BILLING] = {"Invoices.Read"}
    ApplicationRegistration.objects.update(permission_set="own", own_set=row)
    portal.registration.refresh_from_db()
    return row


def test_the_request_names_each_permission_of_each_service_and_the_page_says_why(
    portal: Portal, own: OwnPermissionSet
) -> None:
    who, path = Browser(), portal.link()
    page = who.get(path).content.decode()
    scopes = parse_qs(urlsplit(portal.press_continue(who, path)).query)["scope"][0].split()

    cloud = portal.sandbox.clouds["global"]
    assert scopes == [
        "openid",
        "profile",
        "offline_access",
        f"{cloud.partner_center}/user_impersonation",
        f"{cloud.graph}/DelegatedAdminRelationship.ReadWrite.All",
        f"{cloud.graph}/User.Read.All",
        f"{cloud.graph}/User.Read",
        f"{cloud.partner_api}/user_impersonation",
        f"{BILLING}/Invoices.Read",
    ]
    for words in ("Microsoft Partner API", "Billing API", "Read your invoices", "We bill you right."):
        assert words in page
    assert "Another permission" not in page


def test_a_sign_in_proves_each_service_and_tokens_for_them_follow(portal: Portal, own: OwnPermissionSet) -> None:
    portal.onboard()

    consent = portal.consent()
    assert consent.granted_scopes[PARTNER_API] == ["user_impersonation"]
    assert consent.granted_scopes[BILLING] == ["Invoices.Read"]
    assert not PartnerConsent.objects.to_consent_again().exists()
    token = get_access_token(portal.partner.tenant_id, "partner_api").reveal()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["aud"] == portal.sandbox.clouds["global"].partner_api
    assert claims["scp"] == "user_impersonation"


def test_a_service_that_gives_no_token_is_not_proven_and_the_sign_in_goes_on(
    portal: Portal, own: OwnPermissionSet
) -> None:
    refused = '{"error": "invalid_resource", "error_description": "AADSTS500011: x", "error_codes": [500011]}'
    # The code, then Partner Center, Graph, and the two others in any order.
    portal.sandbox.world.faults.append(Fault(service="login", path="token", skip=3, times=2, status=400, body=refused))

    portal.onboard()

    assert set(portal.consent().granted_scopes) & {PARTNER_API, BILLING} == set()
    assert list(PartnerConsent.objects.permissions_unproven()) == [portal.consent()]
    assert not PartnerConsent.objects.lacking_permissions().exists()


def test_the_newest_of_strictly_rotating_tokens_is_kept(portal: Portal, own: OwnPermissionSet) -> None:
    """Each redemption ends the token before: five of them for one sign-in, and the last one works."""
    portal.sandbox.world.switches["rotation"] = "strict"

    portal.onboard()

    alive = [one for one in portal.sandbox.world.refresh_tokens.values() if not one.revoked]
    assert len(alive) == 1
    assert get_access_token(portal.partner.tenant_id, "graph").reveal()


def test_a_partner_of_before_gets_no_token_until_it_consents_again(portal: Portal, own: OwnPermissionSet) -> None:
    ApplicationRegistration.objects.update(permission_set="strict", own_set=None)
    portal.registration.refresh_from_db()
    portal.onboard()
    ApplicationRegistration.objects.update(permission_set="own", own_set=own)

    with pytest.raises(RemoteError) as refused:
        get_access_token(portal.partner.tenant_id, "partner_api")
    assert refused.value.code == "AADSTS65001"
    assert list(PartnerConsent.objects.to_consent_again()) == [portal.consent()]

    portal.registration.refresh_from_db()
    portal.onboard()
    assert get_access_token(portal.partner.tenant_id, "partner_api").reveal()
    assert not PartnerConsent.objects.to_consent_again().exists()
