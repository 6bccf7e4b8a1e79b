"""Read what a customer tenant really holds of our application (Graph, with a token of that customer).

Needs Directory.Read.All or Application.Read.All in the customer. Source: Microsoft Graph v1.0, servicePrincipal and
oAuth2PermissionGrant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from portal.microsoft.graph import GraphApi
from portal.microsoft.identifiers import (
    ApplicationId,
    InvalidIdentifier,
    ObjectId,
    parse_application_id,
    parse_object_id,
)

_GRANT_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One ``AllPrincipals`` grant: which scopes of which resource."""

    grant_id: str
    resource: ApplicationId
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Our service principal in the customer tenant, None when it is not there, and its grants."""

    service_principal_id: ObjectId | None
    grants: tuple[Grant, ...] = ()

    def scopes_by_resource(self) -> dict[str, list[str]]:
        """Return sorted scope names by resource application id."""
        merged: dict[str, set[str]] = {}
        for grant in self.grants:
            merged.setdefault(grant.resource, set()).update(grant.scopes)
        return {resource: sorted(scopes, key=str.lower) for resource, scopes in sorted(merged.items())}


class DirectoryClient(GraphApi):
    """Reads service principals and delegated grants of one tenant."""

    def presence(self, application_id: ApplicationId) -> Presence:
        """Return what the tenant holds of this application; three kinds of calls, all pages.

        Raises:
            AccessDenied: the token may not read it: the state stays unknown, never "absent".
        """
        operation = "read service principal"
        principals = list(
            self.collection(
                "/v1.0/servicePrincipals",
                operation=operation,
                params={
                    "$filter": f"appId eq '{parse_application_id(application_id)}'",
                    "$select": "id,appId,accountEnabled",
                },
            )
        )
        if not principals:
            return Presence(service_principal_id=None)
        principal = self._object_id(self.text(principals[0], "id", operation), operation)
        operation = "read delegated grants"
        grants = []
        resources: dict[ObjectId, ApplicationId] = {}
        for item in self.collection(
            "/v1.0/oauth2PermissionGrants", operation=operation, params={"$filter": f"clientId eq '{principal}'"}
        ):
            if item.get("consentType") != "AllPrincipals":
                continue  # a grant for one user does not serve the application
            resource = self._object_id(self.text(item, "resourceId", operation), operation)
            if resource not in resources:
                resources[resource] = self._application_of(resource)
            grant_id = self.text(item, "id", operation)
            grants.append(
                Grant(
                    grant_id=grant_id if _GRANT_ID.fullmatch(grant_id) else "",
                    resource=resources[resource],
                    scopes=frozenset(self.text(item, "scope", operation, required=False).split()),
                )
            )
        return Presence(service_principal_id=principal, grants=tuple(grants))

    def _application_of(self, principal: ObjectId) -> ApplicationId:
        operation = "read resource"
        response = self.request(
            "GET", f"/v1.0/servicePrincipals/{principal}", operation=operation, params={"$select": "appId,displayName"}
        )
        try:
            return parse_application_id(self.text(self.record(response.body, operation), "appId", operation))
        except InvalidIdentifier:
            raise self._unexpected(operation, None, "appId is not a GUID") from None

    def _object_id(self, text: str, operation: str) -> ObjectId:
        try:
            return parse_object_id(text)
        except InvalidIdentifier:
            raise self._unexpected(operation, None, "an object id is not a GUID") from None
