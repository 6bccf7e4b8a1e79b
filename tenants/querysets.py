"""The vocabulary of questions about tenants. Each method returns a queryset and does nothing but SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    import tenants.models


class PartnerTenantQuerySet(models.QuerySet["tenants.models.PartnerTenant"]):
    def active(self) -> PartnerTenantQuerySet:
        """Partners for whom work may be done: neither disabled nor offboarded (S-53)."""
        return self.filter(switch=self.model.Switch.ON)

    def in_cloud(self, cloud: str) -> PartnerTenantQuerySet:
        return self.filter(cloud=cloud)

    def tagged(self, *names: str) -> PartnerTenantQuerySet:
        """Partners that carry any of these tags."""
        return self.filter(tags__name__in=names).distinct()


class CustomerTenantQuerySet(models.QuerySet["tenants.models.CustomerTenant"]):
    def for_partner(self, partner: tenants.models.PartnerTenant) -> CustomerTenantQuerySet:
        return self.filter(partner=partner)

    def listed(self) -> CustomerTenantQuerySet:
        """Customers that Partner Center listed at the last completed sync."""
        return self.filter(missing_since__isnull=True)

    def missing(self) -> CustomerTenantQuerySet:
        return self.filter(missing_since__isnull=False)
