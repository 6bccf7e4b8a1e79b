"""Read an application and its service principal in one tenant: Graph, with Application.Read.All there.

Source: Microsoft Graph v1.0, application, "List owners", "List federatedIdentityCredentials"; servicePrincipal, "List
appRoleAssignments granted to a service principal" (least privileged: Application.Read.All).
"""

from __future__ import annotations

from typing import Any

from portal.microsoft.errors import NotFound
from portal.microsoft.graph import GraphApi
from portal.microsoft.identifiers import ApplicationId, parse_application_id

_SELECTED = (
    "appId,displayName,signInAudience,isDisabled,disabledByMicrosoftStatus,isFallbackPublicClient,web,spa,publicClient,"
    "requiredResourceAccess,servicePrincipalLockConfiguration,passwordCredentials,keyCredentials,verifiedPublisher"
)


_PRINCIPAL = "appId,accountEnabled,passwordCredentials,keyCredentials"


class ApplicationObjectClient(GraphApi):
    """Reads registrations; changes nothing."""

    def read(self, application_id: ApplicationId) -> dict[str, Any]:
        """Return both objects with all owners, federated credentials and granted roles, as ``seen.read`` takes them.

        Raises:
            NotFound: the tenant has no such registration.
            AccessDenied: the token may not read it.
        """
        operation, app_id = "read registration", parse_application_id(application_id)
        path, principal = f"/v1.0/applications(appId='{app_id}')", f"/v1.0/servicePrincipals(appId='{app_id}')"
        found = self.request("GET", path, operation=operation, params={"$select": _SELECTED})
        lists = {"owners": {"$select": "id,displayName"}, "federatedIdentityCredentials": {}}
        return {
            "application": dict(self.record(found.body, operation)),
            **{
                name: [dict(one) for one in self.collection(f"{path}/{name}", operation=operation, params=chosen)]
                for name, chosen in lists.items()
            },
            **self._principal(principal, operation),
        }

    def _principal(self, path: str, operation: str) -> dict[str, Any]:
        """Return the service principal and what it was granted; nothing where the tenant has none."""
        try:
            found = self.request("GET", path, operation=operation, params={"$select": _PRINCIPAL})
            roles = [dict(one) for one in self.collection(f"{path}/appRoleAssignments", operation=operation, params={})]
        except NotFound:
            return {}
        return {"servicePrincipal": dict(self.record(found.body, operation)), "appRoleAssignments": roles}


class ApplicationSwitchClient(GraphApi):
    """Deactivates a registration for all tenants, and activates it again. What was consented to stays.

    Needs Application.ReadWrite.All, or Application.ReadWrite.OwnedBy where the caller owns the application.

    Source: Microsoft Graph v1.0, "Update application", property ``isDisabled``.
    """

    def switch(self, application_id: ApplicationId, *, disabled: bool) -> bool:
        """Write the property, read it again and return what was read.

        Raises:
            AccessDenied: the token may not change it.
            NotFound: the tenant has no such registration.
        """
        path = f"/v1.0/applications(appId='{parse_application_id(application_id)}')"
        payload = {"isDisabled": disabled}
        self.request("PATCH", path, operation="deactivate registration", payload=payload, repeatable=True)
        operation = "read registration"
        found = self.request("GET", path, operation=operation, params={"$select": "appId,isDisabled"})
        return bool(self.record(found.body, operation).get("isDisabled"))
