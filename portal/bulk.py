"""Many rows written by few statements of our own.

Django's ``bulk_create`` and ``bulk_update`` make an instance of each row and ask a dozen questions about each value,
which takes several times as long as the statement. What every call of a run, or a list of a hundred thousand rows, is
written by stands here. Nothing here calls ``save()``, sends signals or fills search texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import batched
from operator import attrgetter
from types import NoneType
from typing import Any

from django.db import connection
from django.db.models import CharField, DateTimeField, JSONField, Model

_AS_THEY_ARE = {str, int, float, bool, NoneType}
_MOST_VALUES = 30_000  # of one statement, where the database has no limit


def insert_all(rows: Sequence[Model]) -> None:
    """Insert new rows of one model, and give them their keys. Call it in a transaction.

    As ``bulk_create`` for tables whose columns hold texts, numbers, times with a zone and nothing, whose key the
    database counts, and no column of which fills itself.

    Raises:
        TypeError: a value is of another kind.
    """
    if not rows:
        return
    options: Any = rows[0]._meta
    fields = [field for field in options.concrete_fields if not field.primary_key]
    values_of = attrgetter(*(field.attname for field in fields))
    columns = ", ".join(_quoted(field.column) for field in fields)
    key = _quoted(options.pk.column)
    one = f"({', '.join(['%s'] * len(fields))})"
    for part in batched(rows, max(connection.ops.bulk_batch_size(fields, list(rows)), 1)):
        statement = (
            f"INSERT INTO {_quoted(options.db_table)} ({columns}) "  # noqa: S608  # names of the model
            f"VALUES {', '.join([one] * len(part))} RETURNING {key}"
        )
        values: list[Any] = [
            value if type(value) in _AS_THEY_ARE else _plain(value) for row in part for value in values_of(row)
        ]
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            for row, (number,) in zip(part, cursor.fetchall(), strict=True):
                row.pk = number
                row._state.adding, row._state.db = False, connection.alias


def upsert(
    model: type[Model],
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    unique: Sequence[str],
    update: Sequence[str],
) -> None:
    """Insert rows, and replace some columns of those that are there already.

    Args:
        names: of the fields whose values a row holds, in its order; a relation as its key. All other fields get their
            default. The values are as the database keeps them: only times and JSON are converted here.
        unique: the fields of the unique constraint that tells which rows are there.
        update: the fields that are replaced then.
    """
    options: Any = model._meta
    by_name = {field.name: field for field in options.concrete_fields if not field.primary_key}
    fields = [by_name[name] for name in (*names, *(name for name in by_name if name not in names))]
    adapt = [_adapted(field) for field in fields[: len(names)]]
    defaults = [_adapted(field)(field.get_default()) for field in fields[len(names) :]]
    columns = {field.name: _quoted(field.column) for field in fields}
    known = ", ".join(columns[name] for name in unique)
    replaced = ", ".join(f"{columns[name]} = EXCLUDED.{columns[name]}" for name in update)
    most = (connection.features.max_query_params or _MOST_VALUES) // len(columns)
    with connection.cursor() as cursor:
        for part in batched(rows, most):
            whole = [[*(to(value) for to, value in zip(adapt, row, strict=True)), *defaults] for row in part]
            source, values = _table_of(fields, whole)
            cursor.execute(
                f"INSERT INTO {_quoted(options.db_table)} ({', '.join(columns.values())}) {source} "  # names
                f"ON CONFLICT ({known}) DO UPDATE SET {replaced}",
                values,
            )


def update_each[Row: Model](rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write these columns of each row as they are in memory; a row that is gone is passed over.

    ``bulk_update`` does the same by a CASE with a branch for each row and column; to build it takes as long as a call
    to Microsoft. Like that one, this calls no ``save()`` and sends no signal.

    Args:
        columns: names of fields.
    """
    if not rows:
        return
    meta: Any = rows[0]._meta
    known = {field.name: field for field in meta.concrete_fields}
    fields = [known[name] for name in columns]
    written = ", ".join(f"{_quoted(field.column)} = %s" for field in fields)
    statement = f"UPDATE {_quoted(meta.db_table)} SET {written} WHERE {_quoted(meta.pk.column)} = %s"  # noqa: S608
    values = [
        [*(field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields), row.pk] for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(statement, values)


def set_each(model: type[Model], name: str, values: Mapping[int, Any]) -> None:
    """Give each of these rows, by its key, its own value of one field."""
    options: Any = model._meta
    field = options.get_field(name)
    adapt = _adapted(field)
    table, column, key = _quoted(options.db_table), _quoted(field.column), _quoted(options.pk.column)
    rows = [[adapt(value), row] for row, value in values.items()]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            source, lists = _table_of([field, options.pk], rows)
            cursor.execute(
                f"UPDATE {table} SET {column} = given.own FROM ({source}) AS given (own, key) "  # noqa: S608  # names
                f"WHERE {table}.{key} = given.key",
                lists,
            )
        else:
            cursor.executemany(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", rows)  # noqa: S608  # names


def _table_of(fields: Sequence[Any], rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return rows as the source of a statement, and its parameters."""
    if connection.vendor == "postgresql":  # whose driver searches the text for each place: one for a column, then
        types = ["text" if isinstance(field, CharField) else _type_of(field) for field in fields]
        places = ", ".join(f"%s::{name}[]" for name in types)
        lists = [list(column) for column in zip(*rows, strict=True)]
        return f"SELECT * FROM unnest({places})", lists  # noqa: S608  # types of our fields
    place = f"({', '.join(['%s'] * len(fields))})"
    return f"VALUES {', '.join([place] * len(rows))}", [value for row in rows for value in row]


def _type_of(field: Any) -> str:
    return str(field.rel_db_type(connection) if field.primary_key else field.db_type(connection))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    if isinstance(value, str):  # a member of an enum
        return str(value)
    raise TypeError(f"{type(value).__name__} is no kind of value that is inserted in this way")


def _adapted(field: Any) -> Callable[[Any], Any]:
    """Return what turns a value of a field into what the database driver takes."""
    if isinstance(field, DateTimeField):
        return connection.ops.adapt_datetimefield_value
    if isinstance(field, JSONField):
        return lambda value: connection.ops.adapt_json_value(value, field.encoder)
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
