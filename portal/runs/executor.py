"""Work a run: the one code path of commands and workers.

One thread owns the database: it claims items, loads their subjects, hands them to the pool, and writes what came back.
It renews the lease with every batch that it writes. Nothing that matters is in memory only: killed at any instant, the
run goes on elsewhere as soon as the lease is over.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from portal.databases import trouble
from portal.incidents.watch import watch_certificates
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.microsoft.http import time_budget
from portal.runs import service, waves
from portal.runs.kinds import CRASHED, GONE, UNEXPECTED, Context, Done, Kind, Outcome
from portal.runs.limits import limit_words, pacer_for
from portal.runs.listening import Ending, Listener, Progress, Wait
from portal.runs.models import HEARTBEAT_SECONDS, LEASE, Run, RunItem
from portal.runs.models import Executor as ExecutorRow
from portal.runs.pacing import Halted, Place
from portal.runs.pool import Pool
from portal.runs.registry import kind_named
from portal.runs.systemic import Watch

log = logging.getLogger(__name__)

MOST_TRIES = 5
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds, R-16
_RETRIES_ALLOWED = 0.1  # of what was worked, R-16; and always:
_RETRIES_FREE = 10
_FLUSH_SECONDS = 0.25  # so long a result may lie in memory: what a kill there costs is worked twice
_READY = 0.5  # units that lie ready for each thread, so that none waits while this one writes
_IDLE_SECONDS = 0.5
_QUIET_SECONDS = 5.0  # without a result; then the listener reports what is waited for
_ASKED_TO_SLOW_DOWN = "The service asked to slow down."
STOP_SECONDS = 24.0  # for the units that were begun; with writing what they brought it stays below the 30 of R-28
_RECONNECT_SECONDS = 90.0


class LeaseLost(Exception):
    """This executor expired; nothing of it is written any more."""


@dataclass(slots=True)
class Held:
    """An item that this executor holds, with its subject."""

    item: RunItem
    subject: Any


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
        self._size = max(concurrency or run.concurrency, 1)
        self._listener = listener or Listener()
        self._until = None if seconds is None else time.monotonic() + seconds
        self._row: ExecutorRow
        self._pool: Pool[tuple[Held, Outcome | None] | Held | bool] = Pool(self._size)
        self._watch = Watch(self._size)
        self._preparing: int | None = None
        self._unprepared = False
        self._wrong_setup: WrongSetup | None = None
        self._waiting: deque[Held] = deque()
        self._running: dict[int, Held] = {}
        self._groups: Counter[int] = Counter()
        self._finished: list[tuple[Held, Outcome]] = []
        self._returned: list[tuple[Held, float]] = []  # not worked, with the seconds until it may be tried
        self._oldest_result: float | None = None
        self._startable = self._chores = 0
        self._left: int | None = None  # units that were not taken at the last look, None before the first
        self._taken = 0  # of them, by this executor
        self._settled: list[Any] = []
        self._drained = False  # whether the last look for items found none
        self._unsure = False  # whether a commit may have happened whose answer was lost
        self._classes: Counter[str] = Counter()
        self._done_before = 0
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._last_result = self._next_look = time.monotonic()
        self._waits: tuple[list[Wait], int] = [], 0
        self._tries = self._retries = 0
        self._lease_until = self._next_beat = self._next_claim = self._next_report = 0.0
        self._stopping = self._ending = False
        self._context = Context(
            run_id=run.pk,
            actor=service.actor_of_run(run),
            scope=run.scope,
            options=run.options,
            correlation_id=self._correlation_id,
            halted=self._halted,
        )
        self._correlation: dict[int, str] = {}

    # --- from outside ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take nothing new, finish what was begun, and end; from a signal or another thread (R-28)."""
        self._stopping = True
        self._pool.wake()

    def progress(self) -> Progress:
        first, last = self._recent[0], self._recent[-1]
        passed = last[0] - first[0]
        return Progress(
            total=self.run.total,
            done=self._done_before + sum(self._classes.values()),
            running=min(len(self._running), self._size),
            classes=self._classes,
            rate=(last[1] - first[1]) / passed if passed > 0 else 0.0,
            slowest=self._pacer.slowest(),
            throttled=self._pacer.throttled(),
            waits=self._waits[0],
            more_waits=self._waits[1],
            quiet=self._is_quiet(),
        )

    def look_soon(self) -> None:
        """Look at once how the run and its other executors are; from any thread."""
        self._next_beat = self._next_claim = 0.0
        self._pool.wake()

    def prepare(self) -> None:
        """Begin to fetch what all units share, in threads; ``work`` does it when it was not done before."""
        jobs = self.kind.prepare()
        self._preparing = len(jobs)
        for job in jobs:
            self._pool.submit(partial(self._prepare_one, job))

    def work(self, *, proven: bool = False) -> Ending:
        """Work the run.

        Args:
            proven: another process of this command just saw that we are well (R-14).

        Raises:
            DatabaseError: the database stayed away for longer than a restart takes; the lease tells others.
            WrongSetup: the portal itself is set up wrongly; what was begun goes back.
        """
        self._row = service.enter(self.run, LEASE)
        self._pacer = pacer_for(self.run, alive=self._may_call, request_refill=self._pool.wake, threads=self._size)
        try:
            self._beat()
            seen = self.run.items.filter(state=RunItem.State.DONE).exclude(systemic=True)
            self._done_before = self.run.items.filter(state=RunItem.State.DONE).count()
            self._watch.proven = proven or seen.exclude(failure_class="skipped").exists()
            if self._preparing is None:
                self.prepare()
            if self._watch.proven:
                self._listener.proven()
            ending = self._loop()
            if ending is not Ending.LOST:
                self._settle(ending)
            return ending
        except LeaseLost:
            return Ending.LOST
        finally:
            self._stopping = True
            self._pool.close()
            self._steadily(lambda: service.leave(self._row))

    # --- the loop -------------------------------------------------------------------------------------------------

    def _loop(self) -> Ending:
        while True:
            if time.monotonic() >= self._next_beat:
                self._beat()
            ending = self._why_end()
            if ending is not None:
                return self._end(ending)
            if self.run.listed_at is None:  # first the whole list, so that what matters most is worked first
                self._steadily(lambda: service.list_units(self.run, self.kind))
                self._report()
                continue
            self._claim()
            self._hand_out()
            self._steadily(self._pacer.replenish)
            self._collect(self._patience())
            if self._watch.cause is not None:
                return self._end(Ending.STOPPED)
            self._flush()
            self._settle_chores()
            self._report()
            if self._is_idle():
                if self._watch.over():
                    return self._end(Ending.STOPPED)
                if self._steadily(lambda: waves.judge(self.run, self.kind)):
                    self._next_claim = 0.0
                    continue
                if self._steadily(lambda: service.finish_if_complete(self.run)):
                    return self._ending_of_run() or Ending.DONE

    def _why_end(self) -> Ending | None:
        if self._stopping or (self._until is not None and time.monotonic() >= self._until):
            return Ending.INTERRUPTED
        return self._ending_of_run()

    def _ending_of_run(self) -> Ending | None:
        if self.run.state == Run.State.OPEN:
            if self.run.deadline is None or timezone.now() < self.run.deadline:
                return None
            self._steadily(lambda: service.pause(self.run, actor=self._context.actor, reason=service.DEADLINE))
        return {
            Run.State.PAUSED.value: Ending.PAUSED,
            Run.State.CANCELLED.value: Ending.CANCELLED,
            Run.State.STOPPED.value: Ending.STOPPED,
            Run.State.DONE.value: Ending.DONE,
        }[self.run.state]

    def _end(self, ending: Ending) -> Ending:
        """Take nothing new, give the units that were begun their time, and write what they brought."""
        self._ending = True
        for held in self._waiting:
            self._give_back(held, 0.0)
        self._waiting.clear()
        if ending is Ending.STOPPED and self._watch.cause is not None:
            cause, passes = service.cause_of_stop(self._watch.cause), self._watch.passes
            self._steadily(lambda: service.stop(self.run, cause, passes=passes))
        until = time.monotonic() + STOP_SECONDS
        while self._running and time.monotonic() < until:
            if time.monotonic() >= self._next_beat:
                self._beat()
            self._steadily(self._pacer.replenish)
            self._collect(0.2)
            self._report()
        if ending is not Ending.STOPPED:
            self._watch.over()  # no more comes here; what is still in question is asked again
        ours = ending is Ending.STOPPED or not self._watch.proven
        written = []
        for held, outcome in self._finished:
            if self._watch.holds(outcome) or (ours and outcome.systemic):
                self._give_back(held, 0.0)  # so that what it holds, such as a lease, is free for others at once
            else:
                written.append((held, outcome))
        self._finished = written
        self._flush(now=True)
        while self._chores and time.monotonic() < until:
            self._collect(0.2)
        self._settle_chores()
        return ending

    def _settle(self, ending: Ending) -> None:
        """Say what is true of the cause that stopped, or did not stop, this run."""
        watch_certificates()
        if ending is Ending.STOPPED and self._watch.cause is not None:
            service.report_stop(self.run, service.cause_of_stop(self._watch.cause), self._watch.owner)
        elif ending is Ending.DONE and self._watch.proven:
            service.settle_stops(self.run)

    def _is_idle(self) -> bool:
        busy = self._running or self._chores or self._waiting or self._preparing
        idle = not (busy or self._presentable() or self._returned)
        return idle and self._drained

    def _patience(self) -> float:
        if self._presentable() and (self._running or self._waiting):
            return max((self._oldest_result or 0.0) + _FLUSH_SECONDS - time.monotonic(), 0.0)
        return 0.1 if self._running or self._chores or self._preparing else _IDLE_SECONDS

    # --- claiming -------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        """Take more items when fewer are left than the pool can work at once."""
        now = time.monotonic()
        keep, batch = self._size, min(max(4 * self._size, 20), 400)
        if self._pacer.executors > 1:
            # Near the end no executor keeps what another would finish sooner. The others took about as much.
            left = self.run.total - self._done_before if self._left is None else self._left
            left -= self._pacer.executors * self._taken
            part = max(left // (2 * self._pacer.executors), self._size // 8, 1)
            keep, batch = min(keep, part), min(batch, part)
        full = self._startable >= keep or len(self._waiting) >= 4 * self._size
        if full or now < self._next_claim or self._pacer.all_held():
            return
        items = self._steadily(lambda: self._take(batch))
        self._taken += len(items)
        self._drained = not items
        if not items:
            self._next_claim = now + _IDLE_SECONDS
            return
        gone = [item for item in items if item.attempts > MOST_TRIES]
        subjects = self._steadily(lambda: self.kind.load([item.key for item in items], self._context))
        for item in items:
            if item in gone:
                words = f"Each of {MOST_TRIES} processes that worked it died. Look at this unit."
                self._keep(Held(item, None), Outcome(failure_class=CRASHED, message=words, owner=Owner.US))
            elif item.key not in subjects:
                words = "It was removed, disabled or changed before its turn came."
                self._keep(Held(item, None), Outcome(failure_class=GONE, message=words, owner=Owner.NOBODY))
            else:
                self._waiting.append(Held(item, subjects[item.key]))

    def _take(self, number: int) -> list[RunItem]:
        items = list(self.run.items.ready().filter(wave__lte=self.run.wave).in_order()[:number])
        for item in items:
            self._correlation[item.key] = item.correlation_id
            item.attempts += 1
        keys = [item.pk for item in items]
        if not keys:
            return []
        with transaction.atomic():
            self._renew()  # an expired executor takes nothing any more
            claimed = RunItem.objects.claim(keys, self._row.pk)
        self._lease_held()
        if claimed == len(keys):
            return items
        # Somebody else was quicker for some of them.
        mine = set(RunItem.objects.filter(pk__in=keys, executor_id=self._row.pk).values_list("pk", flat=True))
        for item in items:
            if item.pk not in mine:
                del self._correlation[item.key]
        return [item for item in items if item.pk in mine]

    def _correlation_id(self, key: int) -> str:
        return self._correlation[key]

    # --- handing out ----------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give the pool what it can take: in order, but no group more than its share, and none that must wait."""
        if self._pacer.all_held():
            return
        groups = len({held.item.group for held in self._waiting} | set(self._groups))
        share = max(math.ceil(self._size / max(groups, 1)), 1)
        if self.kind.per_group:
            share = min(share, self.kind.per_group)
        room = self._watch.room(self._size, ready=int(self._size * _READY)) - len(self._running)
        passed: list[Held] = []
        while room > 0 and self._waiting:
            held = self._waiting.popleft()
            group = held.item.group
            if (seconds := self._pacer.held_for(group)) > 0:
                self._give_back(held, seconds)
            elif self._groups[group] >= share:
                passed.append(held)
            else:
                self._groups[group] += 1
                self._running[held.item.pk] = held
                room -= 1
                self._tries += 1
                self._pool.submit(partial(self._work_one, held))
        self._startable = len(self._waiting)
        self._waiting.extendleft(reversed(passed))

    def _give_back(self, held: Held, seconds: float) -> None:
        self._returned.append((held, seconds))
        self._keep_time()

    def _work_one(self, held: Held) -> tuple[Held, Outcome | None]:
        """Work one unit, in a thread of the pool; None when nothing more may be sent."""
        if self._ending or not self._may_call():  # it lay ready, and must not be begun any more
            return held, None
        try:
            place = Place(*self.kind.place(held.subject), held.item.group)
            with time_budget(self.kind.seconds), self._pacer.unit(place):
                return held, self.kind.work(held.item.key, held.subject, self._context)
        except Halted:
            return held, None
        except WrongSetup as error:  # no unit would fare better
            self._wrong_setup = error
            return held, None
        except (OperationalError, InterfaceError) as error:
            # a lost connection is no unit's fault, and its retry costs nothing; a unit is safe to work again.
            log.warning("the database was away from a unit of %s", self.kind.name, extra={"key": held.item.key})
            words = trouble(error) or f"The database was away ({type(error).__name__})."
            return held, Outcome(
                failure_class=UNEXPECTED, message=words, owner=Owner.US, retry_after=0.0, throttled=True
            )
        except Exception as error:
            # one bad record must not stop the run. The text of a foreign exception may hold anything.
            log.exception("a unit of %s failed in an unexpected way", self.kind.name, extra={"key": held.item.key})
            return held, Outcome(
                failure_class=UNEXPECTED,
                message=f"The portal failed on this record ({type(error).__name__}); the log says where.",
                owner=Owner.US,
            )
        finally:
            if self._size > 1:  # a kind that uses no database reads a row again in rare cases
                close_old_connections()  # of this thread, as after a request

    def _prepare_one(self, job: Callable[[], object]) -> bool:
        """Fetch one thing that all units share; what fails here fails again with a unit, which says why."""
        try:
            with time_budget(self.kind.seconds):
                job()
        except WrongSetup as error:
            self._wrong_setup = error
            return False
        except Exception as error:  # noqa: BLE001  # the first unit meets it again, and tells
            log.info("not prepared: %s", error if isinstance(error, RemoteError) else type(error).__name__)
            return False
        return True

    def _do_chore(self, chore: Callable[[], None], held: Held) -> Held:
        """Do what follows a committed result, in a thread; nothing depends on it."""
        try:
            place = Place(*self.kind.place(held.subject), held.item.group)
            with time_budget(self.kind.seconds), self._pacer.unit(place):
                chore()
        except Halted:
            log.info("left for the next time", extra={"key": held.item.key})
        except Exception:
            log.exception("what follows a unit of %s failed", self.kind.name, extra={"key": held.item.key})
        return held

    def _settle_chores(self) -> None:
        """Write what the chores did, all at once or as many as the pool has threads."""
        if self._settled and (not self._chores or len(self._settled) >= self._size):
            done, self._settled = self._settled, []
            self._steadily(lambda: self.kind.settle(done, self._context))

    # --- collecting and writing -----------------------------------------------------------------------------------

    def _collect(self, seconds: float) -> None:
        found = self._pool.collect(seconds)
        if self._wrong_setup is not None:
            raise self._wrong_setup
        for result in found:
            if isinstance(result, bool):
                self._preparing = (self._preparing or 1) - 1
                self._unprepared = self._unprepared or not result
                self._watch.prepared = not (self._preparing or self._unprepared)
                continue
            if isinstance(result, Held):
                self._chores -= 1
                self._settled.append(result.subject)
                continue
            held, outcome = result
            self._running.pop(held.item.pk, None)
            self._groups[held.item.group] -= 1
            if not self._groups[held.item.group]:
                del self._groups[held.item.group]
            if outcome is None:
                self._give_back(held, 0.0)
            else:
                was_proven = self._watch.proven
                self._watch.saw(outcome, self.kind.place(held.subject))
                if self._watch.proven and not was_proven:
                    self._listener.proven()
                self._keep(held, outcome)

    def _keep(self, held: Held, outcome: Outcome) -> None:
        self._finished.append((held, outcome))
        self._keep_time()

    def _keep_time(self) -> None:
        if self._oldest_result is None:
            self._oldest_result = time.monotonic()

    def _presentable(self) -> list[tuple[Held, Outcome]]:
        """Return the results that may be written: until we know that we are well, none that we may be to blame for."""
        return [each for each in self._finished if not self._watch.holds(each[1])]

    def _flush(self, *, now: bool = False) -> None:
        """Write what is finished: results, and units that come again. One transaction, few statements."""
        ready = self._presentable()
        if not (ready or self._returned):
            return
        waited = time.monotonic() - (self._oldest_result or 0.0)
        busy = self._running or self._waiting
        if busy and waited < _FLUSH_SECONDS and not now and len(ready) < 2 * self._size:
            return
        waits = [self._wait_before(held, outcome) for held, outcome in ready]
        final = [each for each, wait in zip(ready, waits, strict=True) if wait is None]
        again = [(*each, wait) for each, wait in zip(ready, waits, strict=True) if wait is not None]
        pending = [(held, wait, outcome.message) for held, outcome, wait in again if outcome.pending]
        back = [(held, wait, outcome.message) for held, outcome, wait in again if not outcome.pending]
        returned = self._returned
        fresh = self._steadily(lambda: self._write(final, pending, back, returned))
        written = [held for held, _ in final if held.item.pk in fresh]
        kept = {id(each) for each in ready}
        self._finished = [each for each in self._finished if id(each) not in kept]
        self._returned, self._oldest_result = [], None
        for held, _ in (*ready, *returned):
            self._correlation.pop(held.item.key, None)
        for held, outcome in final:
            self._classes[outcome.failure_class] += 1
            self._last_result = time.monotonic()
            self._listener.finished(held.item, outcome)
        if any(outcome.failure_class not in self.kind.harmless for _, outcome in final):
            self._steadily(lambda: waves.judge(self.run, self.kind))
        for each in written:
            if (chore := self.kind.after(each.subject, self._context)) is not None:
                self._chores += 1
                self._pool.submit(partial(self._do_chore, chore, each))

    def _wait_before(self, held: Held, outcome: Outcome) -> float | None:
        """Return the seconds before this unit comes again, or None when its result is final (R-16)."""
        if outcome.pending and outcome.retry_after is not None:
            return outcome.retry_after
        if outcome.retry_after is None or held.item.attempts >= MOST_TRIES:
            return None
        if not outcome.throttled:
            if self._retries >= _RETRIES_FREE + self._tries * _RETRIES_ALLOWED:
                return None
            self._retries += 1
        if outcome.retry_after > 0:
            return outcome.retry_after
        longest = min(_FIRST_WAIT * 2**held.item.attempts, _LONGEST_WAIT)
        return random.uniform(_FIRST_WAIT, longest)  # noqa: S311  # jitter, no secret

    def _write(
        self,
        final: Sequence[tuple[Held, Outcome]],
        pending: Sequence[tuple[Held, float, str]],
        back: Sequence[tuple[Held, float, str]],
        returned: Sequence[tuple[Held, float]],
    ) -> set[int]:
        """Write in one transaction; return the items whose results were worked and written just now."""
        with transaction.atomic():
            self._renew()
            mine = {held.item.pk for held, _ in final}
            if self._unsure:  # a commit whose answer was lost must not be written twice
                mine = set(RunItem.objects.held_by(self._row.pk).filter(pk__in=mine).values_list("pk", flat=True))
            done = [
                Done(key=held.item.key, subject=held.subject, outcome=outcome)
                for held, outcome in final
                if held.item.pk in mine
            ]
            worked = [each for each in done if each.subject is not None]
            if worked:
                self.kind.write(worked, self._context)
            held = RunItem.objects.held_by(self._row.pk)
            held.finish([(each.item.pk, outcome) for each, outcome in final])
            held.put_back([(each.item.pk, wait, why) for each, wait, why in pending], attempts=0)
            held.put_back([(each.item.pk, wait, why) for each, wait, why in back])
            held.put_back(
                [(each.item.pk, wait, _ASKED_TO_SLOW_DOWN if wait > 0 else "") for each, wait in returned],
                attempts=F("attempts") - 1,
            )
            given_back = [held for held, *_ in (*pending, *back)] + [held for held, _ in returned]
            if without := [each.subject for each in given_back if each.subject is not None]:
                self.kind.release(without, self._context)
        self._unsure = False
        self._lease_held()
        return {held.item.pk for held, _ in final if held.item.pk in mine and held.subject is not None}

    # --- lease and database ---------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Renew the lease, learn what people did with the run, end expired executors."""

        def beat() -> None:
            self._renew()
            self._lease_held()
            service.expire_executors(self.run.pk)
            self.run.refresh_from_db()
            living = ExecutorRow.objects.living().filter(run_id=self.run.pk).count()
            self._pacer.executors = max(living, self._processes)
            if self._pacer.executors > 1 and self.run.listed_at is not None:
                self._left, self._taken = self.run.items.filter(state=RunItem.State.WAITING).count(), 0

        self._steadily(beat)

    def _renew(self) -> None:
        alive = ExecutorRow.objects.filter(pk=self._row.pk, ended_at__isnull=True)
        if not alive.update(lease_until=Now() + LEASE):
            raise LeaseLost

    def _lease_held(self) -> None:
        now = time.monotonic()
        self._lease_until = now + LEASE.total_seconds()
        self._next_beat = now + HEARTBEAT_SECONDS

    def _may_call(self) -> bool:
        """Tell whether a request may leave: after a long stop (SIGSTOP) the lease may be another's (R-27)."""
        if self._size == 1 and not connection.in_atomic_block:  # then this is the thread that owns the database
            if time.monotonic() >= self._next_beat:
                self._beat()
            self._report()
        return time.monotonic() < self._lease_until

    def _halted(self) -> bool:
        return self._stopping or not self._may_call()

    def _steadily[T](self, step: Callable[[], T]) -> T:
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
                self._unsure = True
                log.warning("trying again: %s", trouble(error))
                time.sleep(1.0)

    def _is_quiet(self) -> bool:
        return time.monotonic() - self._last_result >= _QUIET_SECONDS

    def _look_for_waits(self) -> None:
        """Find out what is waited for: partners and limits in memory, then what the rows say."""
        now = timezone.now()
        names = {held.item.group: held.item.label for held in (*self._running.values(), *self._waiting)}
        found = []
        for each in self._pacer.waits(1.0):
            if each.group is not None and each.group not in names:
                continue
            why = _ASKED_TO_SLOW_DOWN if each.refused else "The calls that may leave until then are given to others."
            found.append(
                Wait(
                    who=limit_words(each.service) if each.group is None else names[each.group],
                    until=now + timedelta(seconds=each.seconds),
                    why=why,
                )
            )
        rows, more = self._steadily(lambda: service.waits_of(self.run))
        known = {each.who for each in found}
        self._waits = found + [each for each in rows if each.who not in known], more

    def _report(self) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + 0.25
        if not self._is_quiet():
            self._waits = [], 0
        elif now >= self._next_look:
            self._next_look = now + _QUIET_SECONDS
            self._look_for_waits()
        self._recent.append((now, sum(self._classes.values())))
        while len(self._recent) > 2 and self._recent[0][0] < now - 10:
            self._recent.popleft()
        self._listener.progressed(self.progress())
