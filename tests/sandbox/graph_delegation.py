"""Graph's tenantRelationships: GDAP relationships, their assignments, delegated customers, tenant information.

Relationships are read in the partner's own tenant. Of the changes only deletions exist here: the product asks for no
others, and the control address sets the states.

Source: Microsoft Graph v1.0, delegatedAdminRelationship, delegatedAdminAccessAssignment, delegatedAdminCustomer,
tenantInformation.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial

from tests.sandbox.graph_calls import (
    Answer,
    Call,
    Denied,
    Item,
    Operation,
    bad_request,
    collection,
    guid,
    moment,
    not_found,
    one,
)
from tests.sandbox.world import Assignment, Relationship, Tenant, odd

_WRITER = "DelegatedAdminRelationship.ReadWrite.All"
_READERS = ("DelegatedAdminRelationship.Read.All", _WRITER)
_MAX_TOP = 300
_DAY = 86_400
_UNKNOWN_START = 1_767_225_600  # 1 January 2026: when what has no activation was created


def _etag(number: int) -> str:
    return f'W/"{base64.b64encode(f"'{number:08d}'".encode()).decode()}"'


def _roles(roles: set[str]) -> Item:
    return {"unifiedRoles": [{"roleDefinitionId": role} for role in sorted(roles)]}


def _status(call: Call, relationship: Relationship) -> str:
    """Return the status now: the clock ends what nobody ended."""
    over = relationship.ends is not None and relationship.ends <= call.world.now()
    return "expired" if over and relationship.status in {"active", "expiring"} else relationship.status


def _relationship_item(call: Call, relationship: Relationship) -> Item:
    started, ends = relationship.activated, relationship.ends
    days = 730 if started is None or ends is None else max(1, round((ends - started) / _DAY))
    customer = call.world.tenants.get(relationship.customer)
    created = moment(_UNKNOWN_START if started is None else started - _DAY)
    item = {
        "@odata.etag": _etag(relationship.etag),
        "id": relationship.relationship_id,
        "displayName": relationship.name,
        "duration": f"P{days}D",
        "customer": {"tenantId": customer.tenant_id, "displayName": customer.name} if customer else None,
        "accessDetails": _roles(relationship.roles),
        "status": _status(call, relationship),
        "autoExtendDuration": "PT0S",
        "createdDateTime": created,
        "lastModifiedDateTime": created if started is None else moment(started),
        "activatedDateTime": moment(started),
        "endDateTime": moment(ends),
    }
    return odd(call.world, item, "displayName")


def _assignment_item(call: Call, relationship: Relationship, assignment: Assignment) -> Item:
    item = {
        "@odata.etag": _etag(relationship.etag),
        "id": assignment.assignment_id,
        "status": assignment.status,
        "createdDateTime": moment(assignment.created),
        "lastModifiedDateTime": moment(assignment.created),
        "accessContainer": {"accessContainerId": assignment.group, "accessContainerType": "securityGroup"},
        "accessDetails": _roles(assignment.roles),
    }
    return odd(call.world, item)


def _own(call: Call, *scopes: str) -> list[Relationship]:
    """Return the relationships of the token's tenant."""
    call.need(*scopes)
    if call.tenant.kind != "partner":
        raise Denied
    return [each for each in call.world.relationships if each.partner == call.tenant.tenant_id]


def _found(call: Call, *scopes: str) -> Relationship:
    call.need(*scopes)
    if call.tenant.kind != "partner":
        raise Denied
    wanted = call.params["id"].lower()
    found = call.world.relationship(wanted)
    if found is None:
        raise not_found(wanted)
    if found.partner != call.tenant.tenant_id:
        crossing = {"home": call.tenant.tenant_id, "asked": found.partner, "operation": "GDAP relationship"}
        call.world.crossings.append(crossing)
        raise not_found(wanted)
    return found


def _relationships(call: Call) -> Answer:
    filterable: dict[str, Callable[[Relationship], object]] = {
        "status": partial(_status, call),
        "customer/tenantId": lambda relationship: relationship.customer,
        "displayName": lambda relationship: relationship.name,
        "id": lambda relationship: relationship.relationship_id,
    }
    return collection(
        call,
        "tenantRelationships/delegatedAdminRelationships",
        _own(call, *_READERS),
        partial(_relationship_item, call),
        filterable=filterable,
        max_top=_MAX_TOP,
    )


def _one_relationship(call: Call) -> Answer:
    item = _relationship_item(call, _found(call, *_READERS))
    return one(call, "tenantRelationships/delegatedAdminRelationships", item)


def _remove_relationship(call: Call) -> Answer:
    found = _found(call, _WRITER)
    call.check_etag(_etag(found.etag))
    if found.status != "created":
        raise bad_request("Only a relationship with the status created can be deleted.")
    call.world.relationships.remove(found)
    return Answer(204)


def _assignments(call: Call) -> Answer:
    found = _found(call, *_READERS)
    fragment = f"tenantRelationships/delegatedAdminRelationships('{found.relationship_id}')/accessAssignments"
    return collection(call, fragment, found.assignments, partial(_assignment_item, call, found), max_top=_MAX_TOP)


def _found_assignment(call: Call, *scopes: str) -> tuple[Relationship, Assignment]:
    found = _found(call, *scopes)
    for each in found.assignments:
        if each.assignment_id == call.params["assignment"].lower():
            return found, each
    raise not_found(call.params["assignment"])


def _one_assignment(call: Call) -> Answer:
    relationship, assignment = _found_assignment(call, *_READERS)
    fragment = f"tenantRelationships/delegatedAdminRelationships('{relationship.relationship_id}')/accessAssignments"
    return one(call, fragment, _assignment_item(call, relationship, assignment))


def _remove_assignment(call: Call) -> Answer:
    relationship, assignment = _found_assignment(call, _WRITER)
    call.check_etag(_etag(relationship.etag))
    relationship.assignments.remove(assignment)
    relationship.etag += 1
    return Answer(204)


def _customers(call: Call) -> list[Item]:
    active = {each.customer for each in _own(call, *_READERS) if _status(call, each) == "active"}
    tenants = [call.world.tenants[customer] for customer in sorted(active) if customer in call.world.tenants]
    return [{"id": each.tenant_id, "tenantId": each.tenant_id, "displayName": each.name} for each in tenants]


def _list_customers(call: Call) -> Answer:
    fragment = "tenantRelationships/delegatedAdminCustomers"
    filterable: dict[str, Callable[[Item], object]] = {
        "tenantId": lambda item: item["tenantId"],
        "displayName": lambda item: item["displayName"],
    }
    return collection(call, fragment, _customers(call), dict, filterable=filterable, max_top=_MAX_TOP)


def _one_customer(call: Call) -> Answer:
    for item in _customers(call):
        if item["id"] == call.params["id"].lower():
            return one(call, "tenantRelationships/delegatedAdminCustomers", item)
    raise not_found(call.params["id"])


def _tenant_information(call: Call) -> Answer:
    call.need("CrossTenantInformation.ReadBasic.All")
    text = call.params.get("domain") or guid(call.params.get("tenant"), "tenantId")
    found: Tenant | None = call.world.tenant(text, call.cloud.key)
    if found is None:
        raise not_found(text)
    item = {
        "tenantId": found.tenant_id,
        "federationBrandName": None,
        "displayName": found.name,
        "defaultDomainName": found.domain,
    }
    return Answer(200, {"@odata.context": call.context("microsoft.graph.tenantInformation")} | item)


_BASE = "/tenantRelationships"
_RELATIONSHIP = f"{_BASE}/delegatedAdminRelationships/(?P<id>[^/]+)"
_ASSIGNMENT = f"{_RELATIONSHIP}/accessAssignments/(?P<assignment>[^/]+)"
_BY_DOMAIN = r"/(?:microsoft\.graph\.)?findTenantInformationByDomainName\(domainName='(?P<domain>[^']+)'\)"
_BY_TENANT = r"/(?:microsoft\.graph\.)?findTenantInformationByTenantId\(tenantId='(?P<tenant>[^']+)'\)"

OPERATIONS: list[tuple[str, str, str, Operation]] = [
    ("GET", f"{_BASE}/delegatedAdminRelationships", "list relationships", _relationships),
    ("GET", _RELATIONSHIP, "get relationship", _one_relationship),
    ("DELETE", _RELATIONSHIP, "delete relationship", _remove_relationship),
    ("GET", f"{_RELATIONSHIP}/accessAssignments", "list assignments", _assignments),
    ("GET", _ASSIGNMENT, "get assignment", _one_assignment),
    ("DELETE", _ASSIGNMENT, "delete assignment", _remove_assignment),
    ("GET", f"{_BASE}/delegatedAdminCustomers", "list delegated customers", _list_customers),
    ("GET", f"{_BASE}/delegatedAdminCustomers/(?P<id>[^/]+)", "get delegated customer", _one_customer),
    ("GET", _BASE + _BY_TENANT, "find tenant", _tenant_information),
    ("GET", _BASE + _BY_DOMAIN, "find tenant", _tenant_information),
]
