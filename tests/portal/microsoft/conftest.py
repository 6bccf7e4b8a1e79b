"""What the tests of the ground floor share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import responses

from portal.microsoft.api import ApiClient, RetryPolicy
from portal.microsoft.breakers import Breakers
from portal.microsoft.clouds import GLOBAL
from portal.microsoft.http import GuardedSession
from portal.microsoft.secret import Secret
from tests.support.calls import BASE, CORRELATION, TOKEN, Waits


@pytest.fixture(scope="module")
def session() -> Iterator[GuardedSession]:
    with GuardedSession(
        is_allowed=lambda host: host in GLOBAL.hosts() or host.endswith(GLOBAL.vault_suffix)
    ) as session:
        yield session


@pytest.fixture(autouse=True)
def _closed_breakers(session: GuardedSession) -> None:
    """The session is shared by a module's tests; what one makes of a host is nothing to the next (R-19)."""
    session.breakers = Breakers()


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def client(session: GuardedSession, waits: Waits) -> ApiClient:
    return ApiClient(
        base_url=BASE,
        session=session,
        token_source=lambda: Secret(TOKEN),
        correlation_id=CORRELATION,
        retry=RetryPolicy(sleep=waits),
    )
