"""The house has three floors, each with rooms, and every arrow points down (docs/architecture.md).

The order stands once, in import-linter's contracts in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from tests.import_graph import BY_NAME, Arrow, Place, arrows, circles, contracts, misplaced, product, upward
from tests.support.source import OURS, ROOT, module_name, modules

__all__ = ["ROOT", "module_name", "modules"]
LAYERS = [{"type": "layers", "layers": ["top", "left | right", "ground"]}]


def test_the_contracts_are_kept() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def ours() -> list[Arrow]:
    return arrows(product())


def test_there_is_no_circle_and_no_arrow_upward() -> None:
    found = ours()
    assert circles(found) == []
    assert upward(found, contracts()) == []


def test_every_import_stands_at_the_top_of_its_module() -> None:
    found = ours()
    assert misplaced(found, product()) == []
    assert {(one.source, one.target) for one in found if one.place is Place.NAME} == set(BY_NAME)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import ground", Place.TOP),
        ("from ground import stone", Place.TOP),
        ("class A:\n    def b(self):\n        from ground import stone", Place.FUNCTION),
        ("async def a():\n    if True:\n        import ground", Place.FUNCTION),
        ("if TYPE_CHECKING:\n    from ground import stone", Place.TYPES),
        ("a = import_module('ground')", Place.NAME),
        ("def a():\n    return module_loading.import_string('ground.stone')", Place.NAME),
    ],
)
def test_an_import_is_seen_wherever_it_stands(text: str, place: Place) -> None:
    sources = {"top": text, "ground": "stone = 1"}
    found = arrows(sources)
    assert [(one.source, one.target, one.place) for one in found] == [("top", "ground", place)]
    assert (misplaced(found, sources) == []) is (place is Place.TOP)


def test_a_circle_is_seen_also_through_a_function_and_through_a_package() -> None:
    sources = {
        "top": "import left",
        "left": "def a():\n    from ground.stone import b",
        "ground": "",
        "ground.stone": "if TYPE_CHECKING:\n    import left",
    }
    (circle,) = circles(arrows(sources))
    assert set(circle) == {"left", "ground.stone"}
    assert circles(arrows({**sources, "ground.stone": ""})) == []


@pytest.mark.parametrize(
    ("source", "target", "wrong"),
    [
        ("top.a", "left.b", False),
        ("left.a", "left.b", False),
        ("left", "ground", False),
        ("left.a", "right.b", True),
        ("ground", "top.b", True),
    ],
)
def test_an_arrow_upward_or_to_the_side_is_seen(source: str, target: str, wrong: bool) -> None:
    assert bool(upward([Arrow(source, 1, target, Place.TOP)], LAYERS)) is wrong


def loads(tree: ast.AST) -> set[str]:
    """Return the modules that are imported when this runs; what only a type checker reads is left out."""
    found, left = set(), [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
    return found


@cache
def installed_by(requirements: str) -> set[str]:
    """Return the modules of the packages that this file pins; what belongs to other platforms is not installed here."""
    found = set()
    for name in re.findall(r"^([a-z0-9.-]+)", (ROOT / requirements).read_text(), re.MULTILINE):
        try:
            paths = files(name) or []
        except PackageNotFoundError:
            continue
        for path in paths:
            if path.suffix in {".py", ".so"}:
                module = (*path.parts[:-1], path.name.partition(".")[0])
                found.add(".".join(module).removesuffix(".__init__"))
    return found


def missing(modules: set[str], installed: set[str]) -> set[str]:
    """Return the modules that neither Python, nor these packages, nor the product have."""
    return {name for name in modules if name.partition(".")[0] not in OURS | sys.stdlib_module_names} - installed


def test_the_product_runs_without_the_tests_and_with_requirements_txt_alone() -> None:
    installed = installed_by("requirements.txt")
    needed = {module_name(path): missing(loads(ast.parse(path.read_text())), installed) for path in started()}
    # An extra of its own, which is loaded only where CELERY_BROKER_URL is set.
    assert needed.pop("portal.runs.celery") == {"celery", "celery.signals"}
    assert {name: found for name, found in needed.items() if found} == {}


def started() -> list[Path]:
    """Return what a deployment can start: the product's modules, its migrations too, and manage.py."""
    return [ROOT / "manage.py", *(path for app in sorted(OURS) for path in sorted((ROOT / app).rglob("*.py")))]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.sandbox.server import Sandbox", {"tests.sandbox.server"}),
        ("def f():\n    import tests.support", {"tests.support"}),
        ("from aiohttp import web", {"aiohttp"}),
        ("if TYPE_CHECKING:\n    import x\nelse:\n    import responses", {"responses"}),
        ("import azure.monitor, azure.identity", {"azure.monitor"}),
        ("import os, requests.adapters\nfrom portal import text\nif TYPE_CHECKING:\n    import mypy", set()),
    ],
)
def test_what_is_missing_is_seen(source: str, found: set[str]) -> None:
    assert missing(loads(ast.parse(source)), installed_by("requirements.txt")) == found


def test_only_the_factories_wire_tokens_into_clients() -> None:
    calls = {
        name: [ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        for name, text in product().items()
        if "GuardedSession" in text
    }
    assert [name for name, called in calls.items() if "GuardedSession" in called] == [
        "consent.clients",
        "portal.incidents.sinks",  # which talks to no Microsoft
        "portal.staff.directory",  # to the organisation's sign-in service only
    ]
