from __future__ import annotations

import csv
import io
import re
import tracemalloc
import unicodedata
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from hypothesis import given
from hypothesis import strategies as st

from portal.site.export import FileKind, csv_lines, csv_response, heading, safe_cell, xlsx_response
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders
from tests.support.staff import Staff

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


def sheet_of(name: str, header: list[str], rows: list[list[Any]]) -> tuple[str, str, str]:
    """Return the cells, the styles and the strings of a written workbook."""
    response: Any
    with closing(xlsx_response(name, header, rows)) as response:
        content = b"".join(response.streaming_content)
    assert response["Content-Disposition"] == f'attachment; filename="{name}.xlsx"'
    assert response["Cache-Control"] == "no-store, private"
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        read = [book.read(path).decode() for path in ("xl/worksheets/sheet1.xml", "xl/styles.xml")]
        return read[0], read[1], ",".join(book.namelist())


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\t=1", "＝1", "http://evil.example/", "mailto:a@b", "0123"]
)
@pytest.mark.django_db
def test_every_text_of_a_workbook_is_text_whatever_it_looks_like(text: str) -> None:
    cells, styles, files = sheet_of("list", ["Name"], [[text]])
    assert "<f>" not in cells
    assert "hyperlink" not in cells
    assert "externalLinks" not in files
    (cell,) = re.findall(r'<c r="A2"([^>]*)>', cells)
    assert 't="inlineStr"' in cell
    if safe_cell(text) != text:
        assert 's="' in cell
        assert 'quotePrefix="1"' in styles, "it stays text when somebody edits the cell"


@pytest.mark.django_db
def test_numbers_and_times_of_a_workbook_are_numbers_and_times() -> None:
    cells, styles, _ = sheet_of(
        "list", ["a", "b", "c", "d"], [[7, datetime(2026, 11, 23, 10, 5, tzinfo=UTC), None, {"b": 1}]]
    )
    assert '<c r="A2"><v>7</v></c>' in cells
    assert re.search(r'<c r="B2" s="\d+"><v>46349\.42', cells)
    assert "yyyy" in styles
    assert 'r="C2"' not in cells
    assert "{&quot;b&quot;: 1}" in cells or '{"b": 1}' in cells


@pytest.mark.django_db
def test_a_workbook_is_not_built_in_memory() -> None:
    rows = ([f"Customer {number}", number, "x" * 200] for number in range(20_000))
    tracemalloc.start()
    try:
        response: Any = xlsx_response("list", ["Name", "Number", "Words"], rows)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3_000_000
    with closing(response):
        assert sum(len(piece) for piece in response.streaming_content) > 100_000


@pytest.mark.parametrize(
    ("model", "path", "words"),
    [
        (PartnerTenant, "name", "Name"),
        (CustomerTenant, "partner__tenant_id", "Partner tenant id"),
        (CustomerTenant, "consent_state", "Consent state"),
        (CustomerTenant, "pk", "Number"),
    ],
)
def test_a_column_has_words_above_it(model: Any, path: str, words: str) -> None:
    assert heading(model, path) == words


def test_each_list_can_be_exported_with_words_above_each_column() -> None:
    for model, page in admin.site._registry.items():
        assert page.export_fields, f"{model._meta.label} has no export"  # type: ignore[attr-defined]
        titles = [heading(model, path) for path in page.export_fields]  # type: ignore[attr-defined]
        assert len(titles) == len(set(titles)), model._meta.label
        assert not any("_" in title for title in titles), titles


@pytest.mark.django_db
def test_each_list_is_exported_as_both_kinds() -> None:
    staff = Staff()
    builders.partner(name="=cmd()", contact_email="anna@partner.example")
    for model in admin.site._registry:
        address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for kind in FileKind:
            form = {"action": f"export_{kind}", "_selected_action": [0], "select_across": 1, "index": 0}
            answer: Any = staff.post(address, form)
            assert answer.streaming, address
            content = b"".join(answer.streaming_content)
            assert content.startswith(b"PK" if kind is FileKind.XLSX else b'"'), address
    trail: Any = staff.post("/admin/audit/auditevent/", {**form, "action": "export_csv"})
    lines = list(csv.DictReader(io.StringIO(b"".join(trail.streaming_content).decode())))
    assert lines[0]["Action"] == "list.exported"
    assert '"rows"' in lines[0]["Details"]
    partners: Any = staff.post("/admin/tenants/partnertenant/", {**form, "action": "export_csv"})
    (line,) = csv.DictReader(io.StringIO(b"".join(partners.streaming_content).decode()))
    assert (line["Name"], line["Contact addresses"]) == ("'=cmd()", "anna@partner.example")
