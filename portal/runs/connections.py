"""A few database connections for the many threads of a pool.

A thread that works a unit needs the database for moments; most of its time it waits for an answer over the network. On
PostgreSQL, where each connection is a process of the server, such a thread has no connection of its own: it borrows one
for a statement or a transaction and puts it back after it. Between two statements outside a transaction it holds none,
so no thread waits for a connection that another keeps while it waits for a lock or for Microsoft.

On SQLite a connection is an open file, and each thread keeps its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS, OperationalError, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorDebugWrapper, CursorWrapper

MOST: Final = 8
"""Connections that all pools of one process share."""
_LONGEST_WAIT = 30.0  # seconds for a free one; a unit that waits in vain comes again
_TRUSTED = 5.0  # seconds; one that lay longer is asked whether it still answers


class Lender:
    """Connections of the driver, at most so many, each with one borrower at a time. Thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.begin()

    def begin(self) -> None:
        """Begin with nothing, also in a process that was forked: what is known there is the other process's."""
        self._changed = threading.Condition()
        self._idle: list[tuple[Any, float]] = []
        self._lent = 0
        self._threads = 0

    def borrow(self, connect: Callable[[], Any]) -> Any:
        """Return a connection that is the caller's until ``put_back`` or ``drop``; the one that was used last, if any.

        Raises:
            OperationalError: none became free in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._lent < self._most, _LONGEST_WAIT):
                raise OperationalError(f"All {self._most} connections of this process's threads are in use.")
            self._lent += 1
            known, since = self._idle.pop() if self._idle else (None, 0.0)
        try:
            if known is not None:
                if time.monotonic() - since < _TRUSTED or _answers(known):
                    return known
                self.close_idle()  # what lay as long is as dead
            return connect()
        except BaseException:
            self.drop()
            raise

    def put_back(self, connection: Any) -> None:
        with self._changed:
            self._lent -= 1
            self._idle.append((connection, time.monotonic()))
            self._changed.notify()

    def drop(self) -> None:
        """Count a borrowed connection out that was closed."""
        with self._changed:
            self._lent -= 1
            self._changed.notify()

    def enter(self) -> None:
        """Count a thread that may borrow."""
        with self._changed:
            self._threads += 1

    def leave(self) -> None:
        """Count such a thread out; the last one closes what nobody uses any more."""
        with self._changed:
            self._threads -= 1
            is_last = not self._threads
        if is_last:
            self.close_idle()

    def close_idle(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()


def _answers(connection: Any) -> bool:
    try:
        connection.execute("SELECT 1")
    except Exception:  # noqa: BLE001  # of whatever kind the driver's is
        connection.close()
        return False
    return True


lender = Lender()
os.register_at_fork(after_in_child=lender.begin)


class _PutsBack(CursorWrapper):
    """A cursor after whose end its thread may need no connection."""

    db: Any
    _is_open = True

    def close(self) -> None:
        try:
            self.cursor.close()
        finally:
            if self._is_open:
                self._is_open = False
                self.db.ended_statement()


class _DebugPutsBack(_PutsBack, CursorDebugWrapper):
    """The same, where statements are logged."""


if TYPE_CHECKING:
    _Wrapper = BaseDatabaseWrapper
else:
    _Wrapper = object


class _Borrows(_Wrapper):
    """Makes of Django's wrapper of one thread one that borrows its connection."""

    _open_cursors = 0
    _connecting = False

    def connect(self) -> None:
        self._open_cursors, self._connecting = 0, True
        try:
            super().connect()
        finally:
            self._connecting = False

    def get_new_connection(self, conn_params: Any) -> Any:
        return lender.borrow(partial(super().get_new_connection, conn_params))

    def _close(self) -> None:
        had = self.connection is not None
        try:
            super()._close()  # type: ignore[misc]
        finally:
            if had:
                lender.drop()

    def set_autocommit(self, *args: Any, **options: Any) -> None:
        super().set_autocommit(*args, **options)
        self._rest()  # after a transaction, and what it let follow

    def make_cursor(self, cursor: Any) -> CursorWrapper:
        self._open_cursors += 1
        return _PutsBack(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> CursorDebugWrapper:
        self._open_cursors += 1
        return _DebugPutsBack(cursor, self)

    def ended_statement(self) -> None:
        self._open_cursors = max(self._open_cursors - 1, 0)
        self._rest()

    def _rest(self) -> None:
        """Put the connection back unless somebody still needs it."""
        if self.connection is None or self._connecting or self.in_atomic_block or self._open_cursors:
            return
        if self.errors_occurred or not self.autocommit:
            self.close()
            return
        self.connection, connection = None, self.connection
        lender.put_back(connection)


@cache
def _borrowing(own: Any) -> Any:
    """Return the class of such wrappers for a database backend's own class."""
    return type("BorrowingWrapper", (_Borrows, own), {})


def enter() -> None:
    """Let this thread borrow; called when it begins."""
    lender.enter()
    own = connections[DEFAULT_DB_ALIAS]
    if own.vendor == "postgresql":
        backend: Any = type(own)
        connections[DEFAULT_DB_ALIAS] = _borrowing(backend)(own.settings_dict, DEFAULT_DB_ALIAS)


def end_job() -> None:
    """Look after this thread's connection between two jobs, as after a request (R-36)."""
    mine = connections[DEFAULT_DB_ALIAS]
    if isinstance(mine, _Borrows) and mine.connection is not None:  # a list that nobody read to its end
        mine.close()
    close_old_connections()


def leave() -> None:
    """Give up what this thread has; called when it ends."""
    connections.close_all()
    lender.leave()
