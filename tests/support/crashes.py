"""The kill points of a renewal (security requirements, Appendix 3): where a worker is held so that it can be killed.

Nothing in the product helps: the worker is held by the sandbox, by the lock of a vault's directory, or by a locked
database, and what it has done is read off the sandbox's books, the vault and the row.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection

from consent.models import PartnerConsent
from tests.sandbox.world import Fault
from tests.support.custody import all_versions, redemptions
from tests.support.portal import Portal
from tests.support.workers import Worker, until

KILL_POINTS = {
    "K1": "request received, answer held",
    "K2": "answer sent, the vault does not accept",
    "K3": "vault has the body, answer held",
    "K4": "vault answered, database locked",
    "K5": "pointer stored, old version still enabled",
}


@contextmanager
def locked_database(consent: PartnerConsent) -> Iterator[None]:
    """Let nobody else write this row, as long backups and stuck transactions do."""
    if connection.vendor == "sqlite":
        other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=10)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()
        return
    copy = connection.copy()
    try:
        copy.set_autocommit(False)
        with copy.cursor() as cursor:
            cursor.execute("SELECT 1 FROM consent_partnerconsent WHERE id = %s FOR UPDATE", [consent.pk])
        yield
    finally:
        copy.close()


@contextmanager
def locked_folder(consent: PartnerConsent) -> Iterator[None]:
    """Keep every writer of this secret out of the embedded vault."""
    descriptor = os.open(Path(settings.VAULT_URL) / consent.secret_name, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Stage:
    """One renewal on its way to a kill point. ``close`` gives everything back that held it."""

    def __init__(self, portal: Portal, start: Callable[[], Worker]) -> None:
        self._portal, self._start = portal, start
        self._held = ExitStack()
        self.before = portal.consent()
        self._versions = len(all_versions(portal, self.before.secret_name))
        self._redeemed = len(redemptions(portal))
        self._azure = settings.VAULT_URL.startswith("https://")

    def close(self) -> None:
        self._portal.sandbox.world.faults.clear()
        self._portal.sandbox.faults.release()
        self._held.close()

    def bring_to(self, point: str) -> Worker:
        """Start a worker, return when it is at the point and cannot go on."""
        way = getattr(self, f"_{point.lower()}_{'azure' if self._azure else 'local'}", None)
        return (way or getattr(self, f"_{point.lower()}"))()  # type: ignore[no-any-return]

    # Held by the sign-in service, which has done its part.
    def _k1(self) -> Worker:
        self._fault(service="login", path="token", tenant=self._portal.partner.tenant_id, hold=True)
        worker = self._start()
        until(self._is_holding, "the held answer of the sign-in service")
        return worker

    def _k2_azure(self) -> Worker:
        refusing = self._fault(service="vault", method="PUT", close="before", times=1_000_000)
        worker = self._start()
        until(lambda: refusing.times < 1_000_000, "a refused write")
        assert len(redemptions(self._portal)) > self._redeemed
        return worker

    def _k2_local(self) -> Worker:
        worker = self._k1()
        self._held.enter_context(locked_folder(self.before))
        self._go_on()
        until(lambda: worker.waits_for_a_lock, "the writer before the lock")
        return worker

    def _k3_azure(self) -> Worker:
        self._fault(service="vault", method="PUT", hold=True)
        worker = self._start()
        until(self._is_holding, "the held answer of the vault")
        return worker

    def _k3_local(self) -> Worker:
        worker = self._k1()
        self._held.enter_context(locked_database(self.before))
        self._go_on()
        until(self._has_written, "the new version")
        return worker

    def _k4_azure(self) -> Worker:
        worker = self._k3_azure()
        self._held.enter_context(locked_database(self.before))
        reads = self._vault_reads()
        self._go_on()
        until(lambda: self._vault_reads() > reads, "the version to be read back")
        return worker

    def _k4_local(self) -> Worker:
        worker = self._k3_local()
        # Reading it back leaves no trace that another process sees; wherever the worker is by now, it is stuck.
        until(lambda: _sleeps(worker), "the writer before the database")
        return worker

    def _k5_azure(self) -> Worker:
        # Five seconds, then no effect: whoever is at this point is killed long before.
        slow = self._fault(service="vault", method="PATCH", delay=5.0, close="before")
        worker = self._start()
        until(lambda: slow not in self._portal.sandbox.world.faults, "the old version to be switched off")
        assert self._portal.consent().generation == self.before.generation + 1
        return worker

    def _k5_local(self) -> Worker:
        worker = self._k1()
        with locked_database(self.before):
            self._go_on()
            until(self._has_written, "the new version")
            self._held.enter_context(locked_folder(self.before))
        until(lambda: worker.waits_for_a_lock, "the old version to be switched off")
        assert self._portal.consent().generation == self.before.generation + 1
        return worker

    def _fault(self, **fields: object) -> Fault:
        fault = Fault(**fields)  # type: ignore[arg-type]
        self._portal.sandbox.world.faults.append(fault)
        return fault

    def _go_on(self) -> None:
        self._portal.sandbox.faults.release()

    def _is_holding(self) -> bool:
        return self._portal.sandbox.faults.holding > 0

    def _has_written(self) -> bool:
        return len(all_versions(self._portal, self.before.secret_name)) > self._versions

    def _vault_reads(self) -> int:
        return sum(
            line["service"] == "vault" and line["operation"] == "get"
            for line in list(self._portal.sandbox.world.ledger)
        )


def _sleeps(worker: Worker) -> bool:
    """Tell whether all threads of the process slept at each of ten looks within a tenth of a second."""
    for _ in range(10):
        threads = Path(f"/proc/{worker.pid}/task").glob("*/stat")
        if any(thread.read_text().rpartition(")")[2].split()[0] != "S" for thread in threads):
            return False
        time.sleep(0.01)
    return True
