"""GdapClient on the wire: exact requests, paging that finishes or raises, and nothing read into rubbish."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import responses

from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
)
from portal.microsoft.identifiers import TenantId
from tenants.gdap import BATCH, GdapClient, Relationship
from tests.tenants.wire import CORRELATION, GRAPH, OTHER, TENANT, client

RELATIONSHIPS = f"{GRAPH}/v1.0/tenantRelationships/delegatedAdminRelationships"
RELATIONSHIP_ID = f"{TENANT}-{OTHER}"
ROLE = "62e90394-69f5-4237-9190-012177145e10"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def gdap() -> GdapClient:
    return client(GdapClient, GRAPH)


def item(**changes: Any) -> dict[str, Any]:
    return {
        "id": RELATIONSHIP_ID,
        "displayName": "One 2026",
        "status": "active",
        "customer": {"tenantId": TENANT.upper(), "displayName": "One"},
        "accessDetails": {"unifiedRoles": [{"roleDefinitionId": ROLE.upper()}]},
        "activatedDateTime": "2026-01-31T12:30:00.1234567Z",
        "endDateTime": "2027-01-31T12:30:00Z",
    } | changes


def assignment(**changes: Any) -> dict[str, Any]:
    return {
        "id": OTHER,
        "status": "active",
        "createdDateTime": "2026-01-31T12:30:00Z",
        "accessContainer": {"accessContainerId": TENANT, "accessContainerType": "securityGroup"},
        "accessDetails": {"unifiedRoles": [{"roleDefinitionId": ROLE}]},
    } | changes


def relationship(relationship_id: str = RELATIONSHIP_ID) -> Relationship:
    return Relationship(
        relationship_id=relationship_id,
        display_name="One",
        customer_tenant_id=None,
        status="active",
        roles=frozenset(),
        activated_at=None,
        ends_at=None,
    )


def test_relationships_are_asked_for_one_customer_and_read_exactly(
    wire: responses.RequestsMock, gdap: GdapClient
) -> None:
    wire.get(RELATIONSHIPS, json={"value": [item()]})

    [one] = gdap.relationships(customer=TenantId(TENANT))

    assert one == Relationship(
        relationship_id=RELATIONSHIP_ID,
        display_name="One 2026",
        customer_tenant_id=TenantId(TENANT),
        status="active",
        roles=frozenset({ROLE}),
        activated_at=datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC),
        ends_at=datetime(2027, 1, 31, 12, 30, tzinfo=UTC),
    )
    request = wire.calls[0].request
    assert request.params == {"$filter": f"customer/tenantId eq '{TENANT}'", "$top": "300"}  # type: ignore[attr-defined]
    assert request.headers["client-request-id"] == CORRELATION
    assert request.headers["Authorization"] == "Bearer access-token-canary"


def test_a_pending_relationship_has_no_times_and_may_have_no_customer_yet(
    wire: responses.RequestsMock, gdap: GdapClient
) -> None:
    bare = item(status="approvalPending", activatedDateTime=None, endDateTime="", customer=None, accessDetails=None)
    wire.get(RELATIONSHIPS, json={"value": [bare]})

    [one] = gdap.relationships(customer=TenantId(TENANT))

    assert (one.activated_at, one.ends_at, one.customer_tenant_id, one.roles) == (None, None, None, frozenset())


def test_all_pages_are_read_by_following_the_links_verbatim(wire: responses.RequestsMock, gdap: GdapClient) -> None:
    first, second = f"{RELATIONSHIPS}?$skiptoken=a%2Bb", f"{RELATIONSHIPS}?$skiptoken=c"
    wire.get(RELATIONSHIPS, json={"value": [item()], "@odata.nextLink": first})
    wire.get(RELATIONSHIPS, json={"value": [], "@odata.nextLink": second})
    wire.get(RELATIONSHIPS, json={"value": [item(status="expired")]})

    assert [one.status for one in gdap.relationships(customer=TenantId(TENANT))] == ["active", "expired"]

    assert [call.request.url for call in wire.calls][1:] == [first, second]


@pytest.mark.parametrize(
    "link",
    [
        "https://graph.foreign.example/v1.0/x",
        f"{GRAPH}.evil.example/v1.0/x",
        f"{GRAPH}/beta/x",
        "http://graph.microsoft.com/v1.0/x",
        "/v1.0/x",
        7,
        {},
    ],
    ids=str,
)
def test_a_next_link_to_elsewhere_never_gets_the_token(
    wire: responses.RequestsMock, gdap: GdapClient, link: Any
) -> None:
    wire.get(RELATIONSHIPS, json={"value": [], "@odata.nextLink": link})

    with pytest.raises(UnexpectedResponse):
        list(gdap.relationships(customer=TenantId(TENANT)))

    assert len(wire.calls) == 1


def test_a_link_that_repeats_ends_with_an_error(wire: responses.RequestsMock, gdap: GdapClient) -> None:
    wire.get(RELATIONSHIPS, json={"value": [item()], "@odata.nextLink": f"{RELATIONSHIPS}?$skiptoken=a"})

    with pytest.raises(UnexpectedResponse, match="repeats"):
        list(gdap.relationships(customer=TenantId(TENANT)))

    assert len(wire.calls) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "InvalidAuthenticationToken", AuthenticationFailed),
        (403, "Authorization_RequestDenied", AccessDenied),
        (404, "Request_ResourceNotFound", NotFound),
        (429, "TooManyRequests", Throttled),
        (500, "", ServerFault),
        (503, "serviceNotAvailable", ServerFault),
    ],
)
def test_every_status_has_its_place_in_the_family(
    wire: responses.RequestsMock, gdap: GdapClient, status: int, code: str, kind: type[RemoteError]
) -> None:
    wire.get(
        RELATIONSHIPS,
        status=status,
        json={"error": {"code": code, "message": "free text"}},
        headers={"request-id": "theirs"},
    )

    with pytest.raises(RemoteError) as caught:
        list(gdap.relationships(customer=TenantId(TENANT)))

    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, code, "theirs")
    assert "free text" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"value": None},
        {"value": ["text"]},
        {"value": [item(id=None)]},
        {"value": [item(status=None)]},
        {"value": [item(customer={"tenantId": "contoso"})]},
        {"value": [item(endDateTime="tomorrow")]},
        {"value": [item(accessDetails={"unifiedRoles": ["text"]})]},
        {"value": [item(accessDetails={"unifiedRoles": [{}]})]},
    ],
    ids=lambda body: str(body)[:50],
)
def test_a_200_that_is_rubbish_is_no_relationship(wire: responses.RequestsMock, gdap: GdapClient, body: Any) -> None:
    wire.get(RELATIONSHIPS, json=body)
    with pytest.raises(UnexpectedResponse):
        list(gdap.relationships(customer=TenantId(TENANT)))


def test_assignments_name_group_status_and_roles(wire: responses.RequestsMock, gdap: GdapClient) -> None:
    wire.get(
        f"{RELATIONSHIPS}/{RELATIONSHIP_ID}/accessAssignments", json={"value": [assignment(), assignment(status="x")]}
    )

    first, second = gdap.access_assignments(relationship())

    assert (first.assignment_id, first.group_id, first.roles) == (OTHER, TENANT, frozenset({ROLE}))
    assert first.created_at == datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    assert second.status == "x"


@pytest.mark.parametrize("container", [None, {}, {"accessContainerId": ""}, "text"], ids=str)
def test_an_assignment_without_a_group_is_rubbish(
    wire: responses.RequestsMock, gdap: GdapClient, container: Any
) -> None:
    wire.get(
        f"{RELATIONSHIPS}/{RELATIONSHIP_ID}/accessAssignments",
        json={"value": [assignment(accessContainer=container)]},
    )
    with pytest.raises(UnexpectedResponse):
        gdap.access_assignments(relationship())


@pytest.mark.req("S-26")
@pytest.mark.parametrize("text", ["../../me", "", "a" * 36 + "/x", TENANT + "%2f" + OTHER])
def test_a_relationship_id_of_an_unknown_form_never_becomes_a_path(gdap: GdapClient, text: str) -> None:
    with pytest.raises(UnexpectedResponse):
        gdap.access_assignments(relationship(text))


@pytest.mark.req("S-26")
def test_what_is_no_tenant_id_never_becomes_a_filter(gdap: GdapClient) -> None:
    with pytest.raises(ValueError):
        list(gdap.relationships(customer=TenantId("x' or true")))


# --- many relationships -------------------------------------------------------------------------------------------


def test_all_relationships_of_a_partner_are_listed_without_a_filter(
    wire: responses.RequestsMock, gdap: GdapClient
) -> None:
    query = responses.matchers.query_param_matcher({"$top": "300"})
    wire.get(RELATIONSHIPS, json={"value": [item(autoExtendDuration="P180D"), item(customer=None)]}, match=[query])

    first, second = gdap.relationships()

    assert (first.auto_extend_duration, second.auto_extend_duration) == ("P180D", "")
    assert second.customer_tenant_id is None


def test_assignments_of_twenty_relationships_are_one_call_and_their_answers_may_come_in_any_order(
    wire: responses.RequestsMock, gdap: GdapClient
) -> None:
    wanted = [relationship(f"{TENANT}-{number:08d}-1111-4222-8333-444444444444") for number in range(BATCH)]
    parts = [
        {"id": str(number), "status": 200, "body": {"value": [assignment(id=f"assignment {number}")]}}
        for number in reversed(range(BATCH))
    ]
    wire.post(f"{GRAPH}/v1.0/$batch", json={"responses": parts})

    found = gdap.access_assignments_of(wanted)

    assert [one[0].assignment_id for one in found] == [f"assignment {number}" for number in range(BATCH)]
    sent = json.loads(wire.calls[0].request.body or "")["requests"]
    assert {part["method"] for part in sent} == {"GET"}
    assert sent[3]["url"].endswith(f"/delegatedAdminRelationships/{wanted[3].relationship_id}/accessAssignments")


@pytest.mark.parametrize(
    "part",
    [
        {"id": "0", "status": 429, "headers": {"Retry-After": "2"}, "body": {}},
        {"id": "0", "status": 200, "body": {"value": [], "@odata.nextLink": f"{GRAPH}/v1.0/next"}},
        {"id": "0", "status": 403, "body": {}},
        {"id": "7", "status": 200, "body": {"value": []}},
    ],
    ids=["throttled", "cut into pages", "refused", "of something else"],
)
def test_a_part_without_a_whole_answer_is_asked_again_by_itself(
    wire: responses.RequestsMock, gdap: GdapClient, part: dict[str, Any]
) -> None:
    wire.post(f"{GRAPH}/v1.0/$batch", json={"responses": [part]})
    wire.get(f"{RELATIONSHIPS}/{RELATIONSHIP_ID}/accessAssignments", json={"value": [assignment()]})

    assert [one.assignment_id for one in gdap.access_assignments_of([relationship()])[0]] == [OTHER]


def test_a_batch_holds_no_id_that_could_lead_elsewhere(wire: responses.RequestsMock, gdap: GdapClient) -> None:
    with pytest.raises(UnexpectedResponse):
        gdap.access_assignments_of([relationship("../../users")])
