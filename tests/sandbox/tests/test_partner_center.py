"""Partner Center of the sandbox, over the wire."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from urllib3.exceptions import HTTPError

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Caller
from tests.sandbox.tests.wire import Reply, Vendor, Wire
from tests.sandbox.world import DIRECTORY_READERS, GLOBAL_ADMINISTRATOR, GRAPH, PARTNER_CENTER, Fault, known_id

UNKNOWN_RESOURCE = "00000002-0000-0ff1-ce00-000000000000"
CORRELATION = "11111111-2222-4333-8444-555555555555"
REQUEST = "66666666-7777-4888-9999-aaaaaaaaaaaa"


@pytest.fixture
def caller(sandbox: Sandbox, wire: Wire) -> Caller:
    return Caller(sandbox=sandbox, wire=wire)


def consent_body(caller: Caller, *scopes: str, resource: str = GRAPH, separator: str = ",") -> dict[str, Any]:
    return {
        "applicationId": caller.application.app_id,
        "displayName": "Example Control Panel",
        "applicationGrants": [
            {"enterpriseApplicationId": resource, "scope": separator.join(scopes or ("User.Read.All",))}
        ],
    }


def consent(caller: Caller, customer: str = "", body: Any = None, **rest: Any) -> Reply:
    path = f"/customers/{customer or caller.customer.tenant_id}/applicationconsents"
    return caller.partner_center("POST", path, data=consent_body(caller) if body is None else body, **rest)


def remove(caller: Caller, **rest: Any) -> Reply:
    path = f"/customers/{caller.customer.tenant_id}/applicationconsents/{caller.application.app_id}"
    return caller.partner_center("DELETE", path, **rest)


def granted(caller: Caller) -> set[str]:
    return caller.customer.granted(caller.application.app_id, GRAPH, caller.world.now())


def code_of(reply: Reply) -> tuple[int, str]:
    return reply.status, str(reply.json()["code"])


# --- who may call -------------------------------------------------------------------------------------------------


def test_a_call_without_a_token_is_refused_in_the_documented_form(caller: Caller) -> None:
    reply = caller.partner_center("GET", "/customers?size=40", token="")
    assert reply.status == 401
    body = reply.json()
    assert (body["code"], body["data"], body["source"]) == ("400", [], "PartnerApiServiceCore")


def test_a_token_for_another_audience_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.graph, "user_impersonation")
    assert code_of(caller.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_a_token_without_user_impersonation_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.partner_center, "User.Read")
    assert code_of(caller.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_an_expired_token_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.partner_center, "user_impersonation")
    assert caller.partner_center("GET", "/customers?size=40", token=token).status == 200
    caller.world.advance(5000)
    assert caller.partner_center("GET", "/customers?size=40", token=token).status == 401


def test_a_token_of_a_customer_tenant_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.partner_center, "user_impersonation", tenant=caller.customer)
    assert code_of(caller.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_an_application_that_is_no_control_panel_vendors_is_refused(caller: Caller) -> None:
    caller.application.cpv = False
    assert code_of(caller.partner_center("GET", "/profiles/organization")) == (401, "400")


def test_a_user_outside_adminagents_is_refused(caller: Caller) -> None:
    token = caller.token(caller.cloud.partner_center, "user_impersonation", user=caller.user("member"))
    assert code_of(caller.partner_center("GET", "/profiles/organization", token=token)) == (403, "900150")


def test_a_partner_whose_program_status_ended_is_refused(caller: Caller) -> None:
    caller.partner.enabled = False
    assert code_of(caller.partner_center("GET", "/profiles/organization")) == (403, "900149")


@pytest.mark.req("S-18")
def test_the_verdict_on_mfa_is_given_when_asked_for(caller: Caller) -> None:
    weak = caller.token(caller.cloud.partner_center, "user_impersonation", amr=("pwd",))
    asked = {"ValidateMfa": "true"}
    verdicts = [
        caller.partner_center("GET", "/profiles/organization", headers=asked),
        caller.partner_center("GET", "/profiles/organization", headers=asked, token=weak),
        caller.partner_center("GET", "/profiles/organization"),
    ]
    assert [(reply.status, reply.headers.get("isMfaCompliant")) for reply in verdicts] == [
        (200, "true"),
        (200, "false"),
        (200, None),
    ]


@pytest.mark.req("S-18")
def test_enforced_mfa_refuses_tokens_without_it_in_the_new_and_the_old_form(caller: Caller) -> None:
    weak = caller.token(caller.cloud.partner_center, "user_impersonation", amr=("pwd",))
    caller.world.switches["mfa_enforced"] = True
    assert caller.partner_center("GET", "/profiles/organization").status == 200
    assert code_of(caller.partner_center("GET", "/profiles/organization", token=weak)) == (401, "900421")
    caller.world.switches["mfa_refusal"] = "old"
    reply = caller.partner_center("GET", "/profiles/organization", token=weak)
    assert (reply.status, reply.body) == (401, b"")
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_ids_are_echoed_and_made_when_absent(caller: Caller) -> None:
    sent = {"MS-RequestId": REQUEST, "MS-CorrelationId": CORRELATION, "X-Locale": "de-DE"}
    reply = caller.partner_center("GET", "/customers?size=1", headers=sent)
    assert {name: reply.headers[name] for name in sent} == sent
    reply = caller.partner_center("GET", "/nothing")
    assert code_of(reply) == (404, "1000")
    assert all(reply.headers[name] for name in ("MS-RequestId", "MS-CorrelationId", "MS-CV", "MS-ServerId"))


# --- customers ----------------------------------------------------------------------------------------------------


def pages(caller: Caller, query: str) -> list[list[str]]:
    """Follow the links as documented and return the names on each page."""
    headers: dict[str, str] = {}
    found, path = [], f"/customers?{query}"
    while path:
        reply = caller.partner_center("GET", path, headers=headers)
        assert reply.status == 200, reply.text
        body = reply.json()
        assert body["totalCount"] == len(body["items"])
        found.append([item["companyProfile"]["companyName"] for item in body["items"]])
        following = body["links"].get("next")
        path = following["uri"] if following else ""
        headers = {item["key"]: item["value"] for item in following["headers"]} if following else {}
    return found


def test_customers_come_in_pages_of_the_asked_size(caller: Caller) -> None:
    scenarios.load(caller.world, "demo", caller.sandbox.clouds)
    found = pages(caller, "size=40")
    assert [len(page) for page in found] == [40, 40, 40, 10]
    assert len({name for page in found for name in page}) == 130


def test_a_page_is_never_larger_than_the_limit(caller: Caller) -> None:
    caller.world.switches["page_limit"] = 2
    assert [len(page) for page in pages(caller, "size=500")] == [2, 1]


def test_a_customer_has_the_documented_members(caller: Caller) -> None:
    customer = caller.customer
    item = caller.partner_center("GET", "/customers?size=1").json()["items"][0]
    assert item["id"] == item["companyProfile"]["tenantId"] == customer.tenant_id
    assert item["companyProfile"]["domain"] == customer.domain
    assert item["relationshipToPartner"] == "reseller"
    assert item["links"]["self"]["uri"] == f"/customers/{customer.tenant_id}"


def test_an_empty_list_is_an_empty_page_without_a_link(caller: Caller) -> None:
    caller.world.customers[caller.partner.tenant_id].clear()
    body = caller.partner_center("GET", "/customers?size=40").json()
    assert (body["totalCount"], body["items"], "next" in body["links"]) == (0, [], False)


def test_the_filter_finds_names_and_domains_by_their_beginning(caller: Caller) -> None:
    def filtered(field: str, value: str, operator: str = "starts_with") -> Reply:
        wanted = json.dumps({"Field": field, "Value": value, "Operator": operator})
        return caller.partner_center("GET", f"/customers?size=0&filter={quote(wanted)}")

    customer = caller.customer
    for field, value in (("CompanyName", customer.name[:6].upper()), ("Domain", customer.domain[:21])):
        assert customer.tenant_id in {item["id"] for item in filtered(field, value).json()["items"]}
    assert filtered("CompanyName", "zzz").json()["items"] == []
    assert filtered("IndirectReseller", "x").json()["items"] == []
    assert filtered("CompanyName", "x", "equals").status == 400
    assert filtered("Colour", "x").status == 400
    assert caller.partner_center("GET", "/customers?size=0&filter=rubbish").status == 400


@pytest.mark.parametrize("query", ["size=x", "size=-1", "size=0", "size=10&seekOperation=Previous"])
def test_a_wrong_query_is_refused(caller: Caller, query: str) -> None:
    assert code_of(caller.partner_center("GET", f"/customers?{query}")) == (400, "3000")


def test_a_continuation_token_is_bound_to_user_and_query_and_expires(caller: Caller) -> None:
    body = caller.partner_center("GET", "/customers?size=1").json()
    link = body["links"]["next"]
    headers = {item["key"]: item["value"] for item in link["headers"]}
    assert link["uri"] == "/customers?size=1&seekOperation=Next"
    assert all(character in headers["MS-ContinuationToken"] for character in "+/=,")
    follow = "/customers?seekOperation=Next"
    assert caller.partner_center("GET", follow, headers=headers).json()["items"] != body["items"]
    other_user = caller.token(caller.cloud.partner_center, "user_impersonation", user=caller.user("second"))
    wanted = quote('{"Field":"Domain","Value":"a","Operator":"starts_with"}')
    refused = [
        caller.partner_center("GET", follow, headers=headers, token=other_user),
        caller.partner_center("GET", f"{follow}&filter={wanted}", headers=headers),
        caller.partner_center("GET", follow, headers={"MS-ContinuationToken": "wrong"}),
        caller.partner_center("GET", follow),
    ]
    caller.world.advance(601)
    refused.append(caller.partner_center("GET", follow, headers=headers))
    assert [reply.status for reply in refused] == [400] * 5


def test_links_and_error_codes_take_the_other_forms_seen_in_the_wild(caller: Caller) -> None:
    caller.world.switches |= {"link_prefix": "/v1", "continuation_in_body": True, "numeric_codes": True}
    body = caller.partner_center("GET", "/customers?size=1").json()
    assert body["links"]["next"]["uri"].startswith("/v1/customers?")
    assert body["continuationToken"] == body["links"]["next"]["headers"][0]["value"]
    assert caller.partner_center("GET", "/nothing").json()["code"] == 1000


@pytest.mark.req("S-52")
def test_one_customer_is_shown_to_its_partner_only(caller: Caller) -> None:
    body = caller.partner_center("GET", f"/customers/{caller.customer.tenant_id}").json()
    assert body["companyProfile"]["tenantId"] == caller.customer.tenant_id
    assert body["billingProfile"]["attributes"]["objectType"] == "CustomerBillingProfile"
    assert not caller.world.crossings
    foreign = f"/customers/{caller.foreign_customer.tenant_id}"
    assert code_of(caller.partner_center("GET", foreign)) == (403, "20002")
    assert [crossing["asked"] for crossing in caller.world.crossings] == [caller.foreign_customer.tenant_id]
    caller.world.switches["customer_foreign_status"] = 404
    assert code_of(caller.partner_center("GET", foreign)) == (404, "60003")
    assert code_of(caller.partner_center("GET", "/customers/rubbish")) == (400, "900118")


def test_a_customers_organization_needs_a_reading_role(caller: Caller) -> None:
    path = f"/customers/{caller.customer.tenant_id}"
    assert caller.partner_center("GET", f"{path}/profiles/company").json()["companyName"] == caller.customer.name
    assert code_of(caller.partner_center("GET", f"{path}/organization")) == (403, "900150")
    caller.relationship.assignments[0].roles.add(GLOBAL_ADMINISTRATOR)
    assert caller.partner_center("GET", f"{path}/organization").json()[0]["displayName"] == caller.customer.name


def test_the_partners_profiles_name_the_partner(caller: Caller) -> None:
    organization = caller.partner_center("GET", "/profiles/organization").json()
    assert organization["tenantId"] == caller.partner.tenant_id
    assert (organization["domain"], organization["profileType"]) == (caller.partner.domain, "OrganizationProfile")
    legal = caller.partner_center("GET", "/profiles/legalbusiness?vettingVersion=Current").json()
    assert (legal["companyName"], legal["vettingStatus"]) == (caller.partner.name, "authorized")
    assert caller.partner_center("GET", "/profiles/legalbusiness?vettingVersion=Newest").status == 400


# --- consents -----------------------------------------------------------------------------------------------------


def test_a_consent_becomes_a_service_principal_with_tenant_wide_grants(caller: Caller) -> None:
    reply = consent(caller, body=consent_body(caller, "User.Read.All", "Directory.Read.All"))
    assert reply.status == 201
    assert reply.json()["applicationGrants"] == [
        {"enterpriseApplicationId": GRAPH, "scope": "Directory.Read.All,User.Read.All"}
    ]
    assert granted(caller) == {"User.Read.All", "Directory.Read.All"}
    assert {grant.consent_type for grant in caller.customer.grants.values()} == {"AllPrincipals"}
    look = caller.wire.get(f"{caller.cloud.partner_center}/sandbox/consents/{caller.customer.tenant_id}").json()
    assert look == {caller.application.app_id: {GRAPH: ["Directory.Read.All", "User.Read.All"]}}


def test_the_token_endpoint_obeys_a_consent(caller: Caller, vendor: Vendor) -> None:
    refresh, customer = vendor.refresh_token(), caller.customer.tenant_id
    assert vendor.refresh(refresh, customer, vendor.graph).json()["error_codes"] == [65001]
    assert consent(caller).status == 201
    answer = vendor.refresh(refresh, customer, vendor.graph)
    assert (answer.status, answer.json()["scope"]) == (200, "User.Read.All")
    assert remove(caller).status == 200
    assert vendor.refresh(refresh, customer, vendor.graph).json()["error_codes"] == [65001]


def test_property_names_are_read_without_regard_to_case_and_spaces_after_commas_are_fine(caller: Caller) -> None:
    body = {
        "ApplicationId": caller.application.app_id.upper(),
        "ApplicationGrants": [{"EnterpriseApplicationId": GRAPH, "SCOPE": "User.Read.All, Directory.Read.All"}],
    }
    assert consent(caller, body=body).status == 201
    assert granted(caller) == {"User.Read.All", "Directory.Read.All"}


@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.req("R-21")
def test_a_second_consent_to_the_same_resource_exists_already_and_adds_nothing(caller: Caller, status: int) -> None:
    caller.world.switches["consent_exists_status"] = status
    assert consent(caller).status == 201
    reply = consent(caller, body=consent_body(caller, "User.Read.All", "Directory.Read.All"))
    assert reply.status == status
    assert "permission entry already exists" in reply.json()["description"].lower()
    assert granted(caller) == {"User.Read.All"}


def test_a_resource_that_the_customer_lacks_loses_the_whole_request(caller: Caller) -> None:
    caller.application.permissions[UNKNOWN_RESOURCE] = {"full_access"}
    body = consent_body(caller)
    body["applicationGrants"] += consent_body(caller, "full_access", resource=UNKNOWN_RESOURCE)["applicationGrants"]
    reply = consent(caller, body=body)
    assert reply.status == 400
    assert "lacks a service principal for" in reply.json()["description"]
    assert caller.customer.principal_of(caller.application.app_id) is None


@pytest.mark.parametrize(("status", "code"), [(403, "900150"), (400, "800002")])
def test_a_consent_needs_a_gdap_role_that_may_consent(caller: Caller, status: int, code: str) -> None:
    caller.world.switches["consent_denied_status"] = status
    caller.relationship.assignments[0].roles = {DIRECTORY_READERS}
    reply = consent(caller)
    assert code_of(reply) == (status, code)
    assert "insufficient privileges" in reply.json()["description"].lower()
    assert granted(caller) == set()


def test_a_formerly_sufficient_role_is_a_switch(caller: Caller) -> None:
    caller.relationship.assignments[0].roles = {"e8611ab8-c189-46e8-94e1-60213ab1f814"}
    assert consent(caller).status == 403
    caller.world.switches["consent_privileged_role"] = True
    assert consent(caller).status == 201


def test_an_ended_relationship_gives_no_role(caller: Caller) -> None:
    caller.relationship.ends = caller.world.now() - 1
    assert consent(caller).status == 403


@pytest.mark.req("S-52")
def test_neither_a_foreign_customer_nor_the_partner_itself_can_be_consented(caller: Caller) -> None:
    assert code_of(consent(caller, caller.foreign_customer.tenant_id)) == (403, "20002")
    assert code_of(consent(caller, caller.partner.tenant_id)) == (403, "20002")
    assert not caller.foreign_customer.grants


def test_only_the_application_of_the_token_can_be_consented(caller: Caller) -> None:
    other = known_id("application", "usgov")
    assert code_of(consent(caller, body=consent_body(caller) | {"applicationId": other})) == (403, "2032")
    path = f"/customers/{caller.customer.tenant_id}/applicationconsents/{other}"
    assert caller.partner_center("DELETE", path).status == 403


@pytest.mark.parametrize(
    "change",
    [
        {"applicationId": "rubbish"},
        {"applicationId": None},
        {"applicationGrants": []},
        {"applicationGrants": None},
        {"applicationGrants": ["x"]},
        {"applicationGrants": [{"enterpriseApplicationId": GRAPH}]},
        {"applicationGrants": [{"enterpriseApplicationId": GRAPH, "scope": " "}]},
        {"applicationGrants": [{"enterpriseApplicationId": "x", "scope": "User.Read"}]},
        {"applicationGrants": [{"enterpriseApplicationId": GRAPH, "scope": "User.Read Directory.Read.All"}]},
    ],
    ids=str,
)
def test_a_malformed_consent_is_refused(caller: Caller, change: dict[str, Any]) -> None:
    assert code_of(consent(caller, body=consent_body(caller) | change)) == (400, "800002")
    assert caller.customer.principal_of(caller.application.app_id) is None


def test_a_body_that_is_no_json_is_refused(caller: Caller) -> None:
    path = f"/customers/{caller.customer.tenant_id}/applicationconsents"
    assert code_of(caller.partner_center("POST", path, body=b"<xml/>")) == (400, "800002")


def test_permissions_that_the_registration_does_not_list_are_refused_or_ignored(caller: Caller) -> None:
    body = consent_body(caller, "User.Read.All", "Mail.Read")
    assert code_of(consent(caller, body=body)) == (400, "800002")
    caller.world.switches["consent_unlisted"] = "ignore"
    assert consent(caller, body=body).status == 201
    assert granted(caller) == {"User.Read.All"}


def test_each_resource_can_have_a_request_of_its_own(caller: Caller) -> None:
    caller.customer.add_principal(PARTNER_CENTER, "Microsoft Partner Center")
    assert consent(caller).status == 201
    assert consent(caller, body=consent_body(caller, "user_impersonation", resource=PARTNER_CENTER)).status == 201
    assert len(caller.customer.grants) == 2


def test_an_accepted_consent_may_grant_nothing_or_answer_with_an_empty_body(caller: Caller) -> None:
    caller.world.switches |= {"consent_grants_nothing": True, "consent_empty_body": True}
    reply = consent(caller)
    assert (reply.status, reply.body) == (201, b"")
    assert caller.customer.principal_of(caller.application.app_id) is None


def test_a_consent_becomes_visible_only_after_a_while(caller: Caller) -> None:
    caller.world.switches["consent_visible_after"] = 60.0
    assert consent(caller).status == 201
    assert granted(caller) == set()
    caller.world.advance(61)
    assert granted(caller) == {"User.Read.All"}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_removed_consent_is_gone_and_removing_it_again_finds_nothing(caller: Caller, status: int) -> None:
    caller.world.switches["consent_delete_status"] = status
    assert consent(caller).status == 201
    assert remove(caller).status == status
    assert caller.customer.principal_of(caller.application.app_id) is None
    assert not caller.customer.grants
    assert code_of(remove(caller)) == (404, "1000")


@pytest.mark.req("R-20")
def test_a_repeated_request_id_gets_the_first_answer_and_has_one_effect(caller: Caller) -> None:
    headers = {"MS-RequestId": REQUEST}
    first = consent(caller, headers=headers)
    assert first.status == 201
    assert remove(caller).status == 200
    repeated = consent(caller, headers=headers)
    assert (repeated.status, repeated.json()) == (201, first.json())
    assert caller.customer.principal_of(caller.application.app_id) is None
    assert consent(caller).status == 201


@pytest.mark.req("R-20")
def test_a_consent_whose_answer_was_lost_is_answered_when_it_is_repeated(caller: Caller) -> None:
    caller.world.faults.append(Fault(service="partnercenter", path="applicationconsents", close="after"))
    headers = {"MS-RequestId": REQUEST}
    with pytest.raises(HTTPError):
        consent(caller, headers=headers)
    assert granted(caller) == {"User.Read.All"}
    assert consent(caller, headers=headers).status == 201
    assert consent(caller).status == 409


@pytest.mark.req("R-20")
def test_a_refused_request_may_be_repeated_with_the_same_id(caller: Caller) -> None:
    headers = {"MS-RequestId": REQUEST}
    roles, caller.relationship.assignments[0].roles = caller.relationship.assignments[0].roles, set()
    assert consent(caller, headers=headers).status == 403
    caller.relationship.assignments[0].roles = roles
    assert consent(caller, headers=headers).status == 201


# --- limits and books ---------------------------------------------------------------------------------------------


@pytest.mark.req("R-16")
def test_consents_are_limited_per_application_whoever_asks(caller: Caller) -> None:
    caller.world.switches["consent_limit"] = 3
    statuses = [remove(caller).status for _ in range(4)]
    assert statuses == [404, 404, 404, 429]
    reply = remove(caller)
    assert reply.json() == {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 1 seconds."}
    assert reply.headers["Retry-After"] == "1"
    assert caller.partner_center("GET", "/customers?size=1").status == 200


@pytest.mark.req("R-16")
def test_a_refusal_names_seconds_a_date_or_nothing(caller: Caller) -> None:
    caller.world.switches["customer_limit"] = 1
    path = f"/customers/{caller.customer.tenant_id}"
    assert caller.partner_center("GET", path).status == 200
    found = []
    for how in (True, "date", False):
        caller.world.switches["retry_after"] = how
        reply = caller.partner_center("GET", path)
        assert reply.status == 429
        found.append(reply.headers.get("Retry-After"))
    assert (found[0], found[2]) == ("30", None)
    assert found[1] is not None
    assert found[1].endswith(" GMT")


@pytest.mark.req("S-37")
def test_the_ledger_says_who_did_what_and_holds_no_token(caller: Caller) -> None:
    token = caller.token(caller.cloud.partner_center, "user_impersonation")
    consent(caller, token=token, headers={"MS-CorrelationId": CORRELATION})
    line = caller.world.ledger[-1]
    assert (line["service"], line["operation"], line["status"]) == ("partner_center", "create consent", 201)
    assert (line["tenant"], line["customer"]) == (caller.partner.tenant_id, caller.customer.tenant_id)
    assert (line["user"], line["correlation"]) == (caller.user().oid, CORRELATION)
    assert caller.world.counters["partner_center create consent 201"] == 1
    assert token not in repr(caller.world.ledger)
