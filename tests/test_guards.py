"""The list of guards follows the code (S-75); ``python -m tests.guards`` takes them out one by one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import guards
from tests.guards import GUARDS, ROOT, NotFound, removed
from tests.support.guard import Guard


@pytest.mark.req("S-75")
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_stands_in_the_source_once_and_its_tests_exist(guard: Guard) -> None:
    ast.parse(removed(guard))  # without it the file is still a program: what fails is a test, not the import
    for test in guard.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), test


@pytest.mark.req("S-75")
def test_the_twenty_guards_of_the_requirement_are_all_there() -> None:
    assert {guard.name for guard in GUARDS} >= {
        *("cookie-compare", "claim-condition", "expiry", "link-active", "pkce-verifier", "nonce", "signature"),
        *("iss", "aud", "tid", "oid-pin", "guid-pattern", "redirect-following", "partner-active", "customer-list"),
        *("lookup-allowed", "audit-trigger", "lease-owner", "generation-compare", "redaction-type"),
    }
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


def test_a_text_that_moved_is_an_error_and_an_unknown_guard_is_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = GUARDS[0]
    (tmp_path / guard.file).parent.mkdir(parents=True)
    for text, count in (("", 0), (guard.text * 2, 2)):
        (tmp_path / guard.file).write_text(text)
        with pytest.raises(NotFound, match=f"{count} times instead of once"):
            removed(guard, tmp_path)
    assert guards.main(["no-such-guard"]) == 2
    assert "no-such-guard" in capsys.readouterr().err
