"""The table of the audit trail by SQL, past its triggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from portal.audit import triggers

TABLE = triggers.TABLE


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


@contextmanager
def without_triggers() -> Iterator[None]:
    """A database administrator at work."""
    with connection.schema_editor() as editor:
        triggers.drop(None, editor)
    yield
    with connection.schema_editor() as editor:
        triggers.create(None, editor)
