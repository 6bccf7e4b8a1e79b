"""Partner Center REST: the partner's profile and its customers.

Always called with the partner tenant's own app+user token, never with a customer's. Source: Partner Center developer
documentation, "Get a list of customers", "Get an organization profile", "Partner Center REST headers".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from requests import Response

from portal.microsoft.api import ApiClient, JsonResponse
from portal.microsoft.identifiers import InvalidIdentifier, RequestId, TenantId, new_request_id, parse_tenant_id

PAGE_SIZE = 500
_LONGEST_LINK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganizationProfile:
    """Who Partner Center says we are. ``mfa_compliant`` is None when it gave no verdict (S-18)."""

    tenant_id: TenantId
    company_name: str
    domain: str
    mfa_compliant: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """One customer as listed. ``relationship`` is ``relationshipToPartner``, verbatim."""

    partner_center_id: str
    tenant_id: TenantId
    company_name: str
    domain: str
    relationship: str


class PartnerCenterApi(ApiClient):
    """What every Partner Center client shares: headers and error bodies."""

    service = "partner_center"
    correlation_id_header = "MS-CorrelationId"
    request_id_response_header = "MS-RequestId"

    def common_headers(self, request_id: RequestId | None) -> Mapping[str, str]:
        return {
            "MS-RequestId": request_id or new_request_id(),
            "MS-Contract-Version": "v1",
            "MS-PartnerCenter-Application": "CPV portal",
        }

    def error_code(self, body: Any, response: Response) -> str:
        code = body.get("code") if isinstance(body, dict) else None
        if isinstance(code, str | int) and not isinstance(code, bool):
            return str(code)
        if response.status_code == 401 and "MFA" in str(response.reason):
            return "900421"  # the older form says it in the reason phrase only
        return super().error_code(body, response)


class PartnerCenterClient(PartnerCenterApi):
    """Reads the partner's profile and customers."""

    def organization_profile(self) -> OrganizationProfile:
        """Return the profile of the signed-in partner and Partner Center's verdict on its MFA.

        GET /v1/profiles/organization with ``ValidateMfa: true``; app+user only. It proves token, audience, registration
        and role in one cheap call.

        Raises:
            MfaRequired: refused for missing MFA.
            AccessDenied: the account lacks the Admin Agent role, or the partner an agreement.
        """
        operation = "read organization profile"
        response = self.request(
            "GET", "/v1/profiles/organization", operation=operation, headers={"ValidateMfa": "true"}
        )
        profile = self.record(response.body, operation)
        verdict = response.headers.get("isMfaCompliant", "").strip().lower()
        return OrganizationProfile(
            tenant_id=self._tenant(profile, "tenantId", operation),
            company_name=self.display(profile, "companyName", operation),
            domain=self.display(profile, "domain", operation),
            mfa_compliant={"true": True, "false": False}.get(verdict),
        )

    def customers(self, *, odd: list[str] | None = None) -> Iterator[list[Customer]]:
        """Yield the pages of all customers; finishes or raises.

        GET /v1/customers?size=, then ``links.next`` with the headers that it lists (``MS-ContinuationToken``).

        Args:
            odd: takes the items that cannot be read, in words; without it one is an error.
        """
        operation = "list customers"
        first = {"size": str(PAGE_SIZE)}
        seen: set[str] = set()

        def fetch_first() -> JsonResponse:
            return self.request("GET", "/v1/customers", operation=operation, params=first)

        def after(page: JsonResponse) -> Callable[[], JsonResponse] | None:
            links = self.record(page.body, operation).get("links")
            following = links.get("next") if isinstance(links, dict) else None
            if following is None:
                return None
            path, headers = self._continuation(self.record(following, operation), operation)
            mark = path + headers.get("MS-ContinuationToken", "")
            if mark in seen:
                raise self._unexpected(operation, None, "the list repeats a page")
            seen.add(mark)
            return lambda: self.request("GET", path, operation=operation, headers=headers)

        for page in self.follow(fetch_first, after):
            items = self.record(page.body, operation).get("items")
            yield self.each(items, operation, lambda item: self._customer(item, operation), name=self._called, odd=odd)

    def customer(self, tenant_id: TenantId) -> Customer:
        """Return one customer; proves that it is a customer of this partner (S-52).

        GET /v1/customers/{customer-tenant-id}.

        Raises:
            NotFound, AccessDenied: not a customer of this partner.
        """
        operation = "read customer"
        response = self.request("GET", f"/v1/customers/{parse_tenant_id(tenant_id)}", operation=operation)
        return self._customer(self.record(response.body, operation), operation)

    def _customer(self, item: Mapping[str, Any], operation: str) -> Customer:
        profile = item.get("companyProfile")
        company: Mapping[str, Any] = profile if isinstance(profile, dict) else {}
        source, key = (company, "tenantId") if company.get("tenantId") else (item, "id")
        return Customer(
            partner_center_id=self.text(item, "id", operation)[:64],
            tenant_id=self._tenant(source, key, operation),
            company_name=self.display(company, "companyName", operation)[:256],
            domain=self.display(company, "domain", operation)[:253],
            relationship=self.display(item, "relationshipToPartner", operation)[:40],
        )

    @staticmethod
    def _called(item: Mapping[str, Any]) -> object:
        company = item.get("companyProfile")
        return (company.get("companyName") if isinstance(company, dict) else None) or item.get("id")

    def _tenant(self, record: Mapping[str, Any], key: str, operation: str) -> TenantId:
        try:
            return parse_tenant_id(self.text(record, key, operation))
        except InvalidIdentifier:
            raise self._unexpected(operation, None, f"{key} is not a tenant id") from None

    def _continuation(self, link: Mapping[str, Any], operation: str) -> tuple[str, dict[str, str]]:
        uri = self.text(link, "uri", operation)
        headers = {
            self.text(header, "key", operation): self.text(header, "value", operation)
            for header in self.records(link.get("headers") or [], operation)
        }
        # Only this one header may be dictated to us, and only a relative path on the same host.
        wanted = {name: value for name, value in headers.items() if name.lower() == "ms-continuationtoken"}
        path = uri if uri.startswith("/v1/") else f"/v1{uri}"
        if path.partition("?")[0] != "/v1/customers" or len(path) > _LONGEST_LINK:
            raise self._unexpected(operation, None, "the next page is elsewhere")
        if not all(value.isascii() and value.isprintable() for value in wanted.values()):
            raise self._unexpected(operation, None, "the token of the next page is no header's value")
        return path, wanted
