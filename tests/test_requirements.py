"""``docs/requirements.md`` and the ids in code and tests name the same things (S-75)."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.requirements import DOCUMENT, Requirement, Table, marked, required, unproven, written_anew
from tests.support.source import ROOT

_ID = re.compile(r"\b[SR]-\d\d\b")
OPEN = Requirement("S-05", "P0", "A.", "site", "open: part 10")


def one(name: str, priority: str = "P0") -> Requirement:
    return Requirement(name, priority, "A sentence.", "consent", "`test_a.py`")


@pytest.mark.req("S-75")
def test_an_important_requirement_without_a_passing_test_fails_the_run() -> None:
    rows = {row.id: row for row in (one("S-01"), one("S-02"), one("S-03", "P1"), one("R-04", "P2"), OPEN)}
    results = {
        "S-01": {"test_a.py": Counter(failed=1), "test_b.py": Counter(passed=1)},
        "S-02": {"test_a.py": Counter(skipped=1)},
    }
    assert unproven(rows, results, all_of_them=True) == ["S-02", "S-03"]
    assert unproven(rows, results, all_of_them=False) == ["S-03"], "what was left out is shown in CI"


@pytest.mark.req("S-75")
def test_a_test_of_the_local_microsoft_shows_nothing_about_the_product() -> None:
    assert not any(name.startswith("tests/sandbox/") for files in marked().values() for name in files)


def test_the_table_names_id_file_and_result() -> None:
    table = Table()
    known = next(row for row in required(DOCUMENT.read_text()).values() if not row.is_open)
    table.results[known.id]["test_a.py"].update(passed=2, failed=1)
    assert f"{known.id}  {known.priority}  test_a.py: 1 failed, 2 passed" in list(table.lines())


@pytest.mark.req("S-75")
def test_each_id_that_code_docs_and_tests_cite_is_defined() -> None:
    defined = set(required(DOCUMENT.read_text()))
    places = [
        path
        for folder in ("portal", "tenants", "consent", "tests", "templates", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".html", ".md", ".js", ".css"} and path.name != "test_requirements.py"
    ]
    cited = {(str(path.relative_to(ROOT)), name) for path in places for name in _ID.findall(path.read_text())}
    assert len(cited) > 300
    assert [place for place in sorted(cited) if place[1] not in defined] == []


@pytest.mark.req("S-75")
def test_each_defined_id_is_cited_by_a_test_or_open() -> None:
    tests = marked()
    rows = required(DOCUMENT.read_text()).values()
    assert [row.id for row in rows if not row.is_open and not tests.get(row.id)] == []


def test_the_document_names_the_tests_that_carry_the_marks() -> None:
    text = DOCUMENT.read_text()
    assert text == written_anew(text), "run python -m tests.requirements"
