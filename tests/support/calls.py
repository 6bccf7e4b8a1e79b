"""How the tests of the JSON clients call, and what they expect of every failure."""

from __future__ import annotations

from typing import Any

import pytest

from portal.microsoft.api import ApiClient, JsonResponse
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId

BASE = "https://graph.microsoft.com"
URL = f"{BASE}/v1.0/organization"
CORRELATION = CorrelationId("a2f3c4d5-6e7f-4081-92a3-b4c5d6e7f809")
TOKEN = "CANARY-access-token"
PRIVATE = "CANARY-text-of-microsoft"


class Waits(list[float]):
    """Stands for ``time.sleep``: notes the seconds and waits not at all."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def read(client: ApiClient, **keywords: Any) -> JsonResponse:
    return client.request("GET", "/v1.0/organization", operation="read organization", **keywords)


def failure(client: ApiClient, **keywords: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        read(client, **keywords)
    check_text(caught.value)
    return caught.value


def check_text(error: RemoteError) -> None:
    shown = f"{error!s} {error!r} {error.__dict__}"
    assert TOKEN not in shown
    assert PRIVATE not in shown
    assert error.__cause__ is None
