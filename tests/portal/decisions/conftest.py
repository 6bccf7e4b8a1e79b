from __future__ import annotations

from collections.abc import Iterator

import pytest

from portal.decisions.kinds import kinds
from tests.support.decisions import RENAME, RENAME_ON_THE_SERVER


@pytest.fixture(autouse=True)
def _kinds_of_tests() -> Iterator[None]:
    """Declare two kinds more, as an app would."""
    known = kinds()
    assert isinstance(known, dict)
    known |= {one.key: one for one in (RENAME, RENAME_ON_THE_SERVER)}
    yield
    for one in (RENAME, RENAME_ON_THE_SERVER):
        del known[one.key]
