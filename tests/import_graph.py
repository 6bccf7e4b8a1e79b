"""The graph of imports of the product: circles, arrows upward, and imports that do not stand at the top of a module.

``python -m tests.import_graph`` prints them and ends with 1 when there is one. The order of floors and rooms is the one
of import-linter's contracts in ``pyproject.toml``, which checks the rest (``make imports`` runs both). Here counts also
what import-linter cannot tell apart: an import inside a function, one for type checking only, one by name.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tests.support.source import ROOT, module_name, modules

# Imports by name, and why they are not at the top; they count as arrows like all others.
BY_NAME = {
    (
        "consent.management.base",
        "consent.management.working",
    ): "services and Microsoft's libraries take long, and a help text needs none",
    ("consent.moving_in.files", "openpyxl"): "workbooks are seldom read, and each worker would load it",
    ("portal.site.export", "xlsxwriter"): "workbooks are seldom written, and each worker would load it",
    ("consent.clients", "consent.vault.azure"): "Azure's libraries take long, and other vaults need none",
    ("consent.clients", "consent.vault.azure_keys"): "Azure's libraries take long, and other vaults need none",
    (
        "consent.clients",
        "consent.microsoft.managed_identity",
    ): "Azure's libraries take long, and other credentials need none",
    ("portal.runs.console", "portal.runs.bar"): "the picture's library takes long, and only a terminal shows it",
}


class Place(StrEnum):
    """Where an import stands."""

    TOP = "at the top"
    FUNCTION = "inside a function"
    TYPES = "for type checking only"
    NAME = "by name"
    RELATIVE = "relative"


@dataclass(frozen=True, slots=True, order=True)
class Arrow:
    """One import: from a module of ours to another one, or to a package."""

    source: str
    line: int
    target: str
    place: Place

    def __str__(self) -> str:
        return f"{self.source}:{self.line} -> {self.target} ({self.place})"


def product() -> dict[str, str]:
    """Return the text of each module by its name."""
    return {module_name(path): path.read_text() for path in modules()}


def arrows(sources: Mapping[str, str]) -> list[Arrow]:
    """Return every import of these modules; a target among them is named in full, another by its first name."""
    return sorted(
        Arrow(source, line, _target(name, sources), place)
        for source, text in sources.items()
        for name, line, place in _imports(ast.parse(text).body, Place.TOP)
    )


def _imports(nodes: Sequence[ast.AST], place: Place) -> Iterator[tuple[str, int, Place]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, place) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.module or "", node.lineno, Place.RELATIVE
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno, place) for alias in node.names)
        elif (name := _named(node)) is not None:
            yield name, node.lineno, Place.NAME  # type: ignore[attr-defined]  # a call has a line
        within = place
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            within = Place.FUNCTION
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            within = Place.TYPES
        yield from _imports(list(ast.iter_child_nodes(node)), within)


def _named(node: ast.AST) -> str | None:
    """Return what ``import_module`` or ``import_string`` is called with, where that stands in the source."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return None
    called = ast.unparse(node.func).rpartition(".")[2]
    return str(node.args[0].value) if called in {"import_module", "import_string", "__import__"} else None


def _target(name: str, sources: Mapping[str, str]) -> str:
    ours = name
    while ours and ours not in sources:
        ours = ours.rpartition(".")[0]
    return ours or name.partition(".")[0]


def circles(found: Sequence[Arrow]) -> list[list[str]]:
    """Return circles, each as the modules along its arrows; one for each set of modules that hang together."""
    graph: dict[str, set[str]] = {}
    for arrow in found:
        if arrow.source != arrow.target:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    result = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            way: list[str] = error.args[1][::-1]  # the sorter names each module before the one that needs it
            result.append(way)
            graph[way[0]].discard(way[1])
        else:
            return result


def upward(found: Sequence[Arrow], contracts: Sequence[Mapping[str, Any]]) -> list[Arrow]:
    """Return the arrows to a higher layer of import-linter's contracts, or to another part of the same one."""
    result = []
    for contract in contracts:
        if contract["type"] == "layers":
            for container in contract.get("containers", [""]):
                height = {
                    f"{container}.{part.strip()}".removeprefix("."): number
                    for number, layer in enumerate(reversed(contract["layers"]))
                    for part in layer.split("|")
                }
                depth = container.count(".") + 2 if container else 1
                for arrow in found:
                    source, target = (".".join(name.split(".")[:depth]) for name in (arrow.source, arrow.target))
                    if source in height and target in height and source != target and height[target] >= height[source]:
                        result.append(arrow)
    return result


def misplaced(found: Sequence[Arrow], ours: Mapping[str, str]) -> list[Arrow]:
    """Return the imports that do not stand at the top: of any package inside a function, of ours in any other place."""
    return [
        arrow
        for arrow in found
        if arrow.place in {Place.FUNCTION, Place.RELATIVE}
        or (arrow.place is Place.TYPES and arrow.target in ours)
        or (arrow.place is Place.NAME and arrow.target in ours and (arrow.source, arrow.target) not in BY_NAME)
    ]


def contracts() -> list[dict[str, Any]]:
    """Return import-linter's contracts."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


def main() -> int:
    """Print what is wrong, and how much there is in all."""
    sources = product()
    found = arrows(sources)
    inside = [arrow for arrow in found if arrow.target in sources]
    wrong: dict[str, Sequence[object]] = {
        "circles": [" -> ".join(way) for way in circles(inside)],
        "arrows upward": upward(inside, contracts()),
        "imports not at the top": misplaced(found, sources),
    }
    lines = [f"{len(sources):,} modules, {len(inside):,} imports of one another"]
    for name, cases in wrong.items():
        lines += [f"{name}: {len(cases)}", *(f"  {case}" for case in cases)]
    lines += [f"by name, on purpose: {source} -> {target}: {why}" for (source, target), why in BY_NAME.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
