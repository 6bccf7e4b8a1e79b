"""What tenants add to the admin."""

from collections.abc import Collection

from django.db.models import QuerySet

from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.limit_kinds import LimitKind, Sight
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_tenant
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant


def _tagged(keys: Collection[int]) -> QuerySet[PartnerTenant]:
    marked = PartnerTenant.tags.through.objects.filter(partnertag__in=keys)
    return PartnerTenant.objects.filter(pk__in=marked.values("partnertenant"))


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
    limits={"tag": LimitKind(title="Partners with a tag", model=PartnerTag, partners=_tagged)},
    sights={
        "tenants.customertenant": Sight(partner="partner"),
        "tenants.partnertag": Sight(own={"tag": "pk"}),
        "tenants.partnertenant": Sight(partner="pk"),
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
