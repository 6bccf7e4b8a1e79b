from __future__ import annotations

from collections.abc import Iterator

import pytest
import time_machine
from pytest_django.fixtures import Settings

from portal.site.limits import limiter


@pytest.fixture(autouse=True)
def _two_factors(settings: Settings) -> Iterator[None]:
    """As production is set: no password alone. And no count of another test."""
    settings.STAFF_PASSWORD_ALONE = False
    limiter.forget()
    yield
    limiter.forget()


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """Time that stands still until a test moves it."""
    with time_machine.travel("2026-11-30T10:00:10Z", tick=False) as traveller:
        yield traveller
