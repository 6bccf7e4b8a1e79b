"""Clients on a wire that a test writes answer by answer."""

from __future__ import annotations

from typing import Any

from portal.microsoft.api import ApiClient, RetryPolicy
from portal.microsoft.clouds import get_cloud
from portal.microsoft.http import GuardedSession
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret

CORRELATION = CorrelationId("11111111-1111-4111-8111-111111111111")
PARTNER_CENTER = get_cloud("global").partner_center
GRAPH = get_cloud("global").graph
TENANT = "0a0a0a0a-1111-4222-8333-444444444444"
OTHER = "0b0b0b0b-1111-4222-8333-444444444444"


def client[C: ApiClient](kind: type[C], base_url: str) -> C:
    """Return a client whose retries do not wait."""
    return kind(
        base_url=base_url,
        session=GuardedSession(is_allowed=lambda host: f"https://{host}" == base_url),
        token_source=lambda: Secret("access-token-canary"),
        correlation_id=CORRELATION,
        retry=RetryPolicy(sleep=lambda seconds: None),
    )


def customer(tenant_id: str = TENANT, **changes: Any) -> dict[str, Any]:
    """Return a customer as Partner Center lists it."""
    return {
        "id": tenant_id,
        "companyProfile": {"tenantId": tenant_id, "domain": "one.example.com", "companyName": "One"},
        "relationshipToPartner": "reseller",
    } | changes
