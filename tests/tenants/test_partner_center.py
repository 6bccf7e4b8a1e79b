"""PartnerCenterClient on the wire: exact requests, every status, rubbish, and links that lead elsewhere."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import responses

from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    MfaRequired,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
    Unreachable,
)
from portal.microsoft.http import GuardedSession
from portal.microsoft.identifiers import TenantId
from tenants.partner_center import PartnerCenterClient
from tests.support.sentences import check_words
from tests.tenants.wire import CORRELATION, OTHER, PARTNER_CENTER, TENANT, client, customer

PROFILE = f"{PARTNER_CENTER}/v1/profiles/organization"
CUSTOMERS = f"{PARTNER_CENTER}/v1/customers"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def center() -> PartnerCenterClient:
    return client(PartnerCenterClient, PARTNER_CENTER)


def page(*items: Any, following: Any = None) -> dict[str, Any]:
    links = {"self": {"uri": "/customers"}} | ({"next": following} if following is not None else {})
    return {"totalCount": len(items), "items": list(items), "links": links}


def next_link(token: str, uri: str = "/customers?size=500&seekOperation=Next") -> dict[str, Any]:
    return {"uri": uri, "method": "GET", "headers": [{"key": "MS-ContinuationToken", "value": token}]}


@pytest.mark.req("S-18")
@pytest.mark.parametrize(
    ("header", "verdict"),
    [("true", True), ("True", True), (" TRUE ", True), ("false", False), ("", None), ("yes", None), (None, None)],
)
def test_the_profile_is_asked_with_validate_mfa_and_the_verdict_is_taken_literally(
    wire: responses.RequestsMock, center: PartnerCenterClient, header: str | None, verdict: bool | None
) -> None:
    headers = {} if header is None else {"isMfaCompliant": header}
    wire.get(PROFILE, json={"tenantId": TENANT.upper(), "companyName": "One", "domain": "d"}, headers=headers)

    profile = center.organization_profile()

    assert (profile.tenant_id, profile.company_name, profile.mfa_compliant) == (TENANT, "One", verdict)
    sent = wire.calls[0].request.headers
    assert sent["ValidateMfa"] == "true"
    assert sent["Authorization"] == "Bearer access-token-canary"
    assert sent["MS-CorrelationId"] == CORRELATION
    assert uuid.UUID(sent["MS-RequestId"])
    assert (sent["Accept"], sent["MS-Contract-Version"]) == ("application/json", "v1")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "800002", "description": "no"}, InvalidRequest),
        (401, {"code": 900421, "description": "MFA"}, MfaRequired),
        (401, {"code": "400"}, AuthenticationFailed),
        (403, {"code": "900150"}, AccessDenied),
        (403, None, AccessDenied),
        (404, {"code": "1000"}, NotFound),
        (409, {"code": "7000"}, Conflict),
        (429, {"statusCode": 429}, Throttled),
        (500, {"code": "2000"}, ServerFault),
        (503, None, ServerFault),
        (302, None, UnexpectedResponse),
        (418, {"code": "?"}, UnexpectedResponse),
    ],
)
def test_every_status_has_its_place_in_the_family(
    wire: responses.RequestsMock, center: PartnerCenterClient, status: int, body: Any, kind: type[RemoteError]
) -> None:
    answer = {"json": body} if body is not None else {"body": b""}
    wire.get(PROFILE, status=status, headers={"MS-RequestId": "theirs", "Location": "https://evil.example"}, **answer)

    with pytest.raises(RemoteError) as caught:
        center.organization_profile()

    assert type(caught.value) is kind
    assert caught.value.status == status
    assert (caught.value.correlation_id, caught.value.request_id) == (CORRELATION, "theirs")
    assert "canary" not in str(caught.value)


@pytest.mark.req("S-18")
def test_the_older_refusal_names_mfa_in_the_reason_phrase_only(
    wire: responses.RequestsMock, center: PartnerCenterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.get(PROFILE, status=401, body=b"")
    real = GuardedSession.send

    def with_reason(self: GuardedSession, request: Any, **kwargs: Any) -> requests.Response:
        response = real(self, request, **kwargs)
        response.reason = "Unauthorized - MFA required"
        return response

    monkeypatch.setattr(GuardedSession, "send", with_reason)

    with pytest.raises(MfaRequired):
        center.organization_profile()


def test_a_429_without_a_time_means_a_minute(wire: responses.RequestsMock, center: PartnerCenterClient) -> None:
    wire.get(PROFILE, status=429)
    with pytest.raises(Throttled) as caught:
        center.organization_profile()
    assert caught.value.retry_after == 60


def test_an_outage_is_tried_three_times_and_no_answer_is_no_verdict(
    wire: responses.RequestsMock, center: PartnerCenterClient
) -> None:
    wire.get(PROFILE, body=requests.exceptions.ConnectionError("https://secret-address"))
    with pytest.raises(Unreachable) as caught:
        center.organization_profile()
    assert len(wire.calls) == 3
    assert "secret-address" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"body": b"<html>", "content_type": "text/html"},
        {"body": b"{", "content_type": "application/json"},
        {"body": b"", "content_type": "application/json"},
        {"json": []},
        {"json": "text"},
        {"json": {}},
        {"json": {"tenantId": None}},
        {"json": {"tenantId": 7}},
        {"json": {"tenantId": "contoso.onmicrosoft.com"}},
        {"json": {"tenantId": TENANT, "companyName": ["a", "list"]}},
    ],
    ids=str,
)
def test_a_200_that_is_rubbish_is_no_profile(
    wire: responses.RequestsMock, center: PartnerCenterClient, answer: dict[str, Any]
) -> None:
    wire.get(PROFILE, **answer)
    with pytest.raises(UnexpectedResponse):
        center.organization_profile()


def test_customers_are_read_over_all_pages_with_the_token_of_the_page_before(
    wire: responses.RequestsMock, center: PartnerCenterClient
) -> None:
    tokens = ["AAE+/,x==", "two"]
    wire.get(CUSTOMERS, json=page(customer(), following=next_link(tokens[0])))
    wire.get(CUSTOMERS, json=page(customer(OTHER), following=next_link(tokens[1], "/v1/customers?seekOperation=Next")))
    wire.get(CUSTOMERS, json=page())

    pages = list(center.customers())

    assert [[one.tenant_id for one in each] for each in pages] == [[TENANT], [OTHER], []]
    one = pages[0][0]
    assert (one.company_name, one.domain, one.relationship, one.partner_center_id) == (
        "One",
        "one.example.com",
        "reseller",
        TENANT,
    )
    sent = [call.request for call in wire.calls]
    assert sent[0].url == f"{CUSTOMERS}?size=500"
    assert sent[1].url == f"{CUSTOMERS}?size=500&seekOperation=Next"
    assert sent[2].url == f"{CUSTOMERS}?seekOperation=Next"
    assert [request.headers.get("MS-ContinuationToken") for request in sent] == [None, *tokens]
    assert len({request.headers["MS-RequestId"] for request in sent}) == 3


@pytest.mark.parametrize(
    "link",
    [
        next_link("t", "https://evil.example/v1/customers"),
        next_link("t", "//evil.example/v1/customers"),
        next_link("t", "/v1//evil.example/customers"),
        next_link("t", "/customers\\..\\evil"),
        next_link("t", "/profiles/organization"),
        next_link("t", "/customers/../profiles/organization"),
        next_link("t", "/customers?" + "x" * 5000),
        {"uri": "", "headers": []},
        {"headers": []},
        "text",
        {"uri": "/customers", "headers": [{"key": "MS-ContinuationToken"}]},
        {"uri": "/customers", "headers": "text"},
    ],
    ids=lambda link: str(link)[:60],
)
def test_a_next_page_that_leads_elsewhere_is_not_followed(
    wire: responses.RequestsMock, center: PartnerCenterClient, link: Any
) -> None:
    wire.get(CUSTOMERS, json=page(customer(), following=link))

    pages = center.customers()
    next(pages)
    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)

    assert len(wire.calls) == 1
    diagnosis = diagnose(caught.value)
    assert diagnosis.cause.startswith("Partner Center, list customers: ")
    check_words(diagnosis)


@pytest.mark.parametrize("token", ["a\r\nAuthorization: theirs", "a\n", " \x00", "ñ", "a\u202e"], ids=ascii)
def test_a_token_of_the_next_page_that_is_no_header_is_said_to_be_one(
    wire: responses.RequestsMock, center: PartnerCenterClient, token: str
) -> None:
    wire.get(CUSTOMERS, json=page(customer(), following=next_link(token)))
    pages = center.customers()
    next(pages)

    with pytest.raises(UnexpectedResponse) as caught:
        next(pages)

    assert diagnose(caught.value).cause == (
        "Partner Center, list customers: the token of the next page is no header's value."
        if "\x00" not in token
        else "Partner Center, list customers: the field value is missing or has the wrong type."
    )
    assert len(wire.calls) == 1


def test_headers_that_a_link_dictates_are_not_sent(wire: responses.RequestsMock, center: PartnerCenterClient) -> None:
    link = next_link("t")
    link["headers"] += [{"key": "Authorization", "value": "Bearer theirs"}, {"key": "Host", "value": "evil.example"}]
    wire.get(CUSTOMERS, json=page(following=link))
    wire.get(CUSTOMERS, json=page())

    list(center.customers())

    assert wire.calls[1].request.headers["Authorization"] == "Bearer access-token-canary"
    assert "Host" not in wire.calls[1].request.headers


def test_a_list_that_repeats_a_page_ends_with_an_error(
    wire: responses.RequestsMock, center: PartnerCenterClient
) -> None:
    wire.get(CUSTOMERS, json=page(customer(), following=next_link("same")))

    with pytest.raises(UnexpectedResponse, match="repeats"):
        list(center.customers())

    assert len(wire.calls) == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": None},
        {"items": {}},
        {"items": ["text"]},
        {"items": [customer(id="")]},
        {"items": [customer("not-a-guid")]},
        {"items": [{"id": TENANT, "companyProfile": {"tenantId": "no"}}]},
        [],
    ],
    ids=str,
)
def test_a_page_that_is_rubbish_is_not_an_empty_page(
    wire: responses.RequestsMock, center: PartnerCenterClient, body: Any
) -> None:
    wire.get(CUSTOMERS, json=body)
    with pytest.raises(UnexpectedResponse):
        list(center.customers())


def test_a_customer_without_a_profile_is_known_by_its_id_and_long_texts_fit_the_columns(
    wire: responses.RequestsMock, center: PartnerCenterClient
) -> None:
    long = customer(OTHER, relationshipToPartner="r" * 99)
    long["companyProfile"] |= {"companyName": "n" * 999, "domain": "d" * 999}
    wire.get(CUSTOMERS, json=page({"id": TENANT}, long))

    [[bare, cut]] = list(center.customers())

    assert (bare.tenant_id, bare.company_name, bare.relationship) == (TENANT, "", "")
    assert (len(cut.company_name), len(cut.domain), len(cut.relationship)) == (256, 253, 40)


def test_one_customer_is_read_by_its_canonical_id(wire: responses.RequestsMock, center: PartnerCenterClient) -> None:
    wire.get(f"{CUSTOMERS}/{TENANT}", json=customer())

    assert center.customer(TenantId(TENANT.upper())).tenant_id == TENANT


@pytest.mark.parametrize("text", ["../customers", "", "common"])
@pytest.mark.req("S-52")
def test_what_is_no_tenant_id_never_becomes_a_path(center: PartnerCenterClient, text: str) -> None:
    with pytest.raises(ValueError):
        center.customer(TenantId(text))


@pytest.mark.parametrize(("status", "kind"), [(403, AccessDenied), (404, NotFound)])
def test_a_customer_of_somebody_else_is_refused(
    wire: responses.RequestsMock,
    center: PartnerCenterClient,
    status: int,
    kind: Callable[..., RemoteError],
) -> None:
    wire.get(f"{CUSTOMERS}/{TENANT}", status=status, json={"code": "20002" if status == 403 else "60003"})
    with pytest.raises(RemoteError) as caught:
        center.customer(TenantId(TENANT))
    assert type(caught.value) is kind
