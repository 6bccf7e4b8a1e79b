"""The sandbox seen from outside: an HTTP client of its own, and the vendor's application at work.

Nothing of the portal's clients is used here, so that a mistake of theirs cannot hide one of the sandbox.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from portal.microsoft.clouds import NationalCloud
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Application, Tenant, User

SERVICE_ACCOUNT = "service@northwind.example.com"
VERIFIER = "v" * 64
CALLBACK = "https://portal.localhost/consent/callback/global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """HTTP to any host of the sandbox; names need no resolver, certificates are checked, redirects are not followed."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._pools: dict[tuple[str, str], urllib3.HTTPConnectionPool] = {}

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, scheme: str, host: str) -> urllib3.HTTPConnectionPool:
        if (scheme, host) not in self._pools:
            if scheme == "https":
                self._pools[scheme, host] = urllib3.HTTPSConnectionPool(
                    "127.0.0.1",
                    self._sandbox.port,
                    ca_certs=str(self._sandbox.ca_file),
                    server_hostname=host,
                    assert_hostname=host,
                )
            else:
                self._pools[scheme, host] = urllib3.HTTPConnectionPool("127.0.0.1", self._sandbox.browser_port)
        return self._pools[scheme, host]

    def call(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
        data: Any = None,
        body: bytes | None = None,
        token: str = "",
        timeout: float = 10,
    ) -> Reply:
        """Send one request. ``form`` is posted urlencoded, ``data`` as JSON, ``body`` as it is."""
        parts = urlsplit(url)
        sent = {"Host": parts.netloc} | (headers or {})
        if form is not None:
            body = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        elif data is not None:
            body = json.dumps(data).encode()
            sent["Content-Type"] = "application/json"
        if token:
            sent["Authorization"] = f"Bearer {token}"
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        answer = self._pool(parts.scheme, parts.hostname or "").urlopen(
            method, path, body=body, headers=sent, redirect=False, retries=False, timeout=timeout
        )
        return Reply(status=answer.status, headers=answer.headers, body=answer.data)

    def get(self, url: str, **rest: Any) -> Reply:
        return self.call("GET", url, **rest)

    def post(self, url: str, **rest: Any) -> Reply:
        return self.call("POST", url, **rest)

    def control(self, path: str, data: Any = None, method: str = "") -> Reply:
        """Call the control address; a GET without data."""
        url = f"http://control.localhost:{self._sandbox.browser_port}{path}"
        return self.call(method or ("GET" if data is None else "POST"), url, data=data)


def claims_of(token: str) -> dict[str, Any]:
    """Read the claims of a token without looking at its signature."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass(slots=True, kw_only=True)
class Vendor:
    """The vendor's application with a client secret; it asks for tokens as the portal would."""

    sandbox: Sandbox
    wire: Wire
    cloud_key: str = "global"
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        self.application.secrets[self.secret] = self.sandbox.world.now() + 86_400 * 365 * 5
        self.application.redirect_uris.add(CALLBACK)

    @property
    def cloud(self) -> NationalCloud:
        return self.sandbox.clouds[self.cloud_key]

    @property
    def application(self) -> Application:
        return self.sandbox.world.applications[scenarios.application_id(self.cloud_key)]

    @property
    def partner_center(self) -> str:
        return f"{self.cloud.partner_center}/user_impersonation"

    @property
    def graph(self) -> str:
        return f"{self.cloud.graph}/.default"

    def tenant_of(self, upn: str) -> tuple[Tenant, User]:
        return next(pair for pair in self.sandbox.world.users_of(self.cloud_key) if pair[1].upn == upn)

    def customers_of(self, partner: Tenant) -> list[str]:
        return list(self.sandbox.world.customers[partner.tenant_id])

    def authorize_url(self, tenant: str = "organizations", **changes: str | None) -> str:
        """Return a correct authorize address; ``changes`` of None leave a parameter out."""
        normal: dict[str, str | None] = {
            "client_id": self.application.app_id,
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "response_mode": "form_post",
            "scope": f"openid profile offline_access {self.partner_center} {self.cloud.graph}/User.Read.All",
            "state": "state-of-the-test",
            "nonce": "nonce-of-the-test",
            "code_challenge": challenge(VERIFIER),
            "code_challenge_method": "S256",
        }
        sent = {name: value for name, value in (normal | changes).items() if value is not None}
        return f"{self.cloud.authority}/{tenant}/oauth2/v2.0/authorize?{urlencode(sent)}"

    def code(self, user: str = SERVICE_ACCOUNT, *, tenant: str = "organizations", **choices: Any) -> str:
        """Sign this person in, consent included, and return the code."""
        answer = self.sandbox.sign_in(self.authorize_url(tenant), user=user, **choices)
        assert "code" in answer.fields, answer.fields
        return answer.fields["code"]

    def token_request(self, tenant: str, grant: str, *, headers: Any = None, **form: Any) -> Reply:
        """Post to the token endpoint with the client secret; a field of None is left out."""
        full: dict[str, Any] = {
            "client_id": self.application.app_id,
            "client_secret": self.secret,
            "grant_type": grant,
        } | form
        sent = {name: value for name, value in full.items() if value is not None}
        return self.wire.post(f"{self.cloud.authority}/{tenant}/oauth2/v2.0/token", form=sent, headers=headers)

    def redeem(self, code: str, tenant: str = "", **form: Any) -> Reply:
        """Redeem a code at the service account's tenant."""
        full = {
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "scope": f"openid profile offline_access {self.partner_center}",
        } | form
        return self.token_request(tenant or self.tenant_of(SERVICE_ACCOUNT)[0].tenant_id, "authorization_code", **full)

    def refresh(self, token: str, tenant: str = "", scope: str = "", **form: Any) -> Reply:
        """Redeem a refresh token; by default at the service account's tenant for Partner Center."""
        full = {"refresh_token": token, "scope": f"openid offline_access {scope or self.partner_center}"} | form
        return self.token_request(tenant or self.tenant_of(SERVICE_ACCOUNT)[0].tenant_id, "refresh_token", **full)

    def refresh_token(self, user: str = SERVICE_ACCOUNT, **choices: Any) -> str:
        """Onboard this person and return the refresh token."""
        return str(self.tokens(user, **choices)["refresh_token"])

    def tokens(self, user: str = SERVICE_ACCOUNT, **choices: Any) -> dict[str, Any]:
        """Onboard this person and return the whole answer of the token endpoint."""
        reply = self.redeem(self.code(user, **choices), self.tenant_of(user)[0].tenant_id)
        assert reply.status == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def access_token(self, scope: str = "", *, user: str = SERVICE_ACCOUNT, tenant: str = "", **choices: Any) -> str:
        """Return an access token of this person; ``tenant`` may be a customer's, where the application has consent."""
        refresh = self.refresh_token(user, **choices)
        reply = self.refresh(refresh, tenant or self.tenant_of(user)[0].tenant_id, scope)
        assert reply.status == 200, reply.text
        return str(reply.json()["access_token"])


STRANGER = "service@southridge.example.com"
GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def code_of(reply: Reply) -> int:
    found = reply.json()["error_codes"]
    assert reply.json()["error_description"].startswith(f"AADSTS{found[-1]}:")
    return int(found[-1])
