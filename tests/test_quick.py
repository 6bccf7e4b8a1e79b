"""``make quick`` runs the tests of each room that was changed, and no others."""

from __future__ import annotations

import pytest

from tests import quick
from tests.support.source import ROOT


def in_no_room(app: str) -> list[str]:
    return sorted(f"tests/{app}/{one.name}" for one in (ROOT / "tests" / app).glob("test_*.py"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("consent/tokens/health.py", ["tests/consent/tokens"]),
        ("portal/microsoft/diagnosis/entra.py", ["tests/portal/microsoft"]),
        ("tests/portal/site/test_logs.py", ["tests/portal/site"]),
        ("tests/sandbox/entra.py", ["tests/sandbox/tests"]),
        ("templates/consent/landing.html", in_no_room("consent")),
        ("consent/alarms.py", in_no_room("consent")),
        ("tenants/sync.py", in_no_room("tenants")),
        ("tests/test_documents.py", ["tests/test_documents.py"]),
        ("docs/operations.md", []),
        ("tests/support/portal.py", []),
    ],
)
def test_a_changed_file_leads_to_the_tests_of_its_room(path: str, expected: list[str]) -> None:
    assert [one for one in quick.tests_of([path]) if one not in quick.ALWAYS] == expected
