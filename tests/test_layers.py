"""The house has three floors and every arrow points down (docs/architecture.md)."""

from __future__ import annotations

import ast
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
