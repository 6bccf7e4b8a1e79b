"""The requirements of ``docs/requirements.md``, the tests that carry their ids, and what became of those tests (S-75).

As a pytest plugin (``pytest -p tests.requirements``, which ``make requirements`` and ``make test`` do) it ends a run
with a table: id, test file, result. The run fails when a requirement of priority P0 or P1 that is not listed as open
has no passing test; where tests are left to CI, when it has none at all. Tests of the local Microsoft do not count,
because they show nothing about the product.

``python -m tests.requirements`` writes the column *Shown by* of the document anew from the marks in the tests.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs/requirements.md"
_SANDBOX_TESTS = ROOT / "tests/sandbox"
_ROW = re.compile(r"\| ([SR]-\d\d) \| (P[012]) \| (.+?) \| (.+?) \| (.*?) \|")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row of the document; ``shown_by`` names test files, or begins with ``open:``."""

    id: str
    priority: str
    sentence: str
    room: str
    shown_by: str

    @property
    def is_open(self) -> bool:
        return self.shown_by.startswith("open:")


def required(text: str) -> dict[str, Requirement]:
    """Return the rows of the document by id."""
    return {row[1]: Requirement(*row.groups()) for row in _ROW.finditer(text)}


def _marks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "req"
            and ast.unparse(node.func) == "pytest.mark.req"
        ):
            yield from (str(one.value) for one in node.args if isinstance(one, ast.Constant))


@cache
def marked() -> Mapping[str, list[str]]:
    """Return the test files that carry each id, those of the local Microsoft left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        if not path.is_relative_to(_SANDBOX_TESTS):
            for one in _marks(ast.parse(path.read_text())):
                found[one].add(str(path.relative_to(ROOT)))
    return {one: sorted(files) for one, files in found.items()}


def written_anew(text: str) -> str:
    """Return the document with the column *Shown by* as the marks say; what is open stays open."""
    tests = marked()

    def row(match: re.Match[str]) -> str:
        one = Requirement(*match.groups())
        shown = one.shown_by if one.is_open else ", ".join(f"`{name}`" for name in tests.get(one.id, []))
        return f"| {one.id} | {one.priority} | {one.sentence} | {one.room} | {shown} |"

    return _ROW.sub(row, text)


def unproven(
    requirements: Mapping[str, Requirement],
    results: Mapping[str, Mapping[str, Counter[str]]],
    *,
    all_of_them: bool,
) -> list[str]:
    """Return the ids of priority P0 and P1 that are not listed as open and have no passing test.

    Args:
        all_of_them: False for a run that leaves tests to CI: what was skipped is shown there.
    """
    shown = ("passed",) if all_of_them else ("passed", "skipped")
    return [
        one.id
        for one in requirements.values()
        if one.priority != "P2" and not one.is_open
        if not any(counts[result] for counts in results.get(one.id, {}).values() for result in shown)
    ]


class Table:
    """Notes which tests show which requirement and how they ended, also those of other pytest processes."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if not item.path.is_relative_to(_SANDBOX_TESTS):
                ids = {str(one) for mark in item.iter_markers("req") for one in mark.args}
                item.user_properties.append(("req", sorted(ids)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.partition("::")[0]
            for key, ids in report.user_properties:
                for one in ids if key == "req" and isinstance(ids, list) else ():
                    self.results[one][name][report.outcome] += 1

    def lines(self) -> Iterator[str]:
        """Yield the table, a line for each id and test file."""
        for one in required(DOCUMENT.read_text()).values():
            if one.is_open:
                yield f"{one.id}  {one.priority}  {one.shown_by}"
            for name, counts in sorted(self.results.get(one.id, {}).items()):
                told = ", ".join(f"{number} {result}" for result, number in sorted(counts.items()))
                yield f"{one.id}  {one.priority}  {name}: {told}"

    def unproven(self) -> list[str]:
        all_of_them = bool(os.environ.get("CI") or os.environ.get("RUN_SLOW"))
        return unproven(required(DOCUMENT.read_text()), self.results, all_of_them=all_of_them)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput") and not session.exitstatus and self.unproven():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("requirements")
        for line in self.lines():
            terminalreporter.write_line(line)
        if missing := self.unproven():
            terminalreporter.write_line(f"No passing test about the product: {', '.join(missing)}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table(), "requirements-table")


def main() -> int:
    """Write the document's column *Shown by* anew."""
    DOCUMENT.write_text(written_anew(DOCUMENT.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
