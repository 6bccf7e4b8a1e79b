"""Where the settings cannot be read, the doctor says that, and still reads the sample's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consent.doctor import unset
from tests.support.manage import manage


def test_settings_that_cannot_be_read_are_named_first() -> None:
    ended = manage("doctor", PUBLIC_BASE_URL="")
    assert ended.returncode == unset.EXIT_FAILS
    assert ended.stdout.startswith("The first that fails: Settings. Set PUBLIC_BASE_URL")
    assert "What to do:" in ended.stdout
    assert ended.stderr == ""


def test_a_program_reads_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert unset.answer(["--json"], "Set PUBLIC_BASE_URL") == unset.EXIT_FAILS
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["first_failure"]) == (False, "settings")


def test_the_sample_is_read_before_there_are_settings(tmp_path: Path) -> None:
    file = tmp_path / "web.config"
    file.write_text(
        '<a><appSettings><add key="ida:AADInstance" value="https://login.microsoftonline.us/"/></appSettings></a>'
    )
    ended = manage("doctor", "--from-sample", str(file), SECRET_KEY="")
    assert ended.returncode == 0
    assert "VAULT_CLOUD=usgov" in ended.stdout


def test_a_file_that_is_no_sample_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unset.answer(["--from-sample", str(tmp_path / "gone")], "x") == unset.EXIT_USAGE
    (tmp_path / "there").write_text("words")
    assert unset.answer(["--from-sample", str(tmp_path / "there")], "x") == unset.EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2
