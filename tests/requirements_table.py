"""Print each requirement with its tests and their results (S-75).

    python -m tests.requirements_table [--requirements FILE] [pytest arguments]

The list of requirements is a text in which each begins like ``- [ ] **S-07 · P0 ·``. With it, an id of priority P0 or
P1 without a passing test is named and makes the exit code 1; without it, only failing tests do.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

_ENTRY = re.compile(r"\*\*([SR]-\d\d) · (P[012]) ·")


class Table:
    """A pytest plugin that notes which tests show which requirement, and how they ended."""

    def __init__(self) -> None:
        self._ids: dict[str, list[str]] = {}
        self._results: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._ids[item.nodeid] = sorted({str(one) for mark in item.iter_markers("req") for one in mark.args})
            self._results[item.nodeid] = "not run"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._results[report.nodeid] = report.outcome

    def counts(self) -> dict[str, Counter[str]]:
        """Return results by requirement id."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for node, ids in self._ids.items():
            for one in ids:
                found[one][self._results[node]] += 1
        return dict(found)


def required(text: str) -> dict[str, str]:
    """Return priority by id out of the list of requirements."""
    return dict(_ENTRY.findall(text))


def lines(counts: dict[str, Counter[str]], priorities: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the table's lines, and the ids of P0 and P1 that no test shows to hold."""
    table, open_ids = [], []
    for one in sorted(set(counts) | set(priorities)):
        results, priority = counts.get(one, Counter()), priorities.get(one, "")
        missing = priority in {"P0", "P1"} and not results["passed"]
        if missing:
            open_ids.append(one)
        told = ", ".join(f"{number} {result}" for result, number in sorted(results.items())) or "no test"
        table.append(f"{one:<6}{priority:<4}{told}{'   <-- open' if missing else ''}")
    return table, open_ids


def main() -> int:
    """Run the tests and print the table."""
    parser = argparse.ArgumentParser(description="Print requirement, tests and result.")
    parser.add_argument("--requirements", type=Path, help="the list of requirements with their priorities")
    known, rest = parser.parse_known_args()
    priorities = required(known.requirements.read_text()) if known.requirements else {}
    plugin = Table()
    code = int(pytest.main(["-q", *rest], plugins=[plugin]))
    table, open_ids = lines(plugin.counts(), priorities)
    sys.stdout.write("\n".join(["", *table, ""]))
    if open_ids:
        sys.stdout.write(f"\nNo passing test: {', '.join(open_ids)}\n")
    return code or bool(open_ids)


if __name__ == "__main__":
    sys.exit(main())
