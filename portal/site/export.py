"""CSV that a spreadsheet opens without running it (S-64)."""

from __future__ import annotations

import csv
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse

_FORMULA = frozenset("=+-@\u2212")  # U+2212 is the minus sign that full-width and superscript forms fold to
_TYPES = {"csv": "text/csv", "json": "application/json"}
_BREAKS = frozenset("\t\r\n\0")
# Drawn as nothing, though Unicode does not class them as blanks or controls.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for start, end in ((0xFE00, 0xFE10), (0xE0100, 0xE01F0), (0x180B, 0x1810)) for code in range(start, end)
}


def safe_cell(value: Any) -> str:
    """Return the text of one cell; what a spreadsheet could take for a formula begins with an apostrophe."""
    if value is None:
        return ""
    text = value.astimezone(UTC).isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    return f"'{text}" if _begins_with_trigger(text) else text


def _begins_with_trigger(text: str) -> bool:
    for character in text:
        if character in _BREAKS or not _FORMULA.isdisjoint(unicodedata.normalize("NFKC", character)[:1]):
            return True
        skipped = character.isspace() or character in _INVISIBLE or unicodedata.category(character)[0] in "CZ"
        if not skipped:
            return False
    return False


class _Echo:
    """A file for ``csv.writer`` that hands each line back."""

    def write(self, line: str) -> str:
        return line


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield RFC 4180 lines. All cells are quoted, so that no other separator can begin a new one."""
    writer = csv.writer(_Echo(), quoting=csv.QUOTE_ALL)
    for row in itertools.chain([header], rows):
        yield writer.writerow([safe_cell(cell) for cell in row])


def csv_response(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> StreamingHttpResponse:
    """Stream ``name``.csv, line by line.

    Raises:
        ValueError: the name is not plain ASCII letters, digits and hyphens.
    """
    return download(f"{name}.csv", csv_lines(header, rows))


def download(file_name: str, pieces: Iterable[str]) -> StreamingHttpResponse:
    """Stream a text file piece by piece; its name ends in ``.csv`` or ``.json``.

    Raises:
        ValueError: the name before the dot is not plain ASCII letters, digits and hyphens.
    """
    name, _, kind = file_name.rpartition(".")
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError("the file name must be plain ASCII")
    response = StreamingHttpResponse(pieces, content_type=f"{_TYPES[kind]}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store, private"
    return response
