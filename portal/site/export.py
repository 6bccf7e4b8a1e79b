"""Lists as files that a spreadsheet opens without running what stands in them (S-64): CSV and XLSX."""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model, QuerySet
from django.http import FileResponse, StreamingHttpResponse
from django.utils.text import capfirst

_FORMULA = frozenset("=+-@\u2212")  # U+2212 is the minus sign that full-width and superscript forms fold to
_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_LONGEST_CELL = 32_767  # characters that a cell of XLSX holds
_ROWS_AT_ONCE = 2000
_WIDTH = 24  # of a column, in characters
_BREAKS = frozenset("\t\r\n\0")
# Drawn as nothing, though Unicode does not class them as blanks or controls.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for start, end in ((0xFE00, 0xFE10), (0xE0100, 0xE01F0), (0x180B, 0x1810)) for code in range(start, end)
}


class FileKind(StrEnum):
    CSV = "csv"
    XLSX = "xlsx"


EXPORTS = frozenset(f"export_{kind}" for kind in FileKind)
"""The list actions that make a file."""


def heading(model: type[Model], path: str) -> str:
    """Return the words above a column: ``partner__tenant_id`` is "Partner tenant id"; an annotation says its name."""
    words, options = [], model._meta
    *relations, last = path.split("__")
    for part in relations:
        field: Any = options.get_field(part)
        words = [str(field.verbose_name)]  # the nearest says enough
        options = field.related_model._meta
    try:
        words.append(str(getattr(options.get_field(last), "verbose_name", last)))
    except FieldDoesNotExist:
        words.append("number" if last == "pk" else last.replace("_", " "))
    return str(capfirst(" ".join(words)))


def in_words(rows: QuerySet[Any], paths: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yield the columns of rows; a value of a choice is said as the pages say it, also where it is an annotation."""
    words = [_choices(rows, path) for path in paths]
    for row in rows.values_list(*paths).iterator(chunk_size=_ROWS_AT_ONCE):
        yield [known.get(value, value) if known else value for known, value in zip(words, row, strict=True)]


def _choices(rows: QuerySet[Any], path: str) -> dict[Any, str]:
    """Return the words of a column's values; empty for a column without choices."""
    annotation = rows.query.annotations.get(path)
    field: Any = getattr(annotation, "output_field", None)
    if annotation is None:
        options = rows.model._meta
        for part in path.split("__"):
            field = options.pk if part == "pk" else options.get_field(part)
            if field is None or not field.is_relation:
                break
            options = field.related_model._meta
    return {value: str(word) for value, word in getattr(field, "flatchoices", ())}


def file_response(
    kind: FileKind, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> StreamingHttpResponse | FileResponse:
    """Return a list as a file: CSV line by line; XLSX, which cannot begin before it ends, from a file on the disk.

    Raises:
        ValueError: the name is not plain ASCII letters, digits and hyphens.
    """
    if kind is FileKind.CSV:
        return csv_response(name, header, rows)
    return xlsx_response(name, header, rows)


def text_of(value: Any) -> str:
    """Return a value as text, times in UTC and structures as JSON."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict | list) else str(value)


def safe_cell(value: Any) -> str:
    """Return the text of one cell; what a spreadsheet could take for a formula begins with an apostrophe."""
    text = text_of(value)
    return f"'{text}" if _begins_with_trigger(text) else text


def read_cell(text: str) -> str:
    """Return the text that ``safe_cell`` made a cell of, so that a file of ours is read as what was exported."""
    return text[1:] if text[:1] == "'" and _begins_with_trigger(text[1:]) else text


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
    _check_name(name)
    return _kept_by_nobody(StreamingHttpResponse(pieces, content_type=_TYPES[kind]), file_name)


def xlsx_response(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> FileResponse:
    """Return ``name``.xlsx. Memory stays flat: rows go to temporary files, which are gone with the answer.

    Every text is a cell of the kind text, and what begins like a formula also has the mark that it is text, so that
    editing the cell does not make it one.

    Raises:
        ValueError: as for ``csv_response``.
    """
    _check_name(name)
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the answer closes it
    # By name: it takes long to load, and only this needs it.
    book = import_module("xlsxwriter").Workbook(
        file, {"constant_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"}
    )
    bold, plain = book.add_format({"bold": True}), book.add_format({"quote_prefix": True})
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, max(len(header) - 1, 0), _WIDTH)
    for column, title in enumerate(header):
        sheet.write_string(0, column, title, bold)
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row):
            if isinstance(value, datetime):
                sheet.write_datetime(number, column, value.astimezone(UTC).replace(tzinfo=None))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                sheet.write_number(number, column, value)
            elif text := text_of(value)[:_LONGEST_CELL]:
                sheet.write_string(number, column, text, plain if _begins_with_trigger(text) else None)
    book.close()
    file.seek(0)
    return _kept_by_nobody(FileResponse(file, content_type=_TYPES["xlsx"]), f"{name}.xlsx")


def _check_name(name: str) -> None:
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError("the file name must be plain ASCII")


def _kept_by_nobody[R: StreamingHttpResponse](response: R, file_name: str) -> R:
    response["Content-Disposition"] = f'attachment; filename="{file_name}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store, private"
    return response
