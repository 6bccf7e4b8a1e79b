"""Granular delegated admin privileges (GDAP), read from Microsoft Graph in the partner's tenant.

Needs delegated DelegatedAdminRelationship.Read.All or ReadWrite.All. Source: Microsoft Graph v1.0,
delegatedAdminRelationship and delegatedAdminAccessAssignment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from portal.microsoft.graph import BATCH as BATCH
from portal.microsoft.graph import GraphApi
from portal.microsoft.identifiers import InvalidIdentifier, TenantId, parse_tenant_id

# Opaque to us, but it goes into a path: two GUIDs joined by a hyphen.
_RELATIONSHIP_ID = re.compile(r"[0-9a-fA-F-]{36,80}")
_RELATIONSHIPS = "/tenantRelationships/delegatedAdminRelationships"
_ASSIGNMENTS = "list GDAP access assignments"


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
    auto_extend_duration: str = ""
    """ISO 8601, verbatim; ``P0D`` and ``PT0S`` mean that it ends."""


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

    def relationships(
        self, *, customer: TenantId | None = None, odd: list[str] | None = None
    ) -> Iterator[Relationship]:
        """Yield all relationships, of any status: with this customer, or of the partner; finishes or raises.

        GET /v1.0/tenantRelationships/delegatedAdminRelationships[?$filter=customer/tenantId eq '...'].

        Args:
            odd: takes the items that cannot be read, in words; without it one is an error.
        """
        operation = "list GDAP relationships"
        params = {"$top": "300"}
        if customer is not None:
            params["$filter"] = f"customer/tenantId eq '{parse_tenant_id(customer)}'"
        for items in self.pages(f"/v1.0{_RELATIONSHIPS}", operation=operation, params=params):
            yield from self.each(
                items, operation, lambda item: self._relationship(item, operation), name=self._called, odd=odd
            )

    def access_assignments(self, relationship: Relationship, *, odd: list[str] | None = None) -> list[AccessAssignment]:
        """Return the assignments of one relationship. ``odd`` is that of :meth:`relationships`."""
        path = f"/v1.0{self._assignments_path(relationship)}"
        return [
            each
            for items in self.pages(path, operation=_ASSIGNMENTS, params={})
            for each in self._assignments(items, odd)
        ]

    def access_assignments_of(
        self, relationships: Sequence[Relationship], *, odd: list[str] | None = None
    ) -> list[list[AccessAssignment]]:
        """Return the assignments of up to :data:`BATCH` relationships, in their order, by one call where possible.

        A part that the batch did not answer is asked again by a call of its own.
        """
        urls = {str(number): self._assignments_path(relationship) for number, relationship in enumerate(relationships)}
        found = self.batch(urls, operation=_ASSIGNMENTS)
        return [
            self._assignments(found[number].get("value"), odd)
            if (number := str(place)) in found
            else self.access_assignments(relationship, odd=odd)
            for place, relationship in enumerate(relationships)
        ]

    def _assignments(self, items: Any, odd: list[str] | None) -> list[AccessAssignment]:
        return self.each(
            items, _ASSIGNMENTS, lambda item: self._assignment(item, _ASSIGNMENTS), name=self._called, odd=odd
        )

    @staticmethod
    def _called(item: Mapping[str, Any]) -> object:
        return item.get("displayName") or item.get("id")

    def _assignments_path(self, relationship: Relationship) -> str:
        if not _RELATIONSHIP_ID.fullmatch(relationship.relationship_id):
            raise self._unexpected(_ASSIGNMENTS, None, "a relationship id has an unknown form")
        return f"{_RELATIONSHIPS}/{relationship.relationship_id}/accessAssignments"

    def _relationship(self, item: Mapping[str, Any], operation: str) -> Relationship:
        customer = item.get("customer")
        tenant: TenantId | None = None
        if isinstance(customer, dict) and customer.get("tenantId"):
            try:
                tenant = parse_tenant_id(str(customer["tenantId"]))
            except InvalidIdentifier:
                raise self._unexpected(operation, None, "a customer's tenant id is not a GUID") from None
        relationship_id = self.text(item, "id", operation)
        if not _RELATIONSHIP_ID.fullmatch(relationship_id):
            raise self._unexpected(operation, None, "the id of the relationship has an unknown form")
        return Relationship(
            relationship_id=relationship_id,
            display_name=self.display(item, "displayName", operation),
            customer_tenant_id=tenant,
            status=self.text(item, "status", operation),
            roles=self._roles(item, operation),
            activated_at=self._moment(item, "activatedDateTime", operation),
            ends_at=self._moment(item, "endDateTime", operation),
            auto_extend_duration=self.text(item, "autoExtendDuration", operation, required=False)[:20],
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
