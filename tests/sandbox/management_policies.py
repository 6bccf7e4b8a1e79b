"""Application management policies: what a tenant forbids when an application or a credential is added.

Microsoft's codes, answered with 400. A policy looks at what is added; credentials of before work on.
"""

from __future__ import annotations

from cryptography import x509

from tests.sandbox.world import ManagementPolicy, World

_DAY = 86_400


class PolicyRefused(Exception):
    """The tenant's policy forbids it; ``code`` is what Graph answers."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def _of(world: World, tenant_id: str) -> ManagementPolicy:
    return world.policies.get(tenant_id, ManagementPolicy())


def check_secret(world: World, tenant_id: str) -> None:
    """Refuse a client secret where secrets are forbidden."""
    if _of(world, tenant_id).forbids_secrets:
        raise PolicyRefused("CredentialTypeNotAllowedAsPerAppPolicy", "The policy allows no passwords.")


def check_certificate(world: World, tenant_id: str, der: bytes) -> None:
    """Refuse a certificate that lives longer than allowed."""
    days = _of(world, tenant_id).certificate_days
    if not days:
        return
    certificate = x509.load_der_x509_certificate(der)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if life.total_seconds() > days * _DAY:
        raise PolicyRefused("CredentialInvalidLifetimeAsPerAppPolicy", f"A certificate may live {days:g} days.")


def check_audience(world: World, tenant_id: str, *, multi_tenant: bool) -> None:
    """Refuse an application for many tenants where the policy forbids that."""
    if multi_tenant and _of(world, tenant_id).forbids_multi_tenant:
        raise PolicyRefused("SignInAudienceNotAllowedAsPerAppPolicy", "The policy allows no multi-tenant application.")
