"""Connected partners: a second one by a sign-in of its own, or many without walking each through one."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.utils import timezone

from consent import clients
from consent.models import PartnerConsent
from consent.tokens.versions import token_fingerprint
from consent.vault.base import SecretName, new_secret_name
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tests.sandbox.scenarios import add_partner
from tests.sandbox.world import PARTNER_CENTER, RefreshToken
from tests.support import builders
from tests.support.portal import Portal


def connect(portal: Portal, number: int, *, due: bool = False, first: int = 0) -> list[PartnerConsent]:
    """Add connected partners whose tokens are in the vault and good at the sandbox; ``due`` ones are to be renewed.

    Args:
        first: number of the first one; the sandbox knows a partner by it.
    """
    world = portal.sandbox.world
    stored_at = timezone.now() - (timedelta(days=8) if due else timedelta(hours=1))
    tenants = [add_partner(world, f"many{index}", f"Partner {index}") for index in range(first, first + number)]
    partners = PartnerTenant.objects.bulk_create(
        builders.unsaved_partner(name=tenant.name, tenant_id=tenant.tenant_id) for tenant in tenants
    )
    consents = PartnerConsent.objects.bulk_create(
        builders.unsaved_consent(
            partner, portal.registration, secret_name=new_secret_name(), generation=1, stored_at=stored_at
        )
        for partner in partners
    )
    vault = clients.vault()
    for tenant, consent in zip(tenants, consents, strict=True):
        account = next(user for user in tenant.users.values() if user.upn.startswith("service@"))
        world.token_numbers += 1
        token = Secret("1.A" + secrets.token_urlsafe(600))
        world.refresh_tokens[token.reveal()] = RefreshToken(
            number=world.token_numbers,
            family=world.token_numbers,
            client_id=portal.registration.application_id,
            home_tenant=tenant.tenant_id,
            oid=account.oid,
            amr=["pwd", "mfa"],
            signed_in=world.now(),
            issued=world.now(),
            last_used=world.now(),
        )
        tenant.add_principal(portal.registration.application_id, "Example Control Panel")
        tenant.grant(portal.registration.application_id, PARTNER_CENTER, {"user_impersonation"})
        tags = {"record": f"consent-{consent.pk}", "generation": "1"}
        consent.secret_version = vault.write(SecretName(consent.secret_name), token, tags=tags, expires_at=None)
        consent.fingerprint = token_fingerprint(token)
        consent.pinned_oid = account.oid
    PartnerConsent.objects.bulk_update(consents, ["secret_version", "fingerprint", "pinned_oid"], batch_size=100)
    return consents


def two_partners(portal: Portal) -> tuple[PartnerConsent, PartnerConsent]:
    """Connect a second partner beside the first."""
    tenant = next(one for one in portal.sandbox.world.tenants.values() if one.domain == "southridge.example.com")
    second = builders.partner(name="Southridge IT", tenant_id=tenant.tenant_id)
    first_partner, portal.partner = portal.partner, second
    portal.onboard(user="service@southridge.example.com")
    other = portal.consent()
    portal.partner = first_partner
    return portal.consent(), other
