"""Microsoft Graph of the sandbox: GDAP relationships, assignments, delegated customers, over the wire."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Desk, graph_error, values
from tests.sandbox.tests.wire import Wire
from tests.sandbox.world import CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS, Relationship, known_id

GDAP = "DelegatedAdminRelationship.Read.All"
GDAP_WRITE = "DelegatedAdminRelationship.ReadWrite.All"
RELATIONSHIPS = "/tenantRelationships/delegatedAdminRelationships"


@pytest.fixture
def desk(sandbox: Sandbox, wire: Wire) -> Desk:
    return Desk(sandbox=sandbox, wire=wire)


def more_relationships(desk: Desk, number: int) -> None:
    for index in range(number):
        desk.world.relationships.append(
            Relationship(
                relationship_id=f"{known_id('more', str(index))}-{desk.partner.tenant_id}",
                name=f"More {index}",
                partner=desk.partner.tenant_id,
                customer=desk.customer.tenant_id,
                roles={DIRECTORY_READERS},
                status="terminated",
            )
        )


# --- GDAP ---------------------------------------------------------------------------------------------------------


def test_relationships_have_the_documented_members(desk: Desk) -> None:
    path = f"{RELATIONSHIPS}?$filter={quote(f"customer/tenantId eq '{desk.customer.tenant_id}'")}&$top=300"
    (item,) = values(desk.graph("GET", path, GDAP))
    assert len(item["id"]) == 73
    assert item["@odata.etag"].startswith('W/"')
    assert (item["status"], item["duration"], item["autoExtendDuration"]) == ("active", "P366D", "PT0S")
    assert item["customer"] == {"tenantId": desk.customer.tenant_id, "displayName": desk.customer.name}
    roles = {role["roleDefinitionId"] for role in item["accessDetails"]["unifiedRoles"]}
    assert roles == {CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS}
    assert item["activatedDateTime"] < item["endDateTime"]
    assert desk.graph("GET", f"{RELATIONSHIPS}/{item['id']}", GDAP).json()["id"] == item["id"]


def test_relationships_are_filtered_by_status_and_by_two_properties(desk: Desk) -> None:
    more_relationships(desk, 2)
    active = values(desk.graph("GET", f"{RELATIONSHIPS}?$filter={quote("status eq 'active'")}", GDAP))
    assert len(active) == 3
    both = f"status eq 'terminated' and customer/tenantId eq '{desk.customer.tenant_id}'"
    assert len(values(desk.graph("GET", f"{RELATIONSHIPS}?$filter={quote(both)}", GDAP))) == 2


def test_the_clock_ends_a_relationship(desk: Desk) -> None:
    path, customers = (
        f"{RELATIONSHIPS}/{desk.relationship.relationship_id}",
        "/tenantRelationships/delegatedAdminCustomers",
    )
    assert len(values(desk.graph("GET", customers, GDAP))) == 3
    desk.world.advance(366 * 86_400)
    assert desk.graph("GET", path, GDAP).json()["status"] == "expired"
    assert values(desk.graph("GET", customers, GDAP)) == []


def test_relationships_come_in_pages_up_to_300(desk: Desk) -> None:
    more_relationships(desk, 320)
    assert [len(page) for page in desk.all_pages(f"{RELATIONSHIPS}?$top=300", GDAP)] == [300, 23]
    assert [len(page) for page in desk.all_pages(RELATIONSHIPS, GDAP)] == [100, 100, 100, 23]
    assert graph_error(desk.graph("GET", f"{RELATIONSHIPS}?$top=301", GDAP)) == (400, "Request_BadRequest")


@pytest.mark.req("S-53")
def test_a_partner_sees_only_its_own_relationships(desk: Desk) -> None:
    foreign = next(one for one in desk.world.relationships if one.partner != desk.partner.tenant_id)
    listed = values(desk.graph("GET", RELATIONSHIPS, GDAP))
    assert foreign.relationship_id not in {item["id"] for item in listed}
    assert not desk.world.crossings
    path = f"{RELATIONSHIPS}/{foreign.relationship_id}"
    for address in (path, f"{path}/accessAssignments"):
        assert graph_error(desk.graph("GET", address, GDAP)) == (404, "Request_ResourceNotFound")
    assert {crossing["asked"] for crossing in desk.world.crossings} == {foreign.partner}


def test_relationships_are_not_read_in_a_customers_tenant(desk: Desk) -> None:
    desk.consented()
    assert desk.graph("GET", RELATIONSHIPS, GDAP, tenant=desk.customer).status == 403


def test_assignments_name_group_roles_and_status(desk: Desk) -> None:
    path = f"{RELATIONSHIPS}/{desk.relationship.relationship_id}/accessAssignments"
    (item,) = values(desk.graph("GET", path, GDAP))
    assert (item["status"], item["accessContainer"]["accessContainerType"]) == ("active", "securityGroup")
    assert item["accessContainer"]["accessContainerId"] == known_id("group", "northwind", "GDAP")
    assert len(item["accessDetails"]["unifiedRoles"]) == 2
    assert desk.graph("GET", f"{path}/{item['id']}", GDAP).json()["id"] == item["id"]
    assert desk.graph("GET", f"{path}/{known_id('no')}", GDAP).status == 404


def test_deleting_needs_the_current_etag(desk: Desk) -> None:
    desk.relationship.status = "created"
    path = f"{RELATIONSHIPS}/{desk.relationship.relationship_id}"
    assignment = f"{path}/accessAssignments/{desk.relationship.assignments[0].assignment_id}"
    etag = {"If-Match": desk.graph("GET", assignment, GDAP).json()["@odata.etag"]}
    assert desk.graph("DELETE", assignment, GDAP, headers=etag).status == 403
    assert desk.graph("DELETE", assignment, GDAP_WRITE).status == 428
    assert desk.graph("DELETE", assignment, GDAP_WRITE, headers=etag).status == 204
    assert desk.graph("DELETE", path, GDAP_WRITE, headers=etag).status == 412
    etag = {"If-Match": desk.graph("GET", path, GDAP).json()["@odata.etag"]}
    assert desk.graph("DELETE", path, GDAP_WRITE, headers=etag).status == 204
    assert desk.graph("GET", path, GDAP).status == 404


def test_an_active_relationship_cannot_be_deleted(desk: Desk) -> None:
    path = f"{RELATIONSHIPS}/{desk.relationship.relationship_id}"
    assert desk.graph("DELETE", path, GDAP_WRITE, headers={"If-Match": "*"}).status == 400


def test_delegated_customers_are_those_with_an_active_relationship(desk: Desk) -> None:
    path = "/tenantRelationships/delegatedAdminCustomers"
    desk.relationship.status = "terminated"
    listed = values(desk.graph("GET", path, GDAP))
    assert (len(listed), desk.customer.tenant_id in {item["tenantId"] for item in listed}) == (2, False)
    assert desk.graph("GET", f"{path}/{listed[0]['id']}", GDAP).json()["displayName"] == listed[0]["displayName"]
    assert desk.graph("GET", f"{path}/{desk.customer.tenant_id}", GDAP).status == 404


def test_tenant_information_is_found_by_id_and_domain(desk: Desk) -> None:
    scope, customer = "CrossTenantInformation.ReadBasic.All", desk.foreign_customer
    base = "/tenantRelationships/findTenantInformationBy"
    for call in (f"TenantId(tenantId='{customer.tenant_id}')", f"DomainName(domainName='{customer.domain}')"):
        found = desk.graph("GET", base + call, scope).json()
        assert (found["tenantId"], found["displayName"]) == (customer.tenant_id, customer.name)
    assert desk.graph("GET", f"{base}DomainName(domainName='no.example')", scope).status == 404
    assert desk.graph("GET", f"{base}TenantId(tenantId='rubbish')", scope).status == 400
