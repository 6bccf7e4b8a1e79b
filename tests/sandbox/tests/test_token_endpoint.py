"""Codes, refresh tokens, client credentials and the token endpoint's refusals."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import (
    CALLBACK,
    GUID,
    SERVICE_ACCOUNT,
    STRANGER,
    VERIFIER,
    Vendor,
    Wire,
    claims_of,
    code_of,
)
from tests.sandbox.world import GRAPH, PARTNER_API, PARTNER_CENTER, Tenant

DAY = 86_400


@pytest.fixture
def tenant(vendor: Vendor) -> Tenant:
    return vendor.tenant_of(SERVICE_ACCOUNT)[0]


@pytest.fixture
def customer(vendor: Vendor, tenant: Tenant) -> Tenant:
    """A customer in which the application has consent for Graph."""
    found = vendor.sandbox.world.tenants[vendor.customers_of(tenant)[0]]
    found.add_principal(vendor.application.app_id, vendor.application.name)
    found.grant(vendor.application.app_id, GRAPH, {"User.Read.All"})
    return found


# --- the authorization code ---------------------------------------------------------------------------------------


def test_a_code_becomes_tokens_of_the_documented_form(vendor: Vendor, tenant: Tenant) -> None:
    user = vendor.tenant_of(SERVICE_ACCOUNT)[1]
    reply = vendor.redeem(vendor.code(), client_info="1")

    answer = reply.json()
    assert reply.headers["Cache-Control"] == "no-store, no-cache"
    assert re.fullmatch(GUID, reply.headers["x-ms-request-id"])
    assert (answer["token_type"], answer["scope"]) == ("Bearer", vendor.partner_center)
    assert 3600 <= answer["expires_in"] <= 5400
    assert answer["refresh_token"].startswith("1.A")
    assert 1100 < len(answer["refresh_token"]) < 1400
    info = json.loads(base64.urlsafe_b64decode(answer["client_info"] + "=="))
    assert info == {"uid": user.oid, "utid": tenant.tenant_id}

    access = claims_of(answer["access_token"])
    assert (access["aud"], access["ver"]) == (vendor.cloud.partner_center, "1.0")
    assert access["iss"] == f"{vendor.cloud.v1_issuer}{tenant.tenant_id}/"
    assert (access["appid"], access["appidacr"], access["scp"]) == (
        vendor.application.app_id,
        "1",
        "user_impersonation",
    )
    assert (access["tid"], access["oid"], access["upn"]) == (tenant.tenant_id, user.oid, SERVICE_ACCOUNT)
    assert access["amr"] == ["pwd", "mfa"]
    assert access["exp"] - access["iat"] == answer["expires_in"]
    assert "idtyp" not in access

    identity = claims_of(answer["id_token"])
    assert identity["iss"] == f"{vendor.cloud.authority}/{tenant.tenant_id}/v2.0"
    assert (identity["aud"], identity["ver"]) == (vendor.application.app_id, "2.0")
    assert (identity["tid"], identity["oid"]) == (tenant.tenant_id, user.oid)
    assert identity["nonce"] == "nonce-of-the-test"
    assert "amr" not in identity


def test_a_code_works_once(vendor: Vendor) -> None:
    code = vendor.code()

    assert vendor.redeem(code).status == 200
    assert code_of(vendor.redeem(code)) == 54005


def test_a_code_lives_ten_minutes(vendor: Vendor, sandbox: Sandbox) -> None:
    fresh, stale = vendor.code(), vendor.code()
    sandbox.world.advance(599)
    assert vendor.redeem(fresh).status == 200

    sandbox.world.advance(2)
    reply = vendor.redeem(stale)
    assert (code_of(reply), reply.json()["suberror"]) == (70008, "token_expired")
    assert reply.json()["error_codes"] == [70002, 70008]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code_verifier": "w" * 64}, 501481),
        ({"code_verifier": None}, 501481),
        ({"redirect_uri": CALLBACK + "/"}, 500112),
        ({"redirect_uri": None}, 900144),
        ({"scope": None}, 900144),
        ({"code": None}, 900144),
        ({"code": "1.Cunknown"}, 70000),
        ({"resource": "https://graph.microsoft.com"}, 901002),
        ({"grant_type": "password"}, 70003),
        ({"grant_type": None}, 70003),
        ({"client_id": None}, 700016),
    ],
)
def test_a_wrong_redemption_is_refused_and_leaves_the_code_usable(
    vendor: Vendor, changes: dict[str, Any], code: int
) -> None:
    grant = changes.pop("grant_type", "authorization_code")
    good = vendor.code()
    form = {"redirect_uri": CALLBACK, "code_verifier": VERIFIER, "scope": f"openid {vendor.partner_center}"}
    reply = vendor.token_request("northwind.example.com", grant, **({"code": good} | form | changes))

    assert code_of(reply) == code
    assert vendor.redeem(good).status == 200


def test_a_code_belongs_to_its_tenant_and_its_client(vendor: Vendor, sandbox: Sandbox) -> None:
    code = vendor.code()
    assert code_of(vendor.redeem(code, "southridge.example.com")) == 700005
    other = sandbox.world.applications[scenarios.vault_application_id()]
    other.secrets["of-another"] = sandbox.world.now() + 60

    assert code_of(vendor.redeem(code, client_id=other.app_id, client_secret="of-another")) == 70000
    assert vendor.redeem(code, "organizations").status == 200


# --- the client's credential --------------------------------------------------------------------------------------


def test_client_secrets_are_checked(vendor: Vendor, sandbox: Sandbox) -> None:
    refresh = vendor.refresh_token()
    vendor.application.secrets["too-old"] = sandbox.world.now() - 1

    for secret, code in ((None, 7000218), ("wrong", 7000215), ("wröng", 7000215), ("too-old", 7000222)):
        reply = vendor.refresh(refresh, client_secret=secret)
        assert (reply.status, reply.json()["error"], code_of(reply)) == (401, "invalid_client", code)


def test_an_unknown_or_foreign_client_does_not_exist_here(vendor: Vendor, sandbox: Sandbox) -> None:
    china = Vendor(sandbox=sandbox, wire=vendor.wire, cloud_key="china")

    for client in ("00000000-0000-0000-0000-000000000001", china.application.app_id):
        assert code_of(vendor.refresh("1.A", client_id=client)) == 700016


# --- refresh tokens -----------------------------------------------------------------------------------------------


def test_a_refresh_token_serves_every_resource_of_its_user_and_client(vendor: Vendor) -> None:
    refresh = vendor.refresh_token()

    graph = vendor.refresh(refresh, scope=vendor.graph).json()

    assert claims_of(graph["access_token"])["aud"] == vendor.cloud.graph
    assert graph["scope"] == "User.Read.All"
    assert "nonce" not in claims_of(graph["id_token"])
    assert vendor.refresh(refresh).status == 200


def test_no_refresh_token_without_offline_access_and_no_id_token_without_openid(vendor: Vendor) -> None:
    form = {"refresh_token": vendor.refresh_token(), "scope": vendor.partner_center}

    answer = vendor.token_request("northwind.example.com", "refresh_token", **form).json()

    assert {"refresh_token", "id_token"}.isdisjoint(answer)


@pytest.mark.parametrize(("rotation", "old"), [("lenient", 200), ("strict", 400)])
def test_what_becomes_of_the_old_token_is_a_switch(vendor: Vendor, sandbox: Sandbox, rotation: str, old: int) -> None:
    sandbox.world.switches["rotation"] = rotation
    first = vendor.refresh_token()

    second = vendor.refresh(first).json()["refresh_token"]

    assert second != first
    assert vendor.refresh(first).status == old
    assert vendor.refresh(second).status == 200


def test_a_token_dies_after_ninety_days_and_each_use_gives_a_new_life(vendor: Vendor, sandbox: Sandbox) -> None:
    token = vendor.refresh_token()
    for _ in range(3):
        sandbox.world.advance(80 * DAY)
        token = vendor.refresh(token).json()["refresh_token"]

    sandbox.world.advance(91 * DAY)
    reply = vendor.refresh(token)
    assert (code_of(reply), reply.json()["suberror"]) == (700082, "token_expired")


def test_sign_in_frequency_counts_from_the_sign_in_whatever_was_rotated(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.switches["sign_in_frequency_days"] = 30
    token = vendor.refresh_token()
    sandbox.world.advance(20 * DAY)
    token = vendor.refresh(token).json()["refresh_token"]
    sandbox.world.advance(11 * DAY)

    assert code_of(vendor.refresh(token)) == 70043


def test_revoked_sessions_end_older_tokens_and_spare_newer_ones(vendor: Vendor, sandbox: Sandbox) -> None:
    old = vendor.refresh_token()
    vendor.tenant_of(SERVICE_ACCOUNT)[1].sessions_revoked_at = sandbox.world.now()

    assert code_of(vendor.refresh(old)) == 50173
    assert vendor.refresh(vendor.refresh_token()).status == 200


def test_disabled_and_deleted_accounts_get_nothing(vendor: Vendor) -> None:
    refresh = vendor.refresh_token()
    user = vendor.tenant_of(SERVICE_ACCOUNT)[1]
    user.enabled = False
    assert code_of(vendor.refresh(refresh)) == 50057
    user.enabled, user.deleted = True, True
    assert code_of(vendor.refresh(refresh, "northwind.example.com")) == 50034


def test_a_damaged_token_is_told_from_an_unknown_one(vendor: Vendor) -> None:
    refresh = vendor.refresh_token()

    assert code_of(vendor.refresh(refresh[:500])) == 9002313
    assert code_of(vendor.refresh(refresh[:-4] + "AAAA")) == 70000
    assert code_of(vendor.refresh("")) == 900144


def test_another_clients_token_is_refused(vendor: Vendor, sandbox: Sandbox) -> None:
    other = sandbox.world.applications[scenarios.vault_application_id()]
    other.secrets["of-another"] = sandbox.world.now() + 60

    reply = vendor.refresh(vendor.refresh_token(), client_id=other.app_id, client_secret="of-another")

    assert code_of(reply) == 70000


def test_a_token_of_one_cloud_is_unknown_in_another(vendor: Vendor, sandbox: Sandbox, tenant: Tenant) -> None:
    refresh = vendor.refresh_token()
    authority = sandbox.clouds["usgov"].authority

    url = f"{authority}/{tenant.tenant_id}/oauth2/v2.0/token"

    assert code_of(vendor.wire.post(url, form={"grant_type": "refresh_token", "refresh_token": refresh})) == 90002


def test_equal_requests_in_a_loop_are_noticed_when_switched_on(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.switches["loop_limit"] = 3
    refresh = vendor.refresh_token()

    replies = [vendor.refresh(refresh) for _ in range(4)]

    assert [one.status for one in replies] == [200, 200, 200, 400]
    assert code_of(replies[3]) == 50196
    assert vendor.refresh(refresh, scope=vendor.graph).status == 200


# --- scopes and consent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ("{graph}/.default {graph}/User.Read.All", 70011),
        ("{graph}/.default {partner_center}/user_impersonation", 700022),
        ("https://unknown.example/.default", 70011),
        ("offline_access", 70011),
        ("{graph}/Mail.Send", 65001),
        ("{partner_api}/.default", 65001),
    ],
)
def test_scopes_name_one_resource_that_is_registered_and_consented(vendor: Vendor, scope: str, code: int) -> None:
    cloud = vendor.cloud
    text = scope.format(graph=cloud.graph, partner_center=cloud.partner_center, partner_api=cloud.partner_api)

    assert code_of(vendor.refresh(vendor.refresh_token(), scope=text)) == code


@pytest.mark.parametrize("service", ["partner_api", "azure_management", "own"])
def test_a_token_is_for_each_service_that_is_registered_and_consented(vendor: Vendor, wire: Wire, service: str) -> None:
    app_id = vendor.application.app_id
    if service == "own":
        made = {"key": "api", "name": "Billing API", "scopes": ["Invoices.Read"], "known_clients": [app_id]}
        origin, name = wire.control("/applications", made).json()["app_id"], "Invoices.Read"
    else:
        origin, name = getattr(vendor.cloud, service), "user_impersonation"
    vendor.sandbox.sign_in(
        vendor.authorize_url(scope=f"openid {vendor.partner_center} {origin}/{name}"), user=SERVICE_ACCOUNT
    )

    answer = vendor.refresh(vendor.refresh_token(), scope=f"{origin}/.default").json()

    assert claims_of(answer["access_token"])["aud"] == origin
    assert answer["scope"] == f"{origin}/{name}"


def test_a_resource_that_the_manifest_does_not_list_is_refused(vendor: Vendor) -> None:
    del vendor.application.permissions[PARTNER_API]

    assert code_of(vendor.refresh(vendor.refresh_token(), scope=f"{vendor.cloud.partner_api}/.default")) == 650057


def test_two_resources_can_be_answered_for_the_first_when_switched(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.switches["several_resources"] = 0
    scope = f"{vendor.cloud.graph}/.default {vendor.partner_center}"

    answer = vendor.refresh(vendor.refresh_token(), scope=scope).json()

    assert claims_of(answer["access_token"])["aud"] == vendor.cloud.graph


def test_graph_scopes_come_short_or_full(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.world.switches["graph_scope_form"] = "full"

    answer = vendor.refresh(vendor.refresh_token(), scope=vendor.graph).json()

    assert answer["scope"] == f"{vendor.cloud.graph}/User.Read.All"


def test_consent_that_was_taken_back_is_told_by_its_code(vendor: Vendor, tenant: Tenant) -> None:
    refresh = vendor.refresh_token()
    principal = tenant.principal_of(vendor.application.app_id)
    assert principal
    principal.enabled = False
    assert code_of(vendor.refresh(refresh)) == 7000112
    principal.enabled = True
    tenant.grants.clear()
    reply = vendor.refresh(refresh)
    assert (code_of(reply), reply.json()["suberror"]) == (65001, "consent_required")
    resource = tenant.principal_of(PARTNER_CENTER)
    assert resource
    del tenant.principals[resource.object_id]
    assert code_of(vendor.refresh(refresh)) == 500011
    del tenant.principals[principal.object_id]
    assert code_of(vendor.refresh(refresh)) == 700016


# --- customers' tenants through GDAP ------------------------------------------------------------------------------


def test_the_partners_token_works_at_a_customers_authority_through_gdap(
    vendor: Vendor, tenant: Tenant, customer: Tenant
) -> None:
    reply = vendor.refresh(vendor.refresh_token(), customer.tenant_id, vendor.graph)

    claims = claims_of(reply.json()["access_token"])
    assert claims["tid"] == customer.tenant_id
    assert claims["iss"] == f"{vendor.cloud.v1_issuer}{customer.tenant_id}/"
    assert claims["idp"] == f"{vendor.cloud.v1_issuer}{tenant.tenant_id}/"
    assert claims["oid"] != vendor.tenant_of(SERVICE_ACCOUNT)[1].oid
    assert "158c047a-c907-4556-b7ef-446551a6b5f7" in claims["wids"]
    assert claims["scp"] == "User.Read.All"


@pytest.mark.parametrize("what", ["terminated", "ended", "assignment", "group", "none"])
def test_without_gdap_the_customers_authority_knows_nobody(
    vendor: Vendor, sandbox: Sandbox, customer: Tenant, what: str
) -> None:
    refresh = vendor.refresh_token()
    relationship = next(one for one in sandbox.world.relationships if one.customer == customer.tenant_id)
    match what:
        case "terminated":
            relationship.status = "terminated"
        case "ended":
            relationship.ends = sandbox.world.now() - 1
        case "assignment":
            relationship.assignments[0].status = "pending"
        case "group":
            vendor.tenant_of(SERVICE_ACCOUNT)[1].groups.discard(relationship.assignments[0].group)
        case "none":
            sandbox.world.relationships.remove(relationship)

    assert code_of(vendor.refresh(refresh, customer.tenant_id, vendor.graph)) == 50020


@pytest.mark.parametrize("code", [65001, 700016, 90099])
def test_a_customer_without_consent_says_so_in_one_of_three_ways(
    vendor: Vendor, sandbox: Sandbox, tenant: Tenant, code: int
) -> None:
    sandbox.world.switches["customer_not_consented"] = code
    customer = vendor.customers_of(tenant)[1]

    assert code_of(vendor.refresh(vendor.refresh_token(), customer, vendor.graph)) == code


def test_another_partners_user_cannot_reach_the_customer(vendor: Vendor, customer: Tenant) -> None:
    refresh = vendor.refresh_token(STRANGER)

    assert code_of(vendor.refresh(refresh, customer.tenant_id, vendor.graph)) == 50020


def test_partner_center_has_no_token_for_a_customers_tenant(vendor: Vendor, customer: Tenant) -> None:
    assert code_of(vendor.refresh(vendor.refresh_token(), customer.tenant_id)) == 500011


# --- client credentials -------------------------------------------------------------------------------------------


def test_the_vault_identity_gets_tokens_for_vaults_only(vendor: Vendor, sandbox: Sandbox) -> None:
    identity = sandbox.world.applications[scenarios.vault_application_id()]
    identity.secrets["of-the-vault"] = sandbox.world.now() + 60
    form = {"client_id": identity.app_id, "client_secret": "of-the-vault"}
    vault = f"https://{vendor.cloud.vault_suffix[1:]}/.default"

    reply = vendor.token_request(identity.home_tenant, "client_credentials", **form, scope=vault)

    claims = claims_of(reply.json()["access_token"])
    assert (claims["aud"] + "/.default", claims["appid"], claims["idtyp"]) == (vault, identity.app_id, "app")
    assert {"scp", "upn", "amr"}.isdisjoint(claims)
    assert "refresh_token" not in reply.json()
    for tenant, scope in ((identity.home_tenant, vendor.graph), ("northwind.example.com", vault)):
        refused = vendor.token_request(tenant, "client_credentials", **form, scope=scope)
        assert code_of(refused) == 700016
    assert code_of(vendor.token_request("organizations", "client_credentials", **form, scope=vault)) == 9001023


# --- the request itself -------------------------------------------------------------------------------------------


def test_the_token_endpoint_wants_a_post(wire: Wire, vendor: Vendor) -> None:
    reply = wire.get(f"{vendor.cloud.authority}/organizations/oauth2/v2.0/token")

    assert reply.status == 400
    assert reply.text.startswith("AADSTS900561:")
    assert code_of(vendor.token_request("nobody.example.com", "refresh_token")) == 90002
    assert code_of(vendor.token_request("organizations", "refresh_token")) == 90019
