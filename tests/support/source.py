"""The files of the product, its modules, commands and variables."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = {"portal", "tenants", "consent"}


def modules() -> list[Path]:
    return sorted(path for app in OURS for path in (ROOT / app).rglob("*.py") if "migrations" not in path.parts)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


COMMANDS = sorted(
    path for app in ("portal", "tenants", "consent") for path in (ROOT / app).rglob("management/commands/[a-z]*.py")
)


def variables() -> list[str]:
    """Return every variable that the settings read."""
    return [
        str(node.args[0].value)
        for node in ast.walk(ast.parse((ROOT / "portal/settings.py").read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "env"
        and isinstance(node.args[0], ast.Constant)
    ]
