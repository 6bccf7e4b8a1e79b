"""Granular delegated admin privileges (GDAP), read from Microsoft Graph in the partner's tenant.

Needs delegated DelegatedAdminRelationship.Read.All or ReadWrite.All. Source: Microsoft Graph v1.0,
delegatedAdminRelationship and delegatedAdminAccessAssignment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portal.microsoft.graph import GraphApi
from portal.microsoft.identifiers import InvalidIdentifier, TenantId, parse_tenant_id

# Opaque to us, but it goes into a path: two GUIDs joined by a hyphen.
_RELATIONSHIP_ID = re.compile(r"[0-9a-fA-F-]{36,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """A relationship with one customer. ``status`` is Graph's word, verbatim."""

    relationship_id: str
    display_name: str
    customer_tenant_id: TenantId | None
    status: str
    roles: frozenset[str]
    """Role template ids."""
    activated_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessAssignment:
    """Roles given to one security group of the partner within a relationship."""

    assignment_id: str
    status: str
    group_id: str
    roles: frozenset[str]
    created_at: datetime | None


class GdapClient(GraphApi):
    """Reads relationships and their access assignments."""

    def relationships(self, *, customer: TenantId) -> Iterator[Relationship]:
        """Yield all relationships with this customer, of any status.

        GET /v1.0/tenantRelationships/delegatedAdminRelationships?$filter=customer/tenantId eq '...'.
        """
        operation = "list GDAP relationships"
        items = self.collection(
            "/v1.0/tenantRelationships/delegatedAdminRelationships",
            operation=operation,
            params={"$filter": f"customer/tenantId eq '{parse_tenant_id(customer)}'", "$top": "300"},
        )
        for item in items:
            yield self._relationship(item, operation)

    def access_assignments(self, relationship: Relationship) -> list[AccessAssignment]:
        """Return the assignments of one relationship."""
        operation = "list GDAP access assignments"
        if not _RELATIONSHIP_ID.fullmatch(relationship.relationship_id):
            raise self._unexpected(operation, None, "a relationship id has an unknown form")
        path = f"/v1.0/tenantRelationships/delegatedAdminRelationships/{relationship.relationship_id}/accessAssignments"
        return [self._assignment(item, operation) for item in self.collection(path, operation=operation, params={})]

    def _relationship(self, item: Mapping[str, Any], operation: str) -> Relationship:
        customer = item.get("customer")
        tenant: TenantId | None = None
        if isinstance(customer, dict) and customer.get("tenantId"):
            try:
                tenant = parse_tenant_id(str(customer["tenantId"]))
            except InvalidIdentifier:
                raise self._unexpected(operation, None, "a customer's tenant id is not a GUID") from None
        return Relationship(
            relationship_id=self.text(item, "id", operation),
            display_name=self.text(item, "displayName", operation, required=False),
            customer_tenant_id=tenant,
            status=self.text(item, "status", operation),
            roles=self._roles(item, operation),
            activated_at=self._moment(item, "activatedDateTime", operation),
            ends_at=self._moment(item, "endDateTime", operation),
        )

    def _assignment(self, item: Mapping[str, Any], operation: str) -> AccessAssignment:
        container = self.record(item.get("accessContainer"), operation)
        return AccessAssignment(
            assignment_id=self.text(item, "id", operation),
            status=self.text(item, "status", operation),
            group_id=self.text(container, "accessContainerId", operation),
            roles=self._roles(item, operation),
            created_at=self._moment(item, "createdDateTime", operation),
        )

    def _roles(self, item: Mapping[str, Any], operation: str) -> frozenset[str]:
        details = item.get("accessDetails")
        if not isinstance(details, dict):
            return frozenset()
        return frozenset(
            self.text(role, "roleDefinitionId", operation).lower()
            for role in self.records(details.get("unifiedRoles") or [], operation)
        )

    def _moment(self, item: Mapping[str, Any], key: str, operation: str) -> datetime | None:
        text = self.text(item, key, operation, required=False)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise self._unexpected(operation, None, f"{key} is not a time") from None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
