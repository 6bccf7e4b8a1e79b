"""Microsoft Graph of the sandbox: callers, scopes, queries, pages and batches, over the wire."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Caller, graph_error, values
from tests.sandbox.tests.wire import Reply, Wire
from tests.sandbox.world import known_id

GDAP = "DelegatedAdminRelationship.Read.All"
GDAP_WRITE = "DelegatedAdminRelationship.ReadWrite.All"
DIRECTORY = "Directory.Read.All"
RELATIONSHIPS = "/tenantRelationships/delegatedAdminRelationships"


@pytest.fixture
def caller(sandbox: Sandbox, wire: Wire) -> Caller:
    return Caller(sandbox=sandbox, wire=wire)


# --- who may call -------------------------------------------------------------------------------------------------


def test_a_call_without_a_good_token_is_refused(caller: Caller) -> None:
    for token in ("", "rubbish", caller.token(caller.cloud.partner_center, "User.Read")):
        reply = caller.graph("GET", "/me", token=token)
        assert graph_error(reply) == (401, "InvalidAuthenticationToken")
        assert reply.headers["WWW-Authenticate"].startswith('Bearer realm=""')


def test_a_missing_scope_is_refused_with_the_documented_body(caller: Caller) -> None:
    sent = {"client-request-id": "11111111-2222-4333-8444-555555555555"}
    reply = caller.graph("GET", "/groups", "User.Read", headers=sent)
    assert reply.status == 403
    error = reply.json()["error"]
    inner = error.pop("innerError")
    assert error == {
        "code": "Authorization_RequestDenied",
        "message": "Insufficient privileges to complete the operation.",
    }
    assert (inner["request-id"], inner["client-request-id"]) == (reply.headers["request-id"], sent["client-request-id"])
    assert reply.headers["client-request-id"] == sent["client-request-id"]
    assert json.loads(reply.headers["x-ms-ags-diagnostic"])["ServerInfo"]


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/me", "User.Read"),
        ("/users", "User.Read.All"),
        ("/groups", "GroupMember.Read.All"),
        ("/organization", "User.Read"),
        ("/servicePrincipals", "Application.Read.All"),
        ("/oauth2PermissionGrants", "DelegatedPermissionGrant.Read.All"),
        (RELATIONSHIPS, GDAP),
        (RELATIONSHIPS, GDAP_WRITE),
        ("/tenantRelationships/delegatedAdminCustomers", GDAP),
    ],
)
def test_each_call_needs_its_own_scope(caller: Caller, path: str, scope: str) -> None:
    assert caller.graph("GET", path, scope).status == 200
    assert graph_error(caller.graph("GET", path, "Mail.Read")) == (403, "Authorization_RequestDenied")


def test_a_customer_answers_only_with_gdap_and_a_service_principal(caller: Caller) -> None:
    path, customer = "/servicePrincipals", caller.customer
    assert graph_error(caller.graph("GET", path, DIRECTORY, tenant=customer)) == (403, "Authorization_IdentityNotFound")
    caller.consented()
    assert caller.graph("GET", path, DIRECTORY, tenant=customer).status == 200
    caller.relationship.ends = caller.world.now() - 1
    assert graph_error(caller.graph("GET", path, DIRECTORY, tenant=customer)) == (403, "Authorization_RequestDenied")


def test_a_removed_service_principal_may_leave_its_tokens_alive(caller: Caller) -> None:
    caller.world.switches["graph_checks_principal"] = False
    assert caller.graph("GET", "/servicePrincipals", DIRECTORY, tenant=caller.customer).status == 200


def test_a_disabled_user_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.graph, "User.Read")
    caller.user().enabled = False
    assert caller.graph("GET", "/me", token=token).status == 401


def test_a_claims_challenge_refuses_one_token_and_accepts_the_next(caller: Caller) -> None:
    caller.world.switches["graph_claims_challenge"] = True
    first, second = caller.token(caller.cloud.graph, "User.Read"), caller.token(caller.cloud.graph, "User.Read")
    header = caller.graph("GET", "/me", token=first).headers["WWW-Authenticate"]
    assert 'error="insufficient_claims"' in header
    assert json.loads(base64.b64decode(header.partition('claims="')[2].rstrip('"')))["access_token"]
    assert caller.graph("GET", "/me", token=second).status == 200
    assert caller.graph("GET", "/me", token=first).status == 401


def test_an_unknown_path_and_an_unreadable_body_are_refused(caller: Caller) -> None:
    assert graph_error(caller.graph("GET", "/nothing", DIRECTORY)) == (400, "BadRequest")
    reply = caller.graph("POST", "/me/checkMemberGroups", "User.Read", body=b"<xml/>")
    assert graph_error(reply) == (400, "BadRequest")


# --- queries and pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "$filter=startswith(displayName,'A')",
        "$filter=displayName ne 'A'",
        "$filter=colour eq 'red'",
        "$filter=displayName eq 'a' or displayName eq 'b'",
        "$filter=",
        "$orderby=displayName",
        "$expand=members",
    ],
)
def test_a_query_that_is_not_supported_is_refused_and_never_ignored(caller: Caller, query: str) -> None:
    reply = caller.graph("GET", f"/groups?{quote(query, safe='$=')}", DIRECTORY)
    assert graph_error(reply) == (400, "Request_UnsupportedQuery")


def test_a_quote_in_a_filter_is_doubled(caller: Caller) -> None:
    caller.partner.groups[known_id("group", "odd")] = "O'Neil and Sons"
    path = f"/groups?$filter={quote("displayName eq 'O''Neil and Sons'")}"
    assert len(values(caller.graph("GET", path, DIRECTORY))) == 1


@pytest.mark.parametrize("top", ["0", "-1", "x", "1000"])
def test_a_wrong_page_size_is_refused(caller: Caller, top: str) -> None:
    assert caller.graph("GET", f"/users?$top={top}", DIRECTORY).status == 400


def test_next_links_keep_the_query_and_lead_to_the_end(caller: Caller) -> None:
    pages = caller.all_pages("/users?$top=2&$select=id", DIRECTORY)
    assert [len(page) for page in pages] == [2, 1]
    assert len({item["id"] for page in pages for item in page}) == 3
    assert all(item.keys() == {"id"} for page in pages for item in page)


def test_the_page_size_can_be_made_small_whatever_is_asked(caller: Caller) -> None:
    caller.world.switches["graph_page_limit"] = 1
    assert [len(page) for page in caller.all_pages("/users?$top=300", DIRECTORY)] == [1, 1, 1]


def test_a_page_may_be_empty_and_have_a_next_link(caller: Caller) -> None:
    caller.world.switches["graph_empty_page"] = True
    assert [len(page) for page in caller.all_pages("/users", DIRECTORY)] == [0, 3]


def test_a_next_link_belongs_to_its_list_and_expires(caller: Caller) -> None:
    link = caller.graph("GET", "/users?$top=1", DIRECTORY).json()["@odata.nextLink"]
    token = link.rpartition("=")[2]
    assert link.startswith(f"{caller.cloud.graph}/v1.0/users?")
    assert caller.graph("GET", f"/users?$skiptoken={token}", DIRECTORY).status == 200
    assert caller.graph("GET", f"/groups?$skiptoken={token}", DIRECTORY).status == 400
    caller.world.advance(3601)
    fresh = caller.token(caller.cloud.graph, DIRECTORY)
    assert graph_error(caller.wire.get(link, token=fresh)) == (400, "Directory_ExpiredPageToken")


@pytest.mark.req("S-26")
def test_a_next_link_may_point_to_a_foreign_host(caller: Caller) -> None:
    caller.world.switches["graph_foreign_next_link"] = True
    link = caller.graph("GET", "/users?$top=1", DIRECTORY).json()["@odata.nextLink"]
    assert link.startswith("https://graph.foreign.example/v1.0/users?")


# --- $batch -------------------------------------------------------------------------------------------------------


def batch(caller: Caller, *parts: dict[str, Any], scopes: tuple[str, ...] = (DIRECTORY,)) -> Reply:
    return caller.graph("POST", "/$batch", *scopes, data={"requests": list(parts)})


def get(part_id: str, url: str, **more: Any) -> dict[str, Any]:
    return {"id": part_id, "method": "GET", "url": url} | more


def test_a_batch_answers_every_part_in_any_order(caller: Caller) -> None:
    parts = [get(str(number), "/me?$select=id") for number in range(20)]
    orders = set()
    for _ in range(3):
        responses = batch(caller, *parts).json()["responses"]
        assert {response["id"] for response in responses} == {part["id"] for part in parts}
        assert {response["body"]["id"] for response in responses} == {caller.user().oid}
        orders.add(tuple(response["id"] for response in responses))
    assert len(orders) > 1
    caller.world.switches["graph_shuffle"] = False
    assert [response["id"] for response in batch(caller, *parts).json()["responses"]] == [str(n) for n in range(20)]


def test_the_parts_of_a_batch_succeed_and_fail_by_themselves(caller: Caller) -> None:
    agents = known_id("group", "northwind", "AdminAgents")
    check = {
        "id": "check",
        "method": "POST",
        "url": "/me/checkMemberGroups",
        "headers": {"Content-Type": "application/json"},
        "body": {"groupIds": [agents]},
    }
    reply = batch(caller, get("denied", "/groups"), get("absent", "/users/nobody"), check, scopes=("User.Read.All",))
    found = {response["id"]: response for response in reply.json()["responses"]}
    assert {part: response["status"] for part, response in found.items()} == {
        "denied": 403,
        "absent": 404,
        "check": 200,
    }
    assert found["check"]["body"]["value"] == [agents]
    assert found["denied"]["body"]["error"]["code"] == "Authorization_RequestDenied"


def test_a_part_that_depends_on_a_failed_one_is_not_tried(caller: Caller) -> None:
    reply = batch(
        caller,
        get("1", "/users/nobody"),
        get("2", "/me", dependsOn=["1"]),
        get("3", "/me", dependsOn=["2"]),
        get("4", "/me"),
    )
    statuses = {response["id"]: response["status"] for response in reply.json()["responses"]}
    assert statuses == {"1": 404, "2": 424, "3": 424, "4": 200}


def test_parts_of_a_batch_are_throttled_by_themselves(caller: Caller) -> None:
    caller.world.switches["graph_throttled_parts"] = 1
    found = {
        response["id"]: response for response in batch(caller, get("1", "/me"), get("2", "/me")).json()["responses"]
    }
    assert (found["1"]["status"], found["1"]["headers"]["Retry-After"], found["2"]["status"]) == (429, "2", 200)


def test_a_next_link_inside_a_batch_is_followed_outside(caller: Caller) -> None:
    (part,) = batch(caller, get("1", "/users?$top=2")).json()["responses"]
    token = caller.token(caller.cloud.graph, DIRECTORY)
    assert len(values(caller.wire.get(part["body"]["@odata.nextLink"], token=token))) == 1


@pytest.mark.parametrize(
    "requests",
    [
        None,
        [],
        ["x"],
        [get(str(number), "/me") for number in range(21)],
        [get("1", "/me"), get("1", "/me")],
        [get("", "/me")],
        [{"id": "1", "method": "GET"}],
        [{"id": "1", "url": "/me"}],
        [get("1", "https://graph.microsoft.com/v1.0/me")],
        [get("1", "/me", dependsOn=["2"]), get("2", "/me")],
        [{"id": "1", "method": "POST", "url": "/me/checkMemberGroups", "body": {"groupIds": []}}],
    ],
)
def test_a_malformed_batch_is_refused_as_a_whole(caller: Caller, requests: Any) -> None:
    reply = caller.graph("POST", "/$batch", DIRECTORY, data={"requests": requests})
    assert graph_error(reply) == (400, "BadRequest")


def test_a_batch_inside_a_batch_and_a_versioned_url_are_refused(caller: Caller) -> None:
    parts = batch(caller, get("1", "/v1.0/me"), get("2", "/$batch")).json()["responses"]
    assert {part["status"] for part in parts} == {400}


@pytest.mark.req("S-55")
def test_the_ledger_says_who_asked_what_in_which_tenant(caller: Caller) -> None:
    caller.consented()
    sent = {"client-request-id": "11111111-2222-4333-8444-555555555555"}
    caller.graph("GET", "/servicePrincipals", DIRECTORY, tenant=caller.customer, headers=sent)
    line = caller.world.ledger[-1]
    assert (line["service"], line["operation"], line["status"]) == ("graph", "list service principals", 200)
    assert (line["tenant"], line["home"]) == (caller.customer.tenant_id, caller.partner.tenant_id)
    assert (line["user"], line["correlation"]) == (caller.user().oid, sent["client-request-id"])
