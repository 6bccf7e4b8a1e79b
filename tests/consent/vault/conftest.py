"""What the vault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import responses
from azure.core.credentials import TokenCredential

from consent.vault.azure import AzureKeyVault, open_azure_vault, vault_credential
from consent.vault.base import Vault
from consent.vault.keys import KEY_BYTES, KeyRing
from consent.vault.local import LocalVault
from portal.microsoft.http import GuardedSession
from tests.consent.vault.key_vault_answers import CANARY, Answering
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox

FIRST_KEY = bytes(range(KEY_BYTES))
SECOND_KEY = bytes(range(100, 100 + KEY_BYTES))
AUTHORITY = "https://login.microsoftonline.com"

_numbers = count(1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def local_vault(directory: Path) -> LocalVault:
    return LocalVault(directory, KeyRing([FIRST_KEY]))


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def vault_url() -> str:
    """An address of its own per test."""
    return f"https://example-vault-{next(_numbers)}.vault.azure.net"


@pytest.fixture
def session() -> GuardedSession:
    """A session that may call the vaults and the sign-in service of the Global cloud."""
    return GuardedSession(is_allowed=lambda host: host.endswith(".vault.azure.net") or f"https://{host}" == AUTHORITY)


@pytest.fixture
def service(wire: responses.RequestsMock, vault_url: str) -> Answering:
    return Answering(wire, vault_url)


# --- the sandbox's Key Vault, over TLS ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox in its first state, with KeyVaultAccessApp able to sign in."""
    scenarios.load(running_sandbox.world, "minimal", running_sandbox.clouds)
    identity = running_sandbox.world.applications[scenarios.vault_application_id()]
    identity.secrets[CANARY] = running_sandbox.world.now() + 3600
    yield running_sandbox
    running_sandbox.faults.release()


@pytest.fixture
def sandbox_session(sandbox: Sandbox) -> Iterator[GuardedSession]:
    cloud = sandbox.clouds["global"]
    with GuardedSession(
        is_allowed=lambda host: host in cloud.hosts() or host.endswith(cloud.vault_suffix),
        ca_file=str(sandbox.ca_file),
        loopback=True,
    ) as session:
        yield session


@pytest.fixture
def sandbox_credential(sandbox: Sandbox, sandbox_session: GuardedSession, tmp_path: Path) -> TokenCredential:
    path = tmp_path / "vault-client-secret"
    path.touch(0o600)
    path.write_text(CANARY)
    return vault_credential(
        "client-secret",
        session=sandbox_session,
        authority=sandbox.clouds["global"].authority,
        tenant_id=scenarios.vendor_tenant(),
        client_id=scenarios.vault_application_id(),
        credential_file=path,
    )


@pytest.fixture
def sandbox_vault_name() -> str:
    return f"contoso-{next(_numbers)}"


@pytest.fixture
def azure_vault(
    sandbox: Sandbox, sandbox_session: GuardedSession, sandbox_credential: TokenCredential, sandbox_vault_name: str
) -> AzureKeyVault:
    address = f"https://{sandbox_vault_name}{sandbox.clouds['global'].vault_suffix}"
    return open_azure_vault(address, lambda: sandbox_credential, session=sandbox_session)


@pytest.fixture(params=["local", "azure"])
def vault(request: pytest.FixtureRequest) -> Vault:
    """Each kind of vault in turn."""
    found: Vault = request.getfixturevalue(f"{request.param}_vault")
    return found
