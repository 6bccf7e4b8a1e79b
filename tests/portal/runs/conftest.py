from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.children import SECONDS, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(number: int = 400, seconds: float = SECONDS) -> Bench:
        made.append(Bench(tmp_path, number, seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()
