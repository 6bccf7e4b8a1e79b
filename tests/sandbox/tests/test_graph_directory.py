"""Microsoft Graph of the sandbox: people, groups, organization, service principals and grants, over the wire."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Caller, graph_error, values
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
def caller(sandbox: Sandbox, wire: Wire) -> Caller:
    return Caller(sandbox=sandbox, wire=wire)


# --- people, groups, organization ---------------------------------------------------------------------------------


def test_me_shows_the_default_properties_or_the_selected_ones(caller: Caller) -> None:
    me = caller.graph("GET", "/me", "User.Read").json()
    assert me.pop("@odata.context").startswith(caller.cloud.graph)
    assert me == {
        "id": caller.user().oid,
        "displayName": "Service account",
        "mail": caller.user().upn,
        "userPrincipalName": caller.user().upn,
    }
    selected = caller.graph("GET", "/me?$select=id,userType,accountEnabled", "User.Read").json()
    assert (selected["userType"], selected["accountEnabled"], "mail" in selected) == ("Member", True, False)
    assert graph_error(caller.graph("GET", "/me?$select=id,colour", "User.Read")) == (400, "Request_BadRequest")


def test_me_does_not_exist_in_a_customers_directory(caller: Caller) -> None:
    caller.consented()
    reply = caller.graph("GET", "/me", "User.Read", tenant=caller.customer)
    assert graph_error(reply) == (404, "Request_ResourceNotFound")


def test_memberships_are_limited_to_ids_without_the_right_to_read_them(caller: Caller) -> None:
    limited = values(caller.graph("GET", "/me/memberOf", "User.Read"))
    assert all(item.keys() == {"@odata.type", "id"} for item in limited)
    groups = values(caller.graph("GET", "/me/memberOf", "User.Read", "GroupMember.Read.All"))
    assert {item.get("displayName") for item in groups} == {"AdminAgents", "GDAP consent operators", None}
    full = values(caller.graph("GET", "/me/transitiveMemberOf", DIRECTORY))
    role = next(item for item in full if item["@odata.type"] == "#microsoft.graph.directoryRole")
    assert (role["roleTemplateId"], role["displayName"]) == (GLOBAL_ADMINISTRATOR, "Global Administrator")


def test_a_group_within_a_group_is_a_transitive_membership_only(caller: Caller) -> None:
    tenant, outer = (
        caller.sandbox.world.tenants[known_id("tenant", "northwind")],
        known_id("group", "northwind", "outer"),
    )
    tenant.groups[outer] = "Outer"
    tenant.nested[known_id("group", "northwind", "GDAP")] = {outer}

    def names(path: str) -> set[str | None]:
        return {item.get("displayName") for item in values(caller.graph("GET", path, DIRECTORY))}

    assert "Outer" not in names("/me/memberOf")
    assert "Outer" in names("/me/transitiveMemberOf")
    body = {"groupIds": [outer]}
    assert caller.graph("POST", "/me/checkMemberGroups", "User.Read", data=body).json()["value"] == [outer]


def test_a_filtered_cast_of_memberships_is_an_advanced_query(caller: Caller) -> None:
    path = f"/me/memberOf/microsoft.graph.group?$count=true&$filter={quote("displayName eq 'AdminAgents'")}"
    assert graph_error(caller.graph("GET", path, DIRECTORY)) == (400, "Request_UnsupportedQuery")
    reply = caller.graph("GET", path, DIRECTORY, headers=EVENTUAL)
    assert [item["displayName"] for item in values(reply)] == ["AdminAgents"]
    assert reply.json()["@odata.count"] == 1
    roles = values(caller.graph("GET", "/me/memberOf/microsoft.graph.directoryRole", DIRECTORY))
    assert [item["roleTemplateId"] for item in roles] == [GLOBAL_ADMINISTRATOR]


def test_member_groups_are_checked_for_up_to_20_ids(caller: Caller) -> None:
    agents = known_id("group", "northwind", "AdminAgents")
    body = {"groupIds": [agents, known_id("group", "southridge", "AdminAgents")]}
    reply = caller.graph("POST", "/me/checkMemberGroups", "User.Read", data=body)
    assert reply.json()["value"] == [agents]
    for ids in ([], [agents] * 21, ["rubbish"], None):
        assert caller.graph("POST", "/me/checkMemberGroups", "User.Read", data={"groupIds": ids}).status == 400


def test_groups_are_found_by_name_and_list_their_members(caller: Caller) -> None:
    path = f"/groups?$select=id,displayName&$filter={quote("displayName eq 'adminagents'")}"
    (group,) = values(caller.graph("GET", path, "GroupMember.Read.All"))
    assert group.keys() == {"id", "displayName"}
    for members in ("members", "transitiveMembers"):
        people = values(caller.graph("GET", f"/groups/{group['id']}/{members}", "GroupMember.Read.All"))
        assert {person["userPrincipalName"].partition("@")[0] for person in people} == {"service", "second"}
    assert caller.graph("GET", f"/groups/{group['id']}", DIRECTORY).json()["displayName"] == "AdminAgents"
    assert caller.graph("GET", f"/groups/{known_id('no')}/members", DIRECTORY).status == 404


def test_users_are_listed_filtered_and_read_by_id_or_name(caller: Caller) -> None:
    user = caller.user()
    assert len(values(caller.graph("GET", "/users", "User.Read.All"))) == 3
    path = f"/users?$filter={quote(f"userPrincipalName eq '{user.upn}' and accountEnabled eq true")}"
    assert [item["id"] for item in values(caller.graph("GET", path, "User.Read.All"))] == [user.oid]
    for key in (user.oid, user.upn):
        assert caller.graph("GET", f"/users/{key}", "User.Read.All").json()["id"] == user.oid
    assert caller.graph("GET", "/users/nobody", "User.Read.All").status == 404


def test_the_organization_shows_its_details_only_with_a_scope_for_them(caller: Caller) -> None:
    (reduced,) = values(caller.graph("GET", "/organization", "User.Read"))
    assert (reduced["id"], reduced["displayName"]) == (caller.partner.tenant_id, caller.partner.name)
    assert reduced["verifiedDomains"][0]["name"] == caller.partner.domain
    assert (reduced["partnerTenantType"], reduced["tenantType"]) == (None, None)
    (full,) = values(caller.graph("GET", "/organization", "Organization.Read.All"))
    assert (full["partnerTenantType"], full["tenantType"]) == ("resellerPartnerDelegatedAdmin", "AAD")
    assert caller.graph("GET", f"/organization/{caller.partner.tenant_id}", "User.Read").status == 200
    assert caller.graph("GET", f"/organization/{caller.customer.tenant_id}", "User.Read").status == 404


# --- service principals and grants --------------------------------------------------------------------------------


def test_a_consent_is_read_back_as_service_principal_and_grant(caller: Caller) -> None:
    caller.consented(DIRECTORY, "User.Read.All")
    app_id, customer = caller.application.app_id, caller.customer
    path = f"/servicePrincipals?$filter={quote(f"appId eq '{app_id}'")}&$select=id,appId,accountEnabled"
    (principal,) = values(caller.graph("GET", path, DIRECTORY, tenant=customer))
    assert principal["accountEnabled"] is True
    path = f"/oauth2PermissionGrants?$filter={quote(f"clientId eq '{principal['id']}'")}"
    (grant,) = values(caller.graph("GET", path, DIRECTORY, tenant=customer))
    assert (grant["consentType"], grant["principalId"]) == ("AllPrincipals", None)
    assert grant["scope"] == " Directory.Read.All User.Read.All"
    path = f"/servicePrincipals/{grant['resourceId']}?$select=appId,displayName"
    resource = caller.graph("GET", path, DIRECTORY, tenant=customer).json()
    assert (resource["appId"], resource["displayName"]) == (GRAPH, "Microsoft Graph")


def test_a_consent_is_not_seen_before_it_is_visible(caller: Caller) -> None:
    later = caller.world.now() + 60
    caller.partner.add_principal(caller.application.app_id, "x", later)
    caller.partner.grant(caller.application.app_id, GRAPH, {DIRECTORY}, later)
    app_id = caller.application.app_id
    path = f"/servicePrincipals(appId='{app_id}')"
    assert caller.graph("GET", path, DIRECTORY).status == 404
    assert values(caller.graph("GET", "/oauth2PermissionGrants", DIRECTORY)) == []
    caller.world.advance(61)
    assert caller.graph("GET", path, DIRECTORY).json()["appId"] == app_id
    assert len(values(caller.graph("GET", "/oauth2PermissionGrants", DIRECTORY))) == 1


def test_an_absent_application_is_an_empty_list_or_404_by_its_key(caller: Caller) -> None:
    app_id = caller.application.app_id
    path = f"/servicePrincipals?$filter={quote(f"appId eq '{app_id}'")}"
    assert values(caller.graph("GET", path, DIRECTORY)) == []
    assert caller.graph("GET", f"/servicePrincipals(appId='{app_id}')", DIRECTORY).status == 404
    assert caller.graph("GET", f"/servicePrincipals/{known_id('no')}", DIRECTORY).status == 404


def test_a_resource_names_its_delegated_permissions(caller: Caller) -> None:
    resource = caller.graph("GET", f"/servicePrincipals(appId='{PARTNER_CENTER}')", DIRECTORY).json()
    assert [scope["value"] for scope in resource["oauth2PermissionScopes"]] == ["user_impersonation"]


def test_service_principals_are_created_changed_and_deleted(caller: Caller) -> None:
    scope, app_id = "Application.ReadWrite.All", caller.application.app_id
    made = caller.graph("POST", "/servicePrincipals", scope, data={"appId": app_id})
    assert (made.status, made.json()["appId"]) == (201, app_id)
    again = caller.graph("POST", "/servicePrincipals", scope, data={"appId": app_id})
    assert graph_error(again) == (409, "Request_MultipleObjectsWithSameKeyValue")
    path = f"/servicePrincipals/{made.json()['id']}"
    assert caller.graph("PATCH", path, scope, data={"accountEnabled": False}).status == 204
    assert caller.graph("GET", path, DIRECTORY).json()["accountEnabled"] is False
    assert caller.graph("PATCH", path, scope, data={"appRoles": []}).status == 400
    caller.partner.grant(app_id, GRAPH, {"User.Read"})
    assert caller.graph("DELETE", path, scope).status == 204
    assert caller.graph("GET", path, DIRECTORY).status == 404
    assert not caller.partner.grants
    for unknown in (known_id("no"), "rubbish", None):
        assert caller.graph("POST", "/servicePrincipals", scope, data={"appId": unknown}).status == 400


def test_an_upsert_creates_only_when_it_says_so(caller: Caller) -> None:
    scope, path = "Application.ReadWrite.All", f"/servicePrincipals(appId='{caller.application.app_id}')"
    assert caller.graph("PATCH", path, scope, data={}).status == 404
    prefer = {"Prefer": "create-if-missing"}
    assert caller.graph("PATCH", path, scope, data={}, headers=prefer).status == 201
    assert caller.graph("PATCH", path, scope, data={}, headers=prefer).status == 204


def test_grants_are_created_changed_and_deleted(caller: Caller) -> None:
    scope, app_id = "DelegatedPermissionGrant.ReadWrite.All", caller.application.app_id
    client = caller.partner.add_principal(app_id, "x").object_id
    resource = caller.partner.add_principal(GRAPH, "x").object_id
    body = {"clientId": client, "resourceId": resource, "consentType": "AllPrincipals", "scope": "User.Read  Mail.Read"}
    made = caller.graph("POST", "/oauth2PermissionGrants", scope, data=body)
    assert made.status == 201
    assert caller.partner.granted(app_id, GRAPH, caller.world.now()) == {"User.Read", "Mail.Read"}
    assert caller.graph("POST", "/oauth2PermissionGrants", scope, data=body).status == 409
    path = f"/oauth2PermissionGrants/{made.json()['id']}"
    assert caller.graph("PATCH", path, scope, data={"scope": "User.Read"}).status == 204
    caller.world.switches["graph_scope_spaces"] = False
    assert caller.graph("GET", path, scope).json()["scope"] == "User.Read"
    assert caller.graph("DELETE", path, scope).status == 204
    assert caller.graph("GET", path, scope).status == 404
    for change in ({"consentType": "Some"}, {"consentType": "Principal"}, {"scope": None}, {"clientId": "x"}):
        assert caller.graph("POST", "/oauth2PermissionGrants", scope, data=body | change).status == 400
    assert (
        caller.graph("POST", "/oauth2PermissionGrants", scope, data=body | {"clientId": known_id("no")}).status == 404
    )


def test_changes_of_the_directory_need_scope_and_role(caller: Caller) -> None:
    caller.consented()
    body = {"appId": PARTNER_CENTER}
    reply = caller.graph("POST", "/servicePrincipals", DIRECTORY, tenant=caller.customer, data=body)
    assert reply.status == 403
    caller.relationship.assignments[0].roles = {DIRECTORY_READERS}
    writer = "Application.ReadWrite.All"
    assert caller.graph("POST", "/servicePrincipals", writer, tenant=caller.customer, data=body).status == 403
    caller.relationship.assignments[0].roles = {CLOUD_APPLICATION_ADMINISTRATOR}
    assert caller.graph("POST", "/servicePrincipals", writer, tenant=caller.customer, data=body).status == 201
