"""What a vendor brings along: files of partners, and refresh tokens, good ones and those that are bad in each way."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import openpyxl

from consent.models import PartnerConsent
from consent.moving_in.partners import COLUMNS
from portal.site.export import csv_lines
from tenants.models import PartnerTenant
from tests.sandbox.key_vault import SecretVersion, StoredSecret, vault_of
from tests.sandbox.scenarios import add_partner
from tests.sandbox.world import GRAPH, PARTNER_CENTER, RefreshToken, Tenant, known_id
from tests.support import builders
from tests.support.portal import Portal

HEADER = list(COLUMNS)
GRAPH_SCOPES = {"DelegatedAdminRelationship.ReadWrite.All", "User.Read.All", "User.Read", "Directory.Read.All"}


@dataclass(slots=True)
class Brought:
    """One token of the input; ``text`` is the whole line where it is no JSON of ours."""

    tenant_id: str
    token: str
    why: str = ""
    """The class that its result must have; empty for a good one."""
    text: str = ""

    def line(self) -> str:
        return self.text or json.dumps({"tenant_id": self.tenant_id, "refresh_token": self.token})


@dataclass(slots=True)
class Input:
    """A whole input, and what it must come to."""

    brought: list[Brought] = field(default_factory=list)

    def lines(self) -> bytes:
        return ("\n".join(one.line() for one in self.brought) + "\n").encode()

    def good(self) -> list[str]:
        return [one.tenant_id for one in self.brought if not one.why]

    def tokens(self) -> list[str]:
        return [one.token for one in self.brought if one.token]


def tenant_with_grants(portal: Portal, key: str, graph: set[str] | None = None) -> Tenant:
    """Add a partner to the sandbox whose tenant has consented to our application."""
    tenant = add_partner(portal.sandbox.world, key, f"Partner {key}")
    grant_all(portal, tenant, graph)
    return tenant


def grant_all(portal: Portal, tenant: Tenant, graph: set[str] | None = None) -> None:
    """Let this tenant consent to our application."""
    application = portal.registration.application_id
    tenant.add_principal(application, "Example Control Panel")
    tenant.grant(application, PARTNER_CENTER, {"user_impersonation"})
    tenant.grant(application, GRAPH, GRAPH_SCOPES if graph is None else graph)


def token_of(portal: Portal, tenant: Tenant, *, user: str = "service", client: str = "", mfa: bool = True) -> str:
    """Let the sandbox issue a refresh token to an account of this tenant, and return its value."""
    world = portal.sandbox.world
    account = next(one for one in tenant.users.values() if one.upn.startswith(f"{user}@"))
    world.token_numbers += 1
    value = "1.A" + secrets.token_urlsafe(900)
    world.refresh_tokens[value] = RefreshToken(
        number=world.token_numbers,
        family=world.token_numbers,
        client_id=client or portal.registration.application_id,
        home_tenant=tenant.tenant_id,
        oid=account.oid,
        amr=["pwd", "mfa"] if mfa else ["pwd"],
        signed_in=world.now(),
        issued=world.now(),
        last_used=world.now(),
    )
    return value


def partner_of(tenant: Tenant) -> PartnerTenant:
    return builders.partner(name=tenant.name, tenant_id=tenant.tenant_id, domain=tenant.domain)


def good(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    return Brought(tenant.tenant_id, token_of(portal, tenant))


def wrong_tenant(portal: Portal, key: str) -> Brought:
    other = tenant_with_grants(portal, f"{key}-other")
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    return Brought(tenant.tenant_id, token_of(portal, other), "other_tenant")


def guest(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    next(one for one in tenant.users.values() if one.upn.startswith("service@")).user_type = "Guest"
    return Brought(tenant.tenant_id, token_of(portal, tenant), "guest_account")


def revoked(portal: Portal, key: str) -> Brought:
    brought = good(portal, key)
    tenant = portal.sandbox.world.tenants[brought.tenant_id]
    for user in tenant.users.values():
        user.sessions_revoked_at = portal.sandbox.world.now() + 1
    brought.why = "needs_consent"
    return brought


def expired(portal: Portal, key: str) -> Brought:
    brought = good(portal, key)
    portal.sandbox.world.refresh_tokens[brought.token].issued -= 91 * 86_400
    brought.why = "needs_consent"
    return brought


def other_client(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    return Brought(tenant.tenant_id, token_of(portal, tenant, client=known_id("application", "other")), "needs_consent")


def malformed(portal: Portal, key: str) -> Brought:
    return Brought(known_id("tenant", key), "", "malformed", text='{"tenant_id": "contoso", "refresh_token": "1.A')


def damaged(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    return Brought(tenant.tenant_id, "1.Acut-off", "malformed")


def unknown_partner(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    return Brought(tenant.tenant_id, token_of(portal, tenant), "unknown_partner")


def missing_scope(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key, GRAPH_SCOPES - {"Directory.Read.All"})
    partner_of(tenant)
    return Brought(tenant.tenant_id, token_of(portal, tenant), "permissions_missing")


def no_mfa(portal: Portal, key: str) -> Brought:
    tenant = tenant_with_grants(portal, key)
    partner_of(tenant)
    return Brought(tenant.tenant_id, token_of(portal, tenant, mfa=False), "mfa_missing")


BAD: Mapping[str, Callable[[Portal, str], Brought]] = {
    "wrong tenant": wrong_tenant,
    "guest": guest,
    "revoked": revoked,
    "expired": expired,
    "other client": other_client,
    "malformed": malformed,
    "damaged": damaged,
    "unknown partner": unknown_partner,
    "missing scope": missing_scope,
    "no mfa": no_mfa,
}


def bring(portal: Portal, number: int, of_each: int, ways: Collection[str] = tuple(BAD)) -> Input:
    """Return so many good tokens, and so many that are bad in each way; one more way is a repeated tenant."""
    found = Input([good(portal, f"mover{index}") for index in range(number)])
    for way in ways:
        found.brought += [BAD[way](portal, f"{way.replace(' ', '-')}{index}") for index in range(of_each)]
    found.brought += [
        Brought(one.tenant_id, token_of(portal, portal.sandbox.world.tenants[one.tenant_id]), "duplicate")
        for one in found.brought[:of_each]
    ]
    return found


def put_into_vault(portal: Portal, name: str, brought: Input) -> str:
    """Put the tokens into another vault of the vendor's tenant, named by tenant id; return its address."""
    cloud = portal.sandbox.clouds["global"]
    vault = vault_of(portal.sandbox.world, "global", name)
    assert vault is not None
    now = portal.sandbox.world.now()
    for one in brought.brought:
        version = SecretVersion(version=secrets.token_hex(16), value=one.token, written=now, updated=now)
        vault.secrets[one.tenant_id] = StoredSecret(name=one.tenant_id, versions=[version])
    return f"https://{name}{cloud.vault_suffix}"


def adopted() -> set[str]:
    """Return the tenant ids of the partners that are connected."""
    rows = PartnerConsent.objects.filter(state=PartnerConsent.State.CONNECTED, generation=1)
    return set(rows.values_list("partner__tenant_id", flat=True))


def csv_of(*rows: list[str], header: list[str] | None = None) -> bytes:
    return "".join(csv_lines(header or HEADER, rows)).encode("utf-8-sig")


def xlsx_of(*rows: list[Any], header: list[str] | None = None) -> bytes:
    book = openpyxl.Workbook()
    for row in [header or HEADER, *rows]:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def file_row(name: str = "Contoso", tenant_id: str = "", domain: str = "", **more: str) -> list[str]:
    cells = {"Name": name, "Tenant id": tenant_id, "Domain": domain, **more}
    return [cells.get(column, "") for column in HEADER]
