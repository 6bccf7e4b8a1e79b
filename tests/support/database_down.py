"""A database that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


@contextmanager
def no_database() -> Iterator[None]:
    address = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict |= {"NAME": "/nonexistent/folder/db.sqlite3", "HOST": "127.0.0.1", "PORT": "1"}
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict |= address
