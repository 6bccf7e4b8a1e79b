"""Partner Center of the sandbox, over the wire."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from urllib3.exceptions import HTTPError

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.minted import Desk
from tests.sandbox.tests.wire import Reply, Vendor, Wire
from tests.sandbox.world import DIRECTORY_READERS, GLOBAL_ADMINISTRATOR, GRAPH, PARTNER_CENTER, Fault, known_id

UNKNOWN_RESOURCE = "00000002-0000-0ff1-ce00-000000000000"
CORRELATION = "11111111-2222-4333-8444-555555555555"
REQUEST = "66666666-7777-4888-9999-aaaaaaaaaaaa"


@pytest.fixture
def desk(sandbox: Sandbox, wire: Wire) -> Desk:
    return Desk(sandbox=sandbox, wire=wire)


def consent_body(desk: Desk, *scopes: str, resource: str = GRAPH, separator: str = ",") -> dict[str, Any]:
    return {
        "applicationId": desk.application.app_id,
        "displayName": "Example Control Panel",
        "applicationGrants": [
            {"enterpriseApplicationId": resource, "scope": separator.join(scopes or ("User.Read.All",))}
        ],
    }


def consent(desk: Desk, customer: str = "", body: Any = None, **rest: Any) -> Reply:
    path = f"/customers/{customer or desk.customer.tenant_id}/applicationconsents"
    return desk.partner_center("POST", path, data=consent_body(desk) if body is None else body, **rest)


def remove(desk: Desk, **rest: Any) -> Reply:
    path = f"/customers/{desk.customer.tenant_id}/applicationconsents/{desk.application.app_id}"
    return desk.partner_center("DELETE", path, **rest)


def granted(desk: Desk) -> set[str]:
    return desk.customer.granted(desk.application.app_id, GRAPH, desk.world.now())


def code_of(reply: Reply) -> tuple[int, str]:
    return reply.status, str(reply.json()["code"])


# --- who may call -------------------------------------------------------------------------------------------------


def test_a_call_without_a_token_is_refused_in_the_documented_form(desk: Desk) -> None:
    reply = desk.partner_center("GET", "/customers?size=40", token="")
    assert reply.status == 401
    body = reply.json()
    assert (body["code"], body["data"], body["source"]) == ("400", [], "PartnerApiServiceCore")


def test_a_token_for_another_audience_is_refused(desk: Desk) -> None:
    token = desk.token(desk.cloud.graph, "user_impersonation")
    assert code_of(desk.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_a_token_without_user_impersonation_is_refused(desk: Desk) -> None:
    token = desk.token(desk.cloud.partner_center, "User.Read")
    assert code_of(desk.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_an_expired_token_is_refused(desk: Desk) -> None:
    token = desk.token(desk.cloud.partner_center, "user_impersonation")
    assert desk.partner_center("GET", "/customers?size=40", token=token).status == 200
    desk.world.advance(5000)
    assert desk.partner_center("GET", "/customers?size=40", token=token).status == 401


def test_a_token_of_a_customer_tenant_is_refused(desk: Desk) -> None:
    token = desk.token(desk.cloud.partner_center, "user_impersonation", tenant=desk.customer)
    assert code_of(desk.partner_center("GET", "/customers?size=40", token=token)) == (401, "400")


def test_an_application_that_is_no_control_panel_vendors_is_refused(desk: Desk) -> None:
    desk.application.cpv = False
    assert code_of(desk.partner_center("GET", "/profiles/organization")) == (401, "400")


def test_a_user_outside_adminagents_is_refused(desk: Desk) -> None:
    token = desk.token(desk.cloud.partner_center, "user_impersonation", user=desk.user("member"))
    assert code_of(desk.partner_center("GET", "/profiles/organization", token=token)) == (403, "900150")


def test_a_partner_whose_program_status_ended_is_refused(desk: Desk) -> None:
    desk.partner.enabled = False
    assert code_of(desk.partner_center("GET", "/profiles/organization")) == (403, "900149")


@pytest.mark.req("S-18")
def test_the_verdict_on_mfa_is_given_when_asked_for(desk: Desk) -> None:
    weak = desk.token(desk.cloud.partner_center, "user_impersonation", amr=("pwd",))
    asked = {"ValidateMfa": "true"}
    verdicts = [
        desk.partner_center("GET", "/profiles/organization", headers=asked),
        desk.partner_center("GET", "/profiles/organization", headers=asked, token=weak),
        desk.partner_center("GET", "/profiles/organization"),
    ]
    assert [(reply.status, reply.headers.get("isMfaCompliant")) for reply in verdicts] == [
        (200, "true"),
        (200, "false"),
        (200, None),
    ]


@pytest.mark.req("S-18")
def test_enforced_mfa_refuses_tokens_without_it_in_the_new_and_the_old_form(desk: Desk) -> None:
    weak = desk.token(desk.cloud.partner_center, "user_impersonation", amr=("pwd",))
    desk.world.switches["mfa_enforced"] = True
    assert desk.partner_center("GET", "/profiles/organization").status == 200
    assert code_of(desk.partner_center("GET", "/profiles/organization", token=weak)) == (401, "900421")
    desk.world.switches["mfa_refusal"] = "old"
    reply = desk.partner_center("GET", "/profiles/organization", token=weak)
    assert (reply.status, reply.body) == (401, b"")
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_ids_are_echoed_and_made_when_absent(desk: Desk) -> None:
    sent = {"MS-RequestId": REQUEST, "MS-CorrelationId": CORRELATION, "X-Locale": "de-DE"}
    reply = desk.partner_center("GET", "/customers?size=1", headers=sent)
    assert {name: reply.headers[name] for name in sent} == sent
    reply = desk.partner_center("GET", "/nothing")
    assert code_of(reply) == (404, "1000")
    assert all(reply.headers[name] for name in ("MS-RequestId", "MS-CorrelationId", "MS-CV", "MS-ServerId"))


# --- customers ----------------------------------------------------------------------------------------------------


def pages(desk: Desk, query: str) -> list[list[str]]:
    """Follow the links as documented and return the names on each page."""
    headers: dict[str, str] = {}
    found, path = [], f"/customers?{query}"
    while path:
        reply = desk.partner_center("GET", path, headers=headers)
        assert reply.status == 200, reply.text
        body = reply.json()
        assert body["totalCount"] == len(body["items"])
        found.append([item["companyProfile"]["companyName"] for item in body["items"]])
        following = body["links"].get("next")
        path = following["uri"] if following else ""
        headers = {item["key"]: item["value"] for item in following["headers"]} if following else {}
    return found


def test_customers_come_in_pages_of_the_asked_size(desk: Desk) -> None:
    scenarios.load(desk.world, "demo", desk.sandbox.clouds)
    found = pages(desk, "size=40")
    assert [len(page) for page in found] == [40, 40, 40, 10]
    assert len({name for page in found for name in page}) == 130


def test_a_page_is_never_larger_than_the_limit(desk: Desk) -> None:
    desk.world.switches["page_limit"] = 2
    assert [len(page) for page in pages(desk, "size=500")] == [2, 1]


def test_a_customer_has_the_documented_members(desk: Desk) -> None:
    customer = desk.customer
    item = desk.partner_center("GET", "/customers?size=1").json()["items"][0]
    assert item["id"] == item["companyProfile"]["tenantId"] == customer.tenant_id
    assert item["companyProfile"]["domain"] == customer.domain
    assert item["relationshipToPartner"] == "reseller"
    assert item["links"]["self"]["uri"] == f"/customers/{customer.tenant_id}"


def test_an_empty_list_is_an_empty_page_without_a_link(desk: Desk) -> None:
    desk.world.customers[desk.partner.tenant_id].clear()
    body = desk.partner_center("GET", "/customers?size=40").json()
    assert (body["totalCount"], body["items"], "next" in body["links"]) == (0, [], False)


def test_the_filter_finds_names_and_domains_by_their_beginning(desk: Desk) -> None:
    def filtered(field: str, value: str, operator: str = "starts_with") -> Reply:
        wanted = json.dumps({"Field": field, "Value": value, "Operator": operator})
        return desk.partner_center("GET", f"/customers?size=0&filter={quote(wanted)}")

    customer = desk.customer
    for field, value in (("CompanyName", customer.name[:6].upper()), ("Domain", customer.domain[:21])):
        assert customer.tenant_id in {item["id"] for item in filtered(field, value).json()["items"]}
    assert filtered("CompanyName", "zzz").json()["items"] == []
    assert filtered("IndirectReseller", "x").json()["items"] == []
    assert filtered("CompanyName", "x", "equals").status == 400
    assert filtered("Colour", "x").status == 400
    assert desk.partner_center("GET", "/customers?size=0&filter=rubbish").status == 400


@pytest.mark.parametrize("query", ["size=x", "size=-1", "size=0", "size=10&seekOperation=Previous"])
def test_a_wrong_query_is_refused(desk: Desk, query: str) -> None:
    assert code_of(desk.partner_center("GET", f"/customers?{query}")) == (400, "3000")


def test_a_continuation_token_is_bound_to_user_and_query_and_expires(desk: Desk) -> None:
    body = desk.partner_center("GET", "/customers?size=1").json()
    link = body["links"]["next"]
    headers = {item["key"]: item["value"] for item in link["headers"]}
    assert link["uri"] == "/customers?size=1&seekOperation=Next"
    assert all(character in headers["MS-ContinuationToken"] for character in "+/=,")
    follow = "/customers?seekOperation=Next"
    assert desk.partner_center("GET", follow, headers=headers).json()["items"] != body["items"]
    other_user = desk.token(desk.cloud.partner_center, "user_impersonation", user=desk.user("second"))
    wanted = quote('{"Field":"Domain","Value":"a","Operator":"starts_with"}')
    refused = [
        desk.partner_center("GET", follow, headers=headers, token=other_user),
        desk.partner_center("GET", f"{follow}&filter={wanted}", headers=headers),
        desk.partner_center("GET", follow, headers={"MS-ContinuationToken": "wrong"}),
        desk.partner_center("GET", follow),
    ]
    desk.world.advance(601)
    refused.append(desk.partner_center("GET", follow, headers=headers))
    assert [reply.status for reply in refused] == [400] * 5


def test_links_and_error_codes_take_the_other_forms_seen_in_the_wild(desk: Desk) -> None:
    desk.world.switches |= {"link_prefix": "/v1", "continuation_in_body": True, "numeric_codes": True}
    body = desk.partner_center("GET", "/customers?size=1").json()
    assert body["links"]["next"]["uri"].startswith("/v1/customers?")
    assert body["continuationToken"] == body["links"]["next"]["headers"][0]["value"]
    assert desk.partner_center("GET", "/nothing").json()["code"] == 1000


@pytest.mark.req("S-52")
def test_one_customer_is_shown_to_its_partner_only(desk: Desk) -> None:
    body = desk.partner_center("GET", f"/customers/{desk.customer.tenant_id}").json()
    assert body["companyProfile"]["tenantId"] == desk.customer.tenant_id
    assert body["billingProfile"]["attributes"]["objectType"] == "CustomerBillingProfile"
    assert not desk.world.crossings
    foreign = f"/customers/{desk.foreign_customer.tenant_id}"
    assert code_of(desk.partner_center("GET", foreign)) == (403, "20002")
    assert [crossing["asked"] for crossing in desk.world.crossings] == [desk.foreign_customer.tenant_id]
    desk.world.switches["customer_foreign_status"] = 404
    assert code_of(desk.partner_center("GET", foreign)) == (404, "60003")
    assert code_of(desk.partner_center("GET", "/customers/rubbish")) == (400, "900118")


def test_a_customers_organization_needs_a_reading_role(desk: Desk) -> None:
    path = f"/customers/{desk.customer.tenant_id}"
    assert desk.partner_center("GET", f"{path}/profiles/company").json()["companyName"] == desk.customer.name
    assert code_of(desk.partner_center("GET", f"{path}/organization")) == (403, "900150")
    desk.relationship.assignments[0].roles.add(GLOBAL_ADMINISTRATOR)
    assert desk.partner_center("GET", f"{path}/organization").json()[0]["displayName"] == desk.customer.name


def test_the_partners_profiles_name_the_partner(desk: Desk) -> None:
    organization = desk.partner_center("GET", "/profiles/organization").json()
    assert organization["tenantId"] == desk.partner.tenant_id
    assert (organization["domain"], organization["profileType"]) == (desk.partner.domain, "OrganizationProfile")
    legal = desk.partner_center("GET", "/profiles/legalbusiness?vettingVersion=Current").json()
    assert (legal["companyName"], legal["vettingStatus"]) == (desk.partner.name, "authorized")
    assert desk.partner_center("GET", "/profiles/legalbusiness?vettingVersion=Newest").status == 400


# --- consents -----------------------------------------------------------------------------------------------------


def test_a_consent_becomes_a_service_principal_with_tenant_wide_grants(desk: Desk) -> None:
    reply = consent(desk, body=consent_body(desk, "User.Read.All", "Directory.Read.All"))
    assert reply.status == 201
    assert reply.json()["applicationGrants"] == [
        {"enterpriseApplicationId": GRAPH, "scope": "Directory.Read.All,User.Read.All"}
    ]
    assert granted(desk) == {"User.Read.All", "Directory.Read.All"}
    assert {grant.consent_type for grant in desk.customer.grants.values()} == {"AllPrincipals"}
    look = desk.wire.get(f"{desk.cloud.partner_center}/sandbox/consents/{desk.customer.tenant_id}").json()
    assert look == {desk.application.app_id: {GRAPH: ["Directory.Read.All", "User.Read.All"]}}


def test_the_token_endpoint_obeys_a_consent(desk: Desk, vendor: Vendor) -> None:
    refresh, customer = vendor.refresh_token(), desk.customer.tenant_id
    assert vendor.refresh(refresh, customer, vendor.graph).json()["error_codes"] == [65001]
    assert consent(desk).status == 201
    answer = vendor.refresh(refresh, customer, vendor.graph)
    assert (answer.status, answer.json()["scope"]) == (200, "User.Read.All")
    assert remove(desk).status == 200
    assert vendor.refresh(refresh, customer, vendor.graph).json()["error_codes"] == [65001]


def test_property_names_are_read_without_regard_to_case_and_spaces_after_commas_are_fine(desk: Desk) -> None:
    body = {
        "ApplicationId": desk.application.app_id.upper(),
        "ApplicationGrants": [{"EnterpriseApplicationId": GRAPH, "SCOPE": "User.Read.All, Directory.Read.All"}],
    }
    assert consent(desk, body=body).status == 201
    assert granted(desk) == {"User.Read.All", "Directory.Read.All"}


@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.req("R-21")
def test_a_second_consent_to_the_same_resource_exists_already_and_adds_nothing(desk: Desk, status: int) -> None:
    desk.world.switches["consent_exists_status"] = status
    assert consent(desk).status == 201
    reply = consent(desk, body=consent_body(desk, "User.Read.All", "Directory.Read.All"))
    assert reply.status == status
    assert "permission entry already exists" in reply.json()["description"].lower()
    assert granted(desk) == {"User.Read.All"}


def test_a_resource_that_the_customer_lacks_loses_the_whole_request(desk: Desk) -> None:
    desk.application.permissions[UNKNOWN_RESOURCE] = {"full_access"}
    body = consent_body(desk)
    body["applicationGrants"] += consent_body(desk, "full_access", resource=UNKNOWN_RESOURCE)["applicationGrants"]
    reply = consent(desk, body=body)
    assert reply.status == 400
    assert "lacks a service principal for" in reply.json()["description"]
    assert desk.customer.principal_of(desk.application.app_id) is None


@pytest.mark.parametrize(("status", "code"), [(403, "900150"), (400, "800002")])
def test_a_consent_needs_a_gdap_role_that_may_consent(desk: Desk, status: int, code: str) -> None:
    desk.world.switches["consent_denied_status"] = status
    desk.relationship.assignments[0].roles = {DIRECTORY_READERS}
    reply = consent(desk)
    assert code_of(reply) == (status, code)
    assert "insufficient privileges" in reply.json()["description"].lower()
    assert granted(desk) == set()


def test_a_formerly_sufficient_role_is_a_switch(desk: Desk) -> None:
    desk.relationship.assignments[0].roles = {"e8611ab8-c189-46e8-94e1-60213ab1f814"}
    assert consent(desk).status == 403
    desk.world.switches["consent_privileged_role"] = True
    assert consent(desk).status == 201


def test_an_ended_relationship_gives_no_role(desk: Desk) -> None:
    desk.relationship.ends = desk.world.now() - 1
    assert consent(desk).status == 403


@pytest.mark.req("S-52")
def test_neither_a_foreign_customer_nor_the_partner_itself_can_be_consented(desk: Desk) -> None:
    assert code_of(consent(desk, desk.foreign_customer.tenant_id)) == (403, "20002")
    assert code_of(consent(desk, desk.partner.tenant_id)) == (403, "20002")
    assert not desk.foreign_customer.grants


def test_only_the_application_of_the_token_can_be_consented(desk: Desk) -> None:
    other = known_id("application", "usgov")
    assert code_of(consent(desk, body=consent_body(desk) | {"applicationId": other})) == (403, "2032")
    path = f"/customers/{desk.customer.tenant_id}/applicationconsents/{other}"
    assert desk.partner_center("DELETE", path).status == 403


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
def test_a_malformed_consent_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    assert code_of(consent(desk, body=consent_body(desk) | change)) == (400, "800002")
    assert desk.customer.principal_of(desk.application.app_id) is None


def test_a_body_that_is_no_json_is_refused(desk: Desk) -> None:
    path = f"/customers/{desk.customer.tenant_id}/applicationconsents"
    assert code_of(desk.partner_center("POST", path, body=b"<xml/>")) == (400, "800002")


def test_permissions_that_the_registration_does_not_list_are_refused_or_ignored(desk: Desk) -> None:
    body = consent_body(desk, "User.Read.All", "Mail.Read")
    assert code_of(consent(desk, body=body)) == (400, "800002")
    desk.world.switches["consent_unlisted"] = "ignore"
    assert consent(desk, body=body).status == 201
    assert granted(desk) == {"User.Read.All"}


def test_each_resource_can_have_a_request_of_its_own(desk: Desk) -> None:
    desk.customer.add_principal(PARTNER_CENTER, "Microsoft Partner Center")
    assert consent(desk).status == 201
    assert consent(desk, body=consent_body(desk, "user_impersonation", resource=PARTNER_CENTER)).status == 201
    assert len(desk.customer.grants) == 2


def test_an_accepted_consent_may_grant_nothing_or_answer_with_an_empty_body(desk: Desk) -> None:
    desk.world.switches |= {"consent_grants_nothing": True, "consent_empty_body": True}
    reply = consent(desk)
    assert (reply.status, reply.body) == (201, b"")
    assert desk.customer.principal_of(desk.application.app_id) is None


def test_a_consent_becomes_visible_only_after_a_while(desk: Desk) -> None:
    desk.world.switches["consent_visible_after"] = 60.0
    assert consent(desk).status == 201
    assert granted(desk) == set()
    desk.world.advance(61)
    assert granted(desk) == {"User.Read.All"}


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_removed_consent_is_gone_and_removing_it_again_finds_nothing(desk: Desk, status: int) -> None:
    desk.world.switches["consent_delete_status"] = status
    assert consent(desk).status == 201
    assert remove(desk).status == status
    assert desk.customer.principal_of(desk.application.app_id) is None
    assert not desk.customer.grants
    assert code_of(remove(desk)) == (404, "1000")


@pytest.mark.req("R-20")
def test_a_repeated_request_id_gets_the_first_answer_and_has_one_effect(desk: Desk) -> None:
    headers = {"MS-RequestId": REQUEST}
    first = consent(desk, headers=headers)
    assert first.status == 201
    assert remove(desk).status == 200
    repeated = consent(desk, headers=headers)
    assert (repeated.status, repeated.json()) == (201, first.json())
    assert desk.customer.principal_of(desk.application.app_id) is None
    assert consent(desk).status == 201


@pytest.mark.req("R-20")
def test_a_consent_whose_answer_was_lost_is_answered_when_it_is_repeated(desk: Desk) -> None:
    desk.world.faults.append(Fault(service="partnercenter", path="applicationconsents", close="after"))
    headers = {"MS-RequestId": REQUEST}
    with pytest.raises(HTTPError):
        consent(desk, headers=headers)
    assert granted(desk) == {"User.Read.All"}
    assert consent(desk, headers=headers).status == 201
    assert consent(desk).status == 409


@pytest.mark.req("R-20")
def test_a_refused_request_may_be_repeated_with_the_same_id(desk: Desk) -> None:
    headers = {"MS-RequestId": REQUEST}
    roles, desk.relationship.assignments[0].roles = desk.relationship.assignments[0].roles, set()
    assert consent(desk, headers=headers).status == 403
    desk.relationship.assignments[0].roles = roles
    assert consent(desk, headers=headers).status == 201


# --- limits and books ---------------------------------------------------------------------------------------------


@pytest.mark.req("R-16")
def test_consents_are_limited_per_application_whoever_asks(desk: Desk) -> None:
    desk.world.switches["consent_limit"] = 3
    statuses = [remove(desk).status for _ in range(4)]
    assert statuses == [404, 404, 404, 429]
    reply = remove(desk)
    assert reply.json() == {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 1 seconds."}
    assert reply.headers["Retry-After"] == "1"
    assert desk.partner_center("GET", "/customers?size=1").status == 200


@pytest.mark.req("R-16")
def test_a_refusal_names_seconds_a_date_or_nothing(desk: Desk) -> None:
    desk.world.switches["customer_limit"] = 1
    path = f"/customers/{desk.customer.tenant_id}"
    assert desk.partner_center("GET", path).status == 200
    found = []
    for how in (True, "date", False):
        desk.world.switches["retry_after"] = how
        reply = desk.partner_center("GET", path)
        assert reply.status == 429
        found.append(reply.headers.get("Retry-After"))
    assert (found[0], found[2]) == ("30", None)
    assert found[1] is not None
    assert found[1].endswith(" GMT")


@pytest.mark.req("S-37")
def test_the_ledger_says_who_did_what_and_holds_no_token(desk: Desk) -> None:
    token = desk.token(desk.cloud.partner_center, "user_impersonation")
    consent(desk, token=token, headers={"MS-CorrelationId": CORRELATION})
    line = desk.world.ledger[-1]
    assert (line["service"], line["operation"], line["status"]) == ("partner_center", "create consent", 201)
    assert (line["tenant"], line["customer"]) == (desk.partner.tenant_id, desk.customer.tenant_id)
    assert (line["user"], line["correlation"]) == (desk.user().oid, CORRELATION)
    assert desk.world.counters["partner_center create consent 201"] == 1
    assert token not in repr(desk.world.ledger)
