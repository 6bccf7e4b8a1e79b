"""The whole state of the imitation, in memory. No I/O; the services read and change it."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

GRAPH = "00000003-0000-0000-c000-000000000000"
PARTNER_CENTER = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
PARTNER_API = "4990cffe-04e8-4e8b-808a-1175604b879f"
AZURE_MANAGEMENT = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
KEY_VAULT = "cfa8b339-82a2-471a-a3c9-0fc0be7a4093"
GLOBAL_ADMINISTRATOR = "62e90394-69f5-4237-9190-012177145e10"
APPLICATION_ADMINISTRATOR = "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3"
CLOUD_APPLICATION_ADMINISTRATOR = "158c047a-c907-4556-b7ef-446551a6b5f7"
DIRECTORY_READERS = "88d8e3e3-8f55-4a1e-953a-9b9898b8876b"
ORDINARY_MEMBER = "b79fbf4d-3ef9-4689-8143-76b194e85509"
CONSENT_ROLES = {GLOBAL_ADMINISTRATOR, APPLICATION_ADMINISTRATOR, CLOUD_APPLICATION_ADMINISTRATOR}

_SPACE = uuid.UUID("5b0a7b1e-5a2e-4b62-8a5e-7f3a9f0f5c11")


def known_id(*names: str) -> str:
    """Return the same GUID for the same names, so that documentation and tests can name things."""
    return str(uuid.uuid5(_SPACE, "/".join(names)))


@dataclass(slots=True, kw_only=True)
class User:
    oid: str
    upn: str
    name: str
    roles: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    app_roles: dict[str, set[str]] = field(default_factory=dict)
    """Application id: values of the app roles that the user was given; the claim ``roles`` of ID tokens."""
    user_type: str = "Member"
    mfa_registered: bool = True
    mfa_required: bool = True
    """Whether the sign-in pages ask for it; without it tokens carry no ``mfa``."""
    enabled: bool = True
    deleted: bool = False
    sessions_revoked_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Application:
    """A registration; ``permissions`` are delegated scope names by resource application id."""

    app_id: str
    name: str
    home_tenant: str
    multi_tenant: bool = True
    cpv: bool = True
    """Registered in Partner Center as a CPV application; a CSP application works for its own tenant only."""
    redirect_uris: set[str] = field(default_factory=set)
    permissions: dict[str, set[str]] = field(default_factory=dict)
    secrets: dict[str, float] = field(default_factory=dict)
    """Secret value: end, epoch seconds."""
    certificates: list[bytes] = field(default_factory=list)
    """DER."""
    federated: list[tuple[str, str, str]] = field(default_factory=list)
    """Issuer, subject and audience of tokens that serve as its credential."""
    enabled: bool = True
    """Whether its owner lets it work; Graph says ``isDisabled``."""
    disabled_by_microsoft: bool = False
    """Graph says ``disabledByMicrosoftStatus``."""
    known_clients: set[str] = field(default_factory=set)
    """Of a service of the vendor: applications whose consent brings its service principal with it."""
    roles: set[str] = field(default_factory=set)
    """Application permissions on Microsoft Graph that its home tenant granted it."""
    owners: list[str] = field(default_factory=list)
    """Object ids of users of its home tenant."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further properties of the application object, by Graph's names; see ``graph_applications``."""

    @property
    def works(self) -> bool:
        return self.enabled and not self.disabled_by_microsoft

    @property
    def object_id(self) -> str:
        return known_id("application object", self.app_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagementPolicy:
    """What a tenant's application management policy forbids when credentials are added; older ones work on."""

    forbids_secrets: bool = False
    certificate_days: float = 0
    """> 0: longest life of a new certificate."""
    forbids_multi_tenant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedIdentity:
    """A user-assigned identity of the host on which the portal runs."""

    client_id: str
    principal_id: str
    tenant_id: str
    roles: frozenset[str] = frozenset()
    """Application permissions on Microsoft Graph that its tenant granted it."""


@dataclass(slots=True, kw_only=True)
class ServicePrincipal:
    object_id: str
    app_id: str
    name: str
    enabled: bool = True
    visible_at: float = 0.0
    secrets: list[str] = field(default_factory=list)
    """Ids of client secrets that somebody added to the service principal itself."""
    certificates: list[str] = field(default_factory=list)
    """Thumbprints of certificates, likewise."""
    app_roles: list[tuple[str, str]] = field(default_factory=list)
    """Application permissions that it was granted: name of the resource, and id of the app role."""


@dataclass(slots=True, kw_only=True)
class PermissionGrant:
    grant_id: str
    client: str
    resource: str
    """Service principal object ids of this tenant."""
    scopes: set[str]
    consent_type: str = "AllPrincipals"
    principal: str | None = None
    visible_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Tenant:
    tenant_id: str
    cloud: str
    name: str
    domain: str
    kind: str = "customer"
    """cpv, partner or customer"""
    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    """Group object id: display name."""
    nested: dict[str, set[str]] = field(default_factory=dict)
    """Group object id: ids of the groups that this group is itself a member of."""
    principals: dict[str, ServicePrincipal] = field(default_factory=dict)
    grants: dict[str, PermissionGrant] = field(default_factory=dict)
    enabled: bool = True

    def groups_of(self, user: User) -> set[str]:
        """Return the groups that a user is in, directly or through other groups."""
        found, new = set[str](), set(user.groups)
        while new:
            found |= new
            new = {outer for group in new for outer in self.nested.get(group, ())} - found
        return found

    def principal_of(self, app_id: str) -> ServicePrincipal | None:
        return next((one for one in self.principals.values() if one.app_id == app_id), None)

    def add_principal(self, app_id: str, name: str, visible_at: float = 0.0) -> ServicePrincipal:
        found = self.principal_of(app_id)
        if found is None:
            found = ServicePrincipal(
                object_id=known_id(self.tenant_id, app_id), app_id=app_id, name=name, visible_at=visible_at
            )
            self.principals[found.object_id] = found
        return found

    def grant(self, client_app: str, resource_app: str, scopes: set[str], visible_at: float = 0.0) -> PermissionGrant:
        """Add scopes to the tenant-wide grant of this pair."""
        client, resource = self.principal_of(client_app), self.principal_of(resource_app)
        if client is None or resource is None:
            raise KeyError("both service principals must exist")
        for one in self.grants.values():
            if (one.client, one.resource, one.consent_type) == (client.object_id, resource.object_id, "AllPrincipals"):
                one.scopes |= scopes
                return one
        made = PermissionGrant(
            grant_id=secrets.token_urlsafe(24),
            client=client.object_id,
            resource=resource.object_id,
            scopes=set(scopes),
            visible_at=visible_at,
        )
        self.grants[made.grant_id] = made
        return made

    def granted(self, client_app: str, resource_app: str, now: float) -> set[str]:
        """Return the scopes that the application may use on the resource in this tenant."""
        client, resource = self.principal_of(client_app), self.principal_of(resource_app)
        if client is None or resource is None or client.visible_at > now:
            return set()
        return {
            scope
            for one in self.grants.values()
            if one.client == client.object_id and one.resource == resource.object_id and one.visible_at <= now
            for scope in one.scopes
        }


@dataclass(slots=True, kw_only=True)
class Assignment:
    assignment_id: str
    group: str
    roles: set[str]
    status: str = "active"
    created: float = 0.0


@dataclass(slots=True, kw_only=True)
class Relationship:
    relationship_id: str
    name: str
    partner: str
    customer: str
    roles: set[str]
    status: str = "active"
    activated: float | None = None
    ends: float | None = None
    assignments: list[Assignment] = field(default_factory=list)
    etag: int = 1


@dataclass(slots=True, kw_only=True)
class Code:
    client_id: str
    redirect_uri: str
    tenant_id: str
    home_tenant: str
    oid: str
    amr: list[str]
    nonce: str
    challenge: str
    issued: float
    acrs: tuple[str, ...] = ()
    """Authentication contexts that the sign-in satisfied."""
    used: bool = False


@dataclass(slots=True, kw_only=True)
class RefreshToken:
    """One refresh token; its value is known to the holder and to the world's index only."""

    number: int
    family: int
    client_id: str
    home_tenant: str
    oid: str
    amr: list[str]
    signed_in: float
    """When the person last stood at the sign-in page; rotation keeps it."""
    issued: float
    last_used: float
    revoked: bool = False


@dataclass(slots=True, kw_only=True)
class Tamper:
    """What to bend in the next token answers. A claim of None is removed."""

    client_id: str | None = None
    grant_type: str | None = None
    times: int = 1
    id_token: str = "normal"
    """normal, missing, none_alg, hs256, unknown_kid, bad_signature, two_segments, huge"""
    claims: dict[str, Any] = field(default_factory=dict)
    """Of the ID token."""
    header: dict[str, Any] = field(default_factory=dict)
    """Of the ID token."""
    access_claims: dict[str, Any] = field(default_factory=dict)
    """Of the access token."""
    members: dict[str, Any] = field(default_factory=dict)
    """Members of the answer to set, for example {"expires_in": "3599"}."""
    drop: tuple[str, ...] = ()
    """Members of the answer to leave out, for example ("refresh_token",)."""


@dataclass(slots=True, kw_only=True)
class Refusal:
    """Answer the next token requests with this AADSTS code; all of them, or those of a tenant, client or user."""

    code: int
    times: int = 1
    tenant_id: str | None = None
    client_id: str | None = None
    upn: str | None = None


FAULTY_SERVICES = {"*", "login", "partnercenter", "graph", "vault", "identity"}


@dataclass(slots=True, kw_only=True)
class Fault:
    """What goes wrong on the wire; see ``faults``."""

    service: str
    path: str = ".*"
    method: str = ".*"
    tenant: str = ""
    """Only calls with this tenant id in the path, or with a token that this tenant issued."""
    skip: int = 0
    times: int = 1
    status: int | None = None
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    gzip: bool = False
    delay: float = 0.0
    hold: bool = False
    close: str = ""
    """before: no effect and no answer; after: effect, but no answer."""
    slow_bytes: float = 0.0
    """Seconds between two bytes of the body."""

    def __post_init__(self) -> None:
        if self.service not in FAULTY_SERVICES:
            raise ValueError(f"a fault's service is one of {', '.join(sorted(FAULTY_SERVICES))}")

    def matches(self, service: str, method: str, path: str, tenants: str) -> bool:
        return (
            self.service in {service, "*"}
            and self.tenant in tenants
            and re.fullmatch(self.method, method) is not None
            and re.search(self.path, path) is not None
        )


# Points that Microsoft's documentation leaves open, and behaviours that change with time. Tests flip them.
SWITCHES: dict[str, Any] = {
    "latency": 0.0,  # seconds that every answer of Microsoft takes longer
    "rotation": "lenient",  # lenient: an old refresh token stays valid; strict: it dies when used
    "access_token_seconds": 4549,
    "refresh_idle_days": 90,
    "sign_in_frequency_days": 0,  # > 0: older sign-ins are refused with 70043
    "loop_limit": 0,  # > 0: that many equal refresh requests in 60 s, then 50196
    "customer_not_consented": 65001,  # or 700016, 90099
    "assertion_leeway": 300,  # seconds by which the clocks may differ when an application proves itself
    "application_disabled": 7000112,  # or 700016: the answer to a registration that its owner disabled
    "several_resources": 700022,  # or 28000; 0: the token is for the first
    "graph_scope_form": "short",  # or full: with the resource in front
    "amr_values_honoured": True,  # authorize with amr_values=mfa asks everybody for it
    "foreign_tenant_discovery": True,  # another cloud's tenant answers with that cloud's addresses; False: 90002
    "mfa_enforced": False,  # Partner Center refuses tokens without MFA
    "mfa_refusal": "900421",  # or "old": an empty 401 with a reason phrase
    "mfa_header": True,  # answers ValidateMfa
    "consent_exists_status": 409,
    "consent_denied_status": 403,
    "consent_empty_body": False,
    "consent_grants_nothing": False,
    "consent_visible_after": 0.0,  # seconds until grants reach Graph and token issuance
    "consent_limit": 0,  # > 0: requests per second and application
    "customer_limit": 0,  # > 0: requests per minute and tenant on customer resources
    "profile_limit": 0,  # > 0: requests for the organization profile per second and application
    "profile_partner_limit": 0,  # > 0: the same per ten seconds and tenant
    "retry_after": True,
    "items_without_id": [],  # customers, relationships and assignments whose id the lists leave out
    "items_with_odd_name": [],  # those whose name holds a zero character and half a surrogate pair
    "page_limit": 500,
    "graph_page": 100,
    "graph_foreign_next_link": False,
    "graph_claims_challenge": False,
    "vault_challenge": "authorization",  # or authorization_uri
    "vault_denied": "AccessDenied",  # or ForbiddenByRbac
    "vault_delete_seconds": 0.0,
    "vault_purge_protection": False,
    "vault_limit": 0,  # > 0: transactions per 10 s and vault
}


def odd(world: World, item: dict[str, Any], name: str = "") -> dict[str, Any]:
    """Return an item of a list as the switches for odd items bend it.

    Args:
        name: the member that holds its name.
    """
    bent = dict(item)
    if name and item["id"] in world.switches["items_with_odd_name"]:
        bent[name] = f"{item[name]}\0\ud800"
    if item["id"] in world.switches["items_without_id"]:
        del bent["id"]
    return bent


class World:
    """Everything that the imitation knows. ``now`` is its own clock, which tests move."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything but the signing keys."""
        self.offset = 0.0
        self.tenants: dict[str, Tenant] = {}
        self.applications: dict[str, Application] = {}
        self.policies: dict[str, ManagementPolicy] = {}
        """Application management policies by tenant id."""
        self.identities: dict[str, ManagedIdentity] = {}
        """By client id."""
        self.customers: dict[str, dict[str, str]] = {}
        """Partner tenant id: customer tenant id: relationshipToPartner."""
        self.relationships: list[Relationship] = []
        self._by_id: dict[str, Relationship] = {}
        self.codes: dict[str, Code] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}
        self.token_numbers = 0
        self.families = 0
        self.vaults: dict[tuple[str, str], Any] = {}
        self.vault_rights: dict[str, set[str]] = {}
        """Client id: permissions on secrets; get and set when not listed."""
        self.switches: dict[str, Any] = dict(SWITCHES)
        self.faults: list[Fault] = []
        self.refusals: list[Refusal] = []
        self.tampers: list[Tamper] = []
        self.counters: Counter[str] = Counter()
        self.ledger: deque[dict[str, Any]] = deque(maxlen=50_000)
        self.crossings: list[dict[str, Any]] = []
        self.windows: dict[str, deque[float]] = {}
        self.answers: dict[str, tuple[int, Any]] = {}
        self.continuations: dict[str, tuple[str, int, int]] = {}

    # --- clock ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds

    # --- directory --------------------------------------------------------------------------------------------

    def tenant(self, text: str, cloud: str) -> Tenant | None:
        """Find a tenant of this cloud by id or domain."""
        found = self.tenants.get(text.lower())
        if found is None:
            found = next((one for one in self.tenants.values() if one.domain == text.lower()), None)
        return found if found is not None and found.cloud == cloud else None

    def relationship(self, relationship_id: str) -> Relationship | None:
        """Find a relationship among many; tests change the list behind the index, which is then made anew."""
        if len(self._by_id) != len(self.relationships):
            self._by_id = {one.relationship_id: one for one in self.relationships}
        return self._by_id.get(relationship_id)

    def application(self, app_id: str, cloud: str) -> Application | None:
        """Find a registration; a cloud does not know those of another."""
        found = self.applications.get(app_id.lower())
        home = self.tenants.get(found.home_tenant) if found is not None else None
        return found if home is not None and home.cloud == cloud else None

    def user(self, tenant_id: str, oid: str) -> User | None:
        tenant = self.tenants.get(tenant_id)
        return tenant.users.get(oid) if tenant else None

    def users_of(self, cloud: str) -> Iterator[tuple[Tenant, User]]:
        for tenant in self.tenants.values():
            if tenant.cloud == cloud:
                for user in tenant.users.values():
                    if not user.deleted:
                        yield tenant, user

    def in_admin_agents(self, tenant: Tenant, user: User) -> bool:
        return any(tenant.groups.get(group, "").lower() == "adminagents" for group in user.groups)

    # --- GDAP -------------------------------------------------------------------------------------------------

    def gdap_roles(self, partner: str, user: User, customer: str) -> set[str]:
        """Return the roles that this partner user holds in the customer by active relationships and assignments."""
        roles: set[str] = set()
        groups = self.tenants[partner].groups_of(user)
        for relationship in self.relationships:
            if (relationship.partner, relationship.customer) != (partner, customer):
                continue
            if relationship.status != "active" or (relationship.ends or float("inf")) <= self.now():
                continue
            for assignment in relationship.assignments:
                if assignment.status == "active" and assignment.group in groups:
                    roles |= assignment.roles
        return roles

    # --- limits and books -------------------------------------------------------------------------------------

    def over_limit(self, key: str, limit: int, seconds: float) -> bool:
        """Count one request in a sliding window and tell whether it is one too many."""
        if not limit:
            return False
        window = self.windows.setdefault(key, deque())
        now = time.monotonic()
        while window and window[0] <= now - seconds:
            window.popleft()
        if len(window) >= limit:
            return True
        window.append(now)
        return False

    def book(self, service: str, operation: str, status: int, **facts: Any) -> None:
        """Write one line of the ledger; never a token's value."""
        self.counters[f"{service} {operation} {status}"] += 1
        self.ledger.append({"at": self.now(), "service": service, "operation": operation, "status": status, **facts})
