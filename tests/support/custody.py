"""What the tests of stored tokens share: both vaults, a vault that lets a test look in between, and the books."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from consent import clients
from consent.models import PartnerConsent
from consent.tokens.pairing import OwnVault
from consent.tokens.service import Audience, TokenService
from consent.vault.base import SecretDisabled, SecretName, SecretVersion, StoredSecret, Vault
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import TenantId, new_correlation_id
from portal.microsoft.secret import Secret
from tenants.models import CustomerTenant
from tests.conftest import VAULT_NAME
from tests.sandbox.scenarios import application_id
from tests.support import builders
from tests.support.portal import Portal

CLOUD = "global"


class WatchedVault:
    """The real vault with a look in between: ``before`` and ``after`` are called around each operation."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda operation: None
        self.after: Callable[[str], None] = lambda operation: None

    def _around[T](self, operation: str, call: Callable[[], T]) -> T:
        self.calls.append(operation)
        self.before(operation)
        answer = call()
        self.after(operation)
        return answer

    def write(
        self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: datetime | None
    ) -> SecretVersion:
        return self._around("write", lambda: self._vault.write(name, value, tags=tags, expires_at=expires_at))

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        return self._around("read", lambda: self._vault.read(name, version))

    def read_newest(self, name: SecretName) -> StoredSecret:
        return self._around("read_newest", lambda: self._vault.read_newest(name))

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        self._around("disable", lambda: self._vault.disable(name, version))

    def check_writable(self) -> None:
        self._around("check_writable", self._vault.check_writable)


def watch_vault(monkeypatch: pytest.MonkeyPatch) -> WatchedVault:
    """Watch the calls of this process's vault from now on."""
    own = clients.vault()
    assert isinstance(own, OwnVault)
    watched = WatchedVault(own._vault)
    monkeypatch.setattr(own, "_vault", watched)
    return watched


def stop_time(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> list[float]:
    """Give token service, custody and its versions another clock, and a sleep that only notes down how long."""
    slept: list[float] = []
    for module in ("consent.tokens.service", "consent.tokens.custody", "consent.tokens.versions"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=clock, sleep=slept.append))
    return slept


def ask(
    consent: PartnerConsent,
    audience: Audience = Audience.PARTNER_CENTER,
    *,
    customer: CustomerTenant | None = None,
    fresh: bool = False,
    service: TokenService | None = None,
) -> Secret:
    """Ask for an access token as a client does."""
    return (service or clients.tokens()).access_token(
        consent, audience, by=builders.BY, correlation_id=new_correlation_id(), customer=customer, fresh=fresh
    )


def redemptions(portal: Portal) -> list[dict[str, Any]]:
    """Return every redemption of a refresh token that reached the sign-in service, refused ones included."""
    return [line for line in portal.sandbox.world.ledger if line.get("grant") == "refresh_token"]


def api_calls(portal: Portal) -> int:
    """Count calls at Partner Center and Graph."""
    return sum(line["service"] in {"partner_center", "graph"} for line in portal.sandbox.world.ledger)


def make_due(consent: PartnerConsent) -> None:
    """Make the stored token older than a week, so that the next rotated one is saved."""
    PartnerConsent.objects.filter(pk=consent.pk).update(stored_at=timezone.now() - timedelta(days=8))


def all_versions(portal: Portal, name: str) -> list[SecretVersion]:
    """Return the versions of a secret, oldest first, in whichever vault is used."""
    if settings.VAULT_URL.startswith("https://"):
        stored = portal.sandbox.world.vaults[CLOUD, VAULT_NAME].secrets.get(name)
        return [SecretVersion(one.version) for one in stored.versions] if stored else []
    folder = Path(settings.VAULT_URL) / name
    return sorted(SecretVersion(one.name) for one in folder.glob("?" * 32)) if folder.is_dir() else []


def enabled_versions(portal: Portal, consent: PartnerConsent) -> list[SecretVersion]:
    """Return the versions that a thief of the vault could still read."""
    enabled = []
    for version in all_versions(portal, consent.secret_name):
        try:
            clients.vault().read(SecretName(consent.secret_name), version)
        except SecretDisabled:
            continue
        enabled.append(version)
    return enabled


def rotated_token(portal: Portal, consent: PartnerConsent) -> Secret:
    """Redeem the stored token past the service, as a process that dies before it stores the answer."""
    stored = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
    answer = clients.entra(consent.registration, new_correlation_id()).redeem_refresh_token(
        tenant_id=TenantId(portal.partner.tenant_id),
        refresh_token=stored.value,
        scope=Audience.PARTNER_CENTER.scope(clients.cloud(CLOUD)),
    )
    assert answer.refresh_token is not None
    return answer.refresh_token


def write_version(consent: PartnerConsent, token: Secret, generation: int, *, record: str = "") -> SecretVersion:
    """Write a version as a process that dies before the database knows of it."""
    return clients.vault().write(
        SecretName(consent.secret_name),
        token,
        tags={"record": record or f"consent-{consent.pk}", "generation": str(generation)},
        expires_at=None,
    )


def service_account(portal: Portal) -> Any:
    """Return the sandbox's user behind the stored token."""
    tenant = portal.sandbox.world.tenants[portal.partner.tenant_id]
    return next(user for user in tenant.users.values() if user.upn.startswith("service@"))


def first_customer(portal: Portal) -> CustomerTenant:
    """Return the first customer of the sandbox's partner, as sync would have stored it."""
    from tests.support import builders

    tenant_id = next(iter(portal.sandbox.world.customers[portal.partner.tenant_id]))
    return builders.customer(portal.partner, tenant_id=tenant_id)


def consent_directly(portal: Portal, customer: CustomerTenant, scopes: set[str]) -> None:
    """Put our application with these Graph scopes into the customer's tenant."""
    from tests.sandbox.world import GRAPH

    tenant = portal.sandbox.world.tenants[customer.tenant_id]
    tenant.add_principal(application_id(), "Example Control Panel")
    tenant.grant(application_id(), GRAPH, scopes)


def fails_at(operation: str, error: RemoteError, times: int = 10_000) -> Callable[[str], None]:
    """Return a hook that makes this operation of the vault fail so many times."""
    left = [times]

    def hook(current: str) -> None:
        if current == operation and left[0] > 0:
            left[0] -= 1
            raise error

    return hook
