"""The threat model says what is so: each thing that holds has a requirement and a test that carries it (S-75)."""

from __future__ import annotations

import re

import pytest

from tests.requirements import DOCUMENT, marked, required
from tests.support.source import ROOT

PAGE = (ROOT / "docs/threat-model.md").read_text()
CASES = (
    "We were breached",
    "A member of staff is bad",
    "The database is read",
    "The database is written",
    "The vault is read",
    "The log is read",
    "A partner's account is taken",
    "Microsoft is impersonated",
    "The supply chain",
)
PARTS = ("What the attacker gets.", "What holds", "What does not hold", "How it is seen.", "What to do.")
_TAIL = re.compile(r"\(((?:[SR]-\d\d(?:, )?)+); ((?:`tests/[\w/.]+`(?:, )?)+)\)$")


def sections() -> dict[str, str]:
    """Return the text of each section by its title."""
    return {title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}


def promises(text: str) -> list[str]:
    """Return the items below *What holds*, each as one line."""
    part = text.partition("**What holds**")[2].partition("\n\n**")[0]
    return [" ".join(item.split()) for item in part.split("\n- ")[1:]]


def flaws(promise: str) -> list[str]:
    """Return what is wrong with what a promise cites."""
    cited = _TAIL.search(promise)
    if cited is None:
        return ["it ends with no (id; test)"]
    ids, tests = re.findall(r"[SR]-\d\d", cited[1]), re.findall(r"`([^`]+)`", cited[2])
    rows, marks = required(DOCUMENT.read_text()), marked()
    return [
        *(f"{name} is no requirement" for name in ids if name not in rows),
        *(f"{name} is open" for name in ids if name in rows and rows[name].is_open),
        *(f"no test that it names carries {name}" for name in ids if not set(tests) & set(marks.get(name, ()))),
        *(f"{test} carries none of its ids" for test in tests if not any(test in marks.get(name, ()) for name in ids)),
    ]


@pytest.mark.req("S-75")
@pytest.mark.parametrize("case", CASES)
def test_each_case_says_what_is_got_what_holds_what_does_not_and_what_to_do(case: str) -> None:
    text = sections()[case]
    assert [part for part in PARTS if f"**{part}**" not in text] == []
    assert len(promises(text)) >= 4


@pytest.mark.req("S-75")
def test_each_thing_that_holds_names_its_requirement_and_a_test_that_carries_it() -> None:
    wrong = {promise: found for text in sections().values() for promise in promises(text) if (found := flaws(promise))}
    assert wrong == {}


def test_a_promise_without_proof_is_noticed() -> None:
    assert flaws("Nothing is lost.") == ["it ends with no (id; test)"]
    unknown = f"S-{99}"
    assert f"{unknown} is no requirement" in flaws(f"It holds. ({unknown}; `tests/test_documents.py`)")
    assert "no test that it names carries S-30" in flaws("It holds. (S-30; `tests/test_documents.py`)")
    assert flaws("It holds. (S-72; `tests/test_documents.py`)") == []
