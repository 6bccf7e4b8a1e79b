"""The table of requirements counts what it says (S-75)."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.requirements_table import lines, required
from tests.support.source import ROOT


@pytest.mark.req("S-75")
def test_an_important_requirement_without_a_passing_test_is_open() -> None:
    priorities = required(
        "- [ ] **S-01 · P0 · A.** x\n- [ ] **S-02 · P1 · B.**\n- [ ] **R-03 · P2 · C.**\n- [ ] **S-04 · P0 · D.**"
    )
    counts = {"S-01": Counter(passed=2), "S-02": Counter(skipped=1), "S-99": Counter(passed=1)}

    table, open_ids = lines(counts, priorities)

    assert open_ids == ["S-02", "S-04"]
    assert [line.split()[0] for line in table] == ["R-03", "S-01", "S-02", "S-04", "S-99"]
    assert "2 passed" in table[1]
    assert "no test" in table[3]


@pytest.mark.req("S-75")
def test_every_mark_is_a_well_formed_id() -> None:
    marks = [
        (path.name, one.strip())
        for path in (ROOT / "tests").rglob("*.py")
        for ids in re.findall(r"@pytest\.mark\.req\((.*?)\)", path.read_text())
        for one in ids.split(",")
        if path.name != "requirements_table.py"
    ]
    assert len(marks) > 100
    assert [mark for mark in marks if not re.fullmatch(r'"[SR]-\d\d"', mark[1])] == []
