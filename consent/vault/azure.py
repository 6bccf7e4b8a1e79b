"""Azure Key Vault with exactly Get and Set for the portal's work (S-40), through Microsoft's SDK over our session.

The SDK does what is easily done wrong (token, claims challenge, wire format). Its pipeline has only what we want of
it: the token's audience is that of the vault's own domain and never one that a server names, and nothing is logged,
repeated or redirected, but for a call whose token the vault refused, which goes once more with a new one. What it
raises is turned into the ``RemoteError`` family by status and inner code, never by text, and is not chained: its texts
carry addresses and AADSTS sentences. Only the caller knows how much of its time is left to try again; but calls are
spread out, and after a 429 all are held back as long as the vault asked (R-08).

The sign-in service stands between us and the vault. What it answers is read in our own transport, below the SDK: its
faults have ``service="entra"``, a refused identity is the vault's, because an operator repairs it there.

What each method needs is decided by the identity that opens the vault: ``names``, ``versions`` and ``deleted_names``
List, ``erase`` Delete and, to be complete, Purge.

Source: Key Vault REST ``setSecret``, ``getSecret``, ``updateSecret``, api-version 7.4; error table of the page
"Azure Key Vault REST API error codes".
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, SansIOHTTPPolicy
from azure.core.pipeline.transport import HttpRequest as LegacyRequest
from azure.core.pipeline.transport import RequestsTransport, RequestsTransportResponse
from azure.core.rest import HttpRequest
from azure.identity import CertificateCredential, ClientSecretCredential
from azure.keyvault.secrets import KeyVaultSecret, SecretClient

from consent.microsoft.entra import SERVICE as ENTRA
from consent.microsoft.entra import endpoints
from consent.microsoft.managed_identity import managed_identity
from consent.vault.base import (
    OUR_NAME,
    PROBE_NAME,
    SECRET_VERSION,
    SERVICE,
    TOMBSTONE_NAME,
    NameBlocked,
    SecretDisabled,
    SecretName,
    SecretVersion,
    StoredSecret,
    VaultConfigurationError,
    VersionInfo,
    check_name,
    check_new_version,
    check_version,
)
from consent.vault.pace import Pace
from consent.vault.private_files import read_private_file
from portal.microsoft.api import DEFAULT_RETRY_AFTER_SECONDS, parse_json
from portal.microsoft.diagnosis import diagnose_token_error
from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
    Unreachable,
)
from portal.microsoft.http import (
    CONNECT_SECONDS,
    READ_SECONDS,
    DestinationRefused,
    budget_left,
    no_answer,
    retry_after_seconds,
    time_budget,
    turn_of,
)
from portal.microsoft.identifiers import new_request_id
from portal.microsoft.secret import Secret

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
API_VERSION: Final = "7.4"  # pinned, so that an update of the SDK does not change the wire
CONTENT_TYPE = "application/x-refresh-token"
_VAULT_URL = re.compile(r"https://[0-9A-Za-z.-]+(:[0-9]+)?/?")
_OPERATION_SECONDS = 25.0  # token and call together; a web request waits no longer
_SIGN_IN = "sign in to the vault"
IDENTITY_REFUSED: Final = "identity_refused"  # our own codes, beside the vault's in the table of sentences
NO_MANAGED_IDENTITY: Final = "no_managed_identity"
_THROTTLED_SECONDS = 10.0  # Key Vault counts in windows of ten seconds and often sends no Retry-After

_BY_STATUS: Mapping[int, type[RemoteError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: AccessDenied,
    404: NotFound,
    408: ServerFault,
    409: ServerFault,  # the name is being deleted or recovered: later it works
    429: Throttled,
}
_BY_INNER_CODE: Mapping[tuple[int, str], type[RemoteError]] = {
    (403, "SecretDisabled"): SecretDisabled,
    (409, "ObjectIsDeletedButRecoverable"): NameBlocked,
}


class AzureKeyVault:
    """A :class:`~consent.vault.base.Vault` in Azure Key Vault. Thread-safe.

    Args:
        client: as :func:`open_azure_vault` builds it.
        pace: the budget of all calls of this process, whichever identity makes them.
    """

    most_versions = 500  # Key Vault keeps each for ever, and backs up no entry with more

    def __init__(self, client: SecretClient, pace: Pace) -> None:
        self._client = client
        self._pace = pace

    def write(
        self, name: SecretName, value: Secret, *, tags: Mapping[str, str], expires_at: datetime | None
    ) -> SecretVersion:
        """See :meth:`consent.vault.base.Vault.write`."""
        operation = f"write {name}"
        check_new_version(name, value, tags, expires_at, operation)

        def write() -> SecretVersion:
            stored = self._client.set_secret(
                name,
                value.reveal(),
                enabled=True,
                tags=dict(tags),
                content_type=CONTENT_TYPE,
                expires_on=expires_at,
            )
            return _version(stored)

        return self._call(operation, write)

    def read(self, name: SecretName, version: SecretVersion) -> StoredSecret:
        """See :meth:`consent.vault.base.Vault.read`."""
        operation = f"read {name}"
        check_name(name, operation)
        check_version(version, operation)
        stored = self._call(operation, lambda: self._get(name, version))
        if stored.version != version:
            raise UnexpectedResponse(SERVICE, operation, detail="The vault answered with another version")
        return stored

    def read_newest(self, name: SecretName) -> StoredSecret:
        """See :meth:`consent.vault.base.Vault.read_newest`."""
        operation = f"read {name}"
        check_name(name, operation)
        return self._call(operation, lambda: self._get(name))

    def disable(self, name: SecretName, version: SecretVersion) -> None:
        """See :meth:`consent.vault.base.Vault.disable`."""
        operation = f"disable {name}"
        check_name(name, operation)
        check_version(version, operation)
        self._call(operation, lambda: self._client.update_secret_properties(name, version, enabled=False))

    def check_writable(self) -> None:
        """Update an attribute of one reserved secret, which makes no version (R-07); make the secret if need be.

        Raises:
            NameBlocked: somebody deleted the reserved secret; an administrator of the vault recovers or purges it.
        """
        operation = f"check that {PROBE_NAME} can be written"
        try:
            self._call(operation, lambda: self._client.update_secret_properties(PROBE_NAME, enabled=True))
        except NotFound:
            self._call(operation, lambda: self._client.set_secret(PROBE_NAME, "probe", content_type="text/plain"))

    # --- what needs more than Get and Set -------------------------------------------------------------------------

    def names(self) -> Iterator[SecretName]:
        """See :meth:`consent.vault.base.Inventory.names`; entries of other shapes are somebody else's."""
        return (
            SecretName(name) for name in self.all_names() if OUR_NAME.fullmatch(name) or TOMBSTONE_NAME.fullmatch(name)
        )

    def all_names(self) -> Iterator[str]:
        """Yield the names of all secrets, those of others included. Raises AccessDenied without the right to List."""
        pages = self._client.list_properties_of_secrets().by_page()
        for item in items(self._pace, "list the vault", pages):
            if item.name is not None:
                yield item.name

    def versions(self, name: SecretName) -> list[VersionInfo]:
        """See :meth:`consent.vault.base.Inventory.versions`."""
        operation = f"list {name}"
        check_name(name, operation)
        pages = self._client.list_properties_of_secret_versions(name).by_page()
        try:
            return versions_of(name, items(self._pace, operation, pages), operation)
        except NotFound:
            return []

    def deleted_names(self) -> Iterator[SecretName]:
        """See :meth:`consent.vault.base.Inventory.deleted_names`."""
        pages = self._client.list_deleted_secrets().by_page()
        for item in items(self._pace, "list what was deleted", pages):
            if item.name is not None and OUR_NAME.fullmatch(item.name):
                yield SecretName(item.name)

    def erase(self, name: SecretName) -> bool:
        """See :meth:`consent.vault.base.Eraser.erase`. A deletion that still runs is purged by the next call."""
        operation = f"erase {name}"
        check_name(name, operation)
        begun = True
        try:
            self._call(operation, lambda: self._client.begin_delete_secret(name))
        except NotFound:
            begun = False  # deleted before, or never there
        try:
            self._call(operation, lambda: self._client.purge_deleted_secret(name))
        except NotFound:
            return not begun
        except (AccessDenied, Conflict, ServerFault):
            return False
        return True

    def _get(self, name: SecretName, version: str = "") -> StoredSecret:
        """Get a version, or the newest. The SDK's own method spends more on its models than on the call."""
        response = self._client.send_request(HttpRequest("GET", f"/secrets/{name}/{version}"))
        if response.status_code != 200:
            raise HttpResponseError(response=response)
        return _stored(name, parse_json(response.read()))

    # --- calls ----------------------------------------------------------------------------------------------------

    def _call[T](self, operation: str, function: Callable[[], T]) -> T:
        return call(self._pace, operation, function)


def items[T](pace: Pace, operation: str, pages: Iterator[Iterator[T]]) -> Iterator[T]:
    """Yield all items of a list; each page is a call of its own, with its own time and its own turn."""
    while page := call(pace, operation, lambda: list(next(pages, ()))):
        yield from page


def call[T](pace: Pace, operation: str, function: Callable[[], T]) -> T:
    """Call the SDK in its turn and time, and return what it returns.

    Raises:
        RemoteError: whatever the SDK raised.
    """
    failure: Exception
    try:
        with time_budget(_OPERATION_SECONDS):
            wait = pace.take(budget_left())
            if not wait:
                return function()
        failure = Throttled(SERVICE, operation, retry_after=wait, detail="The vault asked for a pause")
    except AzureError as error:
        failure = _failure(operation, error)
        if isinstance(failure, Throttled) and failure.retry_after is not None:
            pace.pause(failure.retry_after)
    except RemoteError as error:  # of the sign-in, or of an answer that was read here
        failure = error
        failure.__cause__ = failure.__context__ = None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError):
        # What the SDK raises for JSON of another shape.
        failure = UnexpectedResponse(SERVICE, operation)
    # Outside the except blocks, so that not even __context__ leads to the SDK's texts.
    raise failure


class _Identity:
    """The identity that signs in for the vault; of many threads one fetches a token, and the others get that one.

    A token that the vault refused is never handed out again. The SDK's credential keeps tokens in a cache that cannot
    be emptied from outside, so the credential is made anew.
    """

    def __init__(self, make: Callable[[], TokenCredential]) -> None:
        self._make = make
        self._credential = make()
        self._lock = threading.Lock()
        self._handed_out = self._refused = ""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        failure: Exception
        try:
            with turn_of(self._lock):
                if self._refused and self._refused == self._handed_out:
                    self._credential = self._make()
                token = self._credential.get_token(*scopes, **options)
                self._handed_out = token.token
                return token
        except TimeoutError:
            failure = Unreachable(ENTRA, _SIGN_IN)
        except AzureError as error:
            failure = _sign_in_failure(error)
        raise failure

    def refused(self, token: str) -> None:
        """Take note that the vault does not accept this token."""
        self._refused = token


class _Authorization(BearerTokenCredentialPolicy[Any, Any]):
    """Adds the token to each request. A request whose token the vault refused goes once more, with a new one."""

    def __init__(self, identity: _Identity, scope: str) -> None:
        super().__init__(identity, scope, enable_cae=True)
        self._identity = identity

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        if response.http_response.status_code == 401:
            self._identity.refused(_bearer_of(request))

    def on_challenge(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> bool:
        """Answer a claims challenge as the SDK does, and any other by a new token, if there is one."""
        if super().on_challenge(request, response):
            return True
        refused = _bearer_of(request)
        self.authorize_request(request, *self._scopes)
        return _bearer_of(request) != refused


def _bearer_of(request: PipelineRequest[Any]) -> str:
    return str(request.http_request.headers.get("Authorization", "")).removeprefix("Bearer ")


def open_azure_vault(
    vault_url: str, credential: Callable[[], TokenCredential], *, session: requests.Session, pace: Pace | None = None
) -> AzureKeyVault:
    """Return the vault at this address; nothing is called yet.

    Args:
        vault_url: ``https://<name>.vault.azure.net`` or its like in another cloud.
        credential: makes that of the vault's own identity, by :func:`vault_credential`; never the CPV application's.
            Called now, and again when the vault refuses a token.
        session: a :class:`portal.microsoft.http.GuardedSession`: time limits, allowed hosts, verified TLS.
        pace: shared by all identities of this process.

    Raises:
        VaultConfigurationError: the address is not one of a vault, or what ``credential`` raises.
    """
    return AzureKeyVault(
        SecretClient(vault_url=vault_url, **pipeline(vault_url, credential, session=session)), pace or Pace()
    )


def pipeline(vault_url: str, credential: Callable[[], TokenCredential], *, session: requests.Session) -> dict[str, Any]:
    """Return the options of an SDK client of this vault: identity, version, transport and policies of ours.

    Raises as :func:`open_azure_vault`.
    """
    if not _VAULT_URL.fullmatch(vault_url):
        raise VaultConfigurationError("VAULT_URL must look like https://name.vault.azure.net")
    domain = (urlsplit(vault_url).hostname or "").partition(".")[2]
    identity = _Identity(credential)
    return {
        "credential": identity,
        "api_version": API_VERSION,
        "transport": _Transport(session),
        # Without a logging policy no setting can make it print bodies, that is refresh tokens (S-32).
        "policies": [_RequestId(), _Authorization(identity, f"https://{domain}/.default")],
    }


def vault_credential(
    kind: str,
    *,
    session: requests.Session,
    authority: str,
    tenant_id: str = "",
    client_id: str = "",
    credential_file: str | Path = "",
) -> TokenCredential:
    """Return the identity that may Get and Set in the vault; one explicit class, never a chain that guesses.

    Args:
        kind: ``managed-identity`` (the best where the portal runs in Azure; ``client_id`` names a user-assigned one),
            ``client-secret`` or ``certificate``.
        authority: the cloud's sign-in service, as origin or ``host[:port]``; always https.
        credential_file: private file (0600) with the client secret, or with certificate and RSA key in PEM or PKCS12.

    Raises:
        VaultConfigurationError: what is missing or unusable.
    """
    if kind == "managed-identity":
        return managed_identity(client_id or None)
    if kind not in {"client-secret", "certificate"}:
        raise VaultConfigurationError("VAULT_IDENTITY must be managed-identity, client-secret or certificate")
    if not tenant_id or not client_id or not credential_file:
        raise VaultConfigurationError(
            f"VAULT_IDENTITY is {kind}, which needs VAULT_TENANT_ID, VAULT_CLIENT_ID and VAULT_CREDENTIAL_FILE"
        )
    content = read_private_file(Path(credential_file), "The vault identity's credential file")
    host = authority.removeprefix("https://").rstrip("/")
    common: dict[str, Any] = {
        "authority": authority,
        "transport": _IdentityTransport(session, f"https://{host}/{tenant_id}"),
        "retry_total": 0,
        # The authority comes from the cloud's record, so asking login.microsoftonline.com whether it is one of
        # Microsoft's adds nothing but a call that other clouds' networks and our allowed hosts refuse.
        "disable_instance_discovery": True,
    }
    try:
        if kind == "client-secret":
            return ClientSecretCredential(tenant_id, client_id, content.decode().strip(), **common)
        return CertificateCredential(tenant_id, client_id, certificate_data=content, **common)
    except (ValueError, TypeError):
        raise VaultConfigurationError(
            f"VAULT_TENANT_ID is no tenant id, or {credential_file} does not hold what VAULT_IDENTITY={kind} needs: "
            + ("one line of text" if kind == "client-secret" else "a certificate and its RSA key without a password")
        ) from None


class _RequestId(SansIOHTTPPolicy[Any, Any]):
    """Names each request. The SDK's own policy would tell the vault this machine's address and clock, by uuid1."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.http_request.headers["x-ms-client-request-id"] = new_request_id()


class _Transport(RequestsTransport):  # type: ignore[misc]  # azure-core types it as Any
    def __init__(self, session: requests.Session) -> None:
        super().__init__(
            session=session, session_owner=False, connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
        )


class _IdentityTransport(_Transport):
    """Answers MSAL's question for a tenant's endpoints itself, like ``consent.microsoft.entra``: they are the cloud's.

    Whatever is no token is raised here as what it is. Above, the SDK would make one exception and one log line, with
    the service's own sentence, of a refused credential, a throttled service and a dead host.
    """

    def __init__(self, session: requests.Session, base: str) -> None:
        super().__init__(session)
        self._base = base

    def send(self, request: LegacyRequest, **options: Any) -> RequestsTransportResponse:
        if request.method != "GET" or request.url != f"{self._base}/v2.0/.well-known/openid-configuration":
            return self._ask_for_token(request, **options)
        response = requests.Response()
        response.status_code = 200
        response.headers["Content-Type"] = "application/json"
        response.encoding = "utf-8"
        response._content = json.dumps(endpoints(self._base)).encode()
        return RequestsTransportResponse(request, response)

    def _ask_for_token(self, request: LegacyRequest, **options: Any) -> RequestsTransportResponse:
        failure: RemoteError
        try:
            answer: RequestsTransportResponse = super().send(request, **options)
        except AzureError as error:
            failure = _transport_failure(ENTRA, _SIGN_IN, error)
        else:
            try:
                content = parse_json(answer.body())
            except ValueError:
                content = None
            known = content if isinstance(content, dict) else {}
            if answer.status_code == 200 and isinstance(known.get("access_token"), str):
                return answer
            failure = _refused_sign_in(answer.status_code, answer.headers, known)
        raise failure


# --- answers ------------------------------------------------------------------------------------------------------


def _version(secret: KeyVaultSecret) -> SecretVersion:
    version = secret.properties.version
    if not version or not SECRET_VERSION.fullmatch(version):
        raise ValueError("no version id")
    return SecretVersion(version)


def _stored(name: SecretName, bundle: Any) -> StoredSecret:
    """Read a SecretBundle. Raises whatever fits, as ``_call`` knows, when it is not the documented one."""
    path, _, version = bundle["id"].rpartition("/")
    value, attributes, tags = bundle["value"], bundle["attributes"], bundle.get("tags") or {}
    expires = attributes.get("exp")
    if not path.endswith(f"/secrets/{name}") or not SECRET_VERSION.fullmatch(version):
        raise ValueError("not the secret that was asked for")
    if not isinstance(value, str) or not value or not all(isinstance(text, str) for text in tags.values()):
        raise TypeError("no text")
    return StoredSecret(
        name=name,
        version=SecretVersion(version),
        value=Secret(value),
        tags=tags,
        created_at=_EPOCH + timedelta(seconds=attributes["created"]),
        expires_at=None if expires is None else _EPOCH + timedelta(seconds=expires),
    )


class _Listed(Protocol):
    """What the SDK lists of a version of a secret, and of a key."""

    @property
    def version(self) -> str | None: ...
    @property
    def enabled(self) -> bool | None: ...
    @property
    def tags(self) -> dict[str, str] | None: ...
    @property
    def created_on(self) -> datetime | None: ...


def versions_of(name: SecretName, listed: Iterable[_Listed], operation: str) -> list[VersionInfo]:
    """Return what the SDK lists of one secret or key, oldest first. Raises UnexpectedResponse."""
    found = [_info(name, item, operation) for item in listed]
    return sorted(found, key=lambda each: (each.created_at, each.generation))


def _info(name: SecretName, item: _Listed, operation: str) -> VersionInfo:
    if item.version is None or not SECRET_VERSION.fullmatch(item.version) or item.created_on is None:
        raise UnexpectedResponse(SERVICE, operation, detail="The vault listed something that is no version")
    return VersionInfo(
        name=name,
        version=SecretVersion(item.version),
        enabled=item.enabled is not False,
        tags=item.tags or {},
        created_at=item.created_on,
    )


# --- errors -------------------------------------------------------------------------------------------------------


def _failure(operation: str, error: AzureError) -> Exception:
    response = error.response if isinstance(error, HttpResponseError) else None
    if not isinstance(error, HttpResponseError) or response is None or error.status_code is None:
        return _transport_failure(SERVICE, operation, error)

    status = error.status_code
    code, inner = _codes(error)
    kind = _BY_INNER_CODE.get((status, inner)) or _BY_INNER_CODE.get((status, code))
    if kind is None:
        kind = _BY_STATUS.get(status, ServerFault if status >= 500 else UnexpectedResponse)
    headers: Mapping[str, str] = getattr(response, "headers", {})
    retry_after = retry_after_seconds(headers.get("Retry-After"))
    if kind is Throttled and retry_after is None:
        retry_after = _THROTTLED_SECONDS
    return kind(
        SERVICE,
        operation,
        status=status,
        code=inner or code,
        correlation_id=getattr(response.request, "headers", {}).get("x-ms-client-request-id", ""),
        request_id=headers.get("x-ms-request-id", ""),
        retry_after=retry_after,
    )


def _transport_failure(service: str, operation: str, error: AzureError) -> RemoteError:
    """Name a call without an answer: not connected, not in time, or cut off; azure-core has six classes for it."""
    if isinstance(error.inner_exception, requests.exceptions.ContentDecodingError):
        return UnexpectedResponse(service, operation, detail="The answer is too large or cannot be decoded")
    return no_answer(service, operation)


def _refused_sign_in(status: int, headers: Mapping[str, str], answer: Mapping[str, Any]) -> RemoteError:
    """Tell the sign-in service's own trouble from a refusal of the vault's identity."""
    codes = answer.get("error_codes")
    diagnosis = diagnose_token_error(
        error=str(answer.get("error", ""))[:100],
        suberror=str(answer.get("suberror", ""))[:100],
        error_codes=[code for code in codes if isinstance(code, int)] if isinstance(codes, list) else [],
        status=status,
    )
    request_id = headers.get("x-ms-request-id", "")
    if diagnosis.retry or "error" not in answer:
        retry_after = retry_after_seconds(headers.get("Retry-After"))
        if retry_after is None and diagnosis.error is Throttled:
            retry_after = DEFAULT_RETRY_AFTER_SECONDS
        return diagnosis.error(
            ENTRA,
            _SIGN_IN,
            status=status,
            code=diagnosis.key,
            request_id=request_id,
            retry_after=retry_after,
            detail=diagnosis.cause,
        )
    return AuthenticationFailed(
        SERVICE,
        _SIGN_IN,
        status=status,
        code=IDENTITY_REFUSED,
        request_id=request_id,
        detail=f"the sign-in service refused the vault's identity ({diagnosis.key})",
    )


def _sign_in_failure(error: AzureError) -> Exception:
    """Take our own error out of the SDK's wrapping. Without one it was the managed identity, which has no transport of
    ours."""
    cause = error.__cause__
    if isinstance(cause, DestinationRefused | RemoteError):
        return cause  # of our transport
    return AuthenticationFailed(
        SERVICE, _SIGN_IN, code=NO_MANAGED_IDENTITY, detail="this host got no token of the managed identity"
    )


def _codes(error: HttpResponseError) -> tuple[str, str]:
    """Return ``error.code`` and ``error.innererror.code``; empty where the body has none."""
    if error.error is None:
        return "", ""
    inner = error.error.innererror.get("code") if isinstance(error.error.innererror, Mapping) else None
    return str(error.error.code or ""), str(inner or "")
