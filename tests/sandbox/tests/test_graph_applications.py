"""Microsoft Graph of the sandbox: applications of the caller's own tenant, with owners and credentials."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Caller, graph_error, values
from tests.sandbox.tests.wire import Wire
from tests.sandbox.tokens import access_token
from tests.sandbox.world import APPLICATION_ADMINISTRATOR, GRAPH, Application, User, known_id

WRITE, READ = "Application.ReadWrite.All", "Application.Read.All"
ADMIN = known_id("user", "vendor", "admin")


@pytest.fixture
def caller(sandbox: Sandbox, wire: Wire) -> Caller:
    tenant = sandbox.world.tenants[scenarios.vendor_tenant()]
    tenant.users[ADMIN] = User(
        oid=ADMIN, upn="admin@vendor.global.example", name="Admin", roles={APPLICATION_ADMINISTRATOR}
    )
    return Caller(sandbox=sandbox, wire=wire)


def graph(caller: Caller, method: str, path: str, *scopes: str, **rest: Any) -> Any:
    """Call as the vendor's administrator."""
    tenant = caller.world.tenants[scenarios.vendor_tenant()]
    token = access_token(
        caller.world, caller.cloud, tenant=tenant, audience=caller.cloud.graph, application=caller.application,
        credential="0", user=tenant.users[ADMIN], home=tenant, scopes=set(scopes or (WRITE,)), amr=["mfa"],
    )  # fmt: skip
    return caller.graph(method, path, token=token, **rest)


def ours(rest: str = "") -> str:
    return f"/applications(appId='{scenarios.application_id()}'){rest}"


def test_an_application_is_made_found_and_changed(caller: Caller) -> None:
    made = graph(caller, "POST", "/applications", data={"displayName": "New"})
    assert made.status == 201
    item = made.json()
    assert (item["displayName"], item["signInAudience"]) == ("New", "AzureADMyOrg")
    assert item["web"]["implicitGrantSettings"] == {"enableIdTokenIssuance": False, "enableAccessTokenIssuance": False}
    path = f"/applications/{item['id']}"
    changes = {"signInAudience": "AzureADMultipleOrgs", "web": {"redirectUris": ["https://portal.example/x"]}}

    assert graph(caller, "PATCH", path, data=changes).status == 204

    [found] = values(graph(caller, "GET", f"/applications?$filter=appId eq '{item['appId']}'".replace(" ", "%20")))
    assert (found["signInAudience"], found["web"]["redirectUris"]) == (
        "AzureADMultipleOrgs",
        ["https://portal.example/x"],
    )
    assert caller.world.applications[item["appId"]].multi_tenant
    assert [one["id"] for one in values(graph(caller, "GET", f"{path}/owners"))] == [ADMIN]


def test_permissions_go_in_and_out_by_id(caller: Caller) -> None:
    wanted: list[dict[str, Any]] = [
        {
            "resourceAppId": GRAPH,
            "resourceAccess": [
                {"id": "a154be20-db9c-4678-8ab7-66f6cc099a59", "type": "Scope"},
                {"id": known_id("unknown scope"), "type": "Scope"},
                {"id": known_id("role"), "type": "Role"},
            ],
        }
    ]
    assert graph(caller, "PATCH", ours(), data={"requiredResourceAccess": wanted}).status == 204
    assert "User.Read.All" in caller.application.permissions[GRAPH]
    [told] = graph(caller, "GET", ours()).json()["requiredResourceAccess"]
    assert {(one["id"], one["type"]) for one in told["resourceAccess"]} == {
        (one["id"], one["type"]) for one in wanted[0]["resourceAccess"]
    }


@pytest.mark.parametrize(
    "body",
    [
        {"displayNam": "x"},
        {"appId": known_id("x")},
        {"signInAudience": "Everybody"},
        {"web": {"redirectUris": ["http://portal.example/"]}},
        {"requiredResourceAccess": [{"resourceAppId": GRAPH, "resourceAccess": [{"id": "x", "type": "Scope"}]}]},
        {"keyCredentials": [{"key": base64.b64encode(b"no certificate").decode()}]},
        {"verifiedPublisher": {}},
        {"disabledByMicrosoftStatus": None},
    ],
)
def test_what_cannot_be_is_refused(caller: Caller, body: dict[str, Any]) -> None:
    assert graph(caller, "PATCH", ours(), data=body).status == 400


def test_a_secret_is_shown_once_and_a_disabled_application_gets_no_token(caller: Caller) -> None:
    made = graph(caller, "POST", ours("/addPassword"), data={}).json()
    listed = graph(caller, "GET", ours()).json()["passwordCredentials"]
    assert [(one["keyId"], one["secretText"]) for one in listed] == [(made["keyId"], None)]
    assert made["secretText"] in caller.application.secrets
    graph(caller, "PATCH", ours(), data={"isDisabled": True})
    assert not caller.application.enabled
    assert graph(caller, "GET", ours()).json()["isDisabled"] is True


def test_owners_and_federated_credentials_are_added(caller: Caller) -> None:
    reference = {"@odata.id": f"{caller.cloud.graph}/v1.0/directoryObjects/{ADMIN}"}
    assert graph(caller, "POST", ours("/owners/$ref"), data=reference).status == 204
    assert graph(caller, "POST", ours("/owners/$ref"), data=reference).status == 400
    assert graph(caller, "POST", ours("/owners/$ref"), data={"@odata.id": known_id("nobody")}).status == 404
    trusted = {"name": "host", "issuer": "https://login.example", "subject": known_id("identity"), "audiences": ["a"]}
    assert graph(caller, "POST", ours("/federatedIdentityCredentials"), data=trusted).status == 201
    [told] = values(graph(caller, "GET", ours("/federatedIdentityCredentials")))
    assert (told["issuer"], told["subject"], told["audiences"]) == (trusted["issuer"], trusted["subject"], ["a"])


def test_rights_and_tenants_are_checked(caller: Caller) -> None:
    assert graph(caller, "GET", ours(), "User.Read").status == 403
    assert graph(caller, "PATCH", ours(), READ, data={"displayName": "x"}).status == 403
    caller.world.tenants[scenarios.vendor_tenant()].users[ADMIN].roles.clear()
    assert graph(caller, "PATCH", ours(), data={"displayName": "x"}).status == 403
    assert graph_error(caller.graph("GET", ours(), READ)) == (404, "Request_ResourceNotFound")  # the partner's tenant


def test_an_application_reads_for_itself_with_an_application_permission(caller: Caller) -> None:
    tenant = caller.world.tenants[scenarios.vendor_tenant()]
    reader = Application(app_id=known_id("reader"), name="Reader", home_tenant=tenant.tenant_id, roles={READ})

    def token() -> str:
        return access_token(
            caller.world, caller.cloud, tenant=tenant, audience=caller.cloud.graph, application=reader,
            credential="2", user=None, home=None, scopes=set(), amr=[],
        )  # fmt: skip

    assert caller.graph("GET", ours(), token=token()).status == 200
    assert caller.graph("PATCH", ours(), token=token(), data={"displayName": "x"}).status == 403
    reader.roles.clear()
    assert caller.graph("GET", ours(), token=token()).status == 403
