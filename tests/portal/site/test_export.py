from __future__ import annotations

import csv
import io
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.site.export import csv_lines, csv_response, safe_cell

pytestmark = pytest.mark.req("S-64")

TRIGGERS = ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠", "﹦", "﹢", "﹣", "﹫", "−"]
PREFIXES = [
    "",
    " ",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\u3000",
    "\u202e",
    "\ufe0f",
    "\u3164",
    " \u200b ",
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda text: f"U+{ord(text):04X}")
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda text: "-".join(f"{ord(c):04X}" for c in text) or "bare")
def test_what_a_spreadsheet_could_run_gets_an_apostrophe(prefix: str, trigger: str) -> None:
    assert safe_cell(f"{prefix}{trigger}cmd|' /C calc'!A0").startswith("'")


@pytest.mark.parametrize("text", ["Contoso", "a=b", "1+1", "Müller & Söhne", "日本", "'quoted", "", "(=1)"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text


def test_empty_values_and_times_have_one_form() -> None:
    assert safe_cell(None) == ""
    assert safe_cell(datetime(2026, 11, 23, 10, 5, tzinfo=UTC)) == "2026-11-23T10:05:00+00:00"
    assert safe_cell(-5) == "'-5"


hostile = st.text(
    st.sampled_from("=+-@\t\r\n\0＝－\",;'| \u200b\ufeffaZ9") | st.characters(exclude_categories=["Cs"]), max_size=30
)


@given(st.lists(st.tuples(hostile, hostile, hostile), max_size=6))
def test_any_name_comes_back_in_the_same_cell_and_no_cell_begins_a_formula(rows: list[tuple[str, str, str]]) -> None:
    read = list(csv.reader(io.StringIO("".join(csv_lines(["a", "b", "c"], rows)), newline="")))
    assert len(read) == len(rows) + 1
    for written, found in zip(rows, read[1:], strict=True):
        assert [cell.removeprefix("'") for cell in found] == [cell.removeprefix("'") for cell in written]
        for cell in found:
            visible = cell.lstrip(" \u200b\ufeff\u00a0")
            assert unicodedata.normalize("NFKC", visible)[:1] not in set("=+-@\t\r\n\0")


def test_lines_end_as_rfc_4180_says_and_every_cell_is_quoted() -> None:
    assert list(csv_lines(["name"], [['a "b"; c']])) == ['"name"\r\n', '"a ""b""; c"\r\n']


def test_the_answer_is_streamed_with_a_fixed_ascii_name_and_is_never_sniffed_or_kept() -> None:
    response = csv_response("tenants-partnertenant", ["name"], iter([["Contoso"]]))
    assert response.streaming
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="tenants-partnertenant.csv"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"] == "no-store, private"
    with pytest.raises(ValueError, match="ASCII"):
        csv_response('x"; filename="y', [], [])
