"""The lease of one executor: what it holds is its own for as long as it renews it (R-27)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now

from portal.databases import trouble
from portal.runs import service
from portal.runs.models import HEARTBEAT_SECONDS, LEASE, Executor, Run

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 90.0  # a restart of the database takes less


class LeaseLost(Exception):
    """This executor expired; nothing of it is written any more."""


class Lease:
    """The executor's row, and what this process knows of it.

    Attributes:
        unsure: a commit may have happened whose answer was lost.
    """

    def __init__(self) -> None:
        self.unsure = False
        self._row: Executor
        self._until = self._next_beat = 0.0

    def enter(self, run: Run) -> None:
        self._row = service.enter(run, LEASE)

    def leave(self) -> None:
        """Give back whatever is still held."""
        self.steadily(lambda: service.leave(self._row))

    @property
    def executor_id(self) -> int:
        return self._row.pk

    def renew(self) -> None:
        """Renew the lease, as a part of each transaction that claims or writes. Raises LeaseLost."""
        if not Executor.objects.filter(pk=self._row.pk, ended_at__isnull=True).update(lease_until=Now() + LEASE):
            raise LeaseLost

    def renewed(self) -> None:
        """Note that a renewal is committed."""
        now = time.monotonic()
        self._until, self._next_beat = now + LEASE.total_seconds(), now + HEARTBEAT_SECONDS

    def is_held(self) -> bool:
        """Tell whether it is still ours for certain: after a long stop (SIGSTOP) it may be another's."""
        return time.monotonic() < self._until

    def is_due(self) -> bool:
        return time.monotonic() >= self._next_beat

    def renew_soon(self) -> None:
        self._next_beat = 0.0

    def steadily[T](self, step: Callable[[], T]) -> T:
        """Repeat a step of the database over a restart of it; every step is safe to repeat (R-36)."""
        until: float | None = None
        while True:
            try:
                return step()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block:
                    raise
                connection.close()
                now = time.monotonic()
                if until is None:
                    until = now + _RECONNECT_SECONDS
                elif now >= until:
                    raise
                self.unsure = True
                log.warning("trying again: %s", trouble(error))
                time.sleep(1.0)
