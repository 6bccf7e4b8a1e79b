"""A table out of a CSV or XLSX file of a person, without running or unfolding what stands in it (S-64).

Files are read in memory and never stored. A workbook is a ZIP archive of XML: its parts are counted and measured before
anything is unfolded (``zipfile`` gives no part more than its declared size). Their elements are counted before a
library makes objects of them, and a document type, which entities would need, is refused. A cell with a formula is
refused too: nothing is worked out here, and its last value may be old.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from importlib import import_module
from typing import Any
from xml.parsers import expat

from portal.site.export import read_cell

MOST_BYTES = 2_000_000
MOST_ROWS = 5_000
MOST_COLUMNS = 40
LONGEST_CELL = 4_000  # characters
_MOST_PARTS = 200
_MOST_UNPACKED = 20_000_000  # bytes of all parts of a workbook together
# Elements of all parts together. Cells are read one after the other; of every other one an object is kept.
_MOST_OF_CELLS = 1_000_000
_MOST_OTHERS = 100_000
_WITH_CELLS = frozenset({"worksheet", "sst"})
_OF_CELLS = frozenset({"row", "c", "v", "is", "si", "t"})
_ZIP = b"PK\x03\x04"
_SHOWN = 60


class FileRefused(ValueError):
    """The whole file is refused; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row below the header.

    Attributes:
        number: as a spreadsheet counts, the header being the first.
        cells: texts by the words above their columns, without blanks around them.
        problem: why the row cannot be used; empty when it can.
    """

    number: int
    cells: dict[str, str]
    problem: str = ""


def read_table(content: bytes) -> list[TableRow]:
    """Return the rows of a file that are not empty. Whether it is a workbook its first bytes say.

    Raises:
        FileRefused: too large, damaged, not one of the two kinds, or without a header.
    """
    if len(content) > MOST_BYTES:
        raise FileRefused(f"The file is larger than {MOST_BYTES:,} bytes. Divide it.")
    rows = _of_workbook(content) if content.startswith(_ZIP) else _of_csv(content)
    header: list[str] | None = None
    found: list[TableRow] = []
    for number, (cells, problem) in enumerate(rows, start=1):
        if number > 2 * MOST_ROWS:
            raise FileRefused(f"The file has more than {2 * MOST_ROWS:,} lines, empty ones among them. Divide it.")
        if not any(cells) and not problem:
            continue
        if header is None:
            header = _header(cells)
            continue
        if len(found) == MOST_ROWS:
            raise FileRefused(f"The file has more than {MOST_ROWS:,} rows. Divide it.")
        found.append(_row(number, header, cells, problem))
    if header is None:
        raise FileRefused("The file is empty. Its first row must name the columns.")
    return found


def _header(cells: Sequence[str]) -> list[str]:
    names = [" ".join(cell.replace("_", " ").split()).casefold() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if len(names) > MOST_COLUMNS:
        raise FileRefused(f"The first row has more than {MOST_COLUMNS} columns.")
    named = [name for name in names if name]
    if twice := next((name for name in named if named.count(name) > 1), ""):
        raise FileRefused(f"The column “{twice[:_SHOWN]}” stands twice in the first row.")
    return names


def _row(number: int, header: Sequence[str], cells: Sequence[str], problem: str) -> TableRow:
    if any(cells[len(header) :]):
        problem = problem or "It has more cells than the first row has columns."
    if any(len(cell) > LONGEST_CELL for cell in cells):
        problem = problem or f"A cell is longer than {LONGEST_CELL:,} characters."
    named = {name: cell[:LONGEST_CELL] for name, cell in zip(header, cells, strict=False) if name}
    return TableRow(number=number, cells=named, problem=problem)


type _Row = tuple[list[str], str]


def _of_csv(content: bytes) -> Iterator[_Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileRefused("The file is neither an Excel workbook nor a CSV file in UTF-8. Save it anew.") from None
    if "\0" in text:
        raise FileRefused("The file holds zero bytes, so it is no CSV file.")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)  # spreadsheets of many languages write semicolons
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            yield [read_cell(cell).strip() for cell in cells], ""
    except csv.Error:
        raise FileRefused("The file is no proper CSV: a quote is not closed, or a cell is too long.") from None


def _of_workbook(content: bytes) -> Iterator[_Row]:
    # By name: it is a tenth of what a worker would load, and only an upload of a workbook needs it.
    library = import_module("openpyxl")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_parts(archive)
        book = library.load_workbook(io.BytesIO(content), read_only=True, data_only=False, keep_links=False)
    except FileRefused:
        raise
    except Exception:  # noqa: BLE001  # whatever a library makes of a damaged file, its text may quote the file
        raise FileRefused("The workbook is damaged or locked by a password. Save it anew as .xlsx.") from None
    try:
        yield from _of_sheet(book.worksheets[0].iter_rows(max_col=MOST_COLUMNS + 1))
    except FileRefused:
        raise
    except Exception:  # noqa: BLE001  # the same: sheets are read while they are unpacked
        raise FileRefused("The first sheet of the workbook is damaged. Save it anew as .xlsx.") from None
    finally:
        book.close()


class _Elements:
    """How many elements may still come; ``root`` is that of the part which is read, empty before its first element."""

    def __init__(self) -> None:
        self.root = ""
        self._left = {True: _MOST_OF_CELLS, False: _MOST_OTHERS}

    def count(self, name: str, _: Any) -> None:
        name = name.rpartition(":")[2]
        self.root = self.root or name
        of_cells = self.root in _WITH_CELLS and name in _OF_CELLS
        self._left[of_cells] -= 1
        if self._left[of_cells] < 0:
            raise FileRefused(_TOO_LARGE)


def _check_parts(archive: zipfile.ZipFile) -> None:
    """Count the elements of all parts, and refuse a document type; nothing is kept.

    Every part is parsed, as which ones are read later does not depend on their names. What is no XML for this parser is
    none for the reader, which uses the same one: it is a picture, or ends the reading when its turn comes.
    """
    parts = archive.infolist()
    if len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > _MOST_UNPACKED:
        raise FileRefused(_TOO_LARGE)
    elements = _Elements()
    for part in parts:
        elements.root = ""
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = _refuse_document_type
        parser.StartElementHandler = elements.count
        with archive.open(part) as stream, suppress(expat.ExpatError):
            parser.ParseFile(stream)


_TOO_LARGE = "The workbook is too large when it is unpacked. Save its first sheet as CSV."


def _refuse_document_type(*_: Any) -> None:
    raise FileRefused("The workbook declares a document type, which no spreadsheet does. It is not read.")


def _of_sheet(rows: Iterable[Sequence[Any]]) -> Iterator[_Row]:
    for cells in rows:
        formula = any(cell.data_type == "f" for cell in cells)
        problem = "A cell holds a formula. Replace it by its value." if formula else ""
        yield [_text(cell.value).strip() for cell in cells], problem


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return f"{value:g}" if isinstance(value, float) else str(value)
