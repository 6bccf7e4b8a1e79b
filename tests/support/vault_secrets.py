"""What the tests of reconciling share: identities with rights, a vault that can be copied and damaged, one run."""

from __future__ import annotations

import copy
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from consent import clients
from consent.models import PartnerConsent
from consent.tokens.differences import ReconcileReport
from consent.tokens.reconcile import Reconciler
from consent.vault.base import SecretName, SecretVersion, new_secret_name
from portal.microsoft.secret import Secret
from tests.conftest import VAULT_NAME, give_vault_secret
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Application, known_id
from tests.support import builders
from tests.support.portal import Portal


def add_identity(sandbox: Sandbox, name: str, rights: set[str], folder: Path) -> str:
    """Give the vendor's tenant another identity with these rights. Returns it as the settings spell it."""
    client_id, file = known_id("application", name), folder / f"{name}-credential"
    sandbox.world.applications[client_id] = Application(
        app_id=client_id, name=name, home_tenant=scenarios.vendor_tenant(), multi_tenant=False
    )
    sandbox.world.vault_rights[client_id] = rights
    give_vault_secret(sandbox, client_id, file)
    return f"{client_id}, {file}"


def is_azure() -> bool:
    return settings.VAULT_URL.startswith("https://")


def calls_by(portal: Portal, client_id: str) -> set[str]:
    """Return the operations that this identity tried at the vault."""
    ledger = portal.sandbox.world.ledger
    return {line["operation"] for line in ledger if line["service"] == "vault" and line.get("client") == client_id}


def snapshot(portal: Portal) -> Callable[[], None]:
    """Copy the whole vault. Returns what puts the copy in place of it."""
    if is_azure():
        vaults = portal.sandbox.world.vaults
        kept = copy.deepcopy(vaults["global", VAULT_NAME])
        return lambda: vaults.__setitem__(("global", VAULT_NAME), copy.deepcopy(kept))
    folder = Path(settings.VAULT_URL)
    aside = folder.with_name(f"copy-{secrets.token_hex(4)}")
    shutil.copytree(folder, aside)

    def restore() -> None:
        shutil.rmtree(folder)
        shutil.copytree(aside, folder)

    return restore


def content(portal: Portal) -> Any:
    """Return everything that the vault holds, to see whether a run changed it."""
    if is_azure():
        return repr(portal.sandbox.world.vaults["global", VAULT_NAME])
    return {path: path.read_bytes() for path in Path(settings.VAULT_URL).rglob("*") if path.is_file()}


def row(consent: PartnerConsent) -> dict[str, Any]:
    return dict(PartnerConsent.objects.filter(pk=consent.pk).values().get())


def put_back(old: dict[str, Any]) -> None:
    """Restore one row from an older copy of the database."""
    PartnerConsent.objects.filter(pk=old["id"]).update(**{name: old[name] for name in old if name != "id"})


def delete_entry(portal: Portal, name: str) -> None:
    """Delete an entry as somebody with more rights would."""
    if is_azure():
        portal.sandbox.world.vaults["global", VAULT_NAME].secrets[name].deleted = portal.sandbox.world.now()
    else:
        shutil.rmtree(Path(settings.VAULT_URL) / name)


def write_orphan(value: str = "CANARY-orphan", *, record: str = "consent-4711") -> tuple[SecretName, SecretVersion]:
    name = new_secret_name()
    tags = {"record": record, "generation": "1"} if record else {}
    return name, clients.vault().write(name, Secret(value), tags=tags, expires_at=None)


def is_enabled(portal: Portal, name: str, version: str) -> bool:
    infos = clients.inventory().versions(SecretName(name))
    return next(each.enabled for each in infos if each.version == version)


def disable(consent: PartnerConsent) -> None:
    clients.vault().disable(SecretName(consent.secret_name), SecretVersion(consent.secret_version))


def reconcile(**options: Any) -> ReconcileReport:
    """Run once, without waiting for anything."""
    return Reconciler(
        vault=clients.vault(),
        inventory=clients.inventory(),
        key_inventory=clients.key_inventory(),
        keys=clients.vault_keys,
        actor=builders.ACTOR,
        **{"sleep": lambda seconds: None} | options,
    ).run()


def found(report: ReconcileReport) -> list[tuple[str, str]]:
    """Return what differed and what became of it."""
    return [(each.kind.value, each.outcome) for each in report.differences]
