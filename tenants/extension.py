"""What tenants add to the admin."""

from portal.site.extension_points import AdminExtension
from portal.site.named import Named
from portal.site.searchable import Searchable, by_tenant
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant

EXTENSION = AdminExtension(
    subjects={
        "tag": Named(PartnerTag),
        "partner": Named(PartnerTenant),
        "customer": Named(CustomerTenant),
        "customers": Named(CustomerTenant),
    },
    searchable=(
        Searchable(
            title="Partners",
            rank=10,
            model=PartnerTenant,
            find=by_tenant(PartnerTenant),
            icon="domain",
            detail=lambda partner: partner.domain,
        ),
        Searchable(
            title="Customers",
            rank=20,
            model=CustomerTenant,
            find=by_tenant(CustomerTenant),
            icon="groups",
            related=("partner",),
            detail=lambda customer: f"of {customer.partner}",
        ),
    ),
)
