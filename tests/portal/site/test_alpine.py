from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from tests.portal.site.expressions import SCRIPT, UNFOLD, expressions, lacking, replacements, templates

pytestmark = pytest.mark.req("S-61")

FOLDER = SCRIPT.parents[1] / "unfold/js/alpine"


def expression_of(path: Path) -> set[tuple[str, str]]:
    return expressions(path.read_text())


def test_every_expression_of_unfold_runs_in_the_csp_build_or_is_replaced() -> None:
    table = replacements()
    left = [
        f"{path.relative_to(UNFOLD)}: {attribute}: {expression}: {found}"
        for path in templates()
        for attribute, expression in expression_of(path)
        if (found := lacking(expression, attribute)) and expression not in table
    ]
    assert left == []


def test_expressions_that_unfold_builds_in_python_run_too() -> None:
    built = set()
    for path in sorted(UNFOLD.rglob("*.py")):
        text = path.read_text()
        built |= {
            (name, value) for name, value in re.findall(r'"(x-(?:on|init|model|show|bind)[\w:.-]*)": "([^"]*)"', text)
        }
        built |= expressions(text)
    assert len(built) >= 3  # the form of the actions and the pages' links
    table = replacements()
    assert [pair for pair in built if lacking(pair[1], pair[0]) and pair[1] not in table] == []


def test_every_replacement_is_still_needed_and_runs() -> None:
    used = {expression for path in templates() for _, expression in expression_of(path)}
    used |= {value for path in UNFOLD.rglob("*.py") for _, value in expressions(path.read_text())}
    both_branches = "if (!$event.metaKey && !$event.ctrlKey) selectItem(false, false)"
    for original, replacement in replacements().items():
        assert original in used | {both_branches}, original
        assert lacking(replacement, "x-bind:style" if "width" in original[:10] else "") == [], replacement


@pytest.mark.parametrize(
    "expression",
    [
        "`a ${b}`",
        "if (a) b()",
        "() => a",
        "window.name",
        "a?.b",
        "a ?? b",
        "[...a]",
        "new Date()",
        "a = 1; b = 2",
        "a += 1",
    ],
)
def test_the_scan_sees_what_the_csp_build_lacks(expression: str) -> None:
    assert lacking(expression)


@pytest.mark.parametrize(
    "expression", ["a.window", "{ new: 1 }", "open = !open;", "a === 'if' || b", "go($event, 'x => y')"]
)
def test_the_scan_lets_the_rest_pass(expression: str) -> None:
    assert lacking(expression) == []


def test_our_build_is_found_before_the_one_that_unfold_ships() -> None:
    assert finders.find("unfold/js/alpine/alpine.js") == str(FOLDER / "alpine.js")
    text = (FOLDER / "alpine.js").read_text()
    assert "new Function" not in text
    assert "CSP Parser Error" in text


def test_the_build_is_the_one_that_the_readme_names() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert hashlib.sha256((FOLDER / "alpine.js").read_bytes()).hexdigest() in readme
    assert "Permission is hereby granted" in (FOLDER / "LICENSE").read_text()
