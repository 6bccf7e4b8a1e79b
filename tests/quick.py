"""Check what was changed since the last commit: its style, and the tests of each room that it stands in.

    python -m tests.quick           against HEAD
    python -m tests.quick main      against another commit

What drives a browser or kills processes of its own is left out, as by ``make test``; CI has it. Exit codes: those of
ruff or pytest, whichever finds something first.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.source import OURS, ROOT

# They read the whole source, so they belong to every room.
ALWAYS = ("tests/test_layers.py", "tests/test_source_rules.py", "tests/test_tests.py")


def changed(since: str) -> list[str]:
    """Return the files that differ from a commit, new ones too and deleted ones not."""
    differing = _git("diff", "--name-only", "--diff-filter=d", since)
    return sorted({*differing, *_git("ls-files", "--others", "--exclude-standard")})


def tests_of(paths: Iterable[str]) -> list[str]:
    """Return the test folders and files that mirror where these files stand.

    A room is tested by the folder of its name, and what stands in no room by the test modules that stand in none. What
    all tests share has no room: its users are too many to be quick.
    """
    found = {name for name in ALWAYS if (ROOT / name).exists()}
    for path in map(Path, paths):
        parts = path.parts[1:] if path.parts[0] == "tests" else path.parts
        if parts[0] == "templates":
            parts = ("consent", "test_templates.py")
        if parts[0] == "sandbox":
            found.add("tests/sandbox/tests")
        elif parts[0] not in OURS:
            found |= {str(path)} if path.name.startswith("test_") else set()
        elif len(parts) > 2 and (ROOT / "tests" / parts[0] / parts[1]).is_dir():
            found.add(f"tests/{parts[0]}/{parts[1]}")
        else:
            found |= {str(one.relative_to(ROOT)) for one in (ROOT / "tests" / parts[0]).glob("test_*.py")}
    return sorted(found)


def main(since: str = "HEAD") -> int:
    paths = changed(since)
    sources = [path for path in paths if path.endswith(".py")]
    tests = tests_of(paths)
    print("Checking", len(paths), "changed files with", *tests)  # noqa: T201
    commands = [["ruff", "check", *sources], ["ruff", "format", "--check", *sources]] if sources else []
    commands.append(["pytest", "-q", "-n", "2", "--dist", "worksteal", *tests])
    for command in commands:
        if code := subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode:
            return code
    return 0


def _git(*arguments: str) -> list[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
