"""The tests keep their order: no test module leans on another, and the tests of a module are found by its name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.source import ROOT, module_name, modules

TESTS = sorted((ROOT / "tests").rglob("*.py"))
_COVERS = re.compile(r"^Covers: ([\w., \n]+)\.$", re.MULTILINE)
# Modules that no test is named after and none covers by name, and why.
WITHOUT_TESTS_OF_THEIR_OWN = {
    "portal.site.formats.en.formats": "formats of dates, which Django reads; each page with a date shows them",
}


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


def test_no_module_imports_a_test_module() -> None:
    found = {str(path.relative_to(ROOT)): imported_test_modules(ast.parse(path.read_text())) for path in TESTS}
    assert {path: names for path, names in found.items() if names} == {}, "what tests share stands in tests/support"


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


# --- the tests of a module -----------------------------------------------------------------------------------------


def in_rooms() -> list[Path]:
    """Return the modules of the rooms: without what only registers, and without commands, which have their own rule."""
    return [
        path
        for path in modules()
        if len(path.relative_to(ROOT).parts) > (1 if path.is_relative_to(ROOT / "tenants") else 2)
        and path.stem not in {"__init__", "apps"}
        and "commands" not in path.parts
    ]


def place_of_tests(path: Path) -> Path:
    """Return where the tests of a module stand, as tests/consent/tokens/test_health.py for consent/tokens/health.py.

    What lies deeper in a room carries the way to it: portal/microsoft/diagnosis/entra.py and test_diagnosis_entra.py.
    """
    app, *inner = path.relative_to(ROOT).with_suffix("").parts
    room = inner[:1] if len(inner) > 1 else []
    return ROOT.joinpath("tests", app, *room, f"test_{'_'.join(inner[len(room) :])}.py")


@cache
def covered() -> dict[str, Path]:
    """Return the modules that the docstring of a test module names in "Covers: …", with that test module."""
    return {
        name: path
        for path in TESTS
        if path.stem.startswith("test_") and "Covers: " in (text := path.read_text())
        for listed in _COVERS.findall(ast.get_docstring(ast.parse(text)) or "")
        for name in re.split(r",\s+", listed)
    }


def test_the_tests_of_each_module_are_found_by_its_name() -> None:
    named = covered()
    missing = {
        module_name(path): str(place_of_tests(path).relative_to(ROOT))
        for path in in_rooms()
        if not place_of_tests(path).exists() and module_name(path) not in named
    }
    assert {name: where for name, where in missing.items() if name not in WITHOUT_TESTS_OF_THEIR_OWN} == {}, (
        "name the tests after the module, or name the module in the docstring of its tests: Covers: app.room.module."
    )
    assert set(WITHOUT_TESTS_OF_THEIR_OWN) - set(missing) == set()


def test_what_a_test_module_covers_is_there_and_has_no_tests_of_its_own_name() -> None:
    known = {module_name(path): path for path in in_rooms()}
    named = covered()
    assert [f"{path.relative_to(ROOT)}: {name}" for name, path in named.items() if name not in known] == []
    assert [name for name in named if place_of_tests(known[name]).exists()] == []


def test_the_place_of_the_tests_follows_the_module() -> None:
    for module, tests in {
        "tenants/sync.py": "tests/tenants/test_sync.py",
        "consent/tokens/health.py": "tests/consent/tokens/test_health.py",
        "portal/microsoft/diagnosis/entra.py": "tests/portal/microsoft/test_diagnosis_entra.py",
    }.items():
        assert place_of_tests(ROOT / module) == ROOT / tests
    assert _COVERS.findall("Tokens.\n\nCovers: consent.tokens.a,\nconsent.tokens.b.\n") == [
        "consent.tokens.a,\nconsent.tokens.b"
    ]
