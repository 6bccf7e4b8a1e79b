"""Many new rows in one statement, for the few tables to which each unit of a run adds one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import batched
from operator import attrgetter
from types import NoneType

from django.db import connection
from django.db.models import Model

_AS_THEY_ARE = {str, int, float, bool, NoneType}


def insert_all(rows: Sequence[Model]) -> None:
    """Insert new rows of one model, and give them their keys. Call it in a transaction.

    As ``bulk_create`` without its questions, of which there are a dozen for each value: columns hold texts, numbers,
    times with a zone and nothing; their key is counted by the database; and no column fills itself.

    Raises:
        TypeError: a value is of another kind.
    """
    if not rows:
        return
    model, ops = type(rows[0]), connection.ops
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    values_of = attrgetter(*(field.attname for field in fields))
    columns = ", ".join(ops.quote_name(field.column) for field in fields)
    key = ops.quote_name(model._meta.pk.column)
    one = f"({', '.join(['%s'] * len(fields))})"
    for part in batched(rows, max(ops.bulk_batch_size(fields, list(rows)), 1)):
        statement = (
            f"INSERT INTO {ops.quote_name(model._meta.db_table)} ({columns}) "  # noqa: S608  # names of the model
            f"VALUES {', '.join([one] * len(part))} RETURNING {key}"
        )
        values = [value if type(value) in _AS_THEY_ARE else _adapted(value) for row in part for value in values_of(row)]
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            for row, (number,) in zip(part, cursor.fetchall(), strict=True):
                row.pk = number
                row._state.adding, row._state.db = False, connection.alias


def _adapted(value: object) -> object:
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    if isinstance(value, str):  # a member of an enum
        return str(value)
    raise TypeError(f"{type(value).__name__} is no kind of value that is inserted in this way")
