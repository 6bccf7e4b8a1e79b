"""Partner Center as the imitation serves it: customers and profiles; consents are in ``partner_center_consents``.

Nothing else of Partner Center exists here: 404 with code 1000.

Source: Partner Center REST, "Get a list of customers", "Get a customer by ID", "Get an organization profile", "Get the
partner legal business profile".
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.sandbox import partner_center_consents
from tests.sandbox.partner_center_calls import Call, PartnerCenterError, route
from tests.sandbox.world import GLOBAL_ADMINISTRATOR, SWITCHES, Tenant, World, odd

SWITCHES.update(
    {
        "continuation_seconds": 600,  # life of an MS-ContinuationToken
        "continuation_in_body": False,  # the token is a member of the body, too
        "link_prefix": "",  # or "/v1": what the addresses of links begin with
    }
)

DIRECTORY_WRITERS = "9360feb5-f418-4baa-8175-e2a00bac4301"
GLOBAL_READER = "f2ef992c-3afb-46b9-b7cf-a126ee74c451"
ORGANIZATION_READERS = {DIRECTORY_WRITERS, GLOBAL_READER, GLOBAL_ADMINISTRATOR}


# --- customers ----------------------------------------------------------------------------------------------------


def _link(world: World, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    listed = [{"key": name, "value": value} for name, value in (headers or {}).items()]
    return {"uri": world.switches["link_prefix"] + path, "method": "GET", "headers": listed}


def _company_profile(world: World, customer: Tenant) -> dict[str, Any]:
    path = f"/customers/{customer.tenant_id}/profiles/company"
    return {
        "tenantId": customer.tenant_id,
        "domain": customer.domain,
        "companyName": customer.name,
        "links": {"self": _link(world, path)},
        "attributes": {"objectType": "CustomerCompanyProfile"},
    }


def _customer(world: World, customer: Tenant, relationship: str) -> dict[str, Any]:
    return {
        "id": customer.tenant_id,
        "companyProfile": _company_profile(world, customer),
        "relationshipToPartner": relationship,
        "links": {"self": _link(world, f"/customers/{customer.tenant_id}")},
        "attributes": {"objectType": "Customer"},
    }


def _listed(world: World, customer: Tenant, relationship: str) -> dict[str, Any]:
    item = odd(world, _customer(world, customer, relationship))
    if "id" not in item:
        del item["companyProfile"]["tenantId"]
    if customer.tenant_id in world.switches["items_with_odd_name"]:
        item["companyProfile"]["companyName"] += "\0\ud800"
    return item


def _matches(text: str) -> Callable[[Tenant], bool]:
    """Return the test that this ``filter`` stands for."""
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        content = None
    if content == {}:
        return lambda customer: True
    wanted = content if isinstance(content, dict) else {}
    value = str(wanted.get("Value", "")).lower()
    if wanted.get("Operator") != "starts_with":
        raise PartnerCenterError(400, "800002", "The filter is not valid.")
    match wanted.get("Field"):
        case "CompanyName":
            return lambda customer: customer.name.lower().startswith(value)
        case "Domain":
            return lambda customer: customer.domain.lower().startswith(value)
        case "IndirectReseller" | "IndirectCloudSolutionProvider":
            return lambda customer: False  # no partner of the imitation has an indirect one
    raise PartnerCenterError(400, "800002", "The filter's field is not valid.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    size: int
    filter: str
    start: int


def _read_query(call: Call) -> _Query:
    """Return which page is asked for: the first of a query, or what a continuation token stands for."""
    query, headers = call.request.query, call.request.headers
    seek, token = query.get("seekOperation", "First"), headers.get("MS-ContinuationToken", "")
    owner = f"{call.partner.tenant_id}/{call.user.oid}"
    if seek in {"Next", "0"}:
        binding, start, expires = call.world.continuations.get(token, ("", 0, 0))
        holder, _, rest = binding.partition("\n")
        size, _, wanted = rest.partition("\n")
        if holder != owner or expires <= call.world.now() or query.get("filter", wanted) != wanted:
            raise PartnerCenterError(400, "3000", "The continuation token is not valid.")
        return _Query(size=int(size), filter=wanted, start=start)
    limit = int(call.world.switches["page_limit"])
    text, wanted = query.get("size", str(limit)), query.get("filter", "")
    if seek not in {"First", "2"} or not text.isascii() or not text.isdigit() or (text == "0" and not wanted):
        raise PartnerCenterError(400, "3000", "size or seekOperation is not valid.")
    return _Query(size=min(int(text) or limit, limit), filter=wanted, start=0)


async def _customers(call: Call) -> tuple[int, Any]:
    world, query = call.world, _read_query(call)
    matches = _matches(query.filter)
    listed = [
        (world.tenants[customer_id], relationship)
        for customer_id, relationship in world.customers.get(call.partner.tenant_id, {}).items()
        if customer_id in world.tenants and matches(world.tenants[customer_id])
    ]
    page = listed[query.start : query.start + query.size]
    asked = {"size": str(query.size)} | ({"filter": query.filter} if query.filter else {})
    body: dict[str, Any] = {
        "totalCount": len(page),
        "items": [_listed(world, customer, relationship) for customer, relationship in page],
        "links": {"self": _link(world, f"/customers?{urlencode(asked)}")},
        "attributes": {"objectType": "Collection"},
    }
    if query.start + query.size < len(listed):
        # What real tokens may contain is in every one of ours.
        token = f"AAEAAAD+/,{base64.b64encode(secrets.token_bytes(200)).decode()}=="
        binding = f"{call.partner.tenant_id}/{call.user.oid}\n{query.size}\n{query.filter}"
        expires = int(world.now() + world.switches["continuation_seconds"])
        world.continuations[token] = (binding, query.start + query.size, expires)
        path = f"/customers?{urlencode(asked | {'seekOperation': 'Next'})}"
        body["links"]["next"] = _link(world, path, {"MS-ContinuationToken": token})
        if world.switches["continuation_in_body"]:
            body["continuationToken"] = token
    return 200, body


def _profile(tenant: Tenant, object_type: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(uuid.UUID(tenant.tenant_id), object_type)),
        "companyName": tenant.name,
        "defaultAddress": {
            "country": "US",
            "city": "Redmond",
            "state": "WA",
            "addressLine1": "1 Example Way",
            "postalCode": "98052",
            "firstName": "Alex",
            "lastName": "Example",
            "phoneNumber": "5550100",
        },
        "email": f"office@{tenant.domain}",
        "language": "en",
        "culture": "en-US",
        "attributes": {"etag": "1", "objectType": object_type},
    }


async def _one_customer(call: Call) -> tuple[int, Any]:
    customer = call.customer()
    relationship = call.world.customers[call.partner.tenant_id][customer.tenant_id]
    billing = _profile(customer, "CustomerBillingProfile") | {"firstName": "Alex", "lastName": "Example"}
    return 200, _customer(call.world, customer, relationship) | {
        "commerceId": str(uuid.uuid5(uuid.UUID(customer.tenant_id), "commerce")),
        "billingProfile": billing,
        "allowDelegatedAccess": False,  # GDAP only: address, e-mail and custom domains are left out
    }


async def _company(call: Call) -> tuple[int, Any]:
    return 200, _company_profile(call.world, call.customer())


async def _customer_organization(call: Call) -> tuple[int, Any]:
    customer = call.customer()
    if not call.world.gdap_roles(call.partner.tenant_id, call.user, customer.tenant_id) & ORGANIZATION_READERS:
        raise PartnerCenterError(403, "900150", "The supplied role has no rights for this operation.")
    return 200, [
        {
            "street": None,
            "countryLetterCode": "US",
            "postalCode": None,
            "city": None,
            "state": None,
            "displayName": customer.name,
            "technicalNotificationMails": [f"office@{customer.domain}"],
        }
    ]


# --- the partner itself -------------------------------------------------------------------------------------------


async def _organization_profile(call: Call) -> tuple[int, Any]:
    return 200, _profile(call.partner, "OrganizationProfile") | {
        "tenantId": call.partner.tenant_id,
        "domain": call.partner.domain,
        "profileType": "OrganizationProfile",
        "links": {"self": _link(call.world, "/profiles/organization")},
    }


async def _legal_business_profile(call: Call) -> tuple[int, Any]:
    if call.request.query.get("vettingVersion", "Current") not in {"None", "Current", "LastFinalized"}:
        raise PartnerCenterError(400, "3000", "vettingVersion is not valid.")
    profile = _profile(call.partner, "LegalBusinessProfile")
    address = profile.pop("defaultAddress")
    contact = {"firstName": "Alex", "lastName": "Example", "email": profile["email"], "phoneNumber": "5550100"}
    return 200, {
        "companyName": profile["companyName"],
        "address": address,
        "primaryContact": contact,
        "companyApproverAddress": address,
        "companyApproverEmail": profile["email"],
        "vettingStatus": "authorized",
        "vettingSubStatus": "none",
        "profileType": "LegalBusinessProfile",
        "links": {"self": _link(call.world, "/profiles/legalbusiness")},
        "attributes": profile["attributes"],
    }


async def _nothing(call: Call) -> tuple[int, Any]:
    raise PartnerCenterError(404, "1000", "The resource was not found.")


def routes(world: World) -> list[web.RouteDef]:
    """Return the operations of the Partner Center host."""
    return [
        route(world, "GET", "/v1/customers", "list customers", _customers),
        route(world, "GET", "/v1/customers/{customer}", "get customer", _one_customer),
        route(world, "GET", "/v1/customers/{customer}/profiles/company", "get company profile", _company),
        route(
            world, "GET", "/v1/customers/{customer}/organization", "get customer organization", _customer_organization
        ),
        route(world, "GET", "/v1/profiles/organization", "get organization profile", _organization_profile),
        route(world, "GET", "/v1/profiles/legalbusiness", "get legal business profile", _legal_business_profile),
        *partner_center_consents.routes(world),
        route(world, "*", "/{rest:.*}", "unknown", _nothing),
    ]
