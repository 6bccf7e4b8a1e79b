"""Microsoft Graph of the sandbox: people, groups, organization, service principals and grants, over the wire."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Desk, graph_error, values
from tests.sandbox.tests.wire import Wire
from tests.sandbox.world import (
    CLOUD_APPLICATION_ADMINISTRATOR,
    DIRECTORY_READERS,
    GLOBAL_ADMINISTRATOR,
    GRAPH,
    PARTNER_CENTER,
    known_id,
)

GDAP = "DelegatedAdminRelationship.Read.All"
DIRECTORY = "Directory.Read.All"
EVENTUAL = {"ConsistencyLevel": "eventual"}


@pytest.fixture
def desk(sandbox: Sandbox, wire: Wire) -> Desk:
    return Desk(sandbox=sandbox, wire=wire)


# --- people, groups, organization ---------------------------------------------------------------------------------


def test_me_shows_the_default_properties_or_the_selected_ones(desk: Desk) -> None:
    me = desk.graph("GET", "/me", "User.Read").json()
    assert me.pop("@odata.context").startswith(desk.cloud.graph)
    assert me == {
        "id": desk.user().oid,
        "displayName": "Service account",
        "mail": desk.user().upn,
        "userPrincipalName": desk.user().upn,
    }
    selected = desk.graph("GET", "/me?$select=id,userType,accountEnabled", "User.Read").json()
    assert (selected["userType"], selected["accountEnabled"], "mail" in selected) == ("Member", True, False)
    assert graph_error(desk.graph("GET", "/me?$select=id,colour", "User.Read")) == (400, "Request_BadRequest")


def test_me_does_not_exist_in_a_customers_directory(desk: Desk) -> None:
    desk.consented()
    reply = desk.graph("GET", "/me", "User.Read", tenant=desk.customer)
    assert graph_error(reply) == (404, "Request_ResourceNotFound")


def test_memberships_are_limited_to_ids_without_the_right_to_read_them(desk: Desk) -> None:
    limited = values(desk.graph("GET", "/me/memberOf", "User.Read"))
    assert all(item.keys() == {"@odata.type", "id"} for item in limited)
    groups = values(desk.graph("GET", "/me/memberOf", "User.Read", "GroupMember.Read.All"))
    assert {item.get("displayName") for item in groups} == {"AdminAgents", "GDAP consent operators", None}
    full = values(desk.graph("GET", "/me/transitiveMemberOf", DIRECTORY))
    role = next(item for item in full if item["@odata.type"] == "#microsoft.graph.directoryRole")
    assert (role["roleTemplateId"], role["displayName"]) == (GLOBAL_ADMINISTRATOR, "Global Administrator")


def test_a_filtered_cast_of_memberships_is_an_advanced_query(desk: Desk) -> None:
    path = f"/me/memberOf/microsoft.graph.group?$count=true&$filter={quote("displayName eq 'AdminAgents'")}"
    assert graph_error(desk.graph("GET", path, DIRECTORY)) == (400, "Request_UnsupportedQuery")
    reply = desk.graph("GET", path, DIRECTORY, headers=EVENTUAL)
    assert [item["displayName"] for item in values(reply)] == ["AdminAgents"]
    assert reply.json()["@odata.count"] == 1
    roles = values(desk.graph("GET", "/me/memberOf/microsoft.graph.directoryRole", DIRECTORY))
    assert [item["roleTemplateId"] for item in roles] == [GLOBAL_ADMINISTRATOR]


def test_member_groups_are_checked_for_up_to_20_ids(desk: Desk) -> None:
    agents = known_id("group", "northwind", "AdminAgents")
    body = {"groupIds": [agents, known_id("group", "southridge", "AdminAgents")]}
    reply = desk.graph("POST", "/me/checkMemberGroups", "User.Read", data=body)
    assert reply.json()["value"] == [agents]
    for ids in ([], [agents] * 21, ["rubbish"], None):
        assert desk.graph("POST", "/me/checkMemberGroups", "User.Read", data={"groupIds": ids}).status == 400


def test_groups_are_found_by_name_and_list_their_members(desk: Desk) -> None:
    path = f"/groups?$select=id,displayName&$filter={quote("displayName eq 'adminagents'")}"
    (group,) = values(desk.graph("GET", path, "GroupMember.Read.All"))
    assert group.keys() == {"id", "displayName"}
    for members in ("members", "transitiveMembers"):
        people = values(desk.graph("GET", f"/groups/{group['id']}/{members}", "GroupMember.Read.All"))
        assert {person["userPrincipalName"].partition("@")[0] for person in people} == {"service", "second"}
    assert desk.graph("GET", f"/groups/{group['id']}", DIRECTORY).json()["displayName"] == "AdminAgents"
    assert desk.graph("GET", f"/groups/{known_id('no')}/members", DIRECTORY).status == 404


def test_users_are_listed_filtered_and_read_by_id_or_name(desk: Desk) -> None:
    user = desk.user()
    assert len(values(desk.graph("GET", "/users", "User.Read.All"))) == 3
    path = f"/users?$filter={quote(f"userPrincipalName eq '{user.upn}' and accountEnabled eq true")}"
    assert [item["id"] for item in values(desk.graph("GET", path, "User.Read.All"))] == [user.oid]
    for key in (user.oid, user.upn):
        assert desk.graph("GET", f"/users/{key}", "User.Read.All").json()["id"] == user.oid
    assert desk.graph("GET", "/users/nobody", "User.Read.All").status == 404


def test_the_organization_shows_its_details_only_with_a_scope_for_them(desk: Desk) -> None:
    (reduced,) = values(desk.graph("GET", "/organization", "User.Read"))
    assert (reduced["id"], reduced["displayName"]) == (desk.partner.tenant_id, desk.partner.name)
    assert reduced["verifiedDomains"][0]["name"] == desk.partner.domain
    assert (reduced["partnerTenantType"], reduced["tenantType"]) == (None, None)
    (full,) = values(desk.graph("GET", "/organization", "Organization.Read.All"))
    assert (full["partnerTenantType"], full["tenantType"]) == ("resellerPartnerDelegatedAdmin", "AAD")
    assert desk.graph("GET", f"/organization/{desk.partner.tenant_id}", "User.Read").status == 200
    assert desk.graph("GET", f"/organization/{desk.customer.tenant_id}", "User.Read").status == 404


# --- service principals and grants --------------------------------------------------------------------------------


def test_a_consent_is_read_back_as_service_principal_and_grant(desk: Desk) -> None:
    desk.consented(DIRECTORY, "User.Read.All")
    app_id, customer = desk.application.app_id, desk.customer
    path = f"/servicePrincipals?$filter={quote(f"appId eq '{app_id}'")}&$select=id,appId,accountEnabled"
    (principal,) = values(desk.graph("GET", path, DIRECTORY, tenant=customer))
    assert principal["accountEnabled"] is True
    path = f"/oauth2PermissionGrants?$filter={quote(f"clientId eq '{principal['id']}'")}"
    (grant,) = values(desk.graph("GET", path, DIRECTORY, tenant=customer))
    assert (grant["consentType"], grant["principalId"]) == ("AllPrincipals", None)
    assert grant["scope"] == " Directory.Read.All User.Read.All"
    path = f"/servicePrincipals/{grant['resourceId']}?$select=appId,displayName"
    resource = desk.graph("GET", path, DIRECTORY, tenant=customer).json()
    assert (resource["appId"], resource["displayName"]) == (GRAPH, "Microsoft Graph")


def test_a_consent_is_not_seen_before_it_is_visible(desk: Desk) -> None:
    later = desk.world.now() + 60
    desk.partner.add_principal(desk.application.app_id, "x", later)
    desk.partner.grant(desk.application.app_id, GRAPH, {DIRECTORY}, later)
    app_id = desk.application.app_id
    path = f"/servicePrincipals(appId='{app_id}')"
    assert desk.graph("GET", path, DIRECTORY).status == 404
    assert values(desk.graph("GET", "/oauth2PermissionGrants", DIRECTORY)) == []
    desk.world.advance(61)
    assert desk.graph("GET", path, DIRECTORY).json()["appId"] == app_id
    assert len(values(desk.graph("GET", "/oauth2PermissionGrants", DIRECTORY))) == 1


def test_an_absent_application_is_an_empty_list_or_404_by_its_key(desk: Desk) -> None:
    app_id = desk.application.app_id
    path = f"/servicePrincipals?$filter={quote(f"appId eq '{app_id}'")}"
    assert values(desk.graph("GET", path, DIRECTORY)) == []
    assert desk.graph("GET", f"/servicePrincipals(appId='{app_id}')", DIRECTORY).status == 404
    assert desk.graph("GET", f"/servicePrincipals/{known_id('no')}", DIRECTORY).status == 404


def test_a_resource_names_its_delegated_permissions(desk: Desk) -> None:
    resource = desk.graph("GET", f"/servicePrincipals(appId='{PARTNER_CENTER}')", DIRECTORY).json()
    assert [scope["value"] for scope in resource["oauth2PermissionScopes"]] == ["user_impersonation"]


def test_service_principals_are_created_changed_and_deleted(desk: Desk) -> None:
    scope, app_id = "Application.ReadWrite.All", desk.application.app_id
    made = desk.graph("POST", "/servicePrincipals", scope, data={"appId": app_id})
    assert (made.status, made.json()["appId"]) == (201, app_id)
    again = desk.graph("POST", "/servicePrincipals", scope, data={"appId": app_id})
    assert graph_error(again) == (409, "Request_MultipleObjectsWithSameKeyValue")
    path = f"/servicePrincipals/{made.json()['id']}"
    assert desk.graph("PATCH", path, scope, data={"accountEnabled": False}).status == 204
    assert desk.graph("GET", path, DIRECTORY).json()["accountEnabled"] is False
    assert desk.graph("PATCH", path, scope, data={"appRoles": []}).status == 400
    desk.partner.grant(app_id, GRAPH, {"User.Read"})
    assert desk.graph("DELETE", path, scope).status == 204
    assert desk.graph("GET", path, DIRECTORY).status == 404
    assert not desk.partner.grants
    for unknown in (known_id("no"), "rubbish", None):
        assert desk.graph("POST", "/servicePrincipals", scope, data={"appId": unknown}).status == 400


def test_an_upsert_creates_only_when_it_says_so(desk: Desk) -> None:
    scope, path = "Application.ReadWrite.All", f"/servicePrincipals(appId='{desk.application.app_id}')"
    assert desk.graph("PATCH", path, scope, data={}).status == 404
    prefer = {"Prefer": "create-if-missing"}
    assert desk.graph("PATCH", path, scope, data={}, headers=prefer).status == 201
    assert desk.graph("PATCH", path, scope, data={}, headers=prefer).status == 204


def test_grants_are_created_changed_and_deleted(desk: Desk) -> None:
    scope, app_id = "DelegatedPermissionGrant.ReadWrite.All", desk.application.app_id
    client = desk.partner.add_principal(app_id, "x").object_id
    resource = desk.partner.add_principal(GRAPH, "x").object_id
    body = {"clientId": client, "resourceId": resource, "consentType": "AllPrincipals", "scope": "User.Read  Mail.Read"}
    made = desk.graph("POST", "/oauth2PermissionGrants", scope, data=body)
    assert made.status == 201
    assert desk.partner.granted(app_id, GRAPH, desk.world.now()) == {"User.Read", "Mail.Read"}
    assert desk.graph("POST", "/oauth2PermissionGrants", scope, data=body).status == 409
    path = f"/oauth2PermissionGrants/{made.json()['id']}"
    assert desk.graph("PATCH", path, scope, data={"scope": "User.Read"}).status == 204
    desk.world.switches["graph_scope_spaces"] = False
    assert desk.graph("GET", path, scope).json()["scope"] == "User.Read"
    assert desk.graph("DELETE", path, scope).status == 204
    assert desk.graph("GET", path, scope).status == 404
    for change in ({"consentType": "Some"}, {"consentType": "Principal"}, {"scope": None}, {"clientId": "x"}):
        assert desk.graph("POST", "/oauth2PermissionGrants", scope, data=body | change).status == 400
    assert desk.graph("POST", "/oauth2PermissionGrants", scope, data=body | {"clientId": known_id("no")}).status == 404


def test_changes_of_the_directory_need_scope_and_role(desk: Desk) -> None:
    desk.consented()
    body = {"appId": PARTNER_CENTER}
    reply = desk.graph("POST", "/servicePrincipals", DIRECTORY, tenant=desk.customer, data=body)
    assert reply.status == 403
    desk.relationship.assignments[0].roles = {DIRECTORY_READERS}
    writer = "Application.ReadWrite.All"
    assert desk.graph("POST", "/servicePrincipals", writer, tenant=desk.customer, data=body).status == 403
    desk.relationship.assignments[0].roles = {CLOUD_APPLICATION_ADMINISTRATOR}
    assert desk.graph("POST", "/servicePrincipals", writer, tenant=desk.customer, data=body).status == 201
