"""What the documents say is what the code does: variables, targets, commands, links, locks."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.source import COMMANDS, ROOT, modules, variables

README = (ROOT / "README.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LOCKS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
# What an installed package is imported as, where the names differ.
IMPORTED_AS = {
    "azure-core": "azure.core",
    "azure-identity": "azure.identity",
    "azure-keyvault-keys": "azure.keyvault.keys",
    "azure-keyvault-secrets": "azure.keyvault.secrets",
    "dj-queue": "dj_queue",
    "django-allauth": "allauth",
    "django-environ": "environ",
    "pyjwt": "jwt",
}


def code_words(text: str) -> set[str]:
    """Return what stands in backquotes."""
    return {word for group in re.findall(r"`([^`\n]+)`", text) for word in re.split(r"[,\s]+", group)}


def section(title: str) -> str:
    """Return one section of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_example_environment_lists_every_variable_and_no_other() -> None:
    listed = re.findall(r"^([A-Z][A-Z_0-9]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(variables()))
    assert len(listed) == len(set(listed))


def test_the_readme_lists_every_variable_and_no_other() -> None:
    table = section("Settings")
    listed = {word for word in code_words(table) if re.fullmatch(r"[A-Z][A-Z_0-9]+", word)}
    assert listed == set(variables())


def test_where_one_redirect_uri_is_named_the_other_is_too() -> None:
    """Entra knew only one of them, so every link of the whole tenant ended at Microsoft."""
    texts = {path.name: path.read_text() for path in DOCUMENTS}
    named = {name for name, text in texts.items() if "/consent/callback/" in text}
    assert named == {name for name, text in texts.items() if "/consent/admin-consent/" in text}
    assert named >= {"README.md", "operations.md"}


def test_the_readme_names_the_required_variables() -> None:
    settings = (ROOT / "portal/settings.py").read_text()
    required = set(re.findall(r'env\.text\("([A-Z_]+)"\)', settings))
    assert required == {"SECRET_KEY", "INTEGRITY_KEY", "PUBLIC_BASE_URL"}
    assert required <= code_words(section("Running it for real"))


def test_the_readme_lists_every_command_and_no_other() -> None:
    listed = {word for word in code_words(section("Commands")) if re.fullmatch(r"[a-z_]+", word)}
    assert listed == {path.stem for path in COMMANDS}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_help_lists_every_target_and_the_readme_names_no_other() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout
    listed = set(re.findall(r"^\s+make ([a-z]+)\s+\S", told, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z]+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert listed == phony
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    commands = re.findall(r"(?:^ {4}|`)make ((?:[a-z]+ ?)+)", text, re.MULTILINE)
    assert {word for command in commands for word in command.split()} - listed == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and file.is_file() and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named_files(text: str) -> set[str]:
    """Return the paths that a document names in backquotes, with the test behind ``::`` where it names one."""
    named = {word for word in code_words(text) if not word.startswith("/")}
    below = {word for word in named if re.match(r"(?:portal|tenants|consent|tests|docs|templates)/[\w./*:-]+$", word)}
    return below | {word for word in named if re.fullmatch(r"(?:\w+/)*test_\w+\.py(?:::\w+)?", word)}


def is_there(named: str) -> bool:
    """Tell whether a named file exists, and holds the named test. A test may be named by the end of its path."""
    name, _, test = named.partition("::")
    files = [*ROOT.glob(name), *(ROOT / "tests").rglob(name)]
    return any(not test or f"def {test}(" in file.read_text() for file in files)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(path: Path) -> None:
    assert sorted(named for named in named_files(path.read_text()) if not is_there(named)) == []


def test_a_file_or_a_test_that_is_gone_is_noticed() -> None:
    text = "`portal/gone.py`, `test_gone.py` and `tests/test_documents.py::test_gone`, but `portal/wsgi.py`"
    gone = {"portal/gone.py", "test_gone.py", "tests/test_documents.py::test_gone"}
    assert {named for named in named_files(text) if not is_there(named)} == gone


def test_the_table_of_behaviours_names_a_file_and_a_test_in_each_row() -> None:
    page = (ROOT / "docs/architecture.md").read_text().partition("\n## Behaviour, file, test\n")[2]
    rows = re.findall(r"^\| (?!Behaviour|---)(.+) \|$", page.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) >= 40
    for row in rows:
        behaviour, file, test = row.split(" | ")
        assert behaviour
        assert re.fullmatch(r"`(?:portal|tenants|consent)/[\w/]+\.py`", file), row
        assert re.fullmatch(r"`tests/[\w/]+\.py(?:::test_\w+)?`", test), row


@pytest.mark.req("S-72")
@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_by_hash_and_names_no_host(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"https?://|--index|--extra|--find-links|--trusted|git\+|file:", text)
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry and not entry.startswith("#")]
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9.\[\],-]*==[\w.]+", entry), entry[:60]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]


@pytest.mark.req("S-72")
def test_every_way_to_install_that_we_name_checks_hashes() -> None:
    files = [*DOCUMENTS, ROOT / "Makefile", *(ROOT / ".ci").iterdir()]
    lines = [line for path in files for line in path.read_text().splitlines()]
    ways = [line for line in lines if re.search(r"\bpip (?:install|download)\b|\buv pip (?:install|sync)\b", line)]
    assert len(ways) >= 3
    assert [line for line in ways if "--require-hashes" not in line] == []


@pytest.mark.req("S-72")
def test_what_runs_here_is_what_the_production_lock_pins() -> None:
    pinned = re.findall(r"^([a-z0-9.-]+)\S*==([\w.]+)", LOCKS[0].read_text(), re.MULTILINE)
    there = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in importlib.metadata.distributions()}
    assert len(there.keys() & {name for name, _ in pinned}) > 20
    assert [(name, there[name]) for name, version in pinned if there.get(name, version) != version] == []


@pytest.mark.req("S-72")
def test_what_is_tested_is_what_is_deployed() -> None:
    production, development = (
        dict(re.findall(r"^([a-z0-9.-]+)\S*==([\w.]+)", path.read_text(), re.MULTILINE)) for path in LOCKS
    )
    assert {name: development.get(name) for name in production} == production


def runtime_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.split(r"[\[<>=~! ]", one)[0] for one in project["dependencies"]]


@pytest.mark.req("S-72")
@pytest.mark.parametrize("name", runtime_dependencies())
def test_a_runtime_dependency_is_really_used(name: str) -> None:
    module = IMPORTED_AS.get(name, name)
    sources = "\n".join(path.read_text() for path in modules())
    used = rf"^\s*(?:import|from) {re.escape(module)}\b|[\"']{re.escape(module)}(?:\.|[\"']\))|-m {re.escape(module)}\b"
    assert re.search(used, sources + (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.req("S-72")
def test_a_test_library_is_no_runtime_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = {re.split(r"[\[<>=~! ]", one)[0] for one in project["dependency-groups"]["dev"]}
    assert tools & set(runtime_dependencies()) == set()
    pinned = set(re.findall(r"^([a-z0-9.-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert pinned & {"aiohttp", "pytest", "responses", "playwright", "hypothesis"} == set()
