from __future__ import annotations

import gc
import os
import secrets
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management.commands import flush
from pytest_django import DjangoDbBlocker
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import rotation
from consent.models import ApplicationRegistration
from portal.microsoft.certificates import certificates
from portal.microsoft.secret import Secret
from portal.site.apps import load_pages
from tenants.models import PartnerTenant
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, postgres, remembered
from tests.support.databases import Migrated, OwnDatabase
from tests.support.portal import Browser, Portal, sign_in_addresses_without_a_tenant

VAULT_NAME = "cpv-tests"
# A third of the time of all tests, for what few changes touch.
LEFT_TO_CI = ("browser", "processes", "slow")
_LONG_FROM_NOW = time.time() + 10 * 365 * 86_400
load_pages()  # as the web process does at its start: some tests look at what is registered


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on PostgreSQL as well; leave to CI what takes long, and to a release what shows the same in large.

    What drives a browser comes first, so that one process begins it all: browsers, and portals beside them that a whole
    module shares, take long to start. As the last they would be divided among all processes.
    """
    before_release = os.environ.get("RUN_SLOW") == "1"
    all_of_them = before_release or os.environ.get("CI")
    postgres.mark(items)
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)
    for item in items:
        if not all_of_them and any(item.get_closest_marker(kind) for kind in LEFT_TO_CI):
            item.add_marker(pytest.mark.skip(reason="left to CI: RUN_SLOW=1 runs it as well"))
        if item.get_closest_marker("release") and not before_release:
            item.add_marker(pytest.mark.skip(reason="before a release: RUN_SLOW=1 runs it"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays to the end: nobody looks for garbage in it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def client() -> Browser:
    """A browser that speaks https, as production demands, and enforces CSRF (S-21)."""
    return Browser()


@pytest.fixture(autouse=True)
def _fresh_clients() -> Iterator[None]:
    """Sessions, vaults, caches, and what was seen of certificates belong to one test."""
    clients.reset()
    yield
    clients.reset()
    certificates.take()


@pytest.fixture(autouse=True)
def _sign_in_addresses_name_a_tenant(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S-13, over the whole run: no token is asked for but at one tenant's own address."""
    send, asked = requests.adapters.HTTPAdapter.send, []

    def recorded(self: requests.adapters.HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(str(request.url))
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", recorded)
    yield
    assert sign_in_addresses_without_a_tenant(asked) == []


@pytest.fixture(scope="session")
def own_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> OwnDatabase:
    folder = tmp_path_factory.getbasetemp()
    return OwnDatabase(folder if worker_id == "master" else folder.parent, worker_id)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: DjangoDbBlocker, own_database: OwnDatabase
) -> Iterator[None]:
    """The database of this process, in place of pytest-django's own."""
    patch = pytest.MonkeyPatch()
    with django_db_blocker.unblock():
        own_database.open()
        patch.setattr(flush, "sql_flush", Migrated().put_back)
    yield
    patch.undo()
    with django_db_blocker.unblock():
        own_database.close()


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """The local Microsoft with a fresh ``minimal`` world."""
    running_sandbox.faults.release()
    remembered.load_minimal(running_sandbox)
    return running_sandbox


def use_sandbox(settings: Settings, sandbox: Sandbox) -> None:
    """Point the portal's settings to the sandbox, as TEST_ENDPOINTS and TEST_CA_FILE would."""
    settings.TEST_ENDPOINTS = sandbox.port
    settings.OUTGOING_CA_FILE = str(sandbox.ca_file)
    settings.CLOUDS = sandbox.clouds


def use_local_vault(settings: Settings, folder: Path) -> None:
    settings.VAULT_URL = str(folder / "vault")
    settings.VAULT_KEY_FILE = str(folder / "vault-key")


@cache
def _vault_secret(client_id: str) -> str:
    return secrets.token_urlsafe(32)


def give_vault_secret(sandbox: Sandbox, client_id: str, file: Path) -> None:
    """Let an application sign in with a secret that stands in a 0600 file.

    It is the same in all tests of a process, so that what follows can be put back (tests/support/remembered.py).
    """
    value = _vault_secret(client_id)
    sandbox.world.applications[client_id].secrets[value] = _LONG_FROM_NOW
    file.touch(mode=0o600)
    file.write_text(value)


def use_azure_vault(settings: Settings, sandbox: Sandbox, folder: Path) -> None:
    """Use Azure Key Vault in the sandbox through the real SDKs, with KeyVaultAccessApp's secret in a 0600 file."""
    file = folder / "vault-credential"
    give_vault_secret(sandbox, scenarios.vault_application_id(), file)
    settings.VAULT_URL = f"https://{VAULT_NAME}{sandbox.clouds['global'].vault_suffix}"
    settings.VAULT_IDENTITY = "client-secret"
    settings.VAULT_TENANT_ID = scenarios.vendor_tenant()
    settings.VAULT_CLIENT_ID = scenarios.vault_application_id()
    settings.VAULT_CREDENTIAL_FILE = str(file)


@pytest.fixture
def portal(db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A portal with one active registration, wired to the sandbox and the embedded vault."""
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    return make_portal(sandbox)


def make_portal(sandbox: Sandbox, cloud: str = "global") -> Portal:
    """Return a portal with one active registration and one partner, which is not connected yet.

    In another cloud than Global the partner is added there first: the world of tests has none.
    """
    secret = remembered.again(f"portal {cloud}", sandbox.world, lambda: _make_portal(sandbox, cloud))
    registration = ApplicationRegistration.objects.get(application_id=scenarios.application_id(cloud))
    partner = PartnerTenant.objects.get(name="Northwind Cloud")
    return Portal(sandbox=sandbox, registration=registration, partner=partner, client_secret=secret)


def _make_portal(sandbox: Sandbox, cloud: str) -> str:
    """Create the registration as staff would, with a client secret that the sandbox knows; return the secret."""
    secret = secrets.token_urlsafe(32)
    application = sandbox.world.applications[scenarios.application_id(cloud)]
    application.secrets[secret] = sandbox.world.now() + 86_400
    application.redirect_uris.add(f"https://portal.localhost/consent/callback/{cloud}")
    registration = builders.registration(
        cloud=cloud,
        application_id=scenarios.application_id(cloud),
        home_tenant_id=scenarios.vendor_tenant(cloud),
        permission_set="extended",
        state="draft",
        credential=None,
    )
    builders.grant(registration, "User.Read.All", "Directory.Read.All")
    credential = rotation.add_secret(
        registration, Secret(secret), expires_at=None, vault=clients.vault(), actor=builders.ACTOR
    )
    rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True)
    ApplicationRegistration.objects.filter(pk=registration.pk).update(state="active")
    if cloud != "global":
        scenarios.add_partner(sandbox.world, f"northwind-{cloud}", "Northwind Cloud", cloud=cloud, customers=3)
    domain = "northwind.example.com" if cloud == "global" else f"northwind-{cloud}.example.com"
    northwind = next(one for one in sandbox.world.tenants.values() if one.domain == domain)
    builders.partner(name="Northwind Cloud", tenant_id=northwind.tenant_id, domain=domain, cloud=cloud)
    return secret
