"""The identity that may Get and Set in Azure Key Vault."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from azure.core.credentials import AccessToken
from azure.core.exceptions import ServiceRequestError
from azure.identity import CredentialUnavailableError, ManagedIdentityCredential
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from consent.vault.azure import AzureKeyVault, open_azure_vault, vault_credential
from consent.vault.base import VaultConfigurationError
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import (
    AuthenticationFailed,
    NotSent,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
)
from portal.microsoft.http import DestinationRefused, GuardedSession
from tests.consent.vault.conftest import AUTHORITY
from tests.consent.vault.key_vault_answers import (
    CANARY,
    NAME,
    PRIVATE_TEXT,
    TENANT,
    VERSION,
    Answering,
    FixedCredential,
)
from tests.support.debug_logs import log_everything

CLIENT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "vault-client-secret"
    path.touch(0o600)
    path.write_text(f"{CANARY}\n")
    return path


def token_answer(**answer: Any) -> responses.Response:
    return responses.Response("POST", f"{AUTHORITY}/{TENANT}/oauth2/v2.0/token", **answer)


@pytest.fixture
def signing_in(vault_url: str, session: GuardedSession, secret_file: Path) -> AzureKeyVault:
    credential = partial(
        vault_credential,
        "client-secret",
        session=session,
        authority=AUTHORITY,
        tenant_id=TENANT,
        client_id=CLIENT,
        credential_file=secret_file,
    )
    return open_azure_vault(vault_url, credential, session=session)


def test_a_client_secret_is_read_from_its_file_and_asks_for_a_vault_token(
    signing_in: AzureKeyVault, service: Answering, wire: responses.RequestsMock
) -> None:
    answer = token_answer(json={"access_token": "vault-token", "expires_in": 3600, "token_type": "Bearer"})
    wire.add(answer)
    service.bundle()
    signing_in.read(NAME, VERSION)
    body = str(answer.calls[0].request.body)
    assert f"client_secret={CANARY}&" in body + "&"
    assert "scope=https%3A%2F%2Fvault.azure.net%2F.default" in body
    assert service.requests[0].headers["Authorization"] == "Bearer vault-token"


THROTTLED = {"error": "invalid_request", "error_description": PRIVATE_TEXT, "error_codes": [90055]}
LOOPING = {"error": "invalid_grant", "error_description": PRIVATE_TEXT, "error_codes": [50196]}
EXPIRED = {"error": "invalid_client", "error_description": PRIVATE_TEXT, "error_codes": [7000222]}


@pytest.mark.parametrize(
    ("answer", "kind", "at_fault", "retry_after"),
    [
        (token_answer(status=401, json=EXPIRED), AuthenticationFailed, "vault", None),
        (token_answer(status=400, json={"error": "unauthorized_client"}), AuthenticationFailed, "vault", None),
        (token_answer(status=400, json={"error": "invalid_tenant"}), AuthenticationFailed, "vault", None),
        (token_answer(status=429, json=THROTTLED, headers={"Retry-After": "2"}), Throttled, "entra", 2),
        (token_answer(status=429, json=THROTTLED), Throttled, "entra", 60),
        (token_answer(status=400, json=THROTTLED), Throttled, "entra", 60),
        (token_answer(status=400, json=LOOPING), Throttled, "entra", 60),
        (token_answer(status=503, json={"error": "temporarily_unavailable"}), ServerFault, "entra", None),
        (token_answer(status=500, body="<html>"), ServerFault, "entra", None),
        (token_answer(body=requests.exceptions.ConnectionError(PRIVATE_TEXT)), NotSent, "entra", None),
        (token_answer(body=requests.exceptions.SSLError(PRIVATE_TEXT)), NotSent, "entra", None),
        (token_answer(body=requests.exceptions.ReadTimeout(PRIVATE_TEXT)), NotSent, "entra", None),
        (token_answer(json={"rubbish": PRIVATE_TEXT}), UnexpectedResponse, "entra", None),
        (token_answer(status=403, body=f"<html>{PRIVATE_TEXT}"), UnexpectedResponse, "entra", None),
    ],
    ids=[
        "expired secret",
        "not allowed",
        "no such tenant",
        "429 with a time",
        "429",
        "400 throttled",
        "looping",
        "503",
        "500",
        "no connection",
        "bad certificate",
        "timeout",
        "rubbish",
        "proxy",
    ],
)
@pytest.mark.req("R-14")
@pytest.mark.req("S-32")
def test_a_refused_identity_is_told_from_trouble_of_the_sign_in_service(
    signing_in: AzureKeyVault,
    service: Answering,
    wire: responses.RequestsMock,
    answer: responses.BaseResponse,
    kind: type[RemoteError],
    at_fault: str,
    retry_after: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_everything(caplog)
    wire.add(answer)
    with pytest.raises(RemoteError) as caught:
        signing_in.read(NAME, VERSION)
    error = caught.value
    assert (type(error), error.service, error.retry_after) == (kind, at_fault, retry_after)
    assert (error.__cause__, error.__context__) == (None, None)
    assert PRIVATE_TEXT not in "".join(traceback.format_exception(error)) + caplog.text
    assert service.requests == []
    assert error.host == ("login.microsoftonline.com" if kind is NotSent else "")
    diagnosis = diagnose(error)
    blamed = "vault" in f"{diagnosis.cause} {diagnosis.remedy}".lower()
    assert blamed is (at_fault == "vault")  # nobody changes a good credential, or looks for a fault of the vault
    assert diagnosis.failure_class.systemic


def test_a_managed_identity_that_gives_no_token_is_not_the_vaults_fault(
    vault_url: str, session: GuardedSession, service: Answering
) -> None:
    class NoIdentity(FixedCredential):
        def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
            raise CredentialUnavailableError(PRIVATE_TEXT) from ServiceRequestError(PRIVATE_TEXT)

    with pytest.raises(AuthenticationFailed) as caught:
        open_azure_vault(vault_url, NoIdentity, session=session).read(NAME, VERSION)

    assert PRIVATE_TEXT not in "".join(traceback.format_exception(caught.value))
    assert diagnose(caught.value).cause == "This host got no token of the managed identity for the vault."


# --- a token that the vault refuses -------------------------------------------------------------------------------

CHALLENGE = {"WWW-Authenticate": f'Bearer authorization="{AUTHORITY}/{TENANT}", resource="https://vault.azure.net"'}


def give_tokens(wire: responses.RequestsMock, *tokens: str) -> None:
    for token in tokens:
        wire.add(token_answer(json={"access_token": token, "expires_in": 3600, "token_type": "Bearer"}))


def used(service: Answering) -> list[str]:
    return [request.headers["Authorization"].removeprefix("Bearer ") for request in service.requests]


def test_a_call_whose_cached_token_the_vault_refuses_goes_once_more_with_a_new_one(
    signing_in: AzureKeyVault, service: Answering, wire: responses.RequestsMock
) -> None:
    give_tokens(wire, "first", "second")
    service.bundle()
    service.refuse(401, "Unauthorized", headers=CHALLENGE)
    service.bundle()
    service.bundle()
    for _ in range(3):
        assert signing_in.read(NAME, VERSION).value.reveal() == CANARY
    assert used(service) == ["first", "first", "second", "second"]


def test_a_token_that_was_refused_without_a_challenge_is_never_used_again(
    signing_in: AzureKeyVault, service: Answering, wire: responses.RequestsMock
) -> None:
    give_tokens(wire, "first", "second")
    service.bundle()
    service.refuse(401, "Unauthorized")
    service.bundle()
    signing_in.read(NAME, VERSION)
    with pytest.raises(AuthenticationFailed) as caught:
        signing_in.read(NAME, VERSION)
    assert "although the sign-in service did" in diagnose(caught.value).cause
    signing_in.read(NAME, VERSION)
    assert used(service) == ["first", "first", "second"]


def test_a_vault_that_refuses_every_token_is_asked_twice_for_each_call_and_no_more(
    signing_in: AzureKeyVault, service: Answering, wire: responses.RequestsMock
) -> None:
    give_tokens(wire, "first", "second", "third")
    for _ in range(4):
        service.refuse(401, "Unauthorized", headers=CHALLENGE)
    for _ in range(2):
        with pytest.raises(AuthenticationFailed):
            signing_in.read(NAME, VERSION)
    assert used(service) == ["first", "second", "second", "third"]


def test_a_sign_in_service_outside_the_allowed_hosts_is_our_fault_and_not_the_vaults(
    vault_url: str, service: Answering, secret_file: Path
) -> None:
    session = GuardedSession(is_allowed=lambda host: host.endswith(".vault.azure.net"))
    credential = vault_credential(
        "client-secret",
        session=session,
        authority=AUTHORITY,
        tenant_id=TENANT,
        client_id=CLIENT,
        credential_file=secret_file,
    )
    with pytest.raises(DestinationRefused):
        open_azure_vault(vault_url, lambda: credential, session=session).read(NAME, VERSION)


def test_a_certificate_signs_the_request_for_a_vault_token(
    vault_url: str, session: GuardedSession, service: Answering, wire: responses.RequestsMock, tmp_path: Path
) -> None:
    path = tmp_path / "vault-identity.pem"
    path.touch(0o600)
    path.write_bytes(certificate_with_key())
    credential = vault_credential(
        "certificate",
        session=session,
        authority=AUTHORITY,
        tenant_id=TENANT,
        client_id=CLIENT,
        credential_file=path,
    )
    answer = token_answer(json={"access_token": "vault-token", "expires_in": 3600, "token_type": "Bearer"})
    wire.add(answer)
    service.bundle()
    open_azure_vault(vault_url, lambda: credential, session=session).read(NAME, VERSION)
    assert "client_assertion=" in str(answer.calls[0].request.body)


def certificate_with_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault identity")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private


def test_a_managed_identity_is_asked_on_its_own_host_with_short_limits(session: GuardedSession) -> None:
    credential = vault_credential("managed-identity", session=session, authority=AUTHORITY)
    assert isinstance(credential, ManagedIdentityCredential)


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("default", {}, "VAULT_IDENTITY must be managed-identity, client-secret or certificate"),
        ("client-secret", {"tenant_id": ""}, "needs VAULT_TENANT_ID, VAULT_CLIENT_ID and VAULT_CREDENTIAL_FILE"),
        ("client-secret", {"client_id": ""}, "needs VAULT_TENANT_ID"),
        ("certificate", {"credential_file": ""}, "needs VAULT_TENANT_ID"),
        ("certificate", {}, "a certificate and its RSA key"),
        ("client-secret", {"tenant_id": "no/tenant"}, "VAULT_TENANT_ID is no tenant id"),
        ("client-secret", {"credential_file": Path("/nowhere/secret")}, "/nowhere/secret, does not exist"),
    ],
)
def test_a_wrong_identity_is_one_sentence_that_names_the_variable(
    session: GuardedSession, secret_file: Path, kind: str, arguments: dict[str, Any], sentence: str
) -> None:
    given: dict[str, Any] = {"tenant_id": TENANT, "client_id": CLIENT, "credential_file": secret_file} | arguments
    with pytest.raises(VaultConfigurationError) as caught:
        vault_credential(kind, session=session, authority=AUTHORITY, **given)
    assert sentence in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.req("S-36")
def test_a_credential_file_open_to_others_is_refused(session: GuardedSession, secret_file: Path) -> None:
    secret_file.chmod(0o640)
    with pytest.raises(VaultConfigurationError, match="chmod 600"):
        vault_credential(
            "client-secret",
            session=session,
            authority=AUTHORITY,
            tenant_id=TENANT,
            client_id=CLIENT,
            credential_file=secret_file,
        )
