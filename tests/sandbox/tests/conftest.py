"""What the sandbox's own tests share; the fixture ``sandbox`` is in ``tests/conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Vendor, Wire


@pytest.fixture
def wire(sandbox: Sandbox) -> Iterator[Wire]:
    opened = Wire(sandbox)
    yield opened
    opened.close()


@pytest.fixture
def vendor(sandbox: Sandbox, wire: Wire) -> Vendor:
    """The vendor's application in the Global cloud."""
    return Vendor(sandbox=sandbox, wire=wire)
