"""A Key Vault below the SDK that answers exactly what a test says; the sandbox's vault is for behaviour."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests
import responses
from azure.core.credentials import AccessToken

from consent.vault.azure import AzureKeyVault
from consent.vault.base import SecretName, SecretVersion
from portal.microsoft.secret import Secret

CANARY = "CANARY-refresh-token-0c7e41"
NAME = SecretName("rt-4f89")
VERSION = SecretVersion("1f0e2d3c4b5a69788796a5b4c3d2e1f0")
TENANT = "6a1f0c52-9d3b-4e7a-8c21-5b0d9e4f7a10"
EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)
REQUEST_ID = "0a6d4c1e-request"
# What a real answer may carry and no log or error text of ours may repeat.
PRIVATE_TEXT = "AADSTS7000215 caller 203.0.113.7 appid=secret-text"

type Operation = Callable[[AzureKeyVault], object]


class FixedCredential:
    """Stands for a signed-in identity, which must not be asked for anything but the vault's own audience."""

    def __init__(self, domain: str = "vault.azure.net") -> None:
        self._domain = domain

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        assert scopes == (f"https://{self._domain}/.default",)
        return AccessToken("access-token", int(time.time()) + 3600)


class Answering:
    """A vault that gives the prepared answers to requests with a token; there are no others."""

    def __init__(self, wire: responses.RequestsMock, vault_url: str) -> None:
        self.url = vault_url
        self.requests: list[requests.PreparedRequest] = []
        self.answers: list[tuple[int, dict[str, str], str] | Exception] = []
        for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
            wire.add_callback(method, re.compile(re.escape(vault_url)), self._answer, content_type="application/json")

    def _answer(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], str] | Exception:
        assert request.headers["Authorization"].startswith("Bearer ")
        self.requests.append(request)
        return self.answers.pop(0)

    def refuse(self, status: int, code: str = "", inner: str = "", headers: dict[str, str] | None = None) -> None:
        """Prepare an error in the documented form."""
        error: dict[str, Any] = {"code": code, "message": PRIVATE_TEXT}
        if inner:
            error["innererror"] = {"code": inner}
        self.answers.append((status, {"x-ms-request-id": REQUEST_ID} | (headers or {}), json.dumps({"error": error})))

    def bundle(self, **changes: Any) -> None:
        """Prepare a SecretBundle; a change to None leaves the member out."""
        content = {
            "value": CANARY,
            "id": f"{self.url}/secrets/{NAME}/{VERSION}",
            "contentType": "application/x-refresh-token",
            "attributes": {"enabled": True, "created": 1767225600, "updated": 1767225600, "exp": 1893456000},
            "tags": {"record": "41", "generation": "7"},
        } | changes
        self.answers.append((200, {}, json.dumps({key: item for key, item in content.items() if item is not None})))


def write(vault: AzureKeyVault) -> SecretVersion:
    return vault.write(NAME, Secret(CANARY), tags={"record": "41", "generation": "7"}, expires_at=EXPIRES)


OPERATIONS: dict[str, Operation] = {
    "write": write,
    "read": lambda vault: vault.read(NAME, VERSION),
    "read_newest": lambda vault: vault.read_newest(NAME),
    "disable": lambda vault: vault.disable(NAME, VERSION),
    "check_writable": lambda vault: vault.check_writable(),
}
