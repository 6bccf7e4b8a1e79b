"""Microsoft and the vault as the simulation needs them: they answer after a while, ask to slow down, or are away.

They stand in for the portal's clients, call for call: each call waits for its turn at the portal's own limits, and
takes its time on the moved clock. Everything above the clients is the product.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from itertools import batched
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from consent import clients
from consent.customers.consents import CustomerClients
from consent.microsoft.directory import Grant, Presence
from consent.microsoft.entra import TokenResponse
from consent.models import PartnerConsent
from consent.tokens.health import renew_after
from consent.tokens.renewal import rotation
from consent.tokens.saving import Renewals
from consent.tokens.service import Audience, TokenService
from consent.uses.book import Book, By, Use
from consent.vault.base import SecretName, SecretVersion, StoredSecret
from portal.microsoft import http
from portal.microsoft.api import RetryPolicy
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.microsoft.errors import NotFound, Throttled, Unreachable
from portal.microsoft.identifiers import ApplicationId, CorrelationId, ObjectId, TenantId, parse_tenant_id
from portal.microsoft.secret import Secret
from tenants.gdap import BATCH, AccessAssignment, Relationship
from tenants.models import CustomerTenant, PartnerTenant
from tenants.partner_center import Customer, OrganizationProfile
from tests.bench.simulation.clock import MovedClock, replaced

SCOPES = ("Directory.Read.All", "User.Read.All")
GROUP = "3b1c2f50-1c5c-4c1d-8a44-6f0d4a5a9a01"
ROLE = "158c047a-c907-4556-b7ef-446551a6b5f7"  # Cloud Application Administrator
PAGE = 500  # customers of one answer
RELATIONSHIPS = 300
_HOUR, _DAY = 3600, 86_400
TIMES_SLOWER = 5.0
_NO_ANSWER_SECONDS = 5.0  # until a connection is given up
BURST_SECONDS, BURST_EVERY = (
    120.0,
    900.0,
)  # on a slow day everything is refused for so long in each quarter of an hour


class Service(StrEnum):
    VAULT = "vault"
    SIGN_IN = "sign-in service"
    PARTNER_CENTER = "Partner Center"
    GRAPH = "Microsoft Graph"


class Sky(StrEnum):
    """How Microsoft is at a moment."""

    CLEAR = "as usual"
    SLOW = "slow"
    AWAY = "away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """When Microsoft is not as usual; seconds since 1970, half open.

    Attributes:
        latency: seconds of a call on a usual day; five times as many on a slow one.
        refused: share of calls that are answered by 429 on a slow day, outside of the bursts.
    """

    slow: tuple[float, float] = (0.0, 0.0)
    away: tuple[float, float] = (0.0, 0.0)
    latency: float = 0.15
    refused: float = 0.05

    @classmethod
    def after(cls, start: float, *, slow_day: int, away_day: int, away_hours: int = 6) -> Weather:
        """Return one with Microsoft slow for one day and away from half past two in the night of another."""
        slow = start + slow_day * _DAY
        away = start + away_day * _DAY + 2.5 * _HOUR
        return cls(slow=(slow, slow + _DAY), away=(away, away + away_hours * _HOUR))

    def at(self, seconds: float) -> Sky:
        if self.away[0] <= seconds < self.away[1]:
            return Sky.AWAY
        return Sky.SLOW if self.slow[0] <= seconds < self.slow[1] else Sky.CLEAR


class Microsoft:
    """What answers, and the books of it.

    Args:
        at_once: units that a run works at once. Here they come one after the other, each in so much less time.

    Attributes:
        kind: the kind of work that calls just now.
        calls: by kind of work, service and how it was: ``ok``, ``429`` or ``no answer``.
        peak: most calls to a service in one second that were answered.
        written: versions that the vault took.
    """

    def __init__(self, clock: MovedClock, weather: Weather, *, at_once: int) -> None:
        self.clock, self.weather = clock, weather
        self._at_once = at_once
        self._dice = random.Random(7)  # the same weather each time
        self.kind = ""
        self.calls: Counter[tuple[str, Service, str]] = Counter()
        self.peak: Counter[Service] = Counter()
        self._second: dict[Service, tuple[int, int]] = {}
        self.written = 0
        self._hosts = {service: self._host(service) for service in Service}

    @staticmethod
    def _host(service: Service) -> str:
        cloud = settings.CLOUDS["global"]
        address = {
            Service.VAULT: settings.VAULT_URL,
            Service.SIGN_IN: cloud.authority,
            Service.PARTNER_CENTER: cloud.partner_center,
            Service.GRAPH: cloud.graph,
        }[service]
        return urlsplit(address).netloc  # of the embedded vault there is none, as in ``portal.runs.limits``

    def spend(self, seconds: float) -> None:
        self.clock.sleep(seconds / self._at_once)

    def call(self, service: Service) -> None:
        """Make one call at its turn. Raises Throttled or Unreachable."""
        host, sky = self._hosts[service], self.weather.at(self.clock.seconds)
        if service is Service.VAULT:
            sky = Sky.CLEAR
        pace: http.Pace | None = getattr(http._clock, "pace", None)
        if pace is not None:
            pace.wait(host, "")
        if sky is Sky.AWAY:
            self.spend(_NO_ANSWER_SECONDS)
            self.calls[self.kind, service, "no answer"] += 1
            raise Unreachable(service, "answer", host=host)
        seconds = self.weather.latency * (TIMES_SLOWER if sky is Sky.SLOW else 1) * self._dice.uniform(0.7, 1.5)
        retry_after = self._refuses() if sky is Sky.SLOW else None
        self.spend(seconds if retry_after is None else 0.02)
        if pace is not None:
            pace.answered(host, "", 200 if retry_after is None else 429, retry_after, seconds)
        if retry_after is not None:
            self.calls[self.kind, service, "429"] += 1
            raise Throttled(service, "answer", status=429, retry_after=retry_after)
        self.calls[self.kind, service, "ok"] += 1
        self._note_rate(service)

    def _refuses(self) -> float | None:
        """Return the seconds to wait when a slow Microsoft refuses this call."""
        into = (self.clock.seconds - self.weather.slow[0]) % BURST_EVERY
        if into < BURST_SECONDS:
            return BURST_SECONDS - into
        return self._dice.uniform(2, 20) if self._dice.random() < self.weather.refused else None

    def _note_rate(self, service: Service) -> None:
        second = int(self.clock.seconds)
        of, number = self._second.get(service, (second, 0))
        number = number + 1 if of == second else 1
        self._second[service] = second, number
        self.peak[service] = max(self.peak[service], number)


class SimulatedVault:
    """Versions of secrets in memory; of each name the newest and those that are not switched off."""

    def __init__(self, microsoft: Microsoft) -> None:
        self._microsoft = microsoft
        self._versions: dict[str, dict[str, StoredSecret]] = {}

    def put(self, name: str, version: str, value: Secret, tags: Mapping[str, str]) -> None:
        stored = StoredSecret(
            name=SecretName(name),
            version=SecretVersion(version),
            value=value,
            tags=tags,
            created_at=timezone.now(),
            expires_at=None,
        )
        self._versions.setdefault(name, {})[version] = stored

    def write(self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: Any) -> SecretVersion:
        self._microsoft.call(Service.VAULT)
        self._microsoft.written += 1
        version = f"{self._microsoft.written:032x}"
        self.put(name, version, value, tags)
        return SecretVersion(version)

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        self._microsoft.call(Service.VAULT)
        try:
            return self._versions[name][version]
        except KeyError:
            raise NotFound("vault", "read", status=404) from None

    def read_newest(self, name: SecretName) -> StoredSecret:
        self._microsoft.call(Service.VAULT)
        return self._versions[name][next(reversed(self._versions[name]))]

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        self._microsoft.call(Service.VAULT)
        self._versions[name].pop(version, None)

    def check_writable(self) -> None:
        """There is room."""


class OpenGate:
    """No emergency stop is on."""

    def stop(self, partner: int, registration: int) -> None:
        return None

    def stop_of_all(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class TokenOf:
    """A token source that says whose it is, for the answers depend on it."""

    partner: PartnerTenant
    token: Callable[[], Secret]
    may_send: Callable[[], None]

    def __call__(self) -> Secret:
        return self.token()


class SimulatedTokens(TokenService):
    """The product's door to tokens, whose redemptions Microsoft answers here."""

    def __init__(self, microsoft: Microsoft, vault: SimulatedVault) -> None:
        save_after = min(timedelta(hours=settings.TOKEN_SAVE_AFTER_HOURS), renew_after())
        super().__init__(
            vault=vault,
            entra=clients.entra,
            validator=None,  # type: ignore[arg-type]  # no token is real
            rotation=rotation(save_after),
            gate=OpenGate(),  # type: ignore[arg-type]
            uses=Book(),
        )
        self._microsoft = microsoft
        self._number = 0

    def source(self, consent: PartnerConsent, audience: Audience, **use: Any) -> TokenOf:  # type: ignore[override]
        found = super().source(consent, audience, **use)
        return TokenOf(consent.partner, found, found.may_send)

    def held(self, consent: PartnerConsent, token: Secret) -> TokenOf:  # type: ignore[override]
        found = super().held(consent, token)
        return TokenOf(consent.partner, found, found.may_send)

    def exchange(
        self, consent: PartnerConsent, audience: Audience, tenant: TenantId, refresh_token: Secret, use: Use
    ) -> TokenResponse:
        self._microsoft.call(Service.SIGN_IN)
        self.uses.note(use)
        self._number += 1
        return TokenResponse(
            access_token=Secret(f"access {self._number}"),
            refresh_token=Secret(f"refresh {self._number} of {consent.pk}"),
            id_token=None,
            expires_in=4200,
            scopes=frozenset(),
            received_at=self._microsoft.clock.seconds,
        )


@dataclass(frozen=True, slots=True)
class Client:
    """What all clients here share: a token before each call, and the product's own tries."""

    microsoft: Microsoft
    source: TokenOf
    correlation_id: CorrelationId
    longest_wait: float = 20.0

    @property
    def partner(self) -> PartnerTenant:
        return self.source.partner

    def ask(self, service: Service) -> None:
        def once() -> None:
            self.source()
            self.microsoft.call(service)

        RetryPolicy(sleep=self.microsoft.spend, longest_wait_seconds=self.longest_wait).run(once)


@dataclass(frozen=True, slots=True)
class PartnerCenter(Client):
    def organization_profile(self) -> OrganizationProfile:
        self.ask(Service.PARTNER_CENTER)
        return OrganizationProfile(
            tenant_id=self.partner.tenant, company_name=self.partner.name, domain="", mfa_compliant=True
        )

    def customers(self, *, odd: list[str] | None = None) -> Iterator[list[Customer]]:
        """The customers that the database knows: nobody comes or goes."""
        known = CustomerTenant.objects.for_partner(self.partner).order_by("pk")
        listed = list(known.values_list("tenant_id", "company_name", "domain"))
        for page in batched(listed, PAGE) if listed else [()]:
            self.ask(Service.PARTNER_CENTER)
            yield [
                Customer(
                    partner_center_id=tenant,
                    tenant_id=parse_tenant_id(tenant),
                    company_name=name,
                    domain=domain,
                    relationship="reseller",
                )
                for tenant, name, domain in page
            ]


@dataclass(frozen=True, slots=True)
class Gdap(Client):
    def relationships(self, *, odd: list[str] | None = None, customer: Any = None) -> Iterator[Relationship]:
        tenants = CustomerTenant.objects.for_partner(self.partner).order_by("pk").values_list("tenant_id", flat=True)
        for page in batched(tenants, RELATIONSHIPS):
            self.ask(Service.GRAPH)
            for tenant in page:
                yield Relationship(
                    relationship_id=f"relationship-{tenant}",
                    display_name="Relationship",
                    customer_tenant_id=parse_tenant_id(tenant),
                    status="active",
                    roles=frozenset({ROLE}),
                    activated_at=None,
                    ends_at=None,
                )

    def access_assignments_of(
        self, relationships: Sequence[Relationship], *, odd: list[str] | None = None
    ) -> list[list[AccessAssignment]]:
        assert len(relationships) <= BATCH
        self.ask(Service.GRAPH)
        return [
            [
                AccessAssignment(
                    assignment_id=f"assignment-{each.relationship_id[-36:]}",
                    status="active",
                    group_id=GROUP,
                    roles=frozenset({ROLE}),
                    created_at=None,
                )
            ]
            for each in relationships
        ]


@dataclass(frozen=True, slots=True)
class Account(Client):
    def groups(self) -> frozenset[str]:
        self.ask(Service.GRAPH)
        return frozenset({GROUP})


@dataclass(frozen=True, slots=True)
class Directory(Client):
    def presence(self, application_id: ApplicationId, resources: Sequence[ApplicationId] = ()) -> Presence:
        self.ask(Service.GRAPH)
        return Presence(service_principal_id=PRINCIPAL, grants=(_GRANT,))


PRINCIPAL = ObjectId("7d0f9f3e-6d0c-4b7a-9f41-5a2f64a6c011")
_GRANT = Grant(grant_id="grant", resource=ApplicationId(GRAPH_APPLICATION_ID), scopes=frozenset(SCOPES))


@contextmanager
def instead_of_clients(microsoft: Microsoft, vault: SimulatedVault) -> Iterator[None]:
    """Wire the portal's clients to this Microsoft until the block ends."""
    tokens = SimulatedTokens(microsoft, vault)
    real = clients.customer_clients

    def customer_clients(
        consent: PartnerConsent, customer: CustomerTenant, correlation_id: CorrelationId, *, by: By
    ) -> CustomerClients:
        source = tokens.source(consent, Audience.GRAPH, by=by, correlation_id=correlation_id, customer=customer)
        directory: Any = Directory(microsoft, source, correlation_id)
        return replace(real(consent, customer, correlation_id, by=by), directory=directory)

    own: dict[str, Any] = {
        "tokens": lambda: tokens,
        "uses": lambda: tokens.uses,
        "vault": lambda: vault,
        "renewals": lambda: Renewals(vault),
        "gate": OpenGate,
        "customer_clients": customer_clients,
        "partner_center": lambda cloud, source, correlation_id, retry=None: PartnerCenter(
            microsoft, source, correlation_id, retry.longest_wait_seconds if retry else 20.0
        ),
        "gdap": lambda cloud, source, correlation_id: Gdap(microsoft, source, correlation_id),
        "account": lambda cloud, source, correlation_id: Account(microsoft, source, correlation_id),
    }
    if hasattr(clients, "pruner"):
        own["pruner"] = lambda: None
    with replaced(clients, **own):
        yield
