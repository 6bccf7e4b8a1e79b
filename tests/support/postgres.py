"""Which tests run on PostgreSQL as well, after all of them ran on SQLite.

Each test function that may touch the database runs there. With all its parameters it runs where the databases differ:
when the test commits, and in each room whose source writes SQL of its own, asks which database it is, or counts on
conflicts and constraints. Elsewhere the parameters are cases of our own rules, which no database changes, and the first
one stands for all.
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
# What a room's source holds when it leans on the database itself: SQL of its own, conflicts, constraints, patterns.
_OF_THE_DATABASE = re.compile(
    r"\.vendor\b|\.cursor\(|_conflicts=|Constraint\(|regex|\b(?:IntegrityError|OperationalError)\b"
)


@cache
def rooms() -> frozenset[str]:
    """Return the folders of tests, as tests/portal/runs, of the rooms that lean on the database itself."""
    return frozenset(folder(path) for path in modules() if _OF_THE_DATABASE.search(path.read_text()))


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
        function = item.nodeid.partition("[")[0]
        if commits or fixtures & _COMMITS or folder(item.path) in rooms() or function not in seen:
            item.add_marker("postgres")
        seen.add(function)


def _left_out(item: pytest.Item) -> bool:
    """Browsers, searches for leaks and slow tests see the same with every database."""
    kinds = ("browser", "slow")
    return any(item.get_closest_marker(kind) for kind in kinds) or folder(item.path) == "tests/leaks"
