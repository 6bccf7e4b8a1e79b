"""What tenants add to the admin."""

from portal.site.extension_points import AdminExtension
from portal.site.named import Named
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant

EXTENSION = AdminExtension(
    subjects={
        "tag": Named(PartnerTag),
        "partner": Named(PartnerTenant),
        "customer": Named(CustomerTenant),
        "customers": Named(CustomerTenant),
    },
)
