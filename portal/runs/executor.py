"""Work a run: the one code path of commands and workers.

One thread owns the database: it claims items, loads their subjects, hands them to the pool, and writes what came back.
It renews the lease with every batch that it writes. Nothing that matters is in memory only: killed at any instant, the
run goes on elsewhere as soon as the lease is over.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from portal.incidents.certificates import watch_certificates
from portal.microsoft.diagnosis import Owner
from portal.runs import listing, service, stops, waves
from portal.runs.kinds import CRASHED, GONE, SKIPPED, Context, Kind, Outcome
from portal.runs.lease import Lease, LeaseLost
from portal.runs.ledger import MOST_TRIES, Ledger
from portal.runs.limits import pacer_for
from portal.runs.listening import Ending, Listener, Progress
from portal.runs.models import Executor as ExecutorRow
from portal.runs.models import Run, RunItem
from portal.runs.pool import Pool
from portal.runs.registry import kind_named
from portal.runs.reporting import Reporter
from portal.runs.systemic import Watch
from portal.runs.threads import Failed, Followed, Held, Prepared, Result, Threads, Worked
from portal.runs.turns import Turns

_READY = 0.5  # units that lie ready for each thread, so that none waits while this one writes
# Results come in groups, while so many units lie ready that no thread waits for this one.
_TOGETHER_SECONDS, _READY_TOGETHER = 0.03, 8
_IDLE_SECONDS = 0.5
_CRASHED = Outcome(
    failure_class=CRASHED,
    message=f"Each of {MOST_TRIES} processes that worked it died. Look at this unit.",
    owner=Owner.US,
)
_GONE = Outcome(
    failure_class=GONE, message="It was removed, disabled or changed before its turn came.", owner=Owner.NOBODY
)
STOP_SECONDS = 24.0  # for the units that were begun; with writing what they brought it stays below the 30 of R-28


class Executor:
    """Works one run until it is finished, or until it must stop.

    Args:
        concurrency: units at once; by default what the run says. One works in the caller's own thread.
        seconds: stop politely after so long, for a worker that has other runs waiting.
        processes: executors of the same command, this one among them; they share a partner's limit from the start.
    """

    def __init__(
        self,
        run: Run,
        *,
        concurrency: int | None = None,
        listener: Listener | None = None,
        seconds: float | None = None,
        processes: int = 1,
    ) -> None:
        self.run = run
        self.kind: Kind = kind_named(run.kind)
        self._processes = processes
        self._size = size = max(concurrency or run.concurrency, 1)
        self._listener = listener or Listener()
        self._until = None if seconds is None else time.monotonic() + seconds
        self._correlation: dict[int, str] = {}
        self._context = context = Context(
            run_id=run.pk,
            actor=service.actor_of_run(run),
            scope=run.scope,
            options=run.options,
            correlation_id=self._correlation.__getitem__,
            halted=lambda: self._stopping or not self._may_call(),
        )
        self._lease = Lease()
        self._steadily = self._lease.steadily
        self._pool: Pool[Result] = Pool(size)
        self._pacer = pacer_for(run, alive=self._may_call, request_refill=self._pool.wake, threads=size)
        self._threads = Threads(
            self.kind, context, self._pacer, may_begin=lambda: not self._ending and self._may_call()
        )
        self._watch = Watch(size)
        self._turns = Turns(size, self.kind.per_group)
        self._ledger = Ledger(self.kind, context, self._lease, self._watch, size)
        self._reporter = Reporter(run, size, self._listener, self._lease, self._pacer, self._turns)
        self._lists = False  # whether this one lists: the oldest that lives does, and who finds nothing to take
        self._preparing: int | None = None
        self._unprepared = False
        self._chores = 0
        self._settled: list[Any] = []
        self._left: int | None = None  # units that were not taken at the last look, None before the first
        self._taken = 0  # of them, by this executor
        self._drained = False  # whether the last look for items found none
        self._looked = False  # whether that was just now
        self._next_claim = 0.0
        self._stopping = self._ending = False

    # --- from outside ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take nothing new, finish what was begun, and end; from a signal or another thread (R-28)."""
        self._stopping = True
        self._pool.wake()

    def progress(self) -> Progress:
        return self._reporter.progress()

    def look_soon(self) -> None:
        """Look at once how the run and its other executors are; from any thread."""
        self._lease.renew_soon()
        self._next_claim = 0.0
        self._pool.wake()

    def prepare(self) -> None:
        """Begin to fetch what all units share, in threads; ``work`` does it when it was not done before."""
        jobs = self.kind.prepare()
        self._preparing = len(jobs)
        for job in jobs:
            self._pool.submit(partial(self._threads.prepare, job))

    def work(self, *, proven: bool = False) -> Ending:
        """Work the run.

        Args:
            proven: another process of this command just saw that we are well (R-14).

        Raises:
            DatabaseError: the database stayed away for longer than a restart takes; the lease tells others.
            WrongSetup: the portal itself is set up wrongly; what was begun goes back.
        """
        self._lease.enter(self.run)
        try:
            self._look_at_run()
            done = self.run.items.filter(state=RunItem.State.DONE)
            self._reporter.done_before = done.count()
            self._watch.proven = proven or done.exclude(systemic=True).exclude(failure_class=SKIPPED).exists()
            if self._preparing is None:
                self.prepare()
            if self._watch.proven:
                self._listener.proven()
            ending = self._loop()
            if ending is not Ending.LOST:
                self._report_cause(ending)
            return ending
        except LeaseLost:
            return Ending.LOST
        finally:
            self._stopping = True
            self._pool.close()
            self._lease.leave()

    # --- the loop -------------------------------------------------------------------------------------------------

    def _loop(self) -> Ending:
        while True:
            # 1. Keep the lease, and learn what people did with the run.
            if self._lease.is_due():
                self._look_at_run()
            if (ending := self._why_end()) is not None:
                return self._end(ending)
            # 2. List more of it. What is listed is worked meanwhile, in its order.
            self._list()
            # 3. Claim units, and hand them to the threads.
            self._claim()
            self._hand_out()
            self._steadily(self._pacer.replenish)
            # 4. Take what they brought.
            self._collect(self._patience())
            if self._watch.cause is not None:
                return self._end(Ending.STOPPED)
            # 5. Write it.
            if self._ledger.is_due(busy=self._turns.busy):
                self._write()
            self._settle_chores()
            self._reporter.report()
            # 6. End when nothing is left to do.
            if self._is_idle() and (ending := self._why_done()) is not None:
                return ending

    def _look_at_run(self) -> None:
        """Renew the lease, learn what people did with the run, end expired executors."""

        def look() -> None:
            self._lease.renew()
            self._lease.renewed()
            service.expire_executors(self.run.pk)
            self.run.refresh_from_db()
            living = ExecutorRow.objects.living().filter(run_id=self.run.pk).order_by("pk")
            keys = list(living.values_list("pk", flat=True))
            self._lists = self._lists or keys[:1] == [self._lease.executor_id]
            self._pacer.executors = max(len(keys), self._processes)
            if self._pacer.executors > 1 and self.run.is_listed:
                self._left, self._taken = self.run.items.filter(state=RunItem.State.WAITING).count(), 0

        self._steadily(look)

    def _may_call(self) -> bool:
        """Tell whether a request may leave, from the thread that sends it (R-27)."""
        if self._size == 1 and not connection.in_atomic_block:  # then this is the thread that owns the database
            if self._lease.is_due():
                self._look_at_run()
            self._reporter.report()
        return self._lease.is_held()

    # --- listing, claiming and handing out ------------------------------------------------------------------------

    def _list(self) -> None:
        if self._lists and not self.run.is_listed:
            self._steadily(lambda: listing.list_units(self.run, self.kind))  # it reads the row again
            self._next_claim, self._drained = 0.0, False

    def _claim(self) -> None:
        """Take more items when fewer are left than the pool can work at once."""
        self._looked = False
        now = time.monotonic()
        keep, batch = self._size, min(max(4 * self._size, 20), 400)
        if not self.run.is_listed:
            batch = keep  # what is listed later may come first, so no more is taken than the threads need
        elif self._pacer.executors > 1:
            # Near the end no executor keeps what another would finish sooner. The others took about as much.
            left = self.run.total - self._reporter.done_before if self._left is None else self._left
            left -= self._pacer.executors * self._taken
            part = max(left // (2 * self._pacer.executors), self._size // 8, 1)
            keep, batch = min(keep, part), min(batch, part)
        full = self._turns.startable >= keep or len(self._turns.waiting) >= 4 * self._size
        if full or now < self._next_claim or self._pacer.all_held():
            return
        items = self._steadily(lambda: self._take(batch))
        self._taken += len(items)
        self._drained = self._looked = not items
        if not items:
            self._next_claim = now + _IDLE_SECONDS
            if not self.run.is_listed:
                self._lists = True  # who does it is slow, or dead; the cursor in the row keeps two apart
            return
        subjects = self._steadily(lambda: self.kind.load([item.key for item in items], self._context))
        for item in items:
            if item.attempts > MOST_TRIES:
                self._ledger.finish(Held(item, None), _CRASHED)
            elif item.key not in subjects:
                self._ledger.finish(Held(item, None), _GONE)
            else:
                self._turns.waiting.append(Held(item, subjects[item.key]))

    def _take(self, number: int) -> list[RunItem]:
        """Return up to so many items that are this executor's from here on."""
        items = list(self.run.items.ready().filter(wave__lte=self.run.wave).in_order()[:number])
        keys = [item.pk for item in items]
        if not keys:
            return []
        with transaction.atomic():
            self._lease.renew()  # an expired executor takes nothing any more
            claimed = RunItem.objects.claim(keys, self._lease.executor_id)
        self._lease.renewed()
        if claimed < len(keys):  # somebody else was quicker for some of them
            ours = RunItem.objects.filter(pk__in=keys, executor_id=self._lease.executor_id)
            mine = set(ours.values_list("pk", flat=True))
            items = [item for item in items if item.pk in mine]
        for item in items:
            item.attempts += 1
            self._correlation[item.key] = item.correlation_id
        return items

    def _hand_out(self) -> None:
        """Give the pool what it can take."""
        if self._pacer.all_held():
            return
        room = self._watch.room(self._size, ready=int(self._size * _READY))
        for held in self._turns.next(room, held_for=self._pacer.held_for, put_off=self._ledger.give_back):
            self._ledger.begin()
            held.number, held.place = self._watch.begin(), self.kind.place(held.subject)
            self._pool.submit(partial(self._threads.work, held))

    # --- collecting and writing -----------------------------------------------------------------------------------

    def _patience(self) -> float:
        """Return how many seconds the threads may take until this one has something else to do."""
        if self._lists and not self.run.is_listed:
            return 0.0
        if self._turns.busy and self._ledger.presentable():
            return self._ledger.seconds_left()
        if self._turns.running or self._chores or self._preparing:
            return 0.1
        # After a look that found nothing, whether the run is over is asked at once; only then it is waited for others.
        return 0.0 if self._looked else _IDLE_SECONDS

    def _collect(self, seconds: float) -> None:
        enough = len(self._turns.running) >= self._size + _READY_TOGETHER
        for result in self._pool.collect(seconds, together=_TOGETHER_SECONDS if enough else 0.0):
            match result:
                case Worked(held, None):
                    self._turns.end(held)
                    self._watch.saw(held.number, None)
                    self._ledger.give_back(held)
                case Worked(held, Outcome() as outcome):
                    self._turns.end(held)
                    self._ledger.finish(held, outcome)
                    was_proven = self._watch.proven
                    self._watch.saw(held.number, outcome, held.place)
                    if self._watch.proven and not was_proven:
                        self._listener.proven()
                case Followed(held):
                    self._chores -= 1
                    self._settled.append(held.subject)
                case Prepared(works):
                    self._preparing = (self._preparing or 1) - 1
                    self._unprepared = self._unprepared or not works
                    self._watch.prepared = not (self._preparing or self._unprepared)
                case Failed(error):
                    raise error

    def _write(self) -> None:
        """Write what came back, tell of it, and let follow what follows."""
        final, written, left = self._ledger.write()
        for held in left:
            self._correlation.pop(held.item.key, None)
        for held, outcome in final:
            self._reporter.finished(held, outcome)
        if any(outcome.failure_class not in self.kind.harmless for _, outcome in final):
            self._steadily(lambda: waves.judge(self.run, self.kind))
        for held in written:
            if (chore := self.kind.after(held.subject, self._context)) is not None:
                self._chores += 1
                self._pool.submit(partial(self._threads.follow, chore, held))

    def _settle_chores(self) -> None:
        """Write what the chores did, all at once or as many as the pool has threads."""
        if self._settled and (not self._chores or len(self._settled) >= self._size):
            done, self._settled = self._settled, []
            self._steadily(lambda: self.kind.settle(done, self._context))

    # --- ending ---------------------------------------------------------------------------------------------------

    def _why_end(self) -> Ending | None:
        if self._stopping or (self._until is not None and time.monotonic() >= self._until):
            return Ending.INTERRUPTED
        return self._ending_of_run()

    def _ending_of_run(self) -> Ending | None:
        if self.run.state == Run.State.OPEN and (why := self.kind.all_contained()):
            self._steadily(lambda: service.hold(self.run, reason=why))
        if self.run.state == Run.State.OPEN:
            if self.run.deadline is None or timezone.now() < self.run.deadline:
                return None
            self._steadily(lambda: service.pause_at_deadline(self.run))
        return Ending(self.run.state)

    def _is_idle(self) -> bool:
        busy = self._turns.busy or self._chores or self._preparing
        return self.run.is_listed and self._drained and not busy and self._ledger.is_empty()

    def _why_done(self) -> Ending | None:
        """Return how a run without work ends here; None when there is more, or others work what is left."""
        if self._watch.over():
            return self._end(Ending.STOPPED)
        if self._steadily(lambda: waves.judge(self.run, self.kind)):
            self._next_claim = 0.0
            return None
        if self._steadily(lambda: service.finish_if_complete(self.run)):
            return self._ending_of_run() or Ending.DONE
        return None

    def _end(self, ending: Ending) -> Ending:
        """Take nothing new, give the units that were begun their time, and write what they brought."""
        self._ending = True
        while self._turns.waiting:
            self._ledger.give_back(self._turns.waiting.popleft())
        if ending is Ending.STOPPED and self._watch.cause is not None:
            cause, passes = stops.cause_of_stop(self._watch.cause), self._watch.passes
            self._steadily(lambda: service.stop(self.run, cause, passes=passes))
        until = time.monotonic() + STOP_SECONDS
        while self._turns.running and time.monotonic() < until:
            if self._lease.is_due():
                self._look_at_run()
            self._steadily(self._pacer.replenish)
            self._collect(0.2)
            self._reporter.report()
        if ending is not Ending.STOPPED:
            self._watch.over()  # no more comes here; what is still in question is asked again
        self._ledger.give_back_ours(all_of_ours=ending is Ending.STOPPED or not self._watch.proven)
        if not self._ledger.is_empty():
            self._write()
        while self._chores and time.monotonic() < until:
            self._collect(0.2)
        self._settle_chores()
        return ending

    def _report_cause(self, ending: Ending) -> None:
        """Say what is true of the cause that stopped, or did not stop, this run."""
        watch_certificates()
        if ending is Ending.STOPPED and self._watch.cause is not None:
            stops.report_stop(self.run, stops.cause_of_stop(self._watch.cause), self._watch.owner)
        elif ending is Ending.DONE and self._watch.proven:
            stops.settle_stops(self.run)
