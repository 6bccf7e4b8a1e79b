"""``.ci/find-python`` names a Python that really runs, or says in one line what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

FIND = Path(__file__).resolve().parent.parent / ".ci/find-python"


def find(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(FIND)],
        env={"PATH": str(folder), "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


RUNS = 'case "$2" in *executable*) echo "$0";; esac'


def test_without_any_python_one_line_says_what_is_missing(tmp_path: Path) -> None:
    done = find(tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "python3.13" in done.stderr


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path, "python3.13", "exit 127")
    program(tmp_path, "python3.14", "exit 127")
    program(tmp_path, "python3.12", RUNS)
    assert find(tmp_path).stdout.strip() == str(tmp_path / "python3.12")


def test_a_version_that_pyenv_holds_and_its_shim_hides_is_found(tmp_path: Path) -> None:
    program(tmp_path / "bin", "python3.13", "exit 127")
    program(tmp_path / "root/versions/3.13.4/bin", "python3.13", RUNS)
    done = find(tmp_path / "bin", PYENV_ROOT=str(tmp_path / "root"))
    assert done.stdout.strip() == str(tmp_path / "root/versions/3.13.4/bin/python3.13")


def test_the_newer_of_two_is_not_taken_before_3_13(tmp_path: Path) -> None:
    program(tmp_path, "python3.14", RUNS)
    program(tmp_path, "python3.13", RUNS)
    assert find(tmp_path).stdout.strip() == str(tmp_path / "python3.13")


def test_uv_is_asked_to_fetch_one_where_there_is_none(tmp_path: Path) -> None:
    program(tmp_path, "uv", 'case "$2" in find) echo /opt/fetched/python3.13;; esac')
    assert find(tmp_path).stdout.strip() == "/opt/fetched/python3.13"
