"""The consent pages of the admin. Importing a module registers its pages."""

from consent.admin import (
    campaigns,
    consents,
    containments,
    credentials,
    customer_tenants,
    customers,
    erasures,
    imports,
    links,
    offboardings,
    partner_tenants,
    plans,
    registrations,
    tokens,
    uses,
)

__all__ = [
    "campaigns",
    "consents",
    "containments",
    "credentials",
    "customer_tenants",
    "customers",
    "erasures",
    "imports",
    "links",
    "offboardings",
    "partner_tenants",
    "plans",
    "registrations",
    "tokens",
    "uses",
]
