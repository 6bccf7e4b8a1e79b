"""Worlds to start from. All ids follow from names, so documentation and tests can name them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from portal.microsoft.clouds import MICROSOFT, NationalCloud
from tests.sandbox.world import (
    AZURE_MANAGEMENT,
    CLOUD_APPLICATION_ADMINISTRATOR,
    DIRECTORY_READERS,
    GLOBAL_ADMINISTRATOR,
    GRAPH,
    PARTNER_API,
    PARTNER_CENTER,
    Application,
    Assignment,
    Relationship,
    Tenant,
    User,
    World,
    known_id,
)

_YEAR = 365 * 86_400
# Delegated permissions that the sandbox's application lists in its registration.
PERMISSIONS = {
    PARTNER_CENTER: {"user_impersonation"},
    PARTNER_API: {"user_impersonation"},
    AZURE_MANAGEMENT: {"user_impersonation"},
    GRAPH: {
        "DelegatedAdminRelationship.ReadWrite.All",
        "User.Read.All",
        "User.Read",
        "Directory.Read.All",
        "Application.Read.All",
        "Organization.Read.All",
        "GroupMember.Read.All",
    },
}
_ADJECTIVES = [
    "Alder",
    "Amber",
    "Birch",
    "Blue",
    "Bright",
    "Cedar",
    "Clear",
    "Copper",
    "Coral",
    "Crimson",
    "Delta",
    "Eastern",
    "Ember",
    "Fair",
    "Fern",
]
_NOUNS = [
    "Analytics",
    "Bakery",
    "Books",
    "Clinic",
    "Design",
    "Energy",
    "Foods",
    "Freight",
    "Garden",
    "Instruments",
    "Joinery",
    "Labs",
    "Media",
    "Optics",
]


def application_id(cloud: str = "global") -> str:
    """Return the id of the vendor's application in this cloud."""
    return known_id("application", cloud)


def vault_application_id() -> str:
    """Return the id of KeyVaultAccessApp, the identity that only reads and writes secrets."""
    return known_id("application", "KeyVaultAccessApp")


def second_application_id(cloud: str = "global") -> str:
    """Return the id of the vendor's second product in this cloud; only the scenario ``demo`` has it."""
    return known_id("application", "second product", *([] if cloud == "global" else [cloud]))


def vendor_tenant(cloud: str = "global") -> str:
    """Return the vendor's own tenant in this cloud."""
    return known_id("tenant", "vendor", cloud)


def load(world: World, name: str, clouds: Mapping[str, NationalCloud]) -> None:
    """Replace the world by this scenario: ``empty``, ``minimal`` or ``demo``.

    Raises:
        KeyError: no such scenario.
    """
    build = {"empty": lambda _: None, "minimal": _minimal, "demo": _demo}[name]
    world.clear()
    for cloud in clouds:
        _vendor(world, cloud)
    build(world)


def describe(world: World) -> dict[str, Any]:
    """Return what is there, for people and for the demo; no secret."""
    return {
        "applications": {
            one.app_id: {
                "name": one.name,
                "home_tenant": one.home_tenant,
                "cloud": world.tenants[one.home_tenant].cloud,
            }
            for one in world.applications.values()
        },
        "partners": [
            {
                "tenant_id": tenant.tenant_id,
                "cloud": tenant.cloud,
                "name": tenant.name,
                "domain": tenant.domain,
                "customers": len(world.customers.get(tenant.tenant_id, {})),
                "users": [
                    {"upn": user.upn, "name": user.name, "enabled": user.enabled} for user in tenant.users.values()
                ],
            }
            for tenant in world.tenants.values()
            if tenant.kind == "partner"
        ],
        "relationships": [
            {
                "id": one.relationship_id,
                "partner": one.partner,
                "customer": one.customer,
                "status": one.status,
            }
            for one in world.relationships
        ],
        "switches": world.switches,
    }


# --- bricks -------------------------------------------------------------------------------------------------------


def _resources(tenant: Tenant) -> None:
    tenant.add_principal(GRAPH, "Microsoft Graph")
    tenant.add_principal(AZURE_MANAGEMENT, "Azure Resource Manager")
    if tenant.kind != "customer":
        tenant.add_principal(PARTNER_CENTER, "Microsoft Partner Center")
        if MICROSOFT[tenant.cloud].partner_api:
            tenant.add_principal(PARTNER_API, "Microsoft Partner")


def _vendor(world: World, cloud: str) -> None:
    tenant = Tenant(
        tenant_id=vendor_tenant(cloud),
        cloud=cloud,
        name="Control Panel Vendor",
        domain=f"vendor.{cloud}.example",
        kind="cpv",
    )
    _resources(tenant)
    world.tenants[tenant.tenant_id] = tenant
    add_application(world, application_id(cloud), "Example Control Panel", cloud=cloud)
    tenant.add_principal(application_id(cloud), "Example Control Panel")
    if cloud == "global":
        world.applications[vault_application_id()] = Application(
            app_id=vault_application_id(), name="KeyVaultAccessApp", home_tenant=tenant.tenant_id, multi_tenant=False
        )


def add_application(
    world: World, app_id: str, name: str, *, cloud: str = "global", multi_tenant: bool = True
) -> Application:
    """Add a registration in the vendor's tenant of this cloud; it lists all that the sandbox knows of."""
    made = Application(
        app_id=app_id,
        name=name,
        home_tenant=vendor_tenant(cloud),
        multi_tenant=multi_tenant,
        permissions={
            resource: set(scopes)
            for resource, scopes in PERMISSIONS.items()
            if resource != PARTNER_API or MICROSOFT[cloud].partner_api
        },
    )
    world.applications[app_id] = made
    return made


def add_partner(world: World, key: str, name: str, *, cloud: str = "global", customers: int = 0) -> Tenant:
    """Add a partner with three people: the service account, an ordinary member, a second administrator."""
    domain = f"{key}.example.com"
    tenant = Tenant(tenant_id=known_id("tenant", key), cloud=cloud, name=name, domain=domain, kind="partner")
    agents, gdap = known_id("group", key, "AdminAgents"), known_id("group", key, "GDAP")
    tenant.groups = {agents: "AdminAgents", gdap: "GDAP consent operators"}
    people = [
        ("service", "Service account", {GLOBAL_ADMINISTRATOR}, {agents, gdap}),
        ("member", "Ordinary member", set(), set()),
        ("second", "Second administrator", {GLOBAL_ADMINISTRATOR}, {agents}),
    ]
    for short, label, roles, groups in people:
        oid = known_id("user", key, short)
        tenant.users[oid] = User(oid=oid, upn=f"{short}@{domain}", name=label, roles=roles, groups=groups)
    _resources(tenant)
    world.tenants[tenant.tenant_id] = tenant
    world.customers[tenant.tenant_id] = {}
    for number, label in zip(range(customers), _company_names(key), strict=False):
        add_customer(world, tenant, f"{key}-customer-{number}", label, gdap)
    return tenant


def add_customer(world: World, partner: Tenant, key: str, name: str, group: str, *, status: str = "active") -> Tenant:
    """Add a customer with one relationship and one assignment."""
    domain = f"{key}.onmicrosoft.com"
    tenant = Tenant(tenant_id=known_id("tenant", key), cloud=partner.cloud, name=name, domain=domain)
    _resources(tenant)
    world.tenants[tenant.tenant_id] = tenant
    world.customers[partner.tenant_id][tenant.tenant_id] = "reseller"
    now = world.now()
    world.relationships.append(
        Relationship(
            relationship_id=f"{known_id('gdap', key)}-{partner.tenant_id}",
            name=f"{name[:40]} 2026",
            partner=partner.tenant_id,
            customer=tenant.tenant_id,
            roles={CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS},
            status=status,
            activated=now - 86_400,
            ends=now + _YEAR,
            assignments=[
                Assignment(
                    assignment_id=known_id("assignment", key),
                    group=group,
                    roles={CLOUD_APPLICATION_ADMINISTRATOR, DIRECTORY_READERS},
                    created=now - 86_400,
                )
            ],
        )
    )
    return tenant


def _company_names(key: str) -> list[str]:
    names = [f"{adjective} {noun}" for adjective, noun in itertools.product(_ADJECTIVES, _NOUNS)]
    start = sum(key.encode()) % len(names)
    return names[start:] + names[:start]


# --- scenarios ----------------------------------------------------------------------------------------------------


def _minimal(world: World) -> None:
    add_partner(world, "northwind", "Northwind Cloud", customers=3)
    add_partner(world, "southridge", "Southridge IT", customers=2)


def _demo(world: World) -> None:
    """Eight partners in three clouds, each of which the portal will see in another state, with some 200 customers."""
    healthy = add_partner(world, "northwind", "Northwind Cloud", customers=130)
    add_partner(world, "southridge", "Southridge IT", customers=20)
    without_mfa = add_partner(world, "lakeview", "Lakeview Systems", customers=15)
    add_partner(world, "harbour", "Harbour Managed Services", customers=15)
    add_partner(world, "meadow", "Meadow Consulting", customers=12)
    add_partner(world, "fabric", "Fabric Partners", customers=8)
    add_partner(world, "lotus", "Lotus Cloud Services", cloud="china", customers=5)
    add_partner(world, "liberty", "Liberty Federal IT", cloud="usgov", customers=5)
    for cloud in MICROSOFT:
        add_application(world, second_application_id(cloud), "Example Backup", cloud=cloud)
    for user in without_mfa.users.values():
        user.mfa_required = False
    mixed = [one for one in world.relationships if one.partner == healthy.tenant_id]
    for relationship in mixed[100:110]:
        relationship.status, relationship.ends = "expired", world.now() - 86_400
    for relationship in mixed[110:118]:
        relationship.status, relationship.activated, relationship.ends = "approvalPending", None, None
        relationship.assignments.clear()
    for relationship in mixed[118:124]:
        for assignment in relationship.assignments:
            assignment.roles = {DIRECTORY_READERS}
    for relationship in mixed[124:130]:
        for assignment in relationship.assignments:
            assignment.status = "pending"
