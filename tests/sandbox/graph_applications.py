"""Graph's application objects: those of the caller's own tenant, with owners and credentials.

Source: Microsoft Graph v1.0, application (get, create, update, addPassword, owners, federatedIdentityCredentials).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography import x509

from tests.sandbox.graph_calls import (
    Answer,
    Call,
    GraphError,
    Item,
    Operation,
    bad_request,
    collection,
    guid,
    moment,
    not_found,
    one,
)
from tests.sandbox.world import AZURE_MANAGEMENT, GRAPH, PARTNER_API, PARTNER_CENTER, Application

_WRITERS = ("Application.ReadWrite.All", "Directory.ReadWrite.All")
_WRITER_OF_OWN = "Application.ReadWrite.OwnedBy"
_READERS = ("Application.Read.All", "Directory.Read.All", _WRITER_OF_OWN, *_WRITERS)
_ONE_TENANT, _MANY_TENANTS = "AzureADMyOrg", "AzureADMultipleOrgs"
_PERSONAL = ("AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount")
# Delegated permissions by id, from Microsoft's permissions reference; an unknown id keeps standing as an id.
_SCOPES = {
    GRAPH: {
        "885f682f-a990-4bad-a642-36736a74b0c7": "DelegatedAdminRelationship.ReadWrite.All",
        "a154be20-db9c-4678-8ab7-66f6cc099a59": "User.Read.All",
        "e1fe6dd8-ba31-4d61-89e7-88639da4683d": "User.Read",
        "06da0dbc-49e2-44d2-8312-53f166ab848a": "Directory.Read.All",
        "c5366453-9fb0-48a5-a156-24f0c49a4b84": "Directory.ReadWrite.All",
        "0e263e50-5827-48a4-b97c-d940288653c7": "Directory.AccessAsUser.All",
        "0c0064ea-477b-4130-82a5-4c2cc4ff68aa": "DelegatedAdminRelationship.Read.All",
        "b340eb25-3456-403f-be2f-af7a0d370277": "User.ReadBasic.All",
        "c79f8feb-a9db-4090-85f9-90d820caa0eb": "Application.Read.All",
        "bdfbf15f-ee85-4955-8675-146e8e5296b5": "Application.ReadWrite.All",
        "41ce6ca6-6826-4807-84f1-1c82854f7ee5": "DelegatedPermissionGrant.ReadWrite.All",
        "84bccea3-f856-4a8a-967b-dbe0a3d53a64": "AppRoleAssignment.ReadWrite.All",
        "4908d5b9-3fb2-4b1e-9336-1888b7937185": "Organization.Read.All",
        "5f8c59db-677d-491f-a6b8-5f174b11ec1d": "Group.Read.All",
        "bc024368-1153-4739-b217-4326f2e966d0": "GroupMember.Read.All",
        "741c54c3-0c1e-44a1-818b-3f97ab4e8c83": "RoleManagement.Read.Directory",
        "2f9ee017-59c1-4f1d-9472-bd5529a7b311": "Domain.Read.All",
        "81594d25-e88e-49cf-ac8c-fecbff49f994": "CrossTenantInformation.ReadBasic.All",
        "e4c9e354-4dc5-45b8-9e7c-e1393b0b1a20": "AuditLog.Read.All",
        "572fea84-0151-49b2-9301-11cb16974376": "Policy.Read.All",
    },
    PARTNER_CENTER: {"1cebfa2a-fb4d-419e-b5f9-839b4383e05a": "user_impersonation"},
    PARTNER_API: {"eabf9ef3-1f9e-f3da-19a1-bcd60d080567": "user_impersonation"},
    AZURE_MANAGEMENT: {"41094075-9dad-400e-a0bd-54e686782033": "user_impersonation"},
}
_PLAIN: dict[str, Any] = {
    "isDisabled": None,
    "disabledByMicrosoftStatus": None,
    "servicePrincipalLockConfiguration": None,
    "verifiedPublisher": {"displayName": None, "verifiedPublisherId": None, "addedDateTime": None},
    "isFallbackPublicClient": None,
    "identifierUris": [],
    "tags": [],
    "appRoles": [],
    "spa": {"redirectUris": []},
    "publicClient": {"redirectUris": []},
}
_NO_IMPLICIT_GRANTS = {"enableIdTokenIssuance": False, "enableAccessTokenIssuance": False}
_CHANGEABLE = {
    "displayName",
    "signInAudience",
    "web",
    "requiredResourceAccess",
    "keyCredentials",
    *_PLAIN,
} - {"disabledByMicrosoftStatus", "verifiedPublisher"}


# --- as Graph shows it ------------------------------------------------------------------------------------------------


def application_item(call: Call, application: Application) -> Item:
    more = application.more
    audience = more.get("signInAudience", _MANY_TENANTS if application.multi_tenant else _ONE_TENANT)
    return {
        "id": application.object_id,
        "appId": application.app_id,
        "displayName": application.name,
        "signInAudience": audience,
        "createdDateTime": "2026-01-01T00:00:00Z",
        **{name: more.get(name, value) for name, value in _PLAIN.items()},
        "isDisabled": more.get("isDisabled") if application.enabled else True,
        "web": {
            "homePageUrl": None,
            "redirectUris": sorted(application.redirect_uris),
            "implicitGrantSettings": _NO_IMPLICIT_GRANTS | more.get("implicitGrantSettings", {}),
        },
        "requiredResourceAccess": _required(application),
        "passwordCredentials": [
            {
                "keyId": secret_id(value),
                "displayName": "secret",
                "hint": value[:3],
                "secretText": None,
                "endDateTime": moment(until),
            }
            for value, until in application.secrets.items()
        ],
        "keyCredentials": [_key_item(der) for der in application.certificates],
    }


def secret_id(value: str) -> str:
    """Return the id under which Microsoft lists a client secret."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(value.encode()).hexdigest()))


def _key_item(der: bytes) -> Item:
    certificate = x509.load_der_x509_certificate(der)
    thumbprint = hashlib.sha1(der).hexdigest().upper()  # noqa: S324  # as Graph names certificates
    return {
        "keyId": str(uuid.uuid5(uuid.NAMESPACE_OID, thumbprint)),
        "customKeyIdentifier": thumbprint,
        "displayName": "CN=Example",
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "key": None,
        "startDateTime": moment(certificate.not_valid_before_utc.timestamp()),
        "endDateTime": moment(certificate.not_valid_after_utc.timestamp()),
    }


def _required(application: Application) -> list[Item]:
    found: list[Item] = []
    roles: dict[str, list[str]] = application.more.get("roles", {})
    for resource in sorted(application.permissions.keys() | roles.keys()):
        ids = {name: key for key, name in _SCOPES.get(resource, {}).items()}
        names = sorted(application.permissions.get(resource, ()))
        access = [{"id": ids.get(name, name), "type": "Scope"} for name in names]
        access += [{"id": role, "type": "Role"} for role in roles.get(resource, ())]
        found.append({"resourceAppId": resource, "resourceAccess": access})
    return found


# --- changes ----------------------------------------------------------------------------------------------------------


def _change(call: Call, application: Application, content: Item) -> None:
    """Take over the properties of a body; what it does not name stays."""
    if unknown := content.keys() - _CHANGEABLE:
        raise bad_request(f"Property '{min(unknown)}' is read-only or unknown.")
    more = application.more
    application.name = str(content.get("displayName", application.name))
    if "signInAudience" in content:
        audience = content["signInAudience"]
        if audience not in {_ONE_TENANT, _MANY_TENANTS, *_PERSONAL}:
            raise bad_request("Invalid value specified for property 'signInAudience'.")
        application.multi_tenant = audience != _ONE_TENANT
        more["signInAudience"] = audience
    web = content.get("web", {})
    if "redirectUris" in web:
        if not all(str(uri).startswith(("https://", "http://localhost")) for uri in web["redirectUris"]):
            raise bad_request("Invalid value specified for property 'redirectUris'.")
        application.redirect_uris = set(web["redirectUris"])
    if "implicitGrantSettings" in web:
        more["implicitGrantSettings"] = dict(web["implicitGrantSettings"])
    if "requiredResourceAccess" in content:
        _require(application, content["requiredResourceAccess"])
    if "keyCredentials" in content:
        application.certificates = [_certificate(each) for each in content["keyCredentials"]]
    if "isDisabled" in content:
        application.enabled = not content["isDisabled"]
    more |= {name: content[name] for name in _PLAIN if name in content}


def _require(application: Application, listed: list[Item]) -> None:
    permissions: dict[str, set[str]] = {}
    roles: dict[str, list[str]] = {}
    for resource in listed:
        names = _SCOPES.get(guid(resource["resourceAppId"]), {})
        for access in resource["resourceAccess"]:
            if access["type"] == "Role":
                roles.setdefault(resource["resourceAppId"], []).append(guid(access["id"]))
            else:
                key = guid(access["id"])
                permissions.setdefault(resource["resourceAppId"], set()).add(names.get(key, key))
    application.permissions, application.more["roles"] = permissions, roles


def _certificate(item: Item) -> bytes:
    try:
        der = base64.b64decode(item["key"])
        x509.load_der_x509_certificate(der)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise bad_request("Key credential is invalid.") from None
    return der


# --- operations -------------------------------------------------------------------------------------------------------


def _own(call: Call) -> list[Application]:
    return [each for each in call.world.applications.values() if each.home_tenant == call.tenant.tenant_id]


def _found(call: Call) -> Application:
    app_id, object_id = call.params.get("app_id", "").lower(), call.params.get("object_id", "").lower()
    for each in _own(call):
        if each.app_id == app_id or each.object_id == object_id:
            return each
    raise not_found(app_id or object_id)


def _write(call: Call) -> Application:
    if call.may(_WRITER_OF_OWN) and call.caller.user.oid in _found(call).owners:
        return _found(call)
    call.need(*_WRITERS)
    call.need_role()
    return _found(call)


def _list(call: Call) -> Answer:
    call.need(*_READERS)
    filterable: dict[str, Callable[[Application], object]] = {
        "appId": lambda each: each.app_id,
        "displayName": lambda each: each.name,
        "id": lambda each: each.object_id,
    }
    return collection(call, "applications", _own(call), partial(application_item, call), filterable=filterable)


def _get(call: Call) -> Answer:
    call.need(*_READERS)
    return one(call, "applications", application_item(call, _found(call)))


def _create(call: Call) -> Answer:
    call.need(*_WRITERS)
    call.need_role()
    content = call.content()
    if not content.get("displayName"):
        raise bad_request("A value is required for property 'displayName' of resource 'Application'.")
    application = Application(
        app_id=str(uuid.uuid4()), name="", home_tenant=call.tenant.tenant_id, owners=[call.caller.user.oid]
    )
    _change(call, application, {"signInAudience": _ONE_TENANT} | content)
    call.world.applications[application.app_id] = application
    context = {"@odata.context": call.context("applications/$entity")}
    return Answer(201, context | application_item(call, application))


def _update(call: Call) -> Answer:
    _change(call, _write(call), call.content())
    return Answer(204)


def _add_password(call: Call) -> Answer:
    application, value = _write(call), secrets.token_urlsafe(30)
    application.secrets[value] = until = call.world.now() + 180 * 86_400
    return Answer(200, {"keyId": secret_id(value), "secretText": value, "endDateTime": moment(until)})


def _owners(call: Call) -> Answer:
    call.need(*_READERS)
    people = [call.tenant.users[oid] for oid in _found(call).owners if oid in call.tenant.users]
    kind = {"@odata.type": "#microsoft.graph.user"}
    return collection(
        call,
        "directoryObjects",
        people,
        lambda user: kind | {"id": user.oid, "displayName": user.name, "userPrincipalName": user.upn},
    )


def _add_owner(call: Call) -> Answer:
    application = _write(call)
    oid = str(call.content().get("@odata.id", "")).rpartition("/")[2]
    if oid not in call.tenant.users:
        raise not_found(oid)
    if oid in application.owners:
        raise GraphError(400, "Request_BadRequest", "One or more added object references already exist.")
    application.owners.append(oid)
    return Answer(204)


def _federated(call: Call) -> Answer:
    call.need(*_READERS)
    items = [
        {"id": str(number), "name": f"identity-{number}", "issuer": issuer, "subject": subject, "audiences": [audience]}
        for number, (issuer, subject, audience) in enumerate(_found(call).federated)
    ]
    return collection(call, "federatedIdentityCredentials", items, dict)


def _add_federated(call: Call) -> Answer:
    application, content = _write(call), call.content()
    trusted = (str(content["issuer"]), str(content["subject"]), str(content["audiences"][0]))
    application.federated.append(trusted)
    return Answer(201, {"issuer": trusted[0], "subject": trusted[1], "audiences": [trusted[2]]})


_ONE = r"/applications(?:\(appId='(?P<app_id>[^']+)'\)|/(?P<object_id>[^/]+))"

OPERATIONS: list[tuple[str, str, str, Operation]] = [
    ("GET", "/applications", "list applications", _list),
    ("POST", "/applications", "create application", _create),
    ("GET", _ONE, "get application", _get),
    ("PATCH", _ONE, "change application", _update),
    ("POST", f"{_ONE}/addPassword", "add password", _add_password),
    ("GET", f"{_ONE}/owners", "list owners", _owners),
    ("POST", rf"{_ONE}/owners/\$ref", "add owner", _add_owner),
    ("GET", f"{_ONE}/federatedIdentityCredentials", "list federated credentials", _federated),
    ("POST", f"{_ONE}/federatedIdentityCredentials", "add federated credential", _add_federated),
]
