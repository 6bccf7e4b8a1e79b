"""The tests keep their order: no test module leans on another, and the tests of a module are found by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.source import ROOT

TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported_test_modules(tree: ast.AST) -> list[str]:
    """Return each test module that a module imports, or imports something of."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    # A function may be called test_… as well, but pytest would then run it twice.
    return [name for name in found if any(part.startswith("test_") for part in name.split("."))]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_no_module_imports_a_test_module(path: Path) -> None:
    assert imported_test_modules(ast.parse(path.read_text())) == [], "what tests share stands in tests/support"


@pytest.mark.parametrize(
    "breach",
    [
        "from tests.consent.test_words import page",
        "from tests.consent import test_words",
        "import tests.consent.test_words as words",
        "from .test_words import page",
        "from . import test_words",
        "def f():\n    from tests.consent.test_words import page",
    ],
)
def test_an_import_of_a_test_module_is_seen(breach: str) -> None:
    assert imported_test_modules(ast.parse(breach))
    assert not imported_test_modules(ast.parse("from tests.support.portal import Portal\nimport tests.guards"))
