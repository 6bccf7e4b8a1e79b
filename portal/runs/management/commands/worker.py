import threading
import time
from argparse import ArgumentParser
from typing import Any

from dj_queue.hooks import on_worker_stop
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import Error, close_old_connections, connection

from portal import starting
from portal.commands import PortalCommand
from portal.databases import trouble
from portal.runs import schedule, tasks
from portal.runs.pool import tune_for_batches

TICK_SECONDS = 5.0


class Command(PortalCommand):
    help = (
        "Work what was left to the workers, and hand out what the schedule says. Start as many as you like, on as many "
        "machines as you like; SIGTERM stops politely. Exit codes: 0 stopped, 1 the queue failed, 3 the vault is not "
        "this database's."
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
        on_worker_stop(lambda process: tasks.stop_all())
        call_command("dj_queue", mode="async", skip_recurring=True)

    def _hand_out(self) -> None:
        while True:
            close_old_connections()
            try:
                schedule.tick()
            except Error as error:
                self.stderr.write(f"The schedule waits. {trouble(error) or type(error).__name__}")
                connection.close()
            time.sleep(TICK_SECONDS)
