"""What tenants add to the admin."""

from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_tenant
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant

EXTENSION = AdminExtension(
    lists=(
        ListEntry(section=Section.PARTNERS, title="Partners", model="tenants.partnertenant"),
        ListEntry(section=Section.CUSTOMERS, title="Customers", model="tenants.customertenant"),
        ListEntry(section=Section.SETTINGS, title="Tags", model="tenants.partnertag"),
    ),
    subjects={
        "tag": Named(PartnerTag),
        "partner": Named(PartnerTenant),
        "customer": Named(CustomerTenant),
        "customers": Named(CustomerTenant),
    },
    audit_words={
        "partner.changed": "The partner's details were changed",
        "partner.contacts_changed": "The partner's contacts were changed",
        "partner.created": "The partner was added",
        "partner.customers_synced": "The list of the partner's customers changed",
        "partner.relationships_synced": "The partner's GDAP relationships changed",
        "tag.changed": "A tag was changed",
        "tag.created": "A tag was added",
    },
    searchable=(
        Searchable(
            title="Partners",
            rank=10,
            model=PartnerTenant,
            find=by_tenant(PartnerTenant),
            detail=lambda partner: partner.domain,
        ),
        Searchable(
            title="Customers",
            rank=20,
            model=CustomerTenant,
            find=by_tenant(CustomerTenant),
            related=("partner",),
            detail=lambda customer: f"of {customer.partner}",
        ),
    ),
)
