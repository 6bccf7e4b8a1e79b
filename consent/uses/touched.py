"""Answer a partner's question after a breach: "was I touched?" Which tokens were given out, for what, by whom?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from consent.models import TokenUse
from consent.models.uses import TokenUseQuerySet
from consent.words.permissions import RESOURCE_NAMES
from tenants.models import PartnerTenant

HEADER = (
    "From (UTC)",
    "Until (UTC)",
    "Service",
    "Customer",
    "Customer tenant id",
    "Application",
    "Purpose",
    "By whom",
    "Kind",
    "From address",
    "Issued",
    "Given out again from memory",
    "Of these for customers' tenants",
    "Run",
    "Correlation id",
)
_SERVICES: Mapping[str, str] = {
    "partner_center": "Partner Center",
    "graph": "Microsoft Graph",
    "partner_api": "Partner API",
    "azure_management": "Azure Resource Manager",
}


def touched(partner: PartnerTenant, since: datetime, until: datetime) -> TokenUseQuerySet:
    """Return the uses of this partner's token in a window, also those that began before it or ended after it.

    The same question of a customer is answered by the rows that name it, and by the runs: what a run read in its tenant
    stands in the history of its consents.
    """
    uses = TokenUse.objects.for_partner(partner).between(since, until)
    return uses.select_related("registration", "customer").order_by("at", "pk")


def service_named(audience: str) -> str:
    """Return the service that a token is for, in words; the application id of another resource stays as it is."""
    return _SERVICES.get(audience) or RESOURCE_NAMES.get(audience, audience)


def lines(uses: TokenUseQuerySet) -> Iterator[Sequence[Any]]:
    """Yield a line for each use, as ``HEADER`` names its columns."""
    for one in uses.iterator(chunk_size=2000):
        yield (
            one.at,
            one.last_at,
            service_named(one.audience),
            "" if one.customer is None else one.customer.company_name,
            "" if one.customer is None else one.customer.tenant_id,
            one.registration.name,
            one.get_purpose_display(),
            one.actor,
            one.get_actor_kind_display(),
            one.address or "",
            one.issued,
            one.cached,
            one.of_customers,
            one.run or "",
            one.correlation_id,
        )
