"""Text in the one form that a search compares: a column that keeps itself, the lookup on it, and its index.

A row's own texts and what a person types are folded alike (:func:`folded`), so that neither case nor accents nor blanks
matter, in any script. The index is one of trigrams: FTS5 with triggers on SQLite, ``pg_trgm`` on PostgreSQL. Where
PostgreSQL does not let us create that extension, the same search reads the table.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Lookup, Max, Q
from django.utils.text import smart_split, unescape_string_literal

if TYPE_CHECKING:  # only the type checker can subscript a field
    _TextField = models.CharField[str, str]
    _Lookup = Lookup[Any]
else:
    _TextField = models.CharField
    _Lookup = Lookup

LONGEST = 600  # characters that are kept; four bytes each still fit into an entry of PostgreSQL's index
MOST_WORDS = 20  # of a search
TRIGRAM = 3  # characters below which no trigram helps
_LARGE = 50_000  # rows of which not all are read for a search
_AFTER_ALL = "\U0010ffff"
# Letters that are one character in Unicode, and that people type as others.
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe"})


def folded(*texts: str) -> str:
    """Return texts as one text that is searched: without case, accents, invisible characters and double blanks."""
    plain = " ".join(texts)
    if plain.isascii() and plain.isprintable():  # most names, for which each step below changes nothing but the case
        return " ".join(plain.lower().split())
    taken_apart = unicodedata.normalize("NFKD", plain)
    kept = "".join(
        " " if character.isspace() else character
        for character in taken_apart
        if character.isspace() or not (unicodedata.combining(character) or unicodedata.category(character)[0] == "C")
    )
    return " ".join(unicodedata.normalize("NFKD", kept.casefold()).translate(_PLAIN).split())


def words_of(text: str) -> list[str]:
    """Return the folded words of what a person typed; words in quotes are one word."""
    return [word for part in smart_split(text) if (word := folded(unquoted(part)))]


def unquoted(word: str) -> str:
    """Return a word of ``smart_split`` without its quotes."""
    quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "\"'"
    return unescape_string_literal(word) if quoted else word


def begins_with(path: str, text: str) -> Q:
    """Find rows whose search text begins with this; the column's index answers, also for one character."""
    start = folded(text)
    return Q((f"{path}__gte", start), (f"{path}__lt", start + _AFTER_ALL)) if start else Q(pk__in=[])


class SearchTextField(_TextField):
    """What a row is found by, folded. It fills itself from the row's ``searched_by()`` by ``save`` and ``bulk_create``.

    An upsert has to name the column among its ``update_fields``; ``update`` and ``bulk_update`` do not fold.

    Args:
        indexed: whether the table is too large to be read for a search.
    """

    def __init__(self, *args: Any, indexed: bool = False, **kwargs: Any) -> None:
        self.indexed = indexed
        super().__init__(*args, **{"max_length": LONGEST, "blank": True, "default": "", "editable": False, **kwargs})

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, kwargs | ({"indexed": True} if self.indexed else {})

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        if hasattr(model_instance, "searched_by"):  # not a migration's picture of the model
            setattr(model_instance, self.attname, folded(*model_instance.searched_by())[: self.max_length])
        return super().pre_save(model_instance, add)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        # By the value of the characters, as SQLite does, or no index finds the start of a text.
        return {**parameters, "collation": "C"} if connection.vendor == "postgresql" else parameters


@dataclass(frozen=True, slots=True)
class Few:
    """A search of which the first rows found will do. It is no filter beside others: what is left is left by chance."""

    text: str
    most: int


@dataclass(frozen=True, slots=True)
class RowByRow:
    """A search that reads the rows in the order of their list: for words that so many have that few rows are read."""

    text: str


@SearchTextField.register_lookup
class Finds(_Lookup):
    """``search_text__finds="typed words"``: rows in whose text each of the words stands, in any order."""

    lookup_name = "finds"
    prepare_rhs = False

    def get_db_prep_lookup(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        raise NotImplementedError("as_sql asks for words")

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, tuple[Any, ...]]:
        few = self.rhs if isinstance(self.rhs, Few) else None
        words = words_of(self.rhs.text if isinstance(self.rhs, Few | RowByRow) else self.rhs)
        if not 0 < len(words) <= MOST_WORDS:
            raise EmptyResultSet
        column, given = self.process_lhs(compiler, connection)
        if connection.vendor == "postgresql":
            like = [f"%{connection.ops.prep_for_like_query(word)}%" for word in words]
            return " AND ".join([f"{column} LIKE %s"] * len(words)), (*given * len(words), *like)
        field: Any = self.lhs.output_field
        by_index = field.indexed and not isinstance(self.rhs, RowByRow)
        long = [word for word in words if len(word) >= TRIGRAM] if by_index else []
        short = [word for word in words if word not in long]
        parts = [f"INSTR({column}, %s) > 0"] * len(short)
        values: list[Any] = [one for word in short for one in (*given, word)]
        if long:
            row = f'"{self.lhs.alias}"."{field.model._meta.pk.column}"'
            limit = f" LIMIT {few.most:d}" if few and not short else ""
            index = _index_name(field)
            parts.append(f'{row} IN (SELECT rowid FROM "{index}" WHERE "{index}" MATCH %s{limit})')  # noqa: S608
            values.append(" AND ".join('"{}"'.format(word.replace('"', '""')) for word in long))
        return " AND ".join(parts), tuple(values)


def few_keys(field: SearchTextField, text: str, most: int) -> list[int] | None:
    """Return the keys of the rows that have the words, in no order; None where more than so many have them.

    Of words that many rows have, the first rows in the order of a list are met soon when the rows are read
    (``RowByRow``), while an index hands over all of them first. One statement; two where no word is long enough.
    """
    rows = field.model._default_manager.order_by()
    wanted = Q((f"{field.name}__finds", Few(text, most + 1)))
    if field.indexed and not any(len(word) >= TRIGRAM for word in words_of(text)) and _is_large(rows):
        wanted = begins_with(field.name, text)  # no index helps, and all rows would be read
    keys = list(rows.filter(wanted).values_list("pk", flat=True)[: most + 1])
    return keys if len(keys) <= most else None


def _is_large(rows: models.QuerySet[Any]) -> bool:
    return (rows.aggregate(last=Max("pk"))["last"] or 0) >= _LARGE


# --- the index ---


def build_index(sender: AppConfig, using: str, stdout: Any = None, **_: Any) -> None:
    """Give each indexed column of an app its index of trigrams, after each ``migrate``; connected by the app.

    A migration that rebuilds a table of SQLite drops its triggers; then the index is made anew.
    """
    connection = connections[using]
    for model in sender.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, SearchTextField) and field.indexed:
                make = _on_postgresql if connection.vendor == "postgresql" else _on_sqlite
                make(connection, field, stdout)


def _index_name(field: SearchTextField) -> str:
    return f"{field.model._meta.db_table}_search"


def _on_postgresql(connection: BaseDatabaseWrapper, field: SearchTextField, stdout: Any) -> None:
    index, table, column = _index_name(field), field.model._meta.db_table, field.column
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [index])
        if cursor.fetchone()[0] is not None:
            return
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            cursor.execute(f'CREATE INDEX "{index}" ON "{table}" USING gin ("{column}" gin_trgm_ops)')
    except DatabaseError:
        if stdout is not None:
            stdout.write(
                f"Search reads the whole table {table}: this database account may not create the extension pg_trgm. "
                "Let an administrator create it, then run migrate again.\n"
            )


def _on_sqlite(connection: BaseDatabaseWrapper, field: SearchTextField, stdout: Any) -> None:
    index, table, column = _index_name(field), field.model._meta.db_table, field.column
    key = field.model._meta.pk.column
    old = f'INSERT INTO "{index}" ("{index}", rowid, "{column}") VALUES (\'delete\', old."{key}", old."{column}")'  # noqa: S608
    new = f'INSERT INTO "{index}" (rowid, "{column}") VALUES (new."{key}", new."{column}")'  # noqa: S608
    changed = f'OF "{column}" ON "{table}" WHEN old."{column}" IS NOT new."{column}"'
    triggers = {
        f"{index}_insert": f'AFTER INSERT ON "{table}" BEGIN {new}; END',
        f"{index}_delete": f'AFTER DELETE ON "{table}" BEGIN {old}; END',
        f"{index}_update": f"AFTER UPDATE {changed} BEGIN {old}; {new}; END",
    }
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE name LIKE %s", [f"{index}%"])
        if {index, *triggers} <= {name for (name,) in cursor.fetchall()}:
            return
        cursor.execute(
            f'CREATE VIRTUAL TABLE IF NOT EXISTS "{index}" USING fts5'
            f"(\"{column}\", content='{table}', content_rowid='{key}', tokenize='trigram case_sensitive 1')"
        )
        for name, body in triggers.items():
            cursor.execute(f'DROP TRIGGER IF EXISTS "{name}"')
            cursor.execute(f'CREATE TRIGGER "{name}" {body}')
        cursor.execute(f'INSERT INTO "{index}" ("{index}") VALUES (\'rebuild\')')  # noqa: S608


def drop_index(connection: BaseDatabaseWrapper, table: str) -> None:
    """Take a table's index away, before a migration back drops its column."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            for event in ("insert", "delete", "update"):
                cursor.execute(f'DROP TRIGGER IF EXISTS "{table}_search_{event}"')
            cursor.execute(f'DROP TABLE IF EXISTS "{table}_search"')
