"""Graph's directory: organization, people, groups, service principals and delegated permission grants.

Source: Microsoft Graph v1.0, organization, user, group, servicePrincipal, oAuth2PermissionGrant.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from functools import partial

from tests.sandbox.graph_calls import (
    Answer,
    Call,
    GraphError,
    Item,
    Operation,
    bad_request,
    collection,
    guid,
    not_found,
    one,
    unsupported,
)
from tests.sandbox.world import (
    APPLICATION_ADMINISTRATOR,
    AZURE_MANAGEMENT,
    CLOUD_APPLICATION_ADMINISTRATOR,
    DIRECTORY_READERS,
    GLOBAL_ADMINISTRATOR,
    GRAPH,
    KEY_VAULT,
    PARTNER_API,
    PARTNER_CENTER,
    PermissionGrant,
    ServicePrincipal,
    User,
)

_CREATED = "2026-01-01T00:00:00Z"
_PERSON = ("id", "displayName", "mail", "userPrincipalName")
_GROUP_READERS = ("GroupMember.Read.All", "Group.Read.All", "Directory.Read.All")
_ROLE_READERS = ("RoleManagement.Read.Directory", "Directory.Read.All")
_USER_READERS = ("User.Read.All", "Directory.Read.All")
_APPLICATION_WRITERS = ("Application.ReadWrite.All", "Directory.ReadWrite.All")
_APPLICATION_READERS = ("Application.Read.All", "Directory.Read.All", *_APPLICATION_WRITERS)
_GRANT_WRITERS = ("DelegatedPermissionGrant.ReadWrite.All", "Directory.ReadWrite.All")
_GRANT_READERS = ("DelegatedPermissionGrant.Read.All", "Directory.Read.All", *_GRANT_WRITERS)
_MICROSOFT = {
    GRAPH: "Microsoft Graph",
    PARTNER_CENTER: "Microsoft Partner Center",
    PARTNER_API: "Partner API",
    AZURE_MANAGEMENT: "Azure Resource Manager",
    KEY_VAULT: "Azure Key Vault",
}
_ROLE_NAMES = {
    GLOBAL_ADMINISTRATOR: "Global Administrator",
    APPLICATION_ADMINISTRATOR: "Application Administrator",
    CLOUD_APPLICATION_ADMINISTRATOR: "Cloud Application Administrator",
    DIRECTORY_READERS: "Directory Readers",
}


# --- organization and people --------------------------------------------------------------------------------------


def _organization_item(call: Call) -> Item:
    call.need("User.Read", "Organization.Read.All", "Directory.Read.All")
    tenant = call.tenant
    domain = {
        "name": tenant.domain,
        "isDefault": True,
        "isInitial": True,
        "type": "Managed",
        "capabilities": "Email, OfficeCommunicationsOnline",
    }
    item: Item = {"id": tenant.tenant_id, "displayName": tenant.name, "verifiedDomains": [domain]}
    details: Item = {
        "countryLetterCode": "US",
        "tenantType": "AAD",
        "partnerTenantType": "resellerPartnerDelegatedAdmin" if tenant.kind == "partner" else None,
        "technicalNotificationMails": [f"office@{tenant.domain}"],
        "createdDateTime": _CREATED,
        "assignedPlans": [],
    }
    if not call.may("Organization.Read.All", "Directory.Read.All"):
        details = dict.fromkeys(details)
    return item | details


def _organization(call: Call) -> Answer:
    return collection(call, "organization", [_organization_item(call)], dict)


def _one_organization(call: Call) -> Answer:
    item = _organization_item(call)
    if call.params["id"].lower() != call.tenant.tenant_id:
        raise not_found(call.params["id"])
    return one(call, "organization", item)


def _person(user: User) -> Item:
    return {
        "id": user.oid,
        "displayName": user.name,
        "mail": user.upn,
        "userPrincipalName": user.upn,
        "userType": user.user_type,
        "accountEnabled": user.enabled,
        "creationType": None,
    }


def _myself(call: Call) -> User:
    call.need("User.Read", *_USER_READERS)
    if call.caller.home is not call.tenant:
        raise not_found("me")  # whoever comes through GDAP is no object of the customer's directory
    return call.caller.user


def _me(call: Call) -> Answer:
    return one(call, "users", _person(_myself(call)), _PERSON)


def _users(call: Call) -> Answer:
    call.need(*_USER_READERS, "User.ReadBasic.All")
    people = [user for user in call.tenant.users.values() if not user.deleted]
    filterable: dict[str, Callable[[User], object]] = {
        "id": lambda user: user.oid,
        "userPrincipalName": lambda user: user.upn,
        "displayName": lambda user: user.name,
        "mail": lambda user: user.upn,
        "accountEnabled": lambda user: user.enabled,
        "userType": lambda user: user.user_type,
    }
    return collection(call, "users", people, _person, filterable=filterable, default=_PERSON)


def _one_user(call: Call) -> Answer:
    call.need(*_USER_READERS, "User.ReadBasic.All")
    wanted = call.params["id"].lower()
    for user in call.tenant.users.values():
        if wanted in {user.oid, user.upn.lower()} and not user.deleted:
            return one(call, "users", _person(user), _PERSON)
    raise not_found(wanted)


# --- groups and roles ---------------------------------------------------------------------------------------------


def _group(group_id: str, name: str) -> Item:
    return {
        "id": group_id,
        "displayName": name,
        "description": None,
        "securityEnabled": True,
        "mailEnabled": False,
        "groupTypes": [],
    }


def _memberships(call: Call, kind: str, groups: set[str]) -> list[Item]:
    """Return these groups and the user's roles; of a type that the token may not read, only that there is one."""
    user, tenant = _myself(call), call.tenant
    found: list[Item] = []
    for group_id in sorted(groups & tenant.groups.keys()):
        item = _group(group_id, tenant.groups[group_id]) if call.may(*_GROUP_READERS) else {"id": group_id}
        found.append({"@odata.type": "#microsoft.graph.group"} | item)
    for role in sorted(user.roles):
        item = {"id": str(uuid.uuid5(uuid.UUID(tenant.tenant_id), role))}
        if call.may(*_ROLE_READERS):
            item |= {"displayName": _ROLE_NAMES.get(role, role), "roleTemplateId": role}
        found.append({"@odata.type": "#microsoft.graph.directoryRole"} | item)
    return [item for item in found if not kind or item["@odata.type"] == f"#microsoft.graph.{kind}"]


def _member_of(call: Call) -> Answer:
    return _list_memberships(call, _myself(call).groups)


def _transitive_member_of(call: Call) -> Answer:
    return _list_memberships(call, call.tenant.groups_of(_myself(call)))


def _list_memberships(call: Call, groups: set[str]) -> Answer:
    kind = call.params.get("kind") or ""
    if "$filter" in call.query and not call.is_advanced():
        raise unsupported("This filter needs ConsistencyLevel: eventual and $count=true.")
    filterable: dict[str, Callable[[Item], object]] = {
        "displayName": lambda item: item.get("displayName"),
        "id": lambda item: item["id"],
    }
    return collection(call, "directoryObjects", _memberships(call, kind, groups), dict, filterable=filterable)


def _check_member_groups(call: Call) -> Answer:
    user, asked = _myself(call), call.content().get("groupIds")
    if not isinstance(asked, list) or not 1 <= len(asked) <= 20:
        raise bad_request("groupIds must hold between 1 and 20 ids.")
    groups = call.tenant.groups_of(user)
    member = [group for group in (guid(each, "groupIds") for each in asked) if group in groups]
    return Answer(200, {"@odata.context": call.context("Collection(Edm.String)"), "value": member})


def _groups(call: Call) -> Answer:
    call.need(*_GROUP_READERS)
    filterable: dict[str, Callable[[tuple[str, str]], object]] = {
        "id": lambda group: group[0],
        "displayName": lambda group: group[1],
        "securityEnabled": lambda group: True,
    }
    groups = call.tenant.groups.items()
    return collection(call, "groups", groups, lambda group: _group(*group), filterable=filterable)


def _known_group(call: Call) -> str:
    call.need(*_GROUP_READERS)
    group_id = call.params["id"].lower()
    if group_id not in call.tenant.groups:
        raise not_found(group_id)
    return group_id


def _one_group(call: Call) -> Answer:
    group_id = _known_group(call)
    return one(call, "groups", _group(group_id, call.tenant.groups[group_id]))


def _members(call: Call) -> Answer:
    group_id = _known_group(call)
    people = [user for user in call.tenant.users.values() if group_id in user.groups and not user.deleted]
    kind = {"@odata.type": "#microsoft.graph.user"}
    return collection(call, "directoryObjects", people, lambda user: kind | _person(user), default=_PERSON)


# --- service principals -------------------------------------------------------------------------------------------


def _principal_item(call: Call, principal: ServicePrincipal) -> Item:
    world = call.world
    application = world.applications.get(principal.app_id)
    names = {name for each in world.applications.values() for name in each.permissions.get(principal.app_id, ())}
    scopes = [
        {
            "id": str(uuid.uuid5(uuid.UUID(principal.app_id), name)),
            "value": name,
            "type": "Admin" if name.endswith(".All") else "User",
            "isEnabled": True,
            "adminConsentDisplayName": name,
            "adminConsentDescription": name,
            "userConsentDisplayName": name,
            "userConsentDescription": name,
        }
        for name in sorted(names)
    ]
    return {
        "id": principal.object_id,
        "appId": principal.app_id,
        "displayName": principal.name,
        "accountEnabled": principal.enabled,
        "servicePrincipalType": "Application",
        "appOwnerOrganizationId": application.home_tenant if application else "f8cdef31-a31e-4b4a-93e4-5f571e91255a",
        "createdDateTime": _CREATED,
        "oauth2PermissionScopes": scopes,
        "appRoles": [],
        "passwordCredentials": [
            {"keyId": key_id, "displayName": None, "secretText": None, "endDateTime": "2127-01-01T00:00:00Z"}
            for key_id in principal.secrets
        ],
        "keyCredentials": [
            {"keyId": thumbprint, "customKeyIdentifier": thumbprint, "key": None, "endDateTime": "2127-01-01T00:00:00Z"}
            for thumbprint in principal.certificates
        ],
    }


def _visible(call: Call) -> list[ServicePrincipal]:
    now = call.world.now()
    return [each for each in call.tenant.principals.values() if each.visible_at <= now]


def _principals(call: Call) -> Answer:
    call.need(*_APPLICATION_READERS)
    filterable: dict[str, Callable[[ServicePrincipal], object]] = {
        "appId": lambda principal: principal.app_id,
        "displayName": lambda principal: principal.name,
        "id": lambda principal: principal.object_id,
        "accountEnabled": lambda principal: principal.enabled,
    }
    render = partial(_principal_item, call)
    return collection(call, "servicePrincipals", _visible(call), render, filterable=filterable)


def _wanted_principal(call: Call) -> ServicePrincipal | None:
    key = "app_id" if "app_id" in call.params else "object_id"
    wanted = call.params[key].lower()
    return next((each for each in _visible(call) if getattr(each, key) == wanted), None)


def _found_principal(call: Call) -> ServicePrincipal:
    found = _wanted_principal(call)
    if found is None:
        raise not_found(call.params.get("object_id") or call.params["app_id"])
    return found


def _one_principal(call: Call) -> Answer:
    call.need(*_APPLICATION_READERS)
    return one(call, "servicePrincipals", _principal_item(call, _found_principal(call)))


def _role_assignments(call: Call) -> Answer:
    call.need(*_APPLICATION_READERS)
    principal = _found_principal(call)
    items = [
        {"id": str(number), "appRoleId": role, "principalId": principal.object_id, "resourceDisplayName": resource}
        for number, (resource, role) in enumerate(principal.app_roles)
    ]
    return collection(call, "appRoleAssignments", items, dict)


def _make_principal(call: Call, app_id: str) -> Answer:
    application = call.world.applications.get(app_id)
    usable = application is not None and (application.multi_tenant or application.home_tenant == call.tenant.tenant_id)
    if not usable and app_id not in _MICROSOFT:
        raise bad_request("The appId does not reference a valid application object.")
    if call.tenant.principal_of(app_id) is not None:
        raise GraphError(
            409, "Request_MultipleObjectsWithSameKeyValue", "The service principal for this appId exists already."
        )
    name = application.name if application else _MICROSOFT[app_id]
    made = call.tenant.add_principal(app_id, name)
    context = {"@odata.context": call.context("servicePrincipals/$entity")}
    return Answer(201, context | _principal_item(call, made))


def _add_principal(call: Call) -> Answer:
    call.need(*_APPLICATION_WRITERS)
    call.need_role()
    return _make_principal(call, guid(call.content().get("appId"), "appId"))


def _change_principal(call: Call) -> Answer:
    call.need(*_APPLICATION_WRITERS)
    call.need_role()
    content = call.content()
    if unknown := content.keys() - {"accountEnabled", "appId", "displayName"}:
        raise bad_request(f"The property '{min(unknown)}' cannot be changed here.")
    if "app_id" in call.params and _wanted_principal(call) is None:
        if "create-if-missing" not in call.headers.get("prefer", ""):
            raise not_found(call.params["app_id"])
        return _make_principal(call, guid(call.params["app_id"], "appId"))
    found = _found_principal(call)
    found.enabled = content.get("accountEnabled", found.enabled) is True
    found.name = str(content.get("displayName", found.name))
    return Answer(204)


def _remove_principal(call: Call) -> Answer:
    call.need(*_APPLICATION_WRITERS)
    call.need_role()
    found = _found_principal(call)
    del call.tenant.principals[found.object_id]
    for grant in list(call.tenant.grants.values()):
        if found.object_id in {grant.client, grant.resource}:
            del call.tenant.grants[grant.grant_id]
    return Answer(204)


# --- delegated permission grants ----------------------------------------------------------------------------------


def _grant_item(call: Call, grant: PermissionGrant) -> Item:
    lead = " " if call.world.switches["graph_scope_spaces"] else ""
    return {
        "id": grant.grant_id,
        "clientId": grant.client,
        "consentType": grant.consent_type,
        "principalId": grant.principal,
        "resourceId": grant.resource,
        "scope": lead + " ".join(sorted(grant.scopes)),
    }


def _grants(call: Call) -> Answer:
    call.need(*_GRANT_READERS)
    now = call.world.now()
    visible = [each for each in call.tenant.grants.values() if each.visible_at <= now]
    filterable: dict[str, Callable[[PermissionGrant], object]] = {
        "clientId": lambda grant: grant.client,
        "consentType": lambda grant: grant.consent_type,
        "principalId": lambda grant: grant.principal,
        "resourceId": lambda grant: grant.resource,
    }
    return collection(call, "oauth2PermissionGrants", visible, partial(_grant_item, call), filterable=filterable)


def _grants_of(call: Call) -> Answer:
    call.need("Directory.Read.All", *_GRANT_WRITERS)
    found, now = _found_principal(call), call.world.now()
    mine = [one for one in call.tenant.grants.values() if one.client == found.object_id and one.visible_at <= now]
    return collection(call, "oauth2PermissionGrants", mine, partial(_grant_item, call))


def _found_grant(call: Call) -> PermissionGrant:
    found = call.tenant.grants.get(call.params["id"])
    if found is None or found.visible_at > call.world.now():
        raise not_found(call.params["id"])
    return found


def _one_grant(call: Call) -> Answer:
    call.need(*_GRANT_READERS)
    return one(call, "oauth2PermissionGrants", _grant_item(call, _found_grant(call)))


def _scopes(content: Item) -> set[str]:
    scope = content.get("scope")
    if not isinstance(scope, str):
        raise bad_request("Invalid value specified for property 'scope'.")
    return set(scope.split())


def _add_grant(call: Call) -> Answer:
    call.need(*_GRANT_WRITERS)
    call.need_role()
    content, tenant = call.content(), call.tenant
    client, resource = guid(content.get("clientId"), "clientId"), guid(content.get("resourceId"), "resourceId")
    kind, principal = content.get("consentType"), content.get("principalId")
    if kind not in {"AllPrincipals", "Principal"} or (kind == "Principal") != isinstance(principal, str):
        raise bad_request("Invalid value specified for property 'consentType' or 'principalId'.")
    if client not in tenant.principals or resource not in tenant.principals:
        raise not_found(client if client not in tenant.principals else resource)
    key = (client, resource, kind, principal)
    if any(key == (each.client, each.resource, each.consent_type, each.principal) for each in tenant.grants.values()):
        raise GraphError(409, "Request_MultipleObjectsWithSameKeyValue", "Permission entry already exists.")
    made = PermissionGrant(
        grant_id=secrets.token_urlsafe(32),
        client=client,
        resource=resource,
        scopes=_scopes(content),
        consent_type=kind,
        principal=principal,
    )
    tenant.grants[made.grant_id] = made
    context = {"@odata.context": call.context("oauth2PermissionGrants/$entity")}
    return Answer(201, context | _grant_item(call, made))


def _change_grant(call: Call) -> Answer:
    call.need(*_GRANT_WRITERS)
    call.need_role()
    _found_grant(call).scopes = _scopes(call.content())
    return Answer(204)


def _remove_grant(call: Call) -> Answer:
    call.need(*_GRANT_WRITERS)
    call.need_role()
    del call.tenant.grants[_found_grant(call).grant_id]
    return Answer(204)


_PRINCIPAL = r"/servicePrincipals/(?P<object_id>[^/]+)"
_PRINCIPAL_BY_APP = r"/servicePrincipals\(appId='(?P<app_id>[^']+)'\)"
_KIND = r"(?:/microsoft\.graph\.(?P<kind>group|directoryRole))?"

OPERATIONS: list[tuple[str, str, str, Operation]] = [
    ("GET", "/organization", "list organization", _organization),
    ("GET", "/organization/(?P<id>[^/]+)", "get organization", _one_organization),
    ("GET", "/me", "get me", _me),
    ("GET", f"/me/memberOf{_KIND}", "list memberOf", _member_of),
    ("GET", f"/me/transitiveMemberOf{_KIND}", "list transitiveMemberOf", _transitive_member_of),
    ("POST", "/me/(?:microsoft.graph.)?checkMemberGroups", "check member groups", _check_member_groups),
    ("GET", "/users", "list users", _users),
    ("GET", "/users/(?P<id>[^/]+)", "get user", _one_user),
    ("GET", "/groups", "list groups", _groups),
    ("GET", "/groups/(?P<id>[^/]+)", "get group", _one_group),
    ("GET", "/groups/(?P<id>[^/]+)/(?:members|transitiveMembers)", "list members", _members),
    ("GET", "/servicePrincipals", "list service principals", _principals),
    ("POST", "/servicePrincipals", "create service principal", _add_principal),
    ("GET", f"(?:{_PRINCIPAL_BY_APP}|{_PRINCIPAL})", "get service principal", _one_principal),
    ("PATCH", f"(?:{_PRINCIPAL_BY_APP}|{_PRINCIPAL})", "change service principal", _change_principal),
    ("DELETE", f"(?:{_PRINCIPAL_BY_APP}|{_PRINCIPAL})", "delete service principal", _remove_principal),
    ("GET", f"(?:{_PRINCIPAL_BY_APP}|{_PRINCIPAL})/appRoleAssignments", "list app role assignments", _role_assignments),
    ("GET", "/oauth2PermissionGrants", "list grants", _grants),
    ("GET", f"(?:{_PRINCIPAL_BY_APP}|{_PRINCIPAL})/oauth2PermissionGrants", "list grants", _grants_of),
    ("POST", "/oauth2PermissionGrants", "create grant", _add_grant),
    ("GET", "/oauth2PermissionGrants/(?P<id>[^/]+)", "get grant", _one_grant),
    ("PATCH", "/oauth2PermissionGrants/(?P<id>[^/]+)", "change grant", _change_grant),
    ("DELETE", "/oauth2PermissionGrants/(?P<id>[^/]+)", "delete grant", _remove_grant),
]
