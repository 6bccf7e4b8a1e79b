"""Key Vault of the sandbox through Microsoft's own SDK and credential, with all their checks on."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import requests.adapters
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.vault_caller import CANARY, EVERYTHING, VaultCaller
from tests.sandbox.tests.wire import Wire

# --- a session that finds *.localhost -----------------------------------------------------------------------------


class _LoopbackConnection(HTTPSConnection):
    def _new_conn(self) -> Any:
        self._dns_host, name = "127.0.0.1", self._dns_host  # TLS still asks for the name
        try:
            return super()._new_conn()
        finally:
            self._dns_host = name


class _LoopbackPool(HTTPSConnectionPool):
    ConnectionCls = _LoopbackConnection


class _LoopbackAdapter(requests.adapters.HTTPAdapter):
    """Connects to the loopback interface; certificates are checked against the sandbox's CA."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = ssl.create_default_context(cafile=self._ca_file)
        super().init_poolmanager(*args, ssl_context=context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"https": _LoopbackPool}

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host_params, _ = super().build_connection_pool_key_attributes(request, True, None)
        return host_params, {"cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


@pytest.fixture
def vault(sandbox: Sandbox, wire: Wire) -> VaultCaller:
    return VaultCaller(sandbox, wire)


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        opened.mount("https://", _LoopbackAdapter(str(sandbox.ca_file)))
        yield opened


@pytest.fixture
def client(vault: VaultCaller, session: requests.Session) -> Iterator[SecretClient]:
    """The real client and the real credential; no check is switched off."""
    credential = ClientSecretCredential(
        vault.tenant_id,
        vault.application.app_id,
        "the-secret",
        authority=vault.cloud.authority,
        disable_instance_discovery=True,
        transport=RequestsTransport(session=session, session_owner=False),
    )
    with SecretClient(
        vault.url,
        credential,
        api_version="7.4",
        retry_total=0,
        transport=RequestsTransport(session=session, session_owner=False),
    ) as opened:
        yield opened


# --- Microsoft's SDK ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["authorization", "authorization_uri"])
def test_the_sdk_stores_and_reads_with_all_its_checks_on(vault: VaultCaller, client: SecretClient, style: str) -> None:
    vault.world.switches["vault_challenge"] = style
    made = client.set_secret("partner-token", CANARY, tags={"generation": "7"}, content_type="application/x-token")
    assert re.fullmatch(r"[0-9a-f]{32}", made.properties.version or "")
    read = client.get_secret("partner-token")
    assert (read.value, read.properties.version) == (CANARY, made.properties.version)
    assert (read.properties.tags, read.properties.recoverable_days) == ({"generation": "7"}, 90)
    client.update_secret_properties("partner-token", made.properties.version or "", enabled=False)
    with pytest.raises(HttpResponseError, match="disabled") as caught:
        client.get_secret("partner-token", made.properties.version or "")
    assert caught.value.status_code == 403


def test_the_sdk_sees_soft_delete_recovery_and_purge(vault: VaultCaller, client: SecretClient) -> None:
    vault.allow(*EVERYTHING)
    client.set_secret("short-lived", CANARY)
    deleted = client.begin_delete_secret("short-lived", _polling_interval=0.01).result()
    assert deleted.recovery_id == f"{vault.url}/deletedsecrets/short-lived"
    with pytest.raises(ResourceExistsError):
        client.set_secret("short-lived", CANARY)
    assert [item.name for item in client.list_deleted_secrets()] == ["short-lived"]
    client.begin_recover_deleted_secret("short-lived", _polling_interval=0.01).wait()
    assert client.get_secret("short-lived").value == CANARY
    client.begin_delete_secret("short-lived", _polling_interval=0.01).wait()
    client.purge_deleted_secret("short-lived")
    with pytest.raises(ResourceNotFoundError):
        client.get_deleted_secret("short-lived")
    assert client.set_secret("short-lived", CANARY).properties.version


def test_the_sdk_pages_through_all_secrets_and_versions(vault: VaultCaller, client: SecretClient) -> None:
    vault.allow(*EVERYTHING)
    for number in range(60):
        vault.put(f"secret-{number:02}")
    for _ in range(29):
        vault.put("secret-00")
    assert [item.name for item in client.list_properties_of_secrets()] == [f"secret-{n:02}" for n in range(60)]
    versions = [item.version for item in client.list_properties_of_secret_versions("secret-00")]
    assert len(set(versions)) == len(versions) == 30


def test_the_sdk_refuses_a_challenge_for_another_resource(vault: VaultCaller, client: SecretClient) -> None:
    vault.world.switches["vault_challenge_resource"] = "https://vault.other.example"
    with pytest.raises(ValueError, match="does not match the requested domain"):
        client.get_secret("anything")
    assert not [line for line in vault.world.ledger if line["operation"] == "token"]


def test_the_sdk_answers_a_claims_challenge_with_a_new_token(vault: VaultCaller, client: SecretClient) -> None:
    client.set_secret("evaluated", CANARY)
    vault.world.switches["vault_claims_challenge"] = True
    assert client.get_secret("evaluated").value == CANARY
    statuses = [line["status"] for line in vault.world.ledger if line["service"] == "vault"]
    assert statuses == [401, 200, 401, 200]
    assert len([line for line in vault.world.ledger if line["operation"] == "token"]) == 2


def test_the_sdk_reports_a_wrong_client_secret(vault: VaultCaller, client: SecretClient) -> None:
    vault.application.secrets.clear()
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        client.get_secret("anything")
