"""Azure Key Vault on the wire: what is sent, and what each answer of the service becomes.

Answers are the documented ones (Key Vault REST, "Azure Key Vault REST API error codes").
"""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests
import responses
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from urllib3.exceptions import ProtocolError

from consent.vault import azure
from consent.vault.azure import AzureKeyVault, open_azure_vault
from consent.vault.base import PROBE_NAME, NameBlocked, SecretDisabled, VaultConfigurationError
from consent.vault.pace import Pace
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    InvalidRequest,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
    Unreachable,
)
from portal.microsoft.http import CONNECT_SECONDS, READ_SECONDS, DestinationRefused, GuardedSession
from tests.consent.vault.key_vault_answers import (
    CANARY,
    EXPIRES,
    NAME,
    OPERATIONS,
    PRIVATE_TEXT,
    REQUEST_ID,
    VERSION,
    Answering,
    FixedCredential,
    Operation,
    write,
)
from tests.support.debug_logs import log_everything

ALL_OPERATIONS = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@pytest.fixture
def vault(vault_url: str, session: GuardedSession) -> AzureKeyVault:
    """A vault whose pauses are not slept through: what a pause does is shown in test_azure_sandbox.py."""
    pace = Pace(sleep=lambda seconds: None)
    return open_azure_vault(vault_url, FixedCredential, session=session, pace=pace)


def sent(request: requests.PreparedRequest) -> tuple[str, str, Any]:
    assert request.url is not None
    path = request.url.partition(".vault.azure.net")[2]
    return str(request.method), path, json.loads(request.body) if request.body else None


# --- what is sent -------------------------------------------------------------------------------------------------


@pytest.mark.req("S-40")
@pytest.mark.req("S-41")
def test_the_wire_carries_get_and_set_and_nothing_else(vault: AzureKeyVault, service: Answering) -> None:
    for _ in range(4):
        service.bundle()
    service.bundle(id=f"{service.url}/secrets/{PROBE_NAME}/{VERSION}", value=None)
    for operation in OPERATIONS.values():
        operation(vault)
    assert [sent(request) for request in service.requests] == [
        (
            "PUT",
            f"/secrets/{NAME}?api-version=7.4",
            {
                "value": CANARY,
                "contentType": "application/x-refresh-token",
                "tags": {"record": "41", "generation": "7"},
                "attributes": {"enabled": True, "exp": 1893456000},
            },
        ),
        ("GET", f"/secrets/{NAME}/{VERSION}?api-version=7.4", None),
        ("GET", f"/secrets/{NAME}/?api-version=7.4", None),
        ("PATCH", f"/secrets/{NAME}/{VERSION}?api-version=7.4", {"attributes": {"enabled": False}}),
        ("PATCH", f"/secrets/{PROBE_NAME}/?api-version=7.4", {"attributes": {"enabled": True}}),
    ]


def test_an_answer_becomes_a_stored_secret(vault: AzureKeyVault, service: Answering) -> None:
    service.bundle()
    stored = vault.read(NAME, VERSION)
    assert stored.value.reveal() == CANARY
    assert (stored.name, stored.version, dict(stored.tags)) == (NAME, VERSION, {"record": "41", "generation": "7"})
    assert (stored.created_at, stored.expires_at) == (datetime(2026, 1, 1, tzinfo=UTC), EXPIRES)


@pytest.mark.req("R-07")
def test_the_reserved_secret_is_made_when_it_is_absent(vault: AzureKeyVault, service: Answering) -> None:
    service.refuse(404, "SecretNotFound")
    service.bundle(id=f"{service.url}/secrets/{PROBE_NAME}/{VERSION}")
    vault.check_writable()
    assert [request.method for request in service.requests] == ["PATCH", "PUT"]


@pytest.mark.req("R-07")
def test_a_vault_that_only_reads_fails_the_write_check(vault: AzureKeyVault, service: Answering) -> None:
    service.refuse(404, "SecretNotFound")
    service.refuse(403, "Forbidden", "AccessDenied")
    with pytest.raises(AccessDenied):
        vault.check_writable()


# --- what answers become ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "inner", "kind", "retryable"),
    [
        (400, "BadParameter", "", InvalidRequest, False),
        (400, "BadArgument", "", InvalidRequest, False),
        (401, "Unauthorized", "", AuthenticationFailed, False),
        (403, "Forbidden", "AccessDenied", AccessDenied, False),
        (403, "Forbidden", "ForbiddenByRbac", AccessDenied, False),
        (403, "Forbidden", "ForbiddenByFirewall", AccessDenied, False),
        (403, "Forbidden", "ForbiddenByConnection", AccessDenied, False),
        (403, "Forbidden", "SecretDisabled", SecretDisabled, False),
        (403, "SecretDisabled", "", SecretDisabled, False),
        (404, "SecretNotFound", "", NotFound, False),
        (404, "VaultNotFound", "", NotFound, False),
        (405, "", "", UnexpectedResponse, False),
        (408, "", "", ServerFault, True),
        (409, "Conflict", "ObjectIsDeletedButRecoverable", NameBlocked, False),
        (409, "Conflict", "ObjectIsBeingRecovered", ServerFault, True),
        (409, "Conflict", "ObjectIsBeingDeleted", ServerFault, True),
        (409, "Conflict", "", ServerFault, True),
        (429, "Throttled", "VaultRequestTypeLimitReached", Throttled, True),
        (500, "InternalServerError", "", ServerFault, True),
        (502, "", "", ServerFault, True),
        (503, "ServiceUnavailable", "", ServerFault, True),
        (504, "", "", ServerFault, True),
        (302, "", "", UnexpectedResponse, False),
        (418, "", "", UnexpectedResponse, False),
    ],
)
@pytest.mark.req("R-05")
def test_each_answer_of_the_error_table_has_its_class_and_is_asked_for_once(
    vault: AzureKeyVault,
    service: Answering,
    status: int,
    code: str,
    inner: str,
    kind: type[RemoteError],
    retryable: bool,
) -> None:
    for name in ("write", "read", "read_newest", "disable"):
        service.requests.clear()
        service.refuse(status, code, inner)
        with pytest.raises(RemoteError) as caught:
            OPERATIONS[name](vault)
        error = caught.value
        assert (type(error), error.retryable) == (kind, retryable)
        assert (error.service, error.status, error.code) == ("vault", status, inner or code)
        assert error.request_id == REQUEST_ID
        assert error.correlation_id == service.requests[-1].headers["x-ms-client-request-id"]
        assert len(service.requests) == 1


@pytest.mark.parametrize(
    "body", ["", "<html>Bad Gateway</html>", "[]", '{"error": null}', '{"error": {"code": 1, "innererror": 1}}']
)
def test_an_error_without_the_documented_body_is_mapped_by_its_status(
    vault: AzureKeyVault, service: Answering, body: str
) -> None:
    for status, kind in ((403, AccessDenied), (409, ServerFault), (503, ServerFault)):
        service.answers.append((status, {}, body))
        with pytest.raises(kind):
            vault.read(NAME, VERSION)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 10),
        ("17", 17),
        ("86400", 300),
        (timedelta(seconds=200), 200),
        (timedelta(days=2), 300),
        (timedelta(days=-2), 0),
        ("soon", 10),
    ],
    ids=["absent", "seconds", "too long", "date", "far date", "past date", "rubbish"],
)
@pytest.mark.req("R-08")
def test_a_throttled_call_returns_at_once_and_says_how_long_to_wait(
    vault: AzureKeyVault, service: Answering, header: str | timedelta | None, seconds: int
) -> None:
    if isinstance(header, timedelta):  # from now on, not from when the tests were collected
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    service.refuse(429, "Throttled", headers={} if header is None else {"Retry-After": header})
    started = time.monotonic()
    with pytest.raises(Throttled) as caught:
        write(vault)
    assert time.monotonic() - started < 2
    assert caught.value.retry_after == pytest.approx(seconds, abs=5 if seconds == 200 else 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": "https://example-vault.vault.azure.net/secrets/rt-other/" + VERSION},
        {"id": "nonsense"},
        {"id": "https://example-vault.vault.azure.net/secrets/" + NAME},
        {"id": f"https://example-vault.vault.azure.net/secrets/{NAME}/not-a-version"},
        {"id": f"https://example-vault.vault.azure.net/secrets/{NAME}/{'0' * 32}"},
        {"value": None},
        {"value": ""},
        {"attributes": None},
        {"attributes": {"enabled": True}},
        {"attributes": "nonsense"},
    ],
)
@pytest.mark.req("R-25")
def test_an_answer_that_is_not_the_secret_asked_for_is_refused_and_not_logged(
    vault: AzureKeyVault, service: Answering, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    log_everything(caplog)
    service.bundle(**changes)
    with pytest.raises(UnexpectedResponse) as caught:
        vault.read(NAME, VERSION)
    assert CANARY not in caplog.text + str(caught.value)


@pytest.mark.parametrize("body", ["", "null", "[]", "7", '"text"', "{}", "<html>", '{"id": 7}', "{"])
@pytest.mark.req("R-25")
def test_rubbish_with_status_200_is_refused(vault: AzureKeyVault, service: Answering, body: str) -> None:
    for name in ("write", "read", "read_newest"):
        service.answers.append((200, {}, body))
        with pytest.raises(UnexpectedResponse):
            OPERATIONS[name](vault)


@pytest.mark.parametrize(
    "failure",
    [
        requests.exceptions.ConnectTimeout(PRIVATE_TEXT),
        requests.exceptions.ReadTimeout(PRIVATE_TEXT),
        requests.exceptions.ConnectionError(PRIVATE_TEXT),
        requests.exceptions.ConnectionError(ProtocolError(PRIVATE_TEXT)),
        requests.exceptions.SSLError(PRIVATE_TEXT),
        requests.exceptions.ProxyError(PRIVATE_TEXT),
        requests.exceptions.ChunkedEncodingError(PRIVATE_TEXT),
        requests.exceptions.ChunkedEncodingError("IncompleteRead"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@ALL_OPERATIONS
@pytest.mark.req("R-05")
@pytest.mark.req("R-09")
def test_no_answer_is_unreachable_and_is_not_repeated_here(
    vault: AzureKeyVault, service: Answering, operation: Operation, failure: Exception
) -> None:
    service.answers.append(failure)
    with pytest.raises(Unreachable) as caught:
        operation(vault)
    assert len(service.requests) == 1
    assert (caught.value.service, f"https://{caught.value.host}") == ("vault", service.url)
    assert caught.value.host in diagnose(caught.value).cause


def test_an_answer_above_one_megabyte_is_refused(vault: AzureKeyVault, service: Answering) -> None:
    service.bundle(value="x" * 1_100_000)
    with pytest.raises(UnexpectedResponse, match="too large"):
        vault.read(NAME, VERSION)


@ALL_OPERATIONS
def test_a_server_that_names_another_resource_gets_no_token_for_it(
    vault: AzureKeyVault, service: Answering, operation: Operation
) -> None:
    named = 'Bearer authorization="https://login.windows.net/common", resource="https://graph.microsoft.com"'
    service.refuse(401, "Unauthorized", headers={"WWW-Authenticate": named})
    with pytest.raises(AuthenticationFailed):
        operation(vault)  # the credential refuses to be asked for another scope than the vault's
    assert len(service.requests) == 1


@pytest.mark.parametrize("host", ["vault.attacker.example", "example.vault.azure.net.attacker.example"])
def test_the_token_is_for_the_domain_of_the_vault_and_no_other(
    wire: responses.RequestsMock, host: str, session: GuardedSession
) -> None:
    asked: list[str] = []

    class Noting(FixedCredential):
        def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
            asked.extend(scopes)
            raise ClientAuthenticationError("there is no such resource")

    with pytest.raises(AuthenticationFailed):
        open_azure_vault(f"https://{host}", Noting, session=session).read(NAME, VERSION)
    assert asked == [f"https://{host.partition('.')[2]}/.default"]
    assert len(wire.calls) == 0


def test_a_vault_outside_the_allowed_hosts_is_not_called(wire: responses.RequestsMock, session: GuardedSession) -> None:
    vault = open_azure_vault(
        "https://vault.attacker.example", lambda: FixedCredential("attacker.example"), session=session
    )
    with pytest.raises(DestinationRefused):
        vault.read(NAME, VERSION)
    assert len(wire.calls) == 0


@ALL_OPERATIONS
@pytest.mark.req("S-31")
@pytest.mark.req("S-32")
def test_nothing_of_the_service_and_no_secret_reaches_error_texts_or_logs(
    vault: AzureKeyVault, service: Answering, operation: Operation, caplog: pytest.LogCaptureFixture
) -> None:
    log_everything(caplog)
    for status in (401, 403, 409, 500):
        service.refuse(status, "Forbidden")
        with pytest.raises(RemoteError) as caught:
            operation(vault)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
        assert PRIVATE_TEXT not in text
        assert service.url not in text
    assert service.requests
    assert CANARY not in caplog.text
    assert "access-token" not in caplog.text


# --- time limits --------------------------------------------------------------------------------------------------


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections on a port of this machine and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.req("R-13")
def test_a_server_that_accepts_and_says_nothing_is_left_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (CONNECT_SECONDS, READ_SECONDS) == (5, 20)
    monkeypatch.setattr(azure, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(azure, "READ_SECONDS", 0.3)
    with silent_server() as port:
        session = GuardedSession(is_allowed=lambda host: True, loopback=True)
        vault = open_azure_vault(
            f"https://quiet.vault.localhost:{port}", lambda: FixedCredential("vault.localhost"), session=session
        )
        for operation in OPERATIONS.values():
            started = time.monotonic()
            with pytest.raises(Unreachable):
                operation(vault)
            assert time.monotonic() - started < 2


@pytest.mark.req("R-13")
def test_token_and_call_share_one_budget(
    vault: AzureKeyVault, service: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure, "_OPERATION_SECONDS", 0.0)
    with pytest.raises(Unreachable):
        vault.read(NAME, VERSION)
    assert service.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        "example.vault.azure.net",
        "http://example.vault.azure.net",
        "https://",
        "https://example.vault.azure.net/secrets",
        "https://user@example.vault.azure.net",
        "https://example.vault.azure.net?x=1",
        "https://example.vault.azure.net\\@attacker.example",
    ],
)
def test_what_is_not_the_address_of_a_vault_is_refused(session: GuardedSession, address: str) -> None:
    with pytest.raises(VaultConfigurationError, match="VAULT_URL"):
        open_azure_vault(address, FixedCredential, session=session)
