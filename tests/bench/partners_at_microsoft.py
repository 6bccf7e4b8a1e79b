"""A sandbox with many connected partners, in a process of its own, for measurements.

The children of a measurement get what they need from a private file (``PartnersAtMicrosoft``): addresses, and what the
portal would read from its database. The tokens in it are good at this sandbox only.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from consent.vault.base import GENERATION_TAG, RECORD_TAG
from tests.sandbox import scenarios
from tests.sandbox.key_vault import SecretVersion, StoredSecret, vault_of
from tests.sandbox.server import Sandbox
from tests.sandbox.world import GRAPH, PARTNER_CENTER, Fault, RefreshToken, Refusal, World
from tests.support.certificates import pem

VAULT = "bench"
_START_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedPartner:
    """One connected partner; ``number`` is the id of its rows."""

    number: int
    name: str
    tenant_id: str
    object_id: str
    refresh_token: str = field(repr=False)
    secret_name: str
    secret_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnersAtMicrosoft:
    """Addresses and applications of the sandbox, and the partners that are connected there."""

    port: int
    ca_file: str
    application_id: str
    certificate: str = field(repr=False)
    vault_url: str
    vault_tenant: str
    vault_client: str
    vault_secret: str = field(repr=False)
    partners: list[ConnectedPartner]

    def save(self, file: Path) -> None:
        file.touch(mode=0o600)
        file.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def load(cls, file: Path) -> PartnersAtMicrosoft:
        values: dict[str, Any] = json.loads(file.read_text())
        return cls(**values | {"partners": [ConnectedPartner(**one) for one in values["partners"]]})


def peak_memory() -> int:
    """Return the most kilobytes that this process ever held; rusage would count the parent's before the start."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


class Gate:
    """The other end: ask the sandbox's process to do something in its world."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def switch(self, **switches: Any) -> None:
        self._ask("switch", switches)

    def refuse(self, code: int, tenants: list[str]) -> None:
        """Refuse the next token request of each of these tenants."""
        self._ask("refuse", {"code": code, "tenants": tenants})

    def fault(self, **fields: Any) -> None:
        self._ask("fault", fields)

    def clear_faults(self) -> None:
        self._ask("no faults", {})

    def counters(self) -> Mapping[str, int]:
        """Return and forget how often each call was answered, by ``service operation status``."""
        answer: dict[str, int] = self._ask("counters", {})
        return answer

    def add_customers(self, number: int, prefix: str = "bench-") -> list[tuple[int, str]]:
        """Give the partners so many customers in turn; return number of the partner and tenant id of each.

        Args:
            prefix: of what the sandbox knows them by; another one for others.
        """
        made: list[tuple[int, str]] = self._ask("customers", {"number": number, "prefix": prefix})
        return made

    def consent(self, tenants: list[str]) -> Mapping[str, str]:
        """Let these customers hold our consent; return the id of our service principal by tenant."""
        made: dict[str, str] = self._ask("consent", {"tenants": tenants})
        return made

    def posts(self) -> list[tuple[float, int]]:
        """Return when each creation of a consent was answered, and how."""
        found: list[tuple[float, int]] = self._ask("posts", {})
        return found

    def calls(self) -> Mapping[str, int]:
        """Return and forget how often each HTTP call was answered, as ``counters``; parts of a batch are no calls."""
        found: dict[str, int] = self._ask("calls", {})
        return found

    def calls_of_partners(self) -> Mapping[str, int]:
        """Return and forget how many good redemptions each tenant had."""
        answer: dict[str, int] = self._ask("redemptions", {})
        return answer

    def let_keys_be_used(self, client_id: str) -> None:
        """Give the vault's identity its rights on keys as well."""
        self._ask("rights", {"client_id": client_id, "rights": ["get", "set", "keys/get", "keys/create", "keys/sign"]})

    def know(self, certificate: bytes) -> None:
        """Upload a public certificate (DER) to the application."""
        self._ask("know", {"certificate": certificate})

    def _ask(self, what: str, values: Mapping[str, Any]) -> Any:
        self._pipe.send((what, dict(values)))
        return self._pipe.recv()


class OwnGate(Gate):
    """The same for a sandbox of this process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _ask(self, what: str, values: Mapping[str, Any]) -> Any:
        return _carry_out(self._world, what, dict(values))


@contextmanager
def partners_at_microsoft(folder: Path, partners: int) -> Iterator[tuple[PartnersAtMicrosoft, Gate]]:
    """Run a sandbox with so many partners until the block ends."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(str(folder), partners, theirs), daemon=True)
    process.start()
    theirs.close()
    if not ours.poll(_START_SECONDS):
        raise RuntimeError("the sandbox did not start")
    place: PartnersAtMicrosoft = ours.recv()
    try:
        yield place, Gate(ours)
    finally:
        ours.close()
        process.join(20)


def _serve(folder: str, partners: int, pipe: Connection) -> None:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # callers are killed on purpose
    with tempfile.TemporaryDirectory(dir=folder) as place, Sandbox(Path(place)) as sandbox:
        sandbox.world.ledger = type(sandbox.world.ledger)(maxlen=500_000)
        pipe.send(connect(sandbox, partners))
        while True:
            try:
                what, values = pipe.recv()
            except EOFError:
                return
            pipe.send(_carry_out(sandbox.world, what, values))


def _carry_out(world: World, what: str, values: dict[str, Any]) -> Any:
    if what == "switch":
        world.switches |= values
    elif what == "refuse":
        world.refusals += [Refusal(code=values["code"], tenant_id=tenant) for tenant in values["tenants"]]
    elif what == "rights":
        world.vault_rights[values["client_id"]] = set(values["rights"])
    elif what == "know":
        world.applications[scenarios.application_id()].certificates.append(values["certificate"])
    elif what == "fault":
        world.faults.append(Fault(**values))
    elif what == "no faults":
        world.faults.clear()
    elif what == "redemptions":
        found: dict[str, int] = {}
        for line in list(world.ledger):
            if line["operation"] == "token" and line["status"] == 200 and line.get("grant") == "refresh_token":
                found[line["tenant"]] = found.get(line["tenant"], 0) + 1
        world.ledger.clear()
        return found
    elif what == "calls":
        lines = (line for line in world.ledger if not line.get("part"))
        calls = Counter(f"{line['service']} {line['operation']} {line['status']}" for line in lines)
        world.ledger.clear()
        return dict(calls)
    elif what == "customers":
        return _add_customers(world, values["number"], values["prefix"])
    elif what == "consent":
        return {tenant: _consent(world, tenant) for tenant in values["tenants"]}
    elif what == "posts":
        return [(line["at"], line["status"]) for line in world.ledger if line["operation"] == "create consent"]
    else:
        counted = dict(world.counters)
        world.counters.clear()
        return counted
    return None


def _add_customers(world: World, number: int, prefix: str) -> list[tuple[int, str]]:
    application = world.applications[scenarios.application_id()]
    partners = [one for one in world.tenants.values() if one.kind == "partner" and one.principal_of(application.app_id)]
    made = []
    for index in range(number):
        place = index % len(partners)
        partner = partners[place]
        partner.grant(application.app_id, GRAPH, set(application.permissions[GRAPH]))
        group = next(key for key, name in partner.groups.items() if name == "GDAP consent operators")
        tenant = scenarios.add_customer(world, partner, f"{prefix}{index}", f"Customer {index}", group)
        made.append((place + 1, tenant.tenant_id))
    return made


def _consent(world: World, tenant_id: str) -> str:
    tenant, application = world.tenants[tenant_id], world.applications[scenarios.application_id()]
    principal = tenant.add_principal(application.app_id, application.name)
    tenant.grant(application.app_id, GRAPH, {"User.Read.All", "Directory.Read.All"})
    return principal.object_id


def connect(sandbox: Sandbox, number: int) -> PartnersAtMicrosoft:
    """Add so many partners to a sandbox, connected already."""
    world, cloud = sandbox.world, sandbox.clouds["global"]
    vault_secret = secrets.token_urlsafe(32)
    year = world.now() + 365 * 86_400
    world.applications[scenarios.vault_application_id()].secrets[vault_secret] = year
    certificate = pem()
    application = world.applications[scenarios.application_id()]
    public = x509.load_pem_x509_certificates(certificate.encode())[0]
    application.certificates.append(public.public_bytes(serialization.Encoding.DER))
    vault = vault_of(world, "global", VAULT)
    if vault is None:
        raise RuntimeError("the sandbox has no tenant for the vault")
    connected = []
    for index in range(1, number + 1):
        tenant = scenarios.add_partner(world, f"bench{index}", f"Partner {index}")
        account = next(user for user in tenant.users.values() if user.upn.startswith("service@"))
        token = "1.A" + secrets.token_urlsafe(900)
        world.refresh_tokens[token] = RefreshToken(
            number=index,
            family=index,
            client_id=application.app_id,
            home_tenant=tenant.tenant_id,
            oid=account.oid,
            amr=["pwd", "mfa"],
            signed_in=world.now(),
            issued=world.now(),
            last_used=world.now(),
        )
        tenant.add_principal(application.app_id, application.name)
        tenant.grant(application.app_id, PARTNER_CENTER, {"user_impersonation"})
        name, version = f"rt-{secrets.token_hex(16)}", secrets.token_hex(16)
        tags = {RECORD_TAG: f"consent-{index}", GENERATION_TAG: "1"}
        stored = SecretVersion(version=version, value=token, written=world.now(), updated=world.now(), tags=tags)
        vault.secrets[name.lower()] = StoredSecret(name=name, versions=[stored])
        connected.append(
            ConnectedPartner(
                number=index,
                name=tenant.name,
                tenant_id=tenant.tenant_id,
                object_id=account.oid,
                refresh_token=token,
                secret_name=name,
                secret_version=version,
            )
        )
    world.token_numbers = number
    return PartnersAtMicrosoft(
        port=sandbox.port,
        ca_file=str(sandbox.ca_file),
        application_id=application.app_id,
        certificate=certificate,
        vault_url=f"https://{VAULT}{cloud.vault_suffix}",
        vault_tenant=vault.tenant_id,
        vault_client=scenarios.vault_application_id(),
        vault_secret=vault_secret,
        partners=connected,
    )
