"""Read what a customer tenant really holds of our application (Graph, with a token of that customer).

Needs Directory.Read.All or Application.Read.All in the customer. Source: Microsoft Graph v1.0, servicePrincipal and
oAuth2PermissionGrant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from consent.grants import Grants
from portal.microsoft.graph import BATCH, GraphApi
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

    @property
    def granted(self) -> Grants:
        """The sorted names of all grants together."""
        merged: dict[str, set[str]] = {}
        for grant in self.grants:
            merged.setdefault(grant.resource, set()).update(grant.scopes)
        return Grants({resource: sorted(scopes, key=str.lower) for resource, scopes in sorted(merged.items())})


class DirectoryClient(GraphApi):
    """Reads service principals and delegated grants of one tenant."""

    def presence(self, application_id: ApplicationId, resources: Iterable[ApplicationId] = ()) -> Presence:
        """Return what the tenant holds of this application; all pages, by one call where Graph answers all parts.

        That the service principal is not there is said by an empty list only, never by a 404.

        Args:
            resources: those whose grants are expected; each other one that has a grant costs a call.

        Raises:
            AccessDenied: the token may not read it: the state stays unknown, never "absent".
        """
        operation = "read service principal"
        ours = f"/servicePrincipals(appId='{parse_application_id(application_id)}')"
        chosen = {"$filter": f"appId eq '{application_id}'", "$select": "id,appId,accountEnabled"}
        urls = {"principal": f"/servicePrincipals?{urlencode(chosen, quote_via=quote, safe="$',")}"}
        urls["grants"] = f"{ours}/oauth2PermissionGrants"
        expected = list(resources)[: BATCH - len(urls)]
        urls |= {one: f"/servicePrincipals(appId='{parse_application_id(one)}')?$select=id,appId" for one in expected}
        found = self.batch(urls, operation=operation)
        principals = self._items(found.get("principal"), "/v1.0/servicePrincipals", chosen, operation)
        if not principals:
            return Presence(service_principal_id=None)
        principal = self._object_id(self.text(principals[0], "id", operation), operation)
        known = {
            self._object_id(self.text(found[one], "id", operation), operation): one for one in expected if one in found
        }
        operation = "read delegated grants"
        of_ours = {"$filter": f"clientId eq '{principal}'"}
        items = self._items(found.get("grants"), "/v1.0/oauth2PermissionGrants", of_ours, operation)
        return Presence(service_principal_id=principal, grants=tuple(self._grants(items, known, operation)))

    def _items(
        self, body: Mapping[str, Any] | None, path: str, params: Mapping[str, str], operation: str
    ) -> list[Mapping[str, Any]]:
        """Return a list out of a part of a batch, or by calls of its own."""
        if body is None:
            return list(self.collection(path, operation=operation, params=params))
        return list(self.records(body.get("value"), operation))

    def _grants(
        self, items: Iterable[Mapping[str, Any]], known: dict[ObjectId, ApplicationId], operation: str
    ) -> Iterator[Grant]:
        for item in items:
            if item.get("consentType") != "AllPrincipals":
                continue  # a grant for one user does not serve the application
            resource = self._object_id(self.text(item, "resourceId", operation), operation)
            if resource not in known:
                known[resource] = self._application_of(resource)
            grant_id = self.text(item, "id", operation)
            yield Grant(
                grant_id=grant_id if _GRANT_ID.fullmatch(grant_id) else "",
                resource=known[resource],
                scopes=frozenset(self.text(item, "scope", operation, required=False).split()),
            )

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
