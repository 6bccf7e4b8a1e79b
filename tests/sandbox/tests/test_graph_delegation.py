"""Microsoft Graph of the sandbox: GDAP relationships, assignments, delegated customers, over the wire."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Caller, graph_error, values
from tests.sandbox.tests.wire import Wire
from tests.sandbox.world import CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS, Relationship, known_id

GDAP = "DelegatedAdminRelationship.Read.All"
GDAP_WRITE = "DelegatedAdminRelationship.ReadWrite.All"
RELATIONSHIPS = "/tenantRelationships/delegatedAdminRelationships"


@pytest.fixture
def caller(sandbox: Sandbox, wire: Wire) -> Caller:
    return Caller(sandbox=sandbox, wire=wire)


def more_relationships(caller: Caller, number: int) -> None:
    for index in range(number):
        caller.world.relationships.append(
            Relationship(
                relationship_id=f"{known_id('more', str(index))}-{caller.partner.tenant_id}",
                name=f"More {index}",
                partner=caller.partner.tenant_id,
                customer=caller.customer.tenant_id,
                roles={DIRECTORY_READERS},
                status="terminated",
            )
        )


# --- GDAP ---------------------------------------------------------------------------------------------------------


def test_relationships_have_the_documented_members(caller: Caller) -> None:
    path = f"{RELATIONSHIPS}?$filter={quote(f"customer/tenantId eq '{caller.customer.tenant_id}'")}&$top=300"
    (item,) = values(caller.graph("GET", path, GDAP))
    assert len(item["id"]) == 73
    assert item["@odata.etag"].startswith('W/"')
    assert (item["status"], item["duration"], item["autoExtendDuration"]) == ("active", "P366D", "PT0S")
    assert item["customer"] == {"tenantId": caller.customer.tenant_id, "displayName": caller.customer.name}
    roles = {role["roleDefinitionId"] for role in item["accessDetails"]["unifiedRoles"]}
    assert roles == {CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS}
    assert item["activatedDateTime"] < item["endDateTime"]
    assert caller.graph("GET", f"{RELATIONSHIPS}/{item['id']}", GDAP).json()["id"] == item["id"]


def test_relationships_are_filtered_by_status_and_by_two_properties(caller: Caller) -> None:
    more_relationships(caller, 2)
    active = values(caller.graph("GET", f"{RELATIONSHIPS}?$filter={quote("status eq 'active'")}", GDAP))
    assert len(active) == 3
    both = f"status eq 'terminated' and customer/tenantId eq '{caller.customer.tenant_id}'"
    assert len(values(caller.graph("GET", f"{RELATIONSHIPS}?$filter={quote(both)}", GDAP))) == 2


def test_the_clock_ends_a_relationship(caller: Caller) -> None:
    path, customers = (
        f"{RELATIONSHIPS}/{caller.relationship.relationship_id}",
        "/tenantRelationships/delegatedAdminCustomers",
    )
    assert len(values(caller.graph("GET", customers, GDAP))) == 3
    caller.world.advance(366 * 86_400)
    assert caller.graph("GET", path, GDAP).json()["status"] == "expired"
    assert values(caller.graph("GET", customers, GDAP)) == []


def test_relationships_come_in_pages_up_to_300(caller: Caller) -> None:
    more_relationships(caller, 320)
    assert [len(page) for page in caller.all_pages(f"{RELATIONSHIPS}?$top=300", GDAP)] == [300, 23]
    assert [len(page) for page in caller.all_pages(RELATIONSHIPS, GDAP)] == [100, 100, 100, 23]
    assert graph_error(caller.graph("GET", f"{RELATIONSHIPS}?$top=301", GDAP)) == (400, "Request_BadRequest")


@pytest.mark.req("S-53")
def test_a_partner_sees_only_its_own_relationships(caller: Caller) -> None:
    foreign = next(one for one in caller.world.relationships if one.partner != caller.partner.tenant_id)
    listed = values(caller.graph("GET", RELATIONSHIPS, GDAP))
    assert foreign.relationship_id not in {item["id"] for item in listed}
    assert not caller.world.crossings
    path = f"{RELATIONSHIPS}/{foreign.relationship_id}"
    for address in (path, f"{path}/accessAssignments"):
        assert graph_error(caller.graph("GET", address, GDAP)) == (404, "Request_ResourceNotFound")
    assert {crossing["asked"] for crossing in caller.world.crossings} == {foreign.partner}


def test_relationships_are_not_read_in_a_customers_tenant(caller: Caller) -> None:
    caller.consented()
    assert caller.graph("GET", RELATIONSHIPS, GDAP, tenant=caller.customer).status == 403


def test_assignments_name_group_roles_and_status(caller: Caller) -> None:
    path = f"{RELATIONSHIPS}/{caller.relationship.relationship_id}/accessAssignments"
    (item,) = values(caller.graph("GET", path, GDAP))
    assert (item["status"], item["accessContainer"]["accessContainerType"]) == ("active", "securityGroup")
    assert item["accessContainer"]["accessContainerId"] == known_id("group", "northwind", "GDAP")
    assert len(item["accessDetails"]["unifiedRoles"]) == 2
    assert caller.graph("GET", f"{path}/{item['id']}", GDAP).json()["id"] == item["id"]
    assert caller.graph("GET", f"{path}/{known_id('no')}", GDAP).status == 404


def test_deleting_needs_the_current_etag(caller: Caller) -> None:
    caller.relationship.status = "created"
    path = f"{RELATIONSHIPS}/{caller.relationship.relationship_id}"
    assignment = f"{path}/accessAssignments/{caller.relationship.assignments[0].assignment_id}"
    etag = {"If-Match": caller.graph("GET", assignment, GDAP).json()["@odata.etag"]}
    assert caller.graph("DELETE", assignment, GDAP, headers=etag).status == 403
    assert caller.graph("DELETE", assignment, GDAP_WRITE).status == 428
    assert caller.graph("DELETE", assignment, GDAP_WRITE, headers=etag).status == 204
    assert caller.graph("DELETE", path, GDAP_WRITE, headers=etag).status == 412
    etag = {"If-Match": caller.graph("GET", path, GDAP).json()["@odata.etag"]}
    assert caller.graph("DELETE", path, GDAP_WRITE, headers=etag).status == 204
    assert caller.graph("GET", path, GDAP).status == 404


def test_an_active_relationship_cannot_be_deleted(caller: Caller) -> None:
    path = f"{RELATIONSHIPS}/{caller.relationship.relationship_id}"
    assert caller.graph("DELETE", path, GDAP_WRITE, headers={"If-Match": "*"}).status == 400


def test_delegated_customers_are_those_with_an_active_relationship(caller: Caller) -> None:
    path = "/tenantRelationships/delegatedAdminCustomers"
    caller.relationship.status = "terminated"
    listed = values(caller.graph("GET", path, GDAP))
    assert (len(listed), caller.customer.tenant_id in {item["tenantId"] for item in listed}) == (2, False)
    assert caller.graph("GET", f"{path}/{listed[0]['id']}", GDAP).json()["displayName"] == listed[0]["displayName"]
    assert caller.graph("GET", f"{path}/{caller.customer.tenant_id}", GDAP).status == 404


def test_tenant_information_is_found_by_id_and_domain(caller: Caller) -> None:
    scope, customer = "CrossTenantInformation.ReadBasic.All", caller.foreign_customer
    base = "/tenantRelationships/findTenantInformationBy"
    for call in (f"TenantId(tenantId='{customer.tenant_id}')", f"DomainName(domainName='{customer.domain}')"):
        found = caller.graph("GET", base + call, scope).json()
        assert (found["tenantId"], found["displayName"]) == (customer.tenant_id, customer.name)
    assert caller.graph("GET", f"{base}DomainName(domainName='no.example')", scope).status == 404
    assert caller.graph("GET", f"{base}TenantId(tenantId='rubbish')", scope).status == 400
