"""The classes of all columns, as ``docs/schema.md`` says them (S-70)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatch

from django.db import connection

from tests.support.source import ROOT

DOCUMENT = ROOT / "docs/schema.md"
CLASSES = ("public", "internal", "personal", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverASecret:
    """What is said of a column in which a secret may never stand; ``shape`` is empty for words and JSON."""

    column: str
    holds: str
    shape: str
    personal: bool
    shown_by: str


@dataclass(slots=True, kw_only=True)
class Schema:
    """The document: class by ``table.column``; a column that stands there twice has its last class, and is in twice."""

    classes: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    never: dict[str, NeverASecret] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Patterns of names of tables without a model."""

    @property
    def personal(self) -> set[str]:
        """Columns that may say something of a person, also those that never hold a secret."""
        plain = {column for column, one in self.classes.items() if one == "personal"}
        return plain | {one.column for one in self.never.values() if one.personal}

    def is_known(self, table: str) -> bool:
        """Tell whether a table of the database stands in the document."""
        with_rows = any(column.startswith(f"{table}.") for column in self.classes)
        return with_rows or any(fnmatch(table, pattern) for pattern in self.others)


def read(text: str) -> Schema:
    """Read the document's tables."""
    schema = Schema()
    for cells in _rows(text, "Columns"):
        table = cells[0].strip("`")
        for one, cell in zip(CLASSES, cells[1:], strict=True):
            for column in cell.strip("`").split():
                name = f"{table}.{column}"
                if name in schema.classes:
                    schema.twice.append(name)
                schema.classes[name] = one
    for column, holds, shape, personal, shown_by in _rows(text, "Columns that never hold a secret"):
        name = column.strip("`")
        schema.never[name] = NeverASecret(
            column=name,
            holds=holds,
            shape=shape.strip("`"),
            personal=personal == "yes",
            shown_by=shown_by.strip("`"),
        )
    schema.others = [cells[0].strip("`") for cells in _rows(text, "Tables without rows of ours")]
    return schema


def described() -> Schema:
    """Return what the document says today."""
    return read(DOCUMENT.read_text())


def _rows(text: str, title: str) -> list[list[str]]:
    """Return the cells of a section's table, without its two head lines."""
    part = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ") and not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def misshapen() -> list[str]:
    """Return the columns in which a value stands that has not the shape that the document promises."""
    found = []
    with connection.cursor() as cursor:
        for one in described().never.values():
            if one.shape:
                table, _, column = one.column.partition(".")
                quote = connection.ops.quote_name
                cursor.execute(f"SELECT DISTINCT {quote(column)} FROM {quote(table)}")  # noqa: S608  # our own names
                if not all(re.fullmatch(one.shape, value or "") for (value,) in cursor.fetchall()):
                    found.append(one.column)
    return found


def holders(word: str) -> set[str]:
    """Return table and column of every value of the database that contains this word, as capitals or not."""
    found = set()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608  # the database's own names
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                found |= {
                    f"{table}.{name}" for name, value in zip(names, row, strict=True) if word.lower() in _text(value)
                }
    return found


def _text(value: object) -> str:
    raw = value.tobytes() if isinstance(value, memoryview) else value
    return (raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)).lower()
