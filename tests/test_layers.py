"""The house has three floors and every arrow points down (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

from tests.support.source import OURS, ROOT, module_name, modules

# Each room may import only what is listed behind it; the longest prefix decides.
ALLOWED = {
    "portal.microsoft": {"portal.microsoft"},
    "portal.audit": {"portal.audit", "portal.microsoft"},
    "portal.incidents": {
        "portal.incidents",
        "portal.mail",
        "portal.audit",
        "portal.site",
        "portal.microsoft",
        "portal.fields",
    },
    "portal.site": {
        "portal.site",
        "portal.audit",
        "portal.microsoft",
        "portal.site.addresses",
        "portal.databases",
        "portal.models",
    },
    "portal.runs": {
        "portal.runs",
        "portal.commands",
        "portal.incidents",
        "portal.audit",
        "portal.site",
        "portal.microsoft",
        "portal.databases",
        "portal.fields",
        "portal.starting",
    },
    "portal": {"portal"},
    "tenants": {"tenants", "portal"},
    "consent": {"consent", "tenants", "portal"},
}
# Clients speak HTTP: no ORM, no settings. Models and querysets speak SQL: no network.
CLIENTS = [
    "tenants/partner_center.py",
    "tenants/gdap.py",
    "consent/microsoft/entra.py",
    "consent/microsoft/application_consents.py",
    "consent/microsoft/directory.py",
    "consent/microsoft/credentials.py",
]
TABLES = [
    "tenants/models.py",
    *(f"consent/models/{path.name}" for path in sorted((ROOT / "consent/models").glob("*.py"))),
    "portal/runs/models.py",
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_every_arrow_points_down(path: Path) -> None:
    name = module_name(path)
    room = max((room for room in ALLOWED if is_in(name, room)), key=len)
    upwards = [
        target
        for target in imports(path)
        if any(is_in(target, ours) for ours in OURS) and not any(is_in(target, ok) for ok in ALLOWED[room])
    ]
    assert upwards == []


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


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_knows_no_django(name: str) -> None:
    assert [target for target in imports(ROOT / name) if is_in(target, "django")] == []


@pytest.mark.parametrize("path", sorted((ROOT / "portal/microsoft").rglob("*.py")), ids=lambda path: path.stem)
def test_the_ground_floor_knows_no_django(path: Path) -> None:
    assert [target for target in imports(path) if is_in(target, "django")] == []


@pytest.mark.parametrize("name", TABLES)
def test_models_and_querysets_speak_no_http(name: str) -> None:
    network = (
        "requests",
        "urllib3",
        "msal",
        "azure",
        "portal.microsoft.http",
        "portal.microsoft.api",
        "consent.clients",
        "consent.microsoft.entra",
    )
    assert [target for target in imports(ROOT / name) if any(is_in(target, bad) for bad in network)] == []


def test_only_the_factories_wire_tokens_into_clients() -> None:
    builders = [
        module_name(path)
        for path in modules()
        if module_name(path) != "consent.clients" and "portal.microsoft.http.GuardedSession" in imports(path)
    ]
    assert builders == []
