"""ApplicationConsent API: put our application's consent into a customer tenant, or take it out (app+user).

Source: Partner Center REST, "Control panel vendor APIs"; 50 requests per second per application id. There is no call
that reads a consent: the truth is read from Graph in the customer tenant (``consent.microsoft.directory``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from requests import Response

from portal.microsoft.diagnosis import diagnose_quoted
from portal.microsoft.errors import AccessDenied, AlreadyExists, NotFound, RemoteError
from portal.microsoft.identifiers import ApplicationId, RequestId, TenantId, parse_application_id, parse_tenant_id
from tenants.partner_center import PartnerCenterApi

_TELLING_STATUS = {400, 403, 404, 409}
_FRAGMENTS: tuple[tuple[str, type[RemoteError], str], ...] = (
    ("permission entry already exists", AlreadyExists, "already_exists"),
    ("lacks a service principal for", NotFound, "resource_missing"),
    ("not subscribed", NotFound, "resource_missing"),
    ("insufficient privileges", AccessDenied, "insufficient_privileges"),
)


class ApplicationConsentClient(PartnerCenterApi):
    """Creates and removes consents, one POST per resource so that a missing resource does not lose the rest."""

    def error_for(self, response: Response, body: Any, operation: str) -> RemoteError:
        error = super().error_for(response, body, operation)
        if response.status_code not in _TELLING_STATUS:
            return error
        # The service has one code for many causes here; these fragments, together with the status, tell them apart.
        description = str(body.get("description", "")).lower()[:2000] if isinstance(body, dict) else ""
        for fragment, kind, code in _FRAGMENTS:
            if fragment in description or (kind is AlreadyExists and response.status_code == 409):
                return kind(
                    self.service,
                    operation,
                    status=response.status_code,
                    code=code,
                    correlation_id=self.correlation_id,
                    request_id=error.request_id,
                )
        if (quoted := diagnose_quoted(description)) is not None:
            return quoted.error(
                self.service,
                operation,
                status=response.status_code,
                code=quoted.key,
                correlation_id=self.correlation_id,
                request_id=error.request_id,
                detail=quoted.cause,
            )
        return error

    def create(
        self,
        *,
        customer: TenantId,
        application_id: ApplicationId,
        display_name: str,
        resource: ApplicationId,
        scopes: Sequence[str],
        request_id: RequestId,
    ) -> None:
        """Consent the application to one resource's delegated permissions in this customer.

        POST /v1/customers/{id}/applicationconsents. ``request_id`` was stored before and is the same for every repeat
        of this call (R-20).

        Raises:
            AlreadyExists: something is there; look what, decide nothing from this (R-21).
            AccessDenied, InvalidRequest: this customer only; the run goes on (R-24).
            RetryableError: the outcome is unknown; look before repeating.
        """
        self.request(
            "POST",
            f"/v1/customers/{parse_tenant_id(customer)}/applicationconsents",
            operation="create application consent",
            payload={
                "applicationId": parse_application_id(application_id),
                "displayName": display_name,
                "applicationGrants": [
                    {"enterpriseApplicationId": parse_application_id(resource), "scope": ",".join(scopes)}
                ],
            },
            request_id=request_id,
        )

    def remove(self, *, customer: TenantId, application_id: ApplicationId, request_id: RequestId) -> None:
        """Remove the application's consent; nothing there is success. Read back afterwards.

        DELETE /v1/customers/{id}/applicationconsents/{application id}.
        """
        try:
            self.request(
                "DELETE",
                f"/v1/customers/{parse_tenant_id(customer)}/applicationconsents/{parse_application_id(application_id)}",
                operation="remove application consent",
                request_id=request_id,
            )
        except NotFound:
            return
