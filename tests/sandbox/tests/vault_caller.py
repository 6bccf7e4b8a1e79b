"""KeyVaultAccessApp at work, for tests of the sandbox's vault."""

from __future__ import annotations

import secrets
from typing import Any

from portal.microsoft.clouds import NationalCloud
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Reply, Wire
from tests.sandbox.tokens import access_token
from tests.sandbox.world import Application, World

CANARY = "CANARY-refresh-token-5d2f"
EVERYTHING = {"get", "set", "list", "delete", "recover", "purge"}


class VaultCaller:
    """KeyVaultAccessApp and a vault of the vendor's tenant; raw calls, or the SDK's client."""

    def __init__(self, sandbox: Sandbox, wire: Wire) -> None:
        self.sandbox, self.wire = sandbox, wire
        self.name = f"vault-{secrets.token_hex(6)}"  # the SDK remembers challenges per host for the whole process
        self.application.secrets["the-secret"] = self.world.now() + 86_400 * 365

    @property
    def world(self) -> World:
        return self.sandbox.world

    @property
    def cloud(self) -> NationalCloud:
        return self.sandbox.clouds["global"]

    @property
    def application(self) -> Application:
        return self.world.applications[scenarios.vault_application_id()]

    @property
    def url(self) -> str:
        return f"https://{self.name}{self.cloud.vault_suffix}"

    @property
    def resource(self) -> str:
        return f"https://{self.cloud.vault_suffix.removeprefix('.')}"

    @property
    def tenant_id(self) -> str:
        return scenarios.vendor_tenant()

    def token(self, audience: str = "", tenant_id: str = "") -> str:
        return access_token(
            self.world,
            self.cloud,
            tenant=self.world.tenants[tenant_id or self.tenant_id],
            audience=audience or self.resource,
            application=self.application,
            credential="1",
            user=None,
            home=None,
            scopes=set(),
            amr=[],
        )

    def allow(self, *rights: str) -> None:
        self.world.vault_rights[self.application.app_id] = set(rights)

    def call(self, method: str, path: str, data: Any = None, *, query: str = "api-version=7.4", **rest: Any) -> Reply:
        if "token" not in rest:
            rest["token"] = self.token()
        return self.wire.call(method, f"{self.url}{path}?{query}", data=data, **rest)

    def put(self, name: str, value: Any = CANARY, **more: Any) -> Reply:
        return self.call("PUT", f"/secrets/{name}", {"value": value} | more)

    def version(self, reply: Reply) -> str:
        assert reply.status == 200, reply.text
        return str(reply.json()["id"]).rpartition("/")[2]
