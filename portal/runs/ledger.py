"""What came back from the units of one executor, until it is written: a tenth of a second's results at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F

from portal.runs.kinds import Context, Done, Kind, Outcome
from portal.runs.lease import Lease
from portal.runs.models import RunItem
from portal.runs.systemic import Watch
from portal.runs.threads import Held

MOST_TRIES = 5  # of one unit, then its failure stands
ASKED_TO_SLOW_DOWN = "The service asked to slow down."
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds, R-16
_RETRIES_ALLOWED = 0.1  # of what was worked, R-16; and always:
_RETRIES_FREE = 10
_FLUSH_SECONDS = 0.25  # so long a result may lie in memory: what a kill there costs is worked twice

Finished = list[tuple[Held, Outcome]]


@dataclass(frozen=True, slots=True)
class Again:
    """A unit that comes again after so many seconds, and why."""

    held: Held
    seconds: float
    why: str


class Ledger:
    """Results, and units that go back or come again.

    Args:
        watch: says which results may not be written yet, because we may be to blame for them.
        size: units at once.
    """

    def __init__(self, kind: Kind, context: Context, lease: Lease, watch: Watch, size: int) -> None:
        self._kind = kind
        self._context = context
        self._lease = lease
        self._watch = watch
        self._size = size
        self._finished: Finished = []
        self._returned: list[Again] = []
        self._since: float | None = None  # when the oldest of both came
        self._tries = self._retries = 0

    def begin(self) -> None:
        """Count a unit that is begun; the retries that are allowed depend on it."""
        self._tries += 1

    def finish(self, held: Held, outcome: Outcome) -> None:
        self._finished.append((held, outcome))
        self._since = self._since or time.monotonic()

    def give_back(self, held: Held, seconds: float = 0.0) -> None:
        """Let a unit that was not worked come again; it may be tried after so many seconds."""
        self._returned.append(Again(held, seconds, ASKED_TO_SLOW_DOWN if seconds > 0 else ""))
        self._since = self._since or time.monotonic()

    def give_back_ours(self, *, all_of_ours: bool) -> None:
        """Give back at the end what is not written, so that what it holds, such as a lease, is free for others at once.

        Args:
            all_of_ours: also the results for a cause on our side that may be written.
        """
        finished, self._finished = self._finished, []
        for held, outcome in finished:
            if self._watch.holds(outcome) or (all_of_ours and outcome.systemic):
                self.give_back(held)
            else:
                self._finished.append((held, outcome))

    def presentable(self) -> Finished:
        """Return the results that may be written: until we know that we are well, none that we may be to blame for."""
        # Asked again and again while a batch fills, so nothing is called for what nobody is to blame for.
        return [
            (held, outcome)
            for held, outcome in self._finished
            if (outcome.blame is None and not outcome.systemic) or not self._watch.holds(outcome)
        ]

    def is_empty(self) -> bool:
        return not (self.presentable() or self._returned)

    def seconds_left(self) -> float:
        """Return how long results may still wait for others."""
        return max((self._since or 0.0) + _FLUSH_SECONDS - time.monotonic(), 0.0)

    def is_due(self, *, busy: bool) -> bool:
        """Tell whether it is time to write.

        Args:
            busy: more will come soon.
        """
        ready = self.presentable()
        if not (ready or self._returned):
            return False
        return not busy or self.seconds_left() <= 0 or len(ready) >= 2 * self._size

    def write(self) -> tuple[Finished, list[Held], list[Held]]:
        """Write everything that may be written, in one transaction and few statements.

        Returns:
            The results, the units of them that were worked and written just now, and all units that left this executor.
        """
        final: Finished = []
        pending: list[Again] = []
        again: list[Again] = []
        ready, returned = self.presentable(), self._returned
        for held, outcome in ready:
            seconds = self._wait_before(held, outcome)
            if seconds is None:
                final.append((held, outcome))
            else:
                (pending if outcome.pending else again).append(Again(held, seconds, outcome.message))
        fresh = self._lease.steadily(lambda: self._write(final, pending, again, returned))
        left = [held for held, _ in ready] + [each.held for each in returned]
        written = {id(outcome) for _, outcome in ready}
        self._finished = [(held, outcome) for held, outcome in self._finished if id(outcome) not in written]
        self._returned, self._since = [], None
        return final, [held for held, _ in final if held.item.pk in fresh], left

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
        self, final: Finished, pending: Sequence[Again], again: Sequence[Again], returned: Sequence[Again]
    ) -> set[int]:
        """Write in one transaction; return the items whose results were worked and written just now."""
        with transaction.atomic():
            self._lease.renew()
            ours = RunItem.objects.held_by(self._lease.executor_id)
            mine = {held.item.pk for held, _ in final}
            if self._lease.unsure:  # a commit whose answer was lost must not be written twice
                mine = set(ours.filter(pk__in=mine).values_list("pk", flat=True))
            fresh = [(held, outcome) for held, outcome in final if held.item.pk in mine and held.subject is not None]
            if fresh:
                done = [Done(key=held.item.key, subject=held.subject, outcome=outcome) for held, outcome in fresh]
                self._kind.write(done, self._context)
            ours.finish([(held.item.pk, outcome) for held, outcome in final])
            for back, attempts in ((pending, 0), (again, F("attempts")), (returned, F("attempts") - 1)):
                ours.put_back([(each.held.item.pk, each.seconds, each.why) for each in back], attempts=attempts)
            unwritten = [each.held.subject for each in (*pending, *again, *returned)]
            if unwritten := [subject for subject in unwritten if subject is not None]:
                self._kind.release(unwritten, self._context)
            self._kind.book(self._context)
        self._lease.unsure = False
        self._lease.renewed()
        return {held.item.pk for held, _ in fresh}
