"""The sign-in service behind one adapter.

MSAL builds the requests (client authentication, telemetry, wire form); we read the answers. MSAL validates no ID
token, replays a cached 400 for 60 seconds, prints answers that are not JSON and puts nonces into exception texts, so
it never sees an ID token, and lives for one operation only.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import msal
import requests
import urllib3

from consent.microsoft.credentials import ClientCredential
from portal.microsoft.api import DEFAULT_RETRY_AFTER_SECONDS, parse_json
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.diagnosis import diagnose_token_error, named_token_lifetime
from portal.microsoft.errors import (
    NotFound,
    NotSent,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
)
from portal.microsoft.http import no_answer, retry_after_seconds
from portal.microsoft.identifiers import ApplicationId, CorrelationId, TenantId, parse_domain, parse_tenant_id
from portal.microsoft.secret import Secret

SERVICE = "entra"
REDEMPTION = "redeem refresh token"  # the operation that spends a stored token, where the service rotates strictly
_LONGEST_LIFETIME = 172_800  # seconds; continuous access evaluation gives up to 28 hours
_METADATA_SECONDS = 24 * 3600
_ISSUER_TENANT = re.compile(r"https://[^/]+/([0-9a-f-]{36})/v2\.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """A good answer of the token endpoint. ``expires_in`` in seconds from now."""

    access_token: Secret
    refresh_token: Secret | None
    id_token: Secret | None
    expires_in: int
    scopes: frozenset[str]
    """Granted scope names without their resource prefix."""
    received_at: float
    """Monotonic clock of this process when the answer came (R-42)."""
    clock_ahead: float | None = None
    """Seconds that this host's clock is ahead of the service's, as its Date header says; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMetadata:
    """What the cloud's discovery document says, checked to stay on the cloud's own hosts."""

    issuer_template: str
    """v2 issuer with the literal ``{tenantid}``."""


def authorize_url(
    *,
    cloud: NationalCloud,
    tenant_id: TenantId,
    application_id: ApplicationId,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str,
    nonce: str,
    code_challenge: str,
) -> str:
    """Return the address of the sign-in page: tenant-specific, code flow, form_post, PKCE S256 (S-11, S-13, S-22).

    Source: Microsoft identity platform, "OAuth 2.0 authorization code flow".
    """
    query = urlencode(
        {
            "client_id": application_id,
            "response_type": "code",
            "response_mode": "form_post",
            "redirect_uri": redirect_uri,
            "scope": " ".join(scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
            "prompt": "select_account",
        }
    )
    return f"{cloud.sign_in}/{tenant_id}/oauth2/v2.0/authorize?{query}"


def admin_consent_url(
    *,
    cloud: NationalCloud,
    tenant_id: TenantId,
    application_id: ApplicationId,
    redirect_uri: str,
    scopes: Sequence[str],
    state: str,
) -> str:
    """Return the address where an administrator consents for the whole tenant; it gives no code and no token.

    Source: Microsoft identity platform, "Admin consent on the Microsoft identity platform".
    """
    query = urlencode(
        {"client_id": application_id, "redirect_uri": redirect_uri, "scope": " ".join(scopes), "state": state}
    )
    return f"{cloud.sign_in}/{tenant_id}/v2.0/adminconsent?{query}"


def endpoints(base: str) -> Mapping[str, str]:
    """Return what MSAL wants to know of the tenant at ``base``, which is ``https://{authority}/{tenant id}``."""
    return {
        "issuer": f"{base}/v2.0",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "token_endpoint": f"{base}/oauth2/v2.0/token",
    }


class _NullCache(msal.TokenCache):  # type: ignore[misc]  # msal has no types
    """MSAL's token cache that keeps nothing, so that no two partners can ever share one (S-38)."""

    def add(self, event: Mapping[str, Any], now: float | None = None) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What MSAL reads of an answer. Making a ``requests.Response`` with its cookie jar costs more than all the rest."""

    text: str
    status_code: int = 200

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Type": "application/json"}

    def raise_for_status(self) -> None:
        return None  # MSAL asks for discovery only, which we answer


class _Exchange:
    """The ``http_client`` of one MSAL object: answers discovery itself and reads the token endpoint's answer."""

    def __init__(self, session: requests.Session, base: str, correlation_id: CorrelationId) -> None:
        self._session = session
        self._base = base
        self._correlation_id = correlation_id
        self.answer: Mapping[str, Any] = {}
        self.response: requests.Response | None = None

    def get(self, url: str, **kwargs: Any) -> _Answer:
        # The documents of a cloud's tenants differ in the tenant id only; CloudMetadata was checked before.
        return _Answer(json.dumps(endpoints(self._base)))

    def post(self, url: str, **kwargs: Any) -> _Answer:
        if url != f"{self._base}/oauth2/v2.0/token":
            raise RuntimeError("MSAL was about to post to another endpoint")
        # MSAL makes an id of its own for each call; ours runs through the whole unit of work.
        kwargs["headers"] = {**kwargs.get("headers", {}), "client-request-id": self._correlation_id}
        response = self._session.post(url, **kwargs)
        self.response = response
        if "json" in response.headers.get("Content-Type", "").lower():
            try:
                parsed = parse_json(response.content)
            except ValueError:
                parsed = None
            if isinstance(parsed, dict):
                self.answer = parsed
        if response.status_code != 200:
            return _Answer(json.dumps({"error": "handled_by_us"}))
        return _Answer(
            json.dumps({key: self.answer[key] for key in ("access_token", "token_type") if key in self.answer})
        )

    def close(self) -> None:
        return None


class EntraClient:
    """Redeems codes and refresh tokens of one cloud for one application."""

    def __init__(
        self,
        *,
        cloud: NationalCloud,
        application_id: ApplicationId,
        credential: ClientCredential,
        session: requests.Session,
        correlation_id: CorrelationId,
    ) -> None:
        self._cloud = cloud
        self._application_id = application_id
        self._credential = credential
        self._session = session
        self._correlation_id = correlation_id

    def redeem_code(
        self, *, tenant_id: TenantId, code: Secret, redirect_uri: str, code_verifier: Secret, scope: str
    ) -> TokenResponse:
        """Redeem an authorization code once, at the tenant where it was issued.

        It is repeated once if the connection failed before the request left, and never otherwise: a code that is
        redeemed twice makes the service revoke what it issued (R-17, RFC 6749 4.1.2).

        Raises:
            RemoteError: ``Unreachable`` leaves the outcome unknown; the person starts again.
        """
        operation = "redeem authorization code"

        def call(application: msal.ConfidentialClientApplication) -> None:
            application.acquire_token_by_auth_code_flow(
                {
                    "state": "s",
                    "redirect_uri": redirect_uri,
                    "scope": [scope, "openid", "profile", "offline_access"],
                    "code_verifier": code_verifier.reveal(),
                },
                {"state": "s", "code": code.reveal()},
                scopes=[scope],
            )

        try:
            return self._exchange(tenant_id, operation, call, customer_tenant=False)
        except NotSent:
            time.sleep(random.uniform(0.5, 1.5))  # noqa: S311  # spreads load, guards nothing
            return self._exchange(tenant_id, operation, call, customer_tenant=False)

    def redeem_refresh_token(
        self, *, tenant_id: TenantId, refresh_token: Secret, scope: str, customer_tenant: bool = False
    ) -> TokenResponse:
        """Redeem a refresh token for one resource, at the partner's authority or at a customer's.

        Raises:
            ConsentRequired, MfaRequired: the partner acts (or, at a customer's authority, the customer's consent).
            AuthenticationFailed: our own credential; says nothing about the partner.
            RetryableError: nothing is known; try later.
        """

        def call(application: msal.ConfidentialClientApplication) -> None:
            application.acquire_token_by_refresh_token(refresh_token.reveal(), [scope])

        return self._exchange(tenant_id, REDEMPTION, call, customer_tenant=customer_tenant)

    def application_token(self, *, tenant_id: TenantId, resource: str) -> TokenResponse:
        """Ask for a token of the application itself, in the tenant where it is registered.

        Our registrations hold no application permission, so the token opens nothing: that it is given shows that the
        tenant knows the application and the resource, and that Microsoft accepts the credential.

        Args:
            resource: the service's address in this cloud, for example ``cloud.partner_center``.

        Raises:
            RemoteError: ``code`` says which of them is not so.

        Source: Microsoft identity platform, "OAuth 2.0 client credentials flow".
        """

        def call(application: msal.ConfidentialClientApplication) -> None:
            application.acquire_token_for_client([f"{resource}/.default"])

        return self._exchange(tenant_id, "get application token", call, customer_tenant=False)

    def _exchange(self, tenant_id: TenantId, operation: str, call: Any, *, customer_tenant: bool) -> TokenResponse:
        base = f"{self._cloud.authority}/{tenant_id}"
        exchange = _Exchange(self._session, base, self._correlation_id)
        try:
            application = msal.ConfidentialClientApplication(
                self._application_id,
                client_credential=self._credential.for_msal(self._application_id, f"{base}/oauth2/v2.0/token"),
                authority=base,
                instance_discovery=False,
                token_cache=_NullCache(),
                http_client=exchange,
            )
            call(application)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _transport_error(error, operation, self._correlation_id) from None
        response = exchange.response
        if response is None:
            raise UnexpectedResponse(
                SERVICE, operation, correlation_id=self._correlation_id, detail="the library sent no request"
            )
        if response.status_code != 200 or "error" in exchange.answer:
            raise self._error(response, exchange.answer, operation, customer_tenant=customer_tenant)
        return self._read(exchange.answer, operation, response.headers.get("Date", ""))

    def _error(
        self, response: requests.Response, answer: Mapping[str, Any], operation: str, *, customer_tenant: bool
    ) -> RemoteError:
        codes = answer.get("error_codes")
        numbers = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
        diagnosis = diagnose_token_error(
            error=str(answer.get("error", ""))[:100],
            suberror=str(answer.get("suberror", ""))[:100],
            error_codes=numbers,
            status=response.status_code,
            customer_tenant=customer_tenant,
        )
        retry_after = retry_after_seconds(response.headers.get("Retry-After"))
        if retry_after is None and diagnosis.error is Throttled:
            retry_after = DEFAULT_RETRY_AFTER_SECONDS
        raised = diagnosis.error(
            SERVICE,
            operation,
            status=response.status_code,
            code=diagnosis.key,
            correlation_id=self._correlation_id,
            request_id=response.headers.get("x-ms-request-id", ""),
            retry_after=retry_after,
            detail=diagnosis.cause,
        )
        if not customer_tenant:
            raised.token_lifetime = named_token_lifetime(numbers, str(answer.get("error_description", "")))
        return raised

    def _read(self, answer: Mapping[str, Any], operation: str, date: str) -> TokenResponse:
        def text(key: str) -> Secret | None:
            value = answer.get(key)
            return Secret(value) if isinstance(value, str) and value else None

        access_token = text("access_token")
        expires_in = answer.get("expires_in")
        if isinstance(expires_in, str) and expires_in.isdecimal():
            expires_in = int(expires_in)  # the v1 endpoint writes a text
        if (
            access_token is None
            or str(answer.get("token_type", "")).lower() != "bearer"
            or not isinstance(expires_in, int)
            or isinstance(expires_in, bool)
            or not 0 < expires_in <= _LONGEST_LIFETIME
        ):
            raise UnexpectedResponse(
                SERVICE,
                operation,
                status=200,
                correlation_id=self._correlation_id,
                detail="the token endpoint's answer lacks a field or has a wrong one",
            )
        return TokenResponse(
            access_token=access_token,
            refresh_token=text("refresh_token"),
            id_token=text("id_token"),
            expires_in=expires_in,
            scopes=frozenset(scope.rpartition("/")[2] for scope in str(answer.get("scope", "")).split()),
            received_at=time.monotonic(),
            clock_ahead=_clock_ahead(date),
        )


def _clock_ahead(date: str) -> float | None:
    """Return the seconds by which our clock is ahead of a Date header; its resolution is one second."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):  # none, unreadable, or without a zone
        return None


def _transport_error(error: Exception, operation: str, correlation_id: CorrelationId) -> RemoteError:
    """Map what the transport raised; its own texts carry addresses and stay behind."""
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return UnexpectedResponse(
            SERVICE, operation, correlation_id=correlation_id, detail="the answer is too large or cannot be decoded"
        )
    return no_answer(SERVICE, operation, correlation_id=correlation_id)


def get_document(
    session: requests.Session, url: str, operation: str, correlation_id: str = "", *, of_unknown_tenant: bool = False
) -> Mapping[str, Any]:
    """Fetch one public JSON document of the sign-in service (discovery, keys).

    Args:
        of_unknown_tenant: 400 (``invalid_tenant``) and 404 mean that there is no such tenant. Otherwise the document
            must be there, and where it is not the fault is the service's.

    Raises:
        NotFound: the service knows no such tenant.
        RemoteError: anything else.
    """
    try:
        response = session.get(url, headers={"Accept": "application/json"})
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _transport_error(error, operation, CorrelationId(correlation_id)) from None
    try:
        body = parse_json(response.content)
    except ValueError:
        body = None
    status = response.status_code
    if status in {400, 404}:
        kind = NotFound if of_unknown_tenant else ServerFault
        raise kind(SERVICE, operation, status=status, code=f"HTTP{status}", correlation_id=correlation_id)
    if status != 200:
        diagnosis = diagnose_token_error(error="", status=status)
        raise diagnosis.error(
            SERVICE, operation, status=status, code=diagnosis.key, correlation_id=correlation_id, detail=diagnosis.cause
        )
    if not isinstance(body, dict):
        raise UnexpectedResponse(
            SERVICE,
            operation,
            status=200,
            correlation_id=correlation_id,
            detail="the answer is not the documented JSON",
        )
    return body


class MetadataCache:
    """Discovery documents by cloud, fetched once a day and checked (no discovery per tenant)."""

    def __init__(self, session: requests.Session) -> None:
        self._session = session
        self._known: dict[str, tuple[float, CloudMetadata]] = {}
        self._lock = threading.Lock()

    def of(self, cloud: NationalCloud) -> CloudMetadata:
        """Return the cloud's metadata.

        Raises:
            UnexpectedResponse: the document names hosts outside the cloud.
            RemoteError: it could not be fetched.
        """
        with self._lock:
            fetched, metadata = self._known.get(cloud.key, (float("-inf"), None))
            if metadata is not None and time.monotonic() - fetched < _METADATA_SECONDS:
                return metadata
            operation = f"read discovery document of {cloud.name}"
            document = get_document(
                self._session, f"{cloud.authority}/organizations/v2.0/.well-known/openid-configuration", operation
            )
            metadata = _checked_metadata(cloud, document, operation)
            self._known[cloud.key] = (time.monotonic(), metadata)
            return metadata


def _checked_metadata(cloud: NationalCloud, document: Mapping[str, Any], operation: str) -> CloudMetadata:
    own_hosts = cloud.authority_aliases | {urlsplit(cloud.authority).netloc}
    issuer = document.get("issuer")
    for key in ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"):
        value = document.get(key)
        parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
        if parts.scheme != "https" or parts.netloc not in own_hosts:
            raise UnexpectedResponse(SERVICE, operation, status=200, detail=f"{key} is not on a host of the cloud")
    if not isinstance(issuer, str) or not issuer.endswith("/{tenantid}/v2.0"):
        raise UnexpectedResponse(SERVICE, operation, status=200, detail="the issuer does not have the documented form")
    return CloudMetadata(issuer_template=issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTenant:
    """A tenant behind a domain, and the cloud that it belongs to."""

    cloud: NationalCloud
    tenant_id: TenantId


def find_tenant(
    session: requests.Session, clouds: Iterable[NationalCloud], domain: str, correlation_id: CorrelationId
) -> FoundTenant | None:
    """Return the tenant that has this domain, asked at the clouds' own sign-in hosts one after the other (S-04).

    A cloud may know the tenant of another one and answer with that cloud's issuer; the issuer's host says which.

    Raises:
        RemoteError: a cloud did not answer as documented, so "no such tenant" would be a guess.
    """
    operation = "find tenant of domain"
    known = {host: cloud for cloud in clouds for host in cloud.authority_aliases | {urlsplit(cloud.authority).netloc}}
    for cloud in dict.fromkeys(known.values()):
        try:
            document = get_document(
                session,
                f"{cloud.authority}/{parse_domain(domain)}/v2.0/.well-known/openid-configuration",
                operation,
                correlation_id,
                of_unknown_tenant=True,
            )
        except NotFound:
            continue
        issuer = str(document.get("issuer", ""))
        match = _ISSUER_TENANT.fullmatch(issuer)
        home = known.get(urlsplit(issuer).netloc)
        if match is None or home is None:
            raise UnexpectedResponse(
                SERVICE, operation, status=200, detail="the answer names no tenant of a known cloud"
            )
        return FoundTenant(cloud=home, tenant_id=parse_tenant_id(match[1]))
    return None
