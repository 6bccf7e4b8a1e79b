"""Many rows written by few statements of our own.

Django's ``bulk_create`` and ``bulk_update`` make an instance of each row and an expression of each value, which takes
several times as long as the statement. What lists of a hundred thousand rows are written by stands here; they send no
signals, and fill no search text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import batched
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, JSONField, Model

_MOST_PLACES = 30_000  # of one statement, where the database has no limit


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
    others = [name for name in by_name if name not in names]
    defaults = [_adapted(by_name[name])(by_name[name].get_default()) for name in others]
    adapt = [_adapted(by_name[name]) for name in names]
    columns = {name: _quoted(field.column) for name, field in by_name.items()}
    into = ", ".join(columns[name] for name in (*names, *others))
    known = ", ".join(columns[name] for name in unique)
    replaced = ", ".join(f"{columns[name]} = EXCLUDED.{columns[name]}" for name in update)
    row_of_places = f"({', '.join(['%s'] * len(columns))})"
    most = (connection.features.max_query_params or _MOST_PLACES) // len(columns)
    with connection.cursor() as cursor:
        for part in batched(rows, most):
            places = ", ".join([row_of_places] * len(part))
            values: list[Any] = []
            for row in part:
                values += [to(value) for to, value in zip(adapt, row, strict=True)]
                values += defaults
            cursor.execute(
                f"INSERT INTO {_quoted(options.db_table)} ({into}) VALUES {places} "  # noqa: S608  # names of our models
                f"ON CONFLICT ({known}) DO UPDATE SET {replaced}",
                values,
            )


def set_each(model: type[Model], name: str, values: Mapping[int, Any]) -> None:
    """Give each of these rows, by its key, its own value of one field."""
    options: Any = model._meta
    field = options.get_field(name)
    adapt = _adapted(field)
    table, column, key = _quoted(options.db_table), _quoted(field.column), _quoted(options.pk.column)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {column} = %s WHERE {key} = %s",  # noqa: S608  # names of our models
            [(adapt(value), row) for row, value in values.items()],
        )


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
