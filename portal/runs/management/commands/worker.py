import logging
import os
import threading
from argparse import ArgumentParser
from typing import Any

from dj_queue.management.commands.dj_queue import wait_for_dj_queue_migrations
from dj_queue.models import Process
from dj_queue.runtime.base import BaseRunner
from dj_queue.runtime.supervisor import AsyncSupervisor
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, Error, close_old_connections, connection

from portal import starting
from portal.commands import PortalCommand
from portal.databases import trouble
from portal.runs import ending, schedule
from portal.runs.pool import tune_for_batches

log = logging.getLogger(__name__)

TICK_SECONDS = 5.0
END_SECONDS = 29.0  # whatever a thread does then is left, and repeated by others


AWAY_SECONDS = 1.0  # between two tries to reach the database


class Supervisor(AsyncSupervisor):
    """Ends the process within its 30 seconds, whatever a thread is at, and outlives a database that is away (R-36).

    The queue by itself ends its process, with code 0, when the database is away while it looks after its own row;
    and a thread that replaces a runner at that moment dies, so that the process lives on and works nothing.
    """

    def should_continue(self) -> bool:
        try:
            return bool(super().should_continue())  # type: ignore[no-untyped-call]
        except Error as error:
            self._wait_for_database(error)
            return not self.stop_requested()  # type: ignore[no-untyped-call]

    def _touch_process_row(self) -> int:
        try:
            return int(super()._touch_process_row())  # type: ignore[no-untyped-call]
        except Error as error:
            self._wait_for_database(error)
            return 1  # not known: the row is looked at again

    def _run_managed_runner(self, runner: BaseRunner) -> None:
        while not self.stop_requested():  # type: ignore[no-untyped-call]
            try:
                super()._run_managed_runner(runner)  # type: ignore[no-untyped-call]
            except Error as error:
                self._wait_for_database(error)
                runner = next(one for one in self.runners if one.name == runner.name)

    def _rebuild_runner(self, runner: BaseRunner) -> Any:
        # A row that could not be taken away holds the name, and the new runner needs it.
        Process.objects.filter(name=runner.name, pid=self.pid, hostname=self.hostname).delete()
        return super()._rebuild_runner(runner)  # type: ignore[no-untyped-call]

    def _restart_backoff_delay(self, name: str, *, started_at: float | None = None) -> float:
        return min(float(super()._restart_backoff_delay(name, started_at=started_at)), AWAY_SECONDS)  # type: ignore[no-untyped-call]

    def _wait_for_database(self, error: Error) -> None:
        log.warning("the worker waits for the database: %s", trouble(error) or type(error).__name__)
        connection.close()
        self._stop_event.wait(AWAY_SECONDS)

    def was_asked_to_end(self) -> bool:
        return bool(self._graceful_shutdown_requested)

    def stop(self) -> Any:
        # Not by the hook of a worker: that also fires for one that is replaced after the database was away.
        threading.Thread(target=_end_in_time, name="end", daemon=True).start()
        ending.stop_all()
        return super().stop()  # type: ignore[no-untyped-call]  # as all of the queue's methods


def _end_in_time() -> None:
    threading.Event().wait(END_SECONDS)
    log.warning("the worker ends with work that did not stop in time; others repeat it")
    logging.shutdown()
    os._exit(0)


class Command(PortalCommand):
    help = (
        "Work what was left to the workers, and hand out what the schedule says. Start as many as you like, on as many "
        "machines as you like; SIGTERM stops politely, within 30 seconds. Exit codes: 0 stopped, 1 the queue "
        "failed, 3 the vault is not this database's."
    )
    examples = (
        "worker",
        "worker --no-schedule  # one more, beside the first",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-schedule", action="store_true", help="only work, and leave the schedule to others")
        parser.add_argument(
            "--schedule-only", action="store_true", help="only hand out, where another queue has workers of its own"
        )
        parser.add_argument("--once", action="store_true", help="hand out what is due now and return")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            starting.check()
        except starting.StartRefused as refused:
            raise CommandError(f"The worker does not start: {refused}.", returncode=3) from None
        if options["once"]:
            self.stdout.write(", ".join(schedule.tick()) or "Nothing is due.")
            return
        if options["schedule_only"]:
            self._hand_out()
        if not options["no_schedule"]:
            threading.Thread(target=self._hand_out, name="schedule", daemon=True).start()
        tune_for_batches()
        wait_for_dj_queue_migrations(DEFAULT_DB_ALIAS, stdout=self.stdout)  # type: ignore[no-untyped-call]
        log.info("worker %s begins", os.getpid())
        overrides = {"mode": "async", "skip_recurring": True}
        supervisor = Supervisor.from_backend_config(cli_overrides=overrides)  # type: ignore[no-untyped-call]
        supervisor.run()
        if not supervisor.was_asked_to_end():
            raise CommandError("The worker was silent for so long that others took its work. Start it again.")
        log.info("worker %s ends", os.getpid())

    def _hand_out(self) -> None:
        while not ending.is_ending():
            close_old_connections()
            try:
                schedule.tick()
            except Error as error:
                self.stderr.write(f"The schedule waits. {trouble(error) or type(error).__name__}")
                connection.close()
            ending.wait_for_end(TICK_SECONDS)
