"""Read an application object of a tenant: Graph, with a token that holds Application.Read.All there.

Source: Microsoft Graph v1.0, application, "List owners", "List federatedIdentityCredentials".
"""

from __future__ import annotations

from typing import Any

from portal.microsoft.graph import GraphApi
from portal.microsoft.identifiers import ApplicationId, parse_application_id

_SELECTED = (
    "appId,displayName,signInAudience,isDisabled,disabledByMicrosoftStatus,isFallbackPublicClient,web,spa,publicClient,"
    "requiredResourceAccess,servicePrincipalLockConfiguration,passwordCredentials,keyCredentials,verifiedPublisher"
)


class ApplicationObjectClient(GraphApi):
    """Reads registrations; changes nothing."""

    def read(self, application_id: ApplicationId) -> dict[str, Any]:
        """Return the object with all its owners and federated credentials, in the form that ``seen.read`` takes.

        Raises:
            NotFound: the tenant has no such registration.
            AccessDenied: the token may not read it.
        """
        operation, path = "read registration", f"/v1.0/applications(appId='{parse_application_id(application_id)}')"
        found = self.request("GET", path, operation=operation, params={"$select": _SELECTED})
        lists = {"owners": {"$select": "id,displayName"}, "federatedIdentityCredentials": {}}
        return {
            "application": dict(self.record(found.body, operation)),
            **{
                name: [dict(one) for one in self.collection(f"{path}/{name}", operation=operation, params=chosen)]
                for name, chosen in lists.items()
            },
        }
