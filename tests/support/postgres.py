"""Which tests run on PostgreSQL as well, after all of them ran on SQLite.

Before a release all tests run there: ``TEST_DATABASE_URL=postgres://... pytest``. With each change those run that can
tell the databases apart:

- All tests that are named after a module which leans on the database: its source writes SQL of its own, asks which
  database it is, or counts on constraints.
- Each test function that commits: there processes, threads and locks meet the database itself. Its cases are of our own
  rules, which no database changes, so the first one stands for all.
- The first test function of each other test module. It is a sample: the queries of every room are asked there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.support.source import ROOT, modules

# What pytest-django opens the database for; for all other tests it keeps it closed (``_django_db_helper``).
_OPENS_THE_DATABASE = {
    "db",
    "transactional_db",
    "django_db_reset_sequences",
    "django_db_serialized_rollback",
    "live_server",
}
_COMMITS = _OPENS_THE_DATABASE - {"db"}
# What a room's source holds when it leans on the database itself: SQL of its own, constraints, conflicts that it
# catches (PostgreSQL ends the transaction, SQLite does not), patterns.
_OF_THE_DATABASE = re.compile(r"\.vendor\b|\.cursor\(|Constraint\(|\bIntegrityError\b|regex")


@cache
def leaning() -> frozenset[Path]:
    """Return the modules that lean on the database itself."""
    return frozenset(path for path in modules() if _OF_THE_DATABASE.search(path.read_text()))


@cache
def named_after() -> frozenset[str]:
    """Return the test modules, as tests/portal/runs/test_lease, that are named after such a module."""
    return frozenset(f"{folder(path)}/test_{path.stem}" for path in leaning())


@cache
def folder(path: Path) -> str:
    """Return the folder of tests of a module's room, and of a test module its own, as tests/portal/runs."""
    parts = [part for part in path.relative_to(ROOT).parts[:-1] if part != "tests"]
    return "/".join(["tests", *parts[:2]])


def mark(items: Iterable[pytest.Item]) -> None:
    """Give each item that may touch the database the marker ``database``, and ``postgres`` if it runs there as well."""
    seen: set[str] = set()
    for item in items:
        marker = item.get_closest_marker("django_db")
        fixtures = set(getattr(item, "fixturenames", ()))
        if marker is None and not fixtures & _OPENS_THE_DATABASE:
            continue
        item.add_marker("database")
        if _left_out(item):
            continue
        commits = marker is not None and bool(marker.kwargs.get("transaction") or marker.args)
        commits = commits or bool(fixtures & _COMMITS)
        module, function = item.nodeid.partition("::")[0], item.nodeid.partition("[")[0]
        stands_for = {module, function} if commits else {module}
        if f"{folder(item.path)}/{item.path.stem}" in named_after() or not stands_for <= seen:
            item.add_marker("postgres")
        seen |= {module, function}


def _left_out(item: pytest.Item) -> bool:
    """Browsers, searches for leaks and slow tests see the same with every database."""
    return any(item.get_closest_marker(kind) for kind in ("browser", "slow")) or folder(item.path) == "tests/leaks"
