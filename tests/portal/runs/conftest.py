from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.children import SECONDS, Bench, Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


@pytest.fixture
def bench(forks: Forks, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(number: int = 400, seconds: float = SECONDS) -> Bench:
        made.append(Bench(forks, tmp_path, number, seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()
