"""A second, third and further partner beside the portal's own, connected as partners are, and ways to lose them."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from consent.models import PartnerConsent
from tenants.models import CustomerTenant, PartnerTenant
from tests.sandbox import scenarios
from tests.sandbox.world import User
from tests.support import builders
from tests.support.commands import run
from tests.support.portal import Browser, Portal


def add_partner(portal: Portal, key: str, name: str, customers: int = 2) -> PartnerTenant:
    """Add a partner with customers to the sandbox and to our records; it has not consented."""
    tenant = scenarios.add_partner(portal.sandbox.world, key, name, customers=customers)
    partner = builders.partner(name=name, tenant_id=tenant.tenant_id, domain=tenant.domain)
    for tenant_id in portal.sandbox.world.customers[tenant.tenant_id]:
        builders.customer(partner, tenant_id=tenant_id)
    return partner


def connect(portal: Portal, partner: PartnerTenant) -> PartnerTenant:
    """Let the partner's service account consent through a link."""
    browser = Browser()
    user = account(portal, partner).upn
    answer = portal.at_microsoft(portal.press_continue(browser, portal.link(partner)), user)
    portal.come_back(browser, answer)
    return partner


def account(portal: Portal, partner: PartnerTenant) -> User:
    return next(
        user
        for user in portal.sandbox.world.tenants[partner.tenant_id].users.values()
        if user.upn.startswith("service@")
    )


def connected(portal: Portal, key: str, name: str, customers: int = 2) -> PartnerTenant:
    return connect(portal, add_partner(portal, key, name, customers))


def revoke(portal: Portal, partner: PartnerTenant) -> None:
    """Somebody in the partner's tenant revokes the account's sessions: the token is dead."""
    account(portal, partner).sessions_revoked_at = portal.sandbox.world.now() + 1
    portal.sandbox.world.advance(2)


def take_role(portal: Portal, partner: PartnerTenant) -> None:
    """The account is not in the group of Admin Agents any more."""
    account(portal, partner).groups.clear()


def check(*partners: PartnerTenant) -> None:
    """Check their tokens, twice and ten minutes apart: what is denied is believed then (R-15)."""
    chosen = [argument for partner in partners for argument in ("--partner", partner.tenant_id)]
    run("check_tokens", *chosen)
    denied = PartnerConsent.objects.filter(first_denied_at__isnull=False)
    denied.update(first_denied_at=timezone.now() - timedelta(minutes=11))
    run("check_tokens", *chosen)


def customers_of(partner: PartnerTenant) -> list[CustomerTenant]:
    return list(CustomerTenant.objects.for_partner(partner).order_by("pk"))
