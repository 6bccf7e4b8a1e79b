"""What runs on PostgreSQL is chosen by a rule, and no test module that touches the database falls out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import postgres
from tests.support.source import ROOT


@dataclass(slots=True, kw_only=True)
class Item:
    """A collected test, as far as the rule looks at it."""

    nodeid: str
    fixturenames: list[str] = field(default_factory=list)
    markers: dict[str, pytest.Mark] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return ROOT / self.nodeid.partition("::")[0]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.markers.get(name)

    def add_marker(self, name: str) -> None:
        self.markers[name] = getattr(pytest.mark, name).mark


def marked(
    *nodeids: str, fixtures: tuple[str, ...] = ("db",), markers: dict[str, dict[str, Any]] | None = None
) -> list[bool]:
    """Tell for each of these tests whether it runs on PostgreSQL."""
    made = {name: getattr(pytest.mark, name).with_args(**values).mark for name, values in (markers or {}).items()}
    items = [Item(nodeid=one, fixturenames=list(fixtures), markers=dict(made)) for one in nodeids]
    postgres.mark(cast(list[pytest.Item], items))
    assert all(("database" in one.markers) or "postgres" not in one.markers for one in items)
    return ["postgres" in one.markers for one in items]


CASES = [f"tests/consent/sign_in/test_flow.py::test_a[{case}]" for case in ("x", "y")]
IN_SQL = [f"tests/portal/runs/test_buckets.py::test_a[{case}]" for case in ("x", "y")]
OTHER = "tests/consent/sign_in/test_flow.py::test_b"


def test_the_first_function_of_each_module_that_touches_the_database_runs_there() -> None:
    assert marked(*CASES, OTHER) == [True, False, False]
    assert marked("tests/a_new_room/test_new.py::test_new", fixtures=(), markers={"django_db": {}}) == [True]
    assert marked(OTHER, fixtures=("tmp_path",)) == [False]


@pytest.mark.parametrize(
    "committing",
    [{"markers": {"django_db": {"transaction": True}}}, {"fixtures": ("transactional_db",)}],
    ids=["marker", "fixture"],
)
def test_each_function_that_commits_runs_there_once(committing: dict[str, Any]) -> None:
    assert marked(*CASES, OTHER, **committing) == [True, False, True]


def test_all_cases_run_where_the_databases_differ() -> None:
    assert marked(*IN_SQL, IN_SQL[0].replace("test_a", "test_b")) == [True, True, True]


@pytest.mark.parametrize("kind", ["browser", "slow"])
def test_browsers_and_slow_tests_are_left_out(kind: str) -> None:
    assert marked(*IN_SQL, markers={kind: {}}) == [False, False]


def test_searches_for_leaks_are_left_out() -> None:
    assert marked("tests/leaks/test_gate.py::test_a") == [False]


def test_the_modules_are_those_whose_source_leans_on_the_database() -> None:
    assert postgres.folder(ROOT / "portal/microsoft/diagnosis/entra.py") == "tests/portal/microsoft"
    assert postgres.folder(ROOT / "tenants/sync.py") == "tests/tenants"
    assert {"tests/portal/runs/test_buckets", "tests/tenants/test_models"} <= postgres.named_after()
    assert "tests/portal/runs/test_stops" not in postgres.named_after()
    assert postgres.folder(ROOT / "tests/portal/runs/test_lease.py") == "tests/portal/runs"
